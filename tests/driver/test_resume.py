"""``mltune.resume`` and ``mltune resume``: what goes on, what is left as it is, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

import mltune
from mltune import Categorical, Float, Int, RequestError, TrialState
from mltune.tracking.lease import Lease
from tests.drivers import Drivers, has_begun, trials_begun, wait_for

ROOT = Path(__file__).parents[2]
SPACE = {"x": Float(0.0, 1.0), "kind": Categorical(["a", "b"])}

Objective = Callable[[mltune.Trial], Any]


def tune(objective: Objective, space: Any = SPACE, **arguments: Any) -> mltune.StudyResult:
    defaults: dict[str, Any] = {
        "direction": "minimize", "algorithm": "random", "n_trials": 3, "seed": 1, "executor": "inline", "quiet": True,
    }  # fmt: skip
    return mltune.tune(objective, space, **defaults | arguments)


def value(trial: mltune.Trial) -> float:
    return 1.0


def runs_of(client: MlflowClient, study: str) -> list[Run]:
    """All attempts by number and attempt."""
    runs = trials_begun(client, study)
    return sorted(runs, key=lambda run: (number(run), int(run.data.tags["mltune.attempt"])))


def number(run: Run) -> int:
    return int(run.data.tags["mltune.number"])


def states(client: MlflowClient, study: str) -> list[tuple[int, str]]:
    return [(number(run), run.data.tags["mltune.state"]) for run in runs_of(client, study)]


def dump(folder: Path) -> str:
    """All tables of the store, row by row."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        return "\n".join(database.iterdump())


def test_a_finished_study_is_left_as_it_is(
    client: MlflowClient, chdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tune(value)
    before = dump(chdir)
    assert len(mltune.resume(first.run_id).trials) == 3  # which needs no objective
    assert "is finished and was left as it is" in capsys.readouterr().out
    for arguments in ({}, {"n_trials": 3}, {"n_trials": 2}, {"n_jobs": 1}, {"engine": "optuna"}):
        again = mltune.resume(first.run_id, value, **arguments)
        assert f"note: study {first.run_id} is finished and was left as it is" in capsys.readouterr().out
        assert [trial.params for trial in again.trials] == [trial.params for trial in first.trials]
        assert again.best_trial.run_id == first.best_trial.run_id
    assert dump(chdir) == before


def test_more_trials_extend_a_finished_study(client: MlflowClient) -> None:
    whole = tune(value, n_trials=8)
    first = tune(value)
    second = mltune.resume(first.run_id, value, n_trials=5, quiet=True)
    third = mltune.resume(first.run_id, value, n_trials=8, quiet=True)
    assert [trial.run_id for trial in third.trials[:5]] == [trial.run_id for trial in second.trials]
    assert [trial.params for trial in third.trials] == [trial.params for trial in whole.trials]
    assert states(client, first.run_id) == [(n, "COMPLETE") for n in range(8)]
    study = yaml.safe_load(Path(client.download_artifacts(first.run_id, "study.yaml")).read_text())
    assert study["n_trials"] == 8


@pytest.mark.alone
def test_more_time_extends_a_finished_study(client: MlflowClient) -> None:
    def objective(trial: mltune.Trial) -> float:
        if trial.number == 1 and not waited:
            waited.append(trial.number)
            resumed.wait(600)
        return 1.0

    waited: list[int] = []
    resumed = threading.Event()
    first = tune(objective, timeout=4.0, grace_period=0.1)
    assert states(client, first.run_id) == [(0, "COMPLETE"), (1, "INTERRUPTED")]
    second = mltune.resume(first.run_id, objective, timeout=600.0, quiet=True)
    resumed.set()
    assert [trial.state for trial in second.trials] == [TrialState.COMPLETE] * 3
    assert states(client, first.run_id) == [(0, "COMPLETE"), (1, "INTERRUPTED"), (1, "COMPLETE"), (2, "COMPLETE")]


def test_a_failed_study_goes_on(client: MlflowClient) -> None:
    def broken(trial: mltune.Trial) -> float:
        raise ValueError("not yet")

    with pytest.raises(mltune.StudyFailedError) as caught:
        tune(broken, n_trials=8)
    study = caught.value.run_id
    assert client.get_run(study).data.tags["mltune.reason"]
    result = mltune.resume(study, value, quiet=True)
    assert Counter(trial.state for trial in result.trials) == {TrialState.FAILED: 5, TrialState.COMPLETE: 3}
    parent = client.get_run(study)
    assert (parent.data.tags["mltune.state"], parent.info.status) == ("COMPLETE", "FINISHED")
    assert "mltune.reason" not in parent.data.tags


def test_a_trial_that_failed_is_tried_again(client: MlflowClient) -> None:
    def objective(trial: mltune.Trial) -> float:
        tried[trial.number] += 1
        if trial.number == 2 or (trial.number == 1 and tried[1] == 1):
            raise ValueError("a bad day")
        return 1.0

    tried: Counter[int] = Counter()
    result = tune(objective, n_trials=4, retries={"exception": 1})
    assert [trial.state for trial in result.trials] == ["COMPLETE", "COMPLETE", "FAILED", "COMPLETE"]
    assert [trial.attempt for trial in result.trials] == [1, 2, 2, 1]
    runs = runs_of(client, result.run_id)
    assert [(number(run), run.data.tags["mltune.state"]) for run in runs] == [
        (0, "COMPLETE"), (1, "FAILED"), (1, "COMPLETE"), (2, "FAILED"), (2, "FAILED"), (3, "COMPLETE"),
    ]  # fmt: skip
    for first, second in ((runs[1], runs[2]), (runs[3], runs[4])):
        assert second.data.tags["mltune.first_attempt"] == first.info.run_id
        assert second.data.params == first.data.params
    assert mltune.resume(result.run_id, objective, n_trials=5, quiet=True).trials[2].state is TrialState.FAILED
    assert tried == {0: 1, 1: 2, 2: 2, 3: 1, 4: 1}


RENEWS = "from mltune._util import timing; timing.TIMING = timing.Timing(renew_every=0.3); "
FILE: dict[str, Any] = {
    "name": "placed",
    "objective": "placed:train",
    "direction": "minimize",
    "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}, "kind": {"type": "categorical", "choices": ["a", "b"]}},
    "algorithm": "random",
    "n_trials": 3,
    "seed": 1,
    "executor": "inline",
}
WAIT = """
import time
from pathlib import Path

def train(trial):
    first = Path(__file__).with_name(f"hung-{trial.number}")
    if trial.number in HANGS and not first.exists():
        first.touch()
        time.sleep(600)
    return trial.params["x"]
"""


def write(folder: Path, code: str, **changes: Any) -> str:
    """A study file and its objective in a folder; the file's path."""
    folder.mkdir(exist_ok=True)
    (folder / "placed.py").write_text(code)
    path = folder / "placed.yaml"
    path.write_text(yaml.safe_dump(FILE | changes))
    return str(path)


def main(*arguments: str) -> str:
    """A driver that runs the command; the tracking store hears of it often."""
    return f"{RENEWS}import mltune.cli; mltune.cli.main({arguments!r})"


def study_of(client: MlflowClient) -> str:
    (parent,) = client.search_runs(["0"], "tags.`mltune.kind` = 'study'")
    return str(parent.info.run_id)


def hang(drivers: Drivers, trial: int, *arguments: str) -> int:
    """Start a driver, and wait until a trial hangs; the driver's process id."""
    driver = drivers.start(main(*arguments))
    wait_for(lambda: (drivers.folder / f"hung-{trial}").exists() and has_begun(drivers.client, trial))
    return driver


def killed(drivers: Drivers, trial: int, *arguments: str) -> None:
    """A driver that is killed in a trial."""
    driver = hang(drivers, trial, *arguments)
    os.kill(driver, signal.SIGKILL)
    assert drivers.wait(driver) == -signal.SIGKILL


def said(drivers: Drivers) -> str:
    """What the drivers have printed since the last call."""
    text = drivers.log.read_text()
    os.truncate(drivers.log, 0)
    return text


@pytest.mark.alone
def test_the_command_leaves_a_finished_study_as_it_is(drivers: Drivers, client: MlflowClient, chdir: Path) -> None:
    assert drivers.run(main("run", write(chdir, "def train(trial): return 1.0"))) == 0
    study, before, _ = study_of(client), dump(chdir), said(drivers)
    assert drivers.run(main("resume", study)) == 0
    assert said(drivers) == (
        f"note: study {study} is finished and was left as it is: it has 3 trials; a larger --n-trials extends it\n"
    )
    assert drivers.run(main("resume", study, "--n-trials", "2")) == 0
    assert dump(chdir) == before
    assert drivers.run(main("resume", study, "--n-trials", "5")) == 0
    assert states(client, study) == [(n, "COMPLETE") for n in range(5)]


@pytest.mark.alone
def test_the_places_of_an_objective(drivers: Drivers, client: MlflowClient, chdir: Path) -> None:
    answers = "def train(trial): return {}"
    begun = write(chdir / "begun", answers.format(1.0), n_trials=1)
    beside = write(chdir / "beside", answers.format(2.0))
    write(chdir, answers.format(3.0))
    assert drivers.run(main("run", begun)) == 0
    study = study_of(client)
    assert drivers.run(main("resume", study, "--n-trials", "2")) == 0
    assert drivers.run(main("resume", study, "--n-trials", "3", "--study", beside)) == 0
    (chdir / "beside").rename(chdir / "moved")
    assert drivers.run(main("resume", study, "--n-trials", "4")) == 0
    values = [float(run.data.tags["mltune.value"]) for run in runs_of(client, study)]
    assert values == [1.0, 1.0, 2.0, 3.0]
    (chdir / "placed.py").unlink()
    before = dump(chdir)
    assert drivers.run(main("resume", study, "--n-trials", "5")) == 2
    assert f"`objective` must be importable from {chdir}, but" in said(drivers)
    assert dump(chdir) == before


def test_a_function_must_be_given_again(client: MlflowClient, chdir: Path) -> None:
    study = tune(value).run_id
    before = dump(chdir)
    with pytest.raises(RequestError, match="the study was begun with a function, which is not in MLflow") as caught:
        mltune.resume(study, n_trials=5, quiet=True)
    assert len(caught.value.faults) == 1
    assert dump(chdir) == before


@pytest.mark.alone
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"metric": "other"}, "`metric` must stay as the study has it, 'value', but the study file says 'other'"),
        ({"direction": "maximize"}, "`direction` must stay as the study has it, 'minimize'"),
        ({"space": {"x": FILE["space"]["x"]}}, "trial 0 is not in it ("),
        ({"space": FILE["space"] | {"x": {"type": "float", "low": 0.99, "high": 1.0}}}, "'x' must be a float from"),
        ({"space": FILE["space"] | {"y": {"type": "int", "low": 1, "high": 2}}}, "trial 0 is not in it ("),
    ],
    ids=["metric", "direction", "parameter dropped", "range narrowed", "parameter added"],
)
def test_another_study_is_refused(
    changes: dict[str, Any], sentence: str, drivers: Drivers, client: MlflowClient, chdir: Path
) -> None:
    code = 'def train(trial): return {"value": 1.0, "other": 2.0}'
    assert drivers.run(main("run", write(chdir, code))) == 0
    before, _ = dump(chdir), said(drivers)
    changed = write(chdir / "changed", code, **changes)
    assert drivers.run(main("resume", study_of(client), "--study", changed, "--n-trials", "9")) == 2
    assert sentence in said(drivers)
    assert dump(chdir) == before


@pytest.mark.alone
def test_a_wider_space_is_used(drivers: Drivers, client: MlflowClient, chdir: Path) -> None:
    code = "def train(trial): return trial.params['x']"
    assert drivers.run(main("run", write(chdir, code))) == 0
    study = study_of(client)
    wider = {
        "x": {"type": "float", "low": -9.0, "high": 9.0},
        "kind": {"type": "categorical", "choices": ["c", "a", "b"]},
    }
    changed = write(chdir / "changed", code, space=wider, seed=5)
    assert drivers.run(main("resume", study, "--study", changed, "--n-trials", "20")) == 0, said(drivers)
    assert "seed stays 1, though the study file says 5" in said(drivers)
    points = [json.loads(run.data.tags["mltune.params"]) for run in runs_of(client, study)]
    assert len(points) == 20
    assert all(0 <= point["x"] <= 1 for point in points[:3])
    assert any(not 0 <= point["x"] <= 1 for point in points[3:])
    assert {point["kind"] for point in points[3:]} == {"a", "b", "c"}
    recorded = yaml.safe_load(Path(client.download_artifacts(study, "study.yaml")).read_text())
    assert recorded["space"]["x"] == wider["x"]


def test_a_wider_grid_runs_what_is_missing(client: MlflowClient) -> None:
    grid = {"n": Int(1, 2), "kind": Categorical(["a", "b", "c"])}
    wider = {"n": Int(1, 2), "kind": Categorical(["z", "a", "b", "c"])}
    first = tune(value, grid, algorithm="grid", n_trials=4)
    result = mltune.resume(first.run_id, value, wider, n_trials=99, quiet=True)
    check_grid(wider, result)
    assert [trial.run_id for trial in result.trials[:4]] == [trial.run_id for trial in first.trials]


@pytest.mark.alone
def test_a_wider_grid_runs_what_was_cut_off_once(drivers: Drivers, client: MlflowClient, chdir: Path) -> None:
    grid = {"n": {"type": "int", "low": 1, "high": 2}, "kind": {"type": "categorical", "choices": ["a", "b", "c"]}}
    wider = {"n": Int(1, 2), "kind": Categorical(["z", "a", "b", "c"])}
    code = f"HANGS = [2]\n{WAIT}".replace('"x"', '"n"')
    killed(drivers, 2, "run", write(chdir, code, space=grid, algorithm="grid", n_trials=6))
    check_grid(wider, mltune.resume(study_of(client), value, wider, n_trials=8, quiet=True))


def check_grid(grid: dict[str, Any], result: mltune.StudyResult) -> None:
    """Each point of the grid, once."""
    assert Counter((t.params["n"], t.params["kind"]) for t in result.trials) == Counter(
        (n, kind) for n in (1, 2) for kind in grid["kind"].choices
    )
    assert {trial.state for trial in result.trials} == {TrialState.COMPLETE}


@pytest.mark.alone
def test_from_optuna_to_ray_and_back(joined_ray: None, drivers: Drivers, client: MlflowClient, chdir: Path) -> None:
    study_file = write(chdir, f"HANGS = [2, 5]\n{WAIT}", executor="local", n_trials=8, algorithm="tpe")
    killed(drivers, 2, "run", study_file)
    study = study_of(client)
    killed(drivers, 5, "resume", study, "--engine", "ray")
    assert client.get_run(study).data.tags["mltune.engine"] == "ray"
    assert drivers.run(main("resume", study, "--engine", "optuna")) == 0, said(drivers)
    assert states(client, study) == sorted(
        [(n, "COMPLETE") for n in range(8)] + [(2, "INTERRUPTED"), (5, "INTERRUPTED")],
        key=lambda each: (each[0], each[1] == "COMPLETE"),
    )
    parent = client.get_run(study)
    assert [parent.data.tags[f"mltune.{tag}"] for tag in ("engine", "state")] == ["optuna", "COMPLETE"]


KILL_BEFORE_RETRY = """
import os, signal
from mlflow import MlflowClient
create = MlflowClient.create_run
def armed(self, *args, **kwargs):
    if kwargs["tags"].get("mltune.attempt") == "2":
        os.kill(os.getpid(), signal.SIGKILL)
    return create(self, *args, **kwargs)
MlflowClient.create_run = armed
"""
FAIL_ONCE = """
import os
def train(trial):
    first = f"failed-{trial.number}"
    if trial.number == 1 and not os.path.exists(first):
        open(first, "w").close()
        raise ValueError("a bad day")
    return 1.0
"""


@pytest.mark.alone
def test_a_retry_that_was_due_is_made_at_resume(drivers: Drivers, client: MlflowClient, chdir: Path) -> None:
    study_file = write(chdir, FAIL_ONCE, retries={"exception": 1})
    assert drivers.run(KILL_BEFORE_RETRY + main("run", study_file)) == -signal.SIGKILL
    study = study_of(client)
    assert states(client, study) == [(0, "COMPLETE"), (1, "FAILED")]
    assert drivers.run(main("resume", study)) == 0, said(drivers)
    assert states(client, study) == [(0, "COMPLETE"), (1, "FAILED"), (1, "COMPLETE"), (2, "COMPLETE")]


@pytest.mark.alone
def test_a_driver_at_work_is_not_disturbed_unless_asked_to(drivers: Drivers, client: MlflowClient, chdir: Path) -> None:
    old = hang(drivers, 1, "run", write(chdir, f"HANGS = [1]\n{WAIT}", grace_period=600.0))
    study = study_of(client)
    assert drivers.run(main("resume", study)) == 2
    assert f"process {old} on " in said(drivers)
    assert states(client, study) == [(0, "COMPLETE"), (1, "RUNNING")]

    assert drivers.run(main("resume", study, "--steal")) == 0
    assert drivers.wait(old) == 1
    text = said(drivers)
    assert f"the study was taken over from process {old} on " in text
    assert "mltune: the study was taken over by process " in text
    assert states(client, study) == [(0, "COMPLETE"), (1, "INTERRUPTED"), (1, "COMPLETE"), (2, "COMPLETE")]
    parent = client.get_run(study)
    assert (parent.data.tags["mltune.state"], parent.info.status) == ("COMPLETE", "FINISHED")


@pytest.mark.alone
@pytest.mark.parametrize("silent", [10, 100])
def test_a_driver_on_another_host(silent: float, drivers: Drivers, client: MlflowClient, chdir: Path) -> None:
    killed(drivers, 1, "run", write(chdir, f"HANGS = [1]\n{WAIT}"))
    study = study_of(client)
    lease = Lease(host="elsewhere", boot="another", pid=os.getpid(), started=0.0, renewed=time.time() - silent)
    client.set_tag(study, "mltune.lease", str(lease))
    if silent < 60:
        with pytest.raises(RequestError, match=f"process {os.getpid()} on elsewhere is at work on {study}"):
            mltune.resume(study, value, quiet=True)
    else:
        assert len(mltune.resume(study, value, quiet=True).trials) == 3


def test_what_is_no_study_is_refused(client: MlflowClient, chdir: Path) -> None:
    trial = str(tune(value).trials[0].run_id)
    other = client.create_run("0").info.run_id
    before = dump(chdir)
    for run_id, sentence in {
        "0" * 32: "there is no run '0000",
        other: f"run '{other}' is no mltune study",
        trial: f"run '{trial}' is no mltune study",
    }.items():
        with pytest.raises(RequestError, match=sentence) as caught:
            mltune.resume(run_id, value)
        assert len(caught.value.faults) == 1
    assert dump(chdir) == before


@pytest.mark.alone
def test_mlflow_run_goes_on_with_the_same_parent(drivers: Drivers, client: MlflowClient, chdir: Path) -> None:
    killed(drivers, 1, "run", write(chdir, f"HANGS = [1]\n{WAIT}"))
    study = study_of(client)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["mlflow", "run", str(ROOT), "-e", "resume", "--env-manager", "local", "--run-id", study]
    for n_trials in (4, 5):  # MLflow keeps the -P of a run that it made as params, and those of this one nowhere
        given = [f"-Prun_id={study}", f"-Pn_trials={n_trials}"]
        environment = os.environ | {"PATH": path}
        done = subprocess.run(
            [*command, *given], env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, done.stderr
    parent = client.get_run(study)
    assert (parent.data.tags["mltune.state"], parent.info.status) == ("COMPLETE", "FINISHED")
    assert states(client, study) == [(0, "COMPLETE"), (1, "INTERRUPTED")] + [(n, "COMPLETE") for n in (1, 2, 3, 4)]


@pytest.mark.recorded("killed")
def test_the_run_of_mlflow_run_must_be_the_study(
    client: MlflowClient, recorded_study: str, chdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = recorded_study
    monkeypatch.setenv("MLFLOW_RUN_ID", client.create_run("0").info.run_id)
    before = dump(chdir)
    with pytest.raises(RequestError, match=f"--run-id {study} -P run_id={study}"):
        mltune.resume(study, value, n_trials=9)
    assert dump(chdir) == before
