"""The command: its output, its exit codes, and bad requests that leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mltune.cli import main
from tests.store import experiment_named, forget_tracking_uri

STUDY = """\
name: parabola
objective: parabola:train
metric: loss
direction: minimize
space:
  x: {type: float, low: -1.0, high: 1.0}
algorithm: random
n_trials: 3
seed: 0
"""

OBJECTIVE = """\
def train(trial):
    print("training", trial.number)
    return {"loss": trial.params["x"] ** 2}
"""


@pytest.fixture
def study(tracking_uri: str, chdir: Path) -> Path:
    """A study file with its objective beside it, in a folder that is not the current one."""
    folder = chdir / "folder"
    folder.mkdir()
    (folder / "parabola.py").write_text(OBJECTIVE)
    path = folder / "study.yaml"
    path.write_text(STUDY)
    return path


def mltune(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mltune", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, stdin=subprocess.DEVNULL)


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in this process; its exit code, and what it said."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(each) for each in arguments])
        said = capfd.readouterr()
        return int(str(ended.value)), said.out, said.err

    return run


@pytest.mark.processes
def test_run_and_show(study: Path, client: MlflowClient) -> None:
    done = mltune("run", study)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    run_id = re.findall(r"run (\w{32})$", lines[0])[0]
    assert lines[0].startswith("study parabola: 3 trials, engine optuna, algorithm random, scheduler none, seed 0")
    assert [line[:16] for line in lines if line.startswith("trial ")] == [f"trial {n} COMPLETE" for n in range(3)]
    assert [line for line in lines if line.startswith("training")] == ["training 0", "training 1", "training 2"]
    assert "3 trials: 3 complete" in lines
    assert any(line.startswith("best: trial ") for line in lines)
    assert len(client.search_runs(["0"])) == 4

    shown = mltune("show", run_id)
    assert shown.returncode == 0
    assert "study parabola: COMPLETE, minimize loss" in shown.stdout
    assert shown.stdout.count("COMPLETE") == 4


@pytest.mark.processes
def test_options_override_the_file_with_hyphens_or_underscores(study: Path, client: MlflowClient) -> None:
    done = mltune("run", study, "--n_trials", 2, "--experiment-name", "other", "--n-jobs", "2", "--seed=5")
    assert done.returncode == 0, done.stderr
    assert "2 trials, engine optuna, algorithm random, scheduler none, seed 5" in done.stdout
    assert len(client.search_runs([experiment_named(client, "other").experiment_id])) == 3


@pytest.mark.processes
def test_a_failed_study_exits_1(study: Path) -> None:
    (study.parent / "parabola.py").write_text("def train(trial):\n    raise ValueError('no data')\n")
    failed = mltune("run", study)
    assert failed.returncode == 1
    assert failed.stderr.startswith(
        "mltune: the first 3 of 3 trials failed and none completed; the last one: ValueError"
    )
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("direction: minimize", "direction: down", "`direction` must be 'minimize' or 'maximize', but got 'down'"),
        ("n_trials: 3", "n_trials: 3\nn_trials: 4", "the key 'n_trials' is there twice"),
        pytest.param("parabola:train", "parabola:trian", "has no 'trian'", marks=pytest.mark.processes),
        pytest.param("parabola:train", "nowhere:train", "No module named 'nowhere'", marks=pytest.mark.processes),
        pytest.param(
            "algorithm: random",
            "algorithm: grid",
            "`grid` needs a Categorical, Int or Float with `step`",
            marks=pytest.mark.processes,
        ),
        pytest.param("algorithm: random", "engine: nevergrad", "'nevergrad'", marks=pytest.mark.processes),
        pytest.param(
            "algorithm: random",
            "scheduler: {name: asha, min_res: 2}",
            "did you mean 'min_resource'?",
            marks=pytest.mark.processes,
        ),
        ("name: parabola", "name: !!python/name:os.system x", "the study file must be YAML"),
    ],
)
def test_a_wrong_study_file_exits_2(
    old: str, new: str, sentence: str, study: Path, client: MlflowClient, command: Command
) -> None:
    study.write_text(STUDY.replace(old, new))
    code, out, err = command("run", study, "--experiment-name", "untouched")
    assert (code, out) == (2, "")
    assert sentence in err
    assert all(line.startswith("mltune: ") for line in err.splitlines())
    assert client.get_experiment_by_name("untouched") is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "nowhere.yaml"], "there is no nowhere.yaml"),
        (["run", "STUDY", "--n-trails", "3"], "No such option"),
        (["run"], "Missing argument 'STUDY.yaml'"),
        (["run", "STUDY", "--n-trials", "three"], "Invalid value for '--n-trials'"),
        (["run", "STUDY", "--n-trials", "0"], "`n_trials` must be greater than or equal to 1, but got 0"),
        (["show", "0" * 32], "there is no run"),
    ],
)
def test_a_wrong_command_exits_2(arguments: list[str], sentence: str, study: Path, command: Command) -> None:
    code, _, err = command(*(study if argument == "STUDY" else argument for argument in arguments))
    assert code == 2
    assert sentence in err
    assert "Traceback" not in err


@pytest.mark.processes
@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("http://127.0.0.1:9", "http://127.0.0.1:9 did not"),
        ("http://bob:s3cret@127.0.0.1:9", "http://127.0.0.1:9 did not"),
        ("sqlite:////nowhere/at/all/mlflow.db", "the folder of the tracking database must exist"),
    ],
)
def test_a_store_that_is_not_there_exits_2_at_once(
    uri: str, sentence: str, study: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    forget_tracking_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    code, _, err = command("run", study)
    assert code == 2
    assert sentence in err
    assert "s3cret" not in err


def test_engines_are_listed(chdir: Path, command: Command) -> None:
    code, out, _ = command("engines")
    assert code == 0
    assert all(word in out for word in ("optuna", "ray", "cmaes", "hyperband"))


@pytest.mark.processes
def test_help_is_quick_to_load() -> None:
    code = "import sys, mltune.cli; print(sorted({'mlflow', 'optuna', 'ray', 'pydantic', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    assert mltune("--help").returncode == 0


@pytest.mark.processes
def test_a_terminal_shows_progress(study: Path) -> None:
    parent, child = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "mltune", "run", str(study)],
        stdin=subprocess.DEVNULL,
        stdout=child,
        stderr=subprocess.PIPE,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "160"},
    ) as process:
        os.close(child)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal is gone with the process
            while chunk := os.read(parent, 4096):
                shown += chunk
        os.close(parent)
    text = shown.decode()
    assert process.returncode == 0
    assert "3 of 3 trials: 3 complete" in text
    assert "best 0." in text
    assert "trial 0 COMPLETE" not in text
    assert "best: trial" in text
