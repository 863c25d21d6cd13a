"""What may happen to a study's driver, on each engine: state and status of all runs, and how the study goes on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

import mltune
from mltune import TrialState
from tests.drivers import Drivers, has_begun, trials_begun, wait_for
from tests.execution.helpers import alive

pytestmark = pytest.mark.alone

COMPLETE = ("COMPLETE", "FINISHED", None)
INTERRUPTED = ("INTERRUPTED", "KILLED", None)
RUNNING = ("RUNNING", "RUNNING", None)

N_TRIALS = 4

OBJECTIVE = """
import os, time
from pathlib import Path

FOLDER = Path({folder!r})

def train(trial):
    first = FOLDER / f"training-{{trial.number}}"
    if trial.number > 0 and not first.exists():
        first.with_suffix(".new").write_text(str(os.getpid()))
        first.with_suffix(".new").rename(first)
        while not (FOLDER / "go-on").exists():
            time.sleep(0.01)
    return trial.params["x"]
"""

MAIN = """
import mltune.cli
from mltune._util import timing
timing.TIMING = timing.Timing(signal_grace=600.0)
mltune.cli.main({arguments})
"""


@pytest.mark.parametrize(("engine", "n_jobs"), [("optuna", 1), ("optuna", 2), ("ray", 2)])
def test_what_may_happen_to_the_driver(
    engine: str, n_jobs: int, drivers: Drivers, client: MlflowClient, request: pytest.FixtureRequest
) -> None:
    """Ctrl-C, SIGTERM and `kill -9`, one after the other: the study goes on each time, and at last to its end."""
    if engine == "ray":
        request.getfixturevalue("joined_ray")
    cut = range(1, 1 + n_jobs)
    attempts: list[tuple[str, str, str | None]] = []
    driver = begin(drivers, engine=engine, n_jobs=n_jobs, grace_period=0.1)
    study = study_of(client)
    for signum, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        is_heard = signum != signal.SIGKILL
        os.kill(driver, signum)
        assert drivers.wait(driver) == code, drivers.log.read_text()

        cut_off = INTERRUPTED if is_heard else RUNNING
        runs = trials_of(client, study)
        assert [outcome(run) for run in runs if number(run) in cut] == [*attempts, cut_off] * n_jobs
        assert [outcome(run) for run in runs if number(run) not in cut] == [COMPLETE]
        assert outcome(client.get_run(study)) == cut_off
        log = drivers.log.read_text()
        assert ("was interrupted by" in log) == (f"resume with: mltune resume {study}" in log) == is_heard
        assert "Traceback" not in log
        check_workers_are_gone(drivers.folder)

        attempts.append(INTERRUPTED)
        drivers.log.unlink()
        if is_heard:
            driver = go_on(drivers, study, n_jobs=n_jobs)

    (drivers.folder / "go-on").touch()
    assert drivers.run(main("resume", study)) == 0, drivers.log.read_text()
    runs = [run for run in trials_of(client, study) if number(run) in cut]
    assert [outcome(run) for run in runs] == [*attempts, COMPLETE] * n_jobs
    check_linked(runs)
    check_each_complete_once(client, study)


def test_a_second_signal_ends_the_study_at_once(drivers: Drivers, client: MlflowClient) -> None:
    driver = begin(drivers, grace_period=600)
    os.kill(driver, signal.SIGINT)
    wait_for(lambda: "a second signal stops at once" in drivers.log.read_text())
    os.kill(driver, signal.SIGTERM)
    assert drivers.wait(driver) == 130
    study = study_of(client)
    assert [outcome(run) for run in trials_of(client, study)] == [COMPLETE, INTERRUPTED]
    assert outcome(client.get_run(study)) == INTERRUPTED


def test_a_trial_that_ends_within_the_grace_counts(drivers: Drivers, client: MlflowClient, chdir: Path) -> None:
    driver = begin(drivers, grace_period=600, n_jobs=2)
    os.kill(driver, signal.SIGTERM)
    wait_for(lambda: "a second signal stops at once" in drivers.log.read_text())
    (chdir / "go-on").touch()
    assert drivers.wait(driver) == 143
    study = study_of(client)
    assert [outcome(run) for run in trials_of(client, study)] == [COMPLETE] * 3
    assert outcome(client.get_run(study)) == INTERRUPTED
    assert drivers.run(main("resume", study)) == 0
    assert [outcome(run) for run in trials_of(client, study)] == [COMPLETE] * N_TRIALS


@pytest.mark.parametrize(("grace", "second"), [(600.0, TrialState.COMPLETE), (0.1, TrialState.INTERRUPTED)])
def test_trials_that_run_when_the_time_is_over_have_a_grace(
    grace: float, second: TrialState, client: MlflowClient
) -> None:
    def objective(trial: mltune.Trial) -> float:
        if trial.number == 1:
            time.sleep(3.5 if grace > 1 else 600)
        return 1.0

    result = mltune.tune(
        objective, {"x": mltune.Float(0, 1)}, direction="minimize", timeout=3.0, grace_period=grace, seed=0, quiet=True
    )
    assert [trial.state for trial in result.trials] == [TrialState.COMPLETE, second]
    expected = COMPLETE if second is TrialState.COMPLETE else INTERRUPTED
    assert [outcome(run) for run in trials_of(client, result.run_id)] == [COMPLETE, expected]
    assert outcome(client.get_run(result.run_id)) == COMPLETE


def begin(drivers: Drivers, *, engine: str = "optuna", n_jobs: int = 1, grace_period: float) -> int:
    """Start a driver of a study, whose first trial completes and whose next ones wait; its process id."""
    study = {
        "name": "waits",
        "objective": "waits:train",
        "direction": "minimize",
        "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
        "algorithm": "random",
        "n_trials": N_TRIALS,
        "seed": 0,
        "engine": engine,
        "n_jobs": n_jobs,
        "grace_period": grace_period,
    }
    (drivers.folder / "waits.py").write_text(OBJECTIVE.format(folder=str(drivers.folder)))
    (drivers.folder / "waits.yaml").write_text(yaml.safe_dump(study))
    driver = drivers.start(main("run", "waits.yaml"))
    await_trials(drivers, n_jobs)
    wait_for(lambda: "trial 0 COMPLETE" in drivers.log.read_text())
    return driver


def go_on(drivers: Drivers, study: str, *, n_jobs: int) -> int:
    """Start a driver that resumes the study, whose next trials wait again; its process id."""
    for path in drivers.folder.glob("training-*"):
        path.unlink()
    driver = drivers.start(main("resume", study))
    await_trials(drivers, n_jobs)
    return driver


def await_trials(drivers: Drivers, n_jobs: int) -> None:
    """Until the trials that wait do, and the store knows of it."""
    wait_for(lambda: all((drivers.folder / f"training-{n + 1}").exists() for n in range(n_jobs)))
    wait_for(lambda: all(has_begun(drivers.client, n + 1) for n in range(n_jobs)))


def check_workers_are_gone(folder: Path) -> None:
    workers = [int(path.read_text()) for path in folder.glob("training-*")]
    assert workers
    wait_for(lambda: not any(alive(pid) for pid in workers))


def main(*arguments: str) -> str:
    """A driver that runs the command; a signal's grace is as long as the study's."""
    return MAIN.format(arguments=list(arguments))


def study_of(client: MlflowClient) -> str:
    (parent,) = client.search_runs(["0"], "tags.`mltune.kind` = 'study'")
    return str(parent.info.run_id)


def trials_of(client: MlflowClient, study: str) -> list[Run]:
    """All attempts, deleted runs included, by number and attempt."""
    return sorted(trials_begun(client, study), key=lambda run: (number(run), int(run.data.tags["mltune.attempt"])))


def number(run: Run) -> int:
    return int(run.data.tags["mltune.number"])


def outcome(run: Run) -> tuple[str, str, str | None]:
    tags = run.data.tags
    return tags["mltune.state"], run.info.status, tags.get("mltune.reason")


def check_linked(runs: list[Run]) -> None:
    """Later attempts have the points and seeds of the first ones, and name them."""
    for n in {number(run) for run in runs}:
        first, *later = (run for run in runs if number(run) == n)
        assert "mltune.first_attempt" not in first.data.tags
        assert first.data.tags["mltune.attempt"] == "1"
        assert [run.data.tags["mltune.attempt"] for run in later] == ["2", "3", "4"]
        for run in later:
            assert run.data.tags["mltune.first_attempt"] == first.info.run_id
            assert run.data.params == first.data.params
            assert run.data.tags["mltune.seed"] == first.data.tags["mltune.seed"]


def check_each_complete_once(client: MlflowClient, study: str) -> None:
    """The study is COMPLETE with exactly its number of trials, and nothing is RUNNING."""
    complete = [number(run) for run in trials_of(client, study) if outcome(run) == COMPLETE]
    assert complete == list(range(N_TRIALS))
    assert outcome(client.get_run(study)) == COMPLETE
    assert client.search_runs(["0"], "attributes.status = 'RUNNING'", ViewType.ALL) == []
