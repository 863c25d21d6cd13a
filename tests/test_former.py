"""The names that keys had in the first release are accepted wherever a study is described, but not beside today's."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

import mltune
from mltune.cli import main
from mltune.config import StudyConfig, draft_study_file, validate
from mltune.errors import RequestError
from mltune.former import FORMER, with_current_names

STUDY: dict[str, Any] = {
    "name": "former",
    "objective": "former:train",
    "direction": "minimize",
    "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
    "executor": None,
    "n_trials": 2,
    "seed": 0,
}
GIVEN: dict[str, tuple[Any, Any]] = {  # former key: its value, and the value of today
    "grace": ("5m", 300.0),
    "initial": ([{"x": 0.5}], ({"x": 0.5},)),
    "isolation": ("none", "inline"),
    "models": ("best", "best"),
    "register": ("named", "named"),
}


@pytest.mark.parametrize("key", FORMER)
def test_a_former_key_means_the_key_of_today(key: str) -> None:
    before, today = GIVEN[key]
    config = validate(STUDY | {key: before})
    assert getattr(config, FORMER[key].name) == today
    recorded = yaml.safe_load(config.to_yaml())
    assert FORMER[key].name in recorded
    assert key not in recorded


@pytest.mark.parametrize("key", FORMER)
def test_both_names_at_once_are_refused_with_one_sentence(key: str) -> None:
    name = FORMER[key].name
    with pytest.raises(RequestError) as caught:
        validate(STUDY | {key: GIVEN[key][0], name: "inline" if key == "isolation" else GIVEN[key][0]})
    assert caught.value.faults == (f"`{key}` is the former name of `{name}`, and both are given: drop `{key}`",)


def test_all_keys_of_today_exist_and_no_former_one_does() -> None:
    assert {former.name for former in FORMER.values()} <= StudyConfig.model_fields.keys()
    assert not FORMER.keys() & StudyConfig.model_fields.keys()


def test_isolation_process_leaves_the_executor_to_the_engine() -> None:
    assert validate(STUDY | {"isolation": "process"}).executor is None
    with pytest.raises(RequestError, match="`isolation` must be 'none' or 'process', but got 'thread'"):
        validate(STUDY | {"isolation": "thread"})


def test_none_counts_as_not_given() -> None:
    assert with_current_names({"register": None, "registered_model_name": "a"}) == {"registered_model_name": "a"}
    assert with_current_names({"register": "a", "registered_model_name": None}) == {"registered_model_name": "a"}


def test_what_overrides_a_file_may_have_another_name_than_there(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | {"models": "best", "registered_model_name": "file"}))
    config = draft_study_file(path, {"keep_models": "none", "register": "option"}).checked()
    assert (config.keep_models, config.registered_model_name) == ("none", "option")


def test_tune_takes_former_names_and_shows_those_of_today(client: MlflowClient) -> None:
    def objective(trial: mltune.Trial) -> float:
        return float(trial.params["x"])

    space = {"x": mltune.Float(0, 1)}
    former: dict[str, Any] = {"initial": [{"x": 0.25}], "isolation": "none", "models": "none", "grace": 1}
    study = mltune.tune(objective, space, direction="minimize", n_trials=2, quiet=True, **former)
    assert study.trials[0].params == {"x": 0.25}
    assert client.get_run(study.run_id).data.tags["mltune.executor"] == "inline"
    assert not FORMER.keys() & inspect.signature(mltune.tune).parameters.keys()
    with pytest.raises(RequestError) as caught:
        mltune.tune(objective, space, direction="minimize", n_trials=2, keep_models="all", **former)
    assert caught.value.faults == ("`models` is the former name of `keep_models`, and both are given: drop `models`",)


def test_the_command_takes_former_options_and_does_not_show_them(
    client: MlflowClient, chdir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (chdir / "former.py").write_text("def train(trial):\n    return trial.params['x']\n")
    (chdir / "study.yaml").write_text(yaml.safe_dump(STUDY | {"executor": "inline"}))
    assert command("run", "study.yaml", "--models", "none") == 0
    (run,) = client.search_runs(["0"], "tags.`mltune.kind` = 'study'")
    recorded = yaml.safe_load(Path(client.download_artifacts(run.info.run_id, "study.yaml")).read_text())
    assert recorded["keep_models"] == "none"
    assert command("run", "study.yaml", "--models", "none", "--keep-models", "all") == 2
    assert "`models` is the former name of `keep_models`" in capfd.readouterr().err
    assert command("run", "study.yaml", "--models", "none", "--register", "kept") == 2
    assert "`registered_model_name` needs the best trial's model" in capfd.readouterr().err
    assert command("run", "--help") == 0
    shown = capfd.readouterr().out
    assert ("--keep-models" in shown, "--models" in shown, "--register " in shown) == (True, False, False)


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(str(ended.value))
