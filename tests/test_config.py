"""Study files: what they may hold, and the sentence for everything that is wrong with one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from mltune.config import draft_study_file, parse_duration, validate
from mltune.errors import RequestError
from mltune.search import Spec

GOOD = """\
name: good
objective: train:train
metric: loss
direction: minimize
space:
  x: {type: float, low: 1e-4, high: 1.0, log: true}
  flag: {type: categorical, choices: [yes, true, null, 1, 1.0, "1"]}
algorithm: {name: tpe, n_startup_trials: 3}
n_trials: 5
timeout: 10m
"""


def load(text: str, folder: Path, **overrides: Any) -> Any:
    path = folder / "study.yaml"
    path.write_text(text)
    return draft_study_file(path, overrides).checked()


def test_a_good_file(tmp_path: Path) -> None:
    config = load(GOOD, tmp_path)
    assert config.algorithm == Spec("tpe", {"n_startup_trials": 3})
    assert config.scheduler == Spec("none")
    assert config.timeout == 600.0
    assert config.space["x"].low == 1e-4


def test_scalars_are_read_as_in_yaml_1_2(tmp_path: Path) -> None:
    choices = load(GOOD, tmp_path).space["flag"].choices
    assert [(type(c), c) for c in choices] == [
        (str, "yes"),
        (bool, True),
        (type(None), None),
        (int, 1),
        (float, 1.0),
        (str, "1"),
    ]


def test_options_override_the_file(tmp_path: Path) -> None:
    config = load(GOOD, tmp_path, algorithm="random", n_trials=7)
    assert (config.algorithm, config.n_trials) == (Spec("random"), 7)


def test_what_is_written_reads_back_the_same(tmp_path: Path) -> None:
    config = load(GOOD, tmp_path, registered_model_name="m")
    again = load(config.to_yaml(), tmp_path)
    assert again == config
    assert again.to_yaml() == config.to_yaml()


@pytest.mark.parametrize(
    ("given", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("2d", 172800), (5, 5)]
)
def test_durations(given: object, seconds: float) -> None:
    assert parse_duration(given) == seconds


def changed(**changes: Any) -> str:
    data = {
        "name": "n",
        "objective": "train:train",
        "direction": "minimize",
        "n_trials": 3,
        "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
    }
    data.update(changes)
    return yaml.safe_dump({key: value for key, value in data.items() if value != "REMOVED"}, sort_keys=False)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"n_trails": 3}, "unknown key 'n_trails'; did you mean 'n_trials'?"),
        ({"n_trials": 0}, "`n_trials` must be greater than or equal to 1, but got 0"),
        ({"n_trials": "many"}, "`n_trials` must be a valid integer, but got 'many'"),
        ({"n_trials": True}, "`n_trials` must be a valid integer, but got True"),
        ({"direction": "up"}, "`direction` must be 'minimize' or 'maximize', but got 'up'"),
        ({"direction": "REMOVED"}, "`direction` is missing"),
        ({"space": "REMOVED"}, "`space` is missing"),
        ({"space": {}}, "the space must hold at least one parameter, but it is empty"),
        ({"space": [1]}, "the space must map names to parameters, but got [1]"),
        ({"space": {"x": {"type": "flaot", "low": 0, "high": 1}}}, "space.x: `type` must be one of"),
        ({"space": {"x": {"type": "float", "low": 2, "high": 1}}}, "space.x: `low <= high` must hold"),
        ({"objective": "train.train"}, "`objective` must be module:function, such as train:train"),
        ({"objective": "REMOVED"}, "`objective` is missing"),
        ({"timeout": "soon"}, "`timeout` must be seconds or a number with s, m, h or d"),
        ({"timeout": 0}, "`timeout` must be greater than 0, but got 0"),
        ({"timeout": math.inf}, "`timeout` must be a finite number, but got inf"),
        ({"store_timeout": math.inf}, "`store_timeout` must be a finite number, but got inf"),
        ({"grace_period": math.inf}, "`grace_period` must be a finite number, but got inf"),
        ({"metric": "duration_s"}, "`metric` must not be 'duration_s'"),
        ({"algorithm": 3}, "`algorithm` must be a name, or a mapping with `name` and options, but got 3"),
        ({"scheduler": {"reduction": 2}}, "`scheduler` must be a name, or a mapping with `name` and options"),
        ({"retries": 2}, "`retries` must map causes of failure to how often a trial is tried again, but got 2"),
        ({"retries": {"rain": 1}}, "`retries` must have causes of failure as keys (worker-died, timeout, exception)"),
        ({"retries": {"timeout": -1}}, "`retries` must have whole numbers from 0 as values"),
        ({"seed": -1}, "`seed` must be greater than or equal to 0, but got -1"),
        ({"isolation": "thread"}, "`isolation` must be 'none' or 'process', but got 'thread'"),
        ({"resources": {"gpu": "all"}}, "`resources.gpu` must be a valid number"),
        ({"initial_points": [3]}, "`initial_points.0` must be a valid dictionary, but got 3"),
        ({"name": ""}, "`name`"),
    ],
)
def test_a_wrong_key_gets_its_sentence(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError) as caught:
        load(changed(**changes), tmp_path)
    assert sentence in str(caught.value)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    text = changed(
        n_trials=0, directoin="up", space={"x": {"type": "int", "low": 3, "high": 1}, "y": {"type": "float"}}
    )
    with pytest.raises(RequestError) as caught:
        load(text, tmp_path)
    assert len(caught.value.faults) == 5


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\na: 2\n", "the key 'a' is there twice (line 2, column 1)"),
        ("a: !!python/object/apply:os.system [ls]\n", "could not determine a constructor for the tag"),
        ("a: [1, 2\n", "the study file must be YAML"),
        ("a: \a\n", "special characters are not allowed in"),
        ("- 1\n", "the study file must map keys to values"),
        ("", "the study file must map keys to values"),
    ],
)
def test_a_file_that_is_no_study(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError) as caught:
        load(text, tmp_path)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no"):
        draft_study_file(tmp_path / "nowhere.yaml", {}).checked()
    with pytest.raises(RequestError, match="must be readable text"):
        draft_study_file(tmp_path, {}).checked()
    (tmp_path / "study.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(RequestError, match="must be readable text"):
        draft_study_file(tmp_path / "study.yaml", {}).checked()


def test_a_space_object_may_be_given() -> None:
    from mltune import Int, SearchSpace

    config = validate({"name": "n", "direction": "maximize", "space": SearchSpace({"n": Int(1, 2)})})
    assert config.space["n"].contains(2)
