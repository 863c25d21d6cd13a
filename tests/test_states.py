"""What may happen to a trial or to its driver, on each engine: state, status and reason, as the design's table says."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

import mltune
from mltune import Categorical, TrialState
from tests.drivers import Drivers, has_begun, trials_begun, wait_for

COLUMNS = {"optuna-1": ("optuna", 1), "optuna-2": ("optuna", 2), "ray-2": ("ray", 2)}

COMPLETE = ("COMPLETE", "FINISHED", None)
INTERRUPTED = ("INTERRUPTED", "KILLED", None)
RUNNING = ("RUNNING", "RUNNING", None)

TABLE = {
    "complete": COMPLETE,
    "pruned": ("PRUNED", "KILLED", None),
    "raise": ("FAILED", "FAILED", "exception"),
    "nan": ("FAILED", "FAILED", "nan"),
    "missing": ("FAILED", "FAILED", "missing-metric"),
    "timeout": ("FAILED", "FAILED", "timeout"),
}
N_TRIALS = 4

OBJECTIVE = """
import time
from pathlib import Path

def train(trial):
    first = Path(f"training-{trial.number}")
    if trial.number > 0 and not first.exists():
        first.touch()
        while not Path("go-on").exists():
            time.sleep(0.01)
    return trial.params["x"]
"""

MAIN = """
import mltune.cli, mltune.driver
mltune.driver._SIGNAL_GRACE = 600.0
mltune.cli.main({arguments})
"""


@pytest.fixture(scope="module")
def own_ray() -> Iterator[None]:
    """One Ray for the studies of this process; a study joins it and leaves it running."""
    import ray

    ray.init("local", num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.parametrize("column", COLUMNS)
def test_what_an_objective_may_do(column: str, client: MlflowClient, request: pytest.FixtureRequest) -> None:
    def objective(trial: mltune.Trial) -> Any:
        match trial.params["what"]:
            case "pruned":
                trial.report(5.0, step=1)
                raise mltune.TrialPruned
            case "raise":
                raise ValueError("a bad day")
            case "nan":
                return float("nan")
            case "missing":
                return {"other": 1.0}
            case "timeout":
                time.sleep(600)
        return 1.0

    engine, n_jobs = COLUMNS[column]
    if engine == "ray":
        request.getfixturevalue("own_ray")
    result = mltune.tune(
        objective,
        {"what": Categorical(list(TABLE))},
        direction="minimize",
        algorithm="grid",
        engine=engine,
        n_jobs=n_jobs,
        trial_timeout=5.0,
        quiet=True,
    )
    assert {run.data.params["what"]: outcome(run) for run in trials_of(client, result.run_id)} == TABLE
    assert [outcome(client.get_run(result.run_id)), result.best_trial.params] == [COMPLETE, {"what": "complete"}]


@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)],
    ids=["ctrl-c", "sigterm", "kill-9"],
)
@pytest.mark.parametrize("column", COLUMNS)
def test_what_may_happen_to_the_driver(
    column: str, signum: int, code: int, drivers: Drivers, client: MlflowClient
) -> None:
    engine, n_jobs = COLUMNS[column]
    driver = begin(drivers, engine=engine, n_jobs=n_jobs, grace=0.1)
    os.kill(driver, signum)
    assert drivers.wait(driver) == code, drivers.log.read_text()

    study = study_of(client)
    cut_off = RUNNING if signum == signal.SIGKILL else INTERRUPTED
    assert [outcome(run) for run in trials_of(client, study)] == [COMPLETE] + [cut_off] * n_jobs
    assert outcome(client.get_run(study)) == cut_off
    assert (f"go on with: mltune resume {study}" in drivers.log.read_text()) == (signum != signal.SIGKILL)

    (drivers.folder / "go-on").touch()
    assert drivers.run(main("resume", study)) == 0, drivers.log.read_text()
    runs = trials_of(client, study)
    again = range(1, 1 + n_jobs)
    assert [outcome(run) for run in runs if number(run) in again] == [INTERRUPTED, COMPLETE] * n_jobs
    check_linked([run for run in runs if number(run) in again])
    check_each_complete_once(client, study)


def test_a_second_signal_ends_the_study_at_once(drivers: Drivers, client: MlflowClient) -> None:
    driver = begin(drivers, grace=600)
    os.kill(driver, signal.SIGINT)
    wait_for(lambda: "a second signal stops at once" in drivers.log.read_text())
    os.kill(driver, signal.SIGTERM)
    assert drivers.wait(driver) == 130
    study = study_of(client)
    assert [outcome(run) for run in trials_of(client, study)] == [COMPLETE, INTERRUPTED]
    assert outcome(client.get_run(study)) == INTERRUPTED


def test_a_trial_that_ends_within_the_grace_counts(drivers: Drivers, client: MlflowClient, chdir: Path) -> None:
    driver = begin(drivers, grace=600, n_jobs=2)
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
        objective, {"x": mltune.Float(0, 1)}, direction="minimize", timeout=3.0, grace=grace, seed=0, quiet=True
    )
    assert [trial.state for trial in result.trials] == [TrialState.COMPLETE, second]
    expected = COMPLETE if second is TrialState.COMPLETE else INTERRUPTED
    assert [outcome(run) for run in trials_of(client, result.run_id)] == [COMPLETE, expected]
    assert outcome(client.get_run(result.run_id)) == COMPLETE


def begin(drivers: Drivers, *, engine: str = "optuna", n_jobs: int = 1, grace: float) -> int:
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
        "grace": grace,
    }
    (drivers.folder / "waits.py").write_text(OBJECTIVE)
    (drivers.folder / "waits.yaml").write_text(yaml.safe_dump(study))
    driver = drivers.start(main("run", "waits.yaml"))
    wait_for(lambda: all((drivers.folder / f"training-{n + 1}").exists() for n in range(n_jobs)))
    wait_for(lambda: all(has_begun(drivers.client, n + 1) for n in range(n_jobs)))
    wait_for(lambda: "trial 0 COMPLETE" in drivers.log.read_text())
    return driver


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
    """The second attempts have the points and seeds of the first ones, and name them."""
    for first, second in zip(runs[::2], runs[1::2], strict=True):
        assert "mltune.first_attempt" not in first.data.tags
        assert second.data.tags["mltune.first_attempt"] == first.info.run_id
        assert (first.data.tags["mltune.attempt"], second.data.tags["mltune.attempt"]) == ("1", "2")
        assert second.data.params == first.data.params
        assert second.data.tags["mltune.seed"] == first.data.tags["mltune.seed"]


def check_each_complete_once(client: MlflowClient, study: str) -> None:
    """The study is COMPLETE with exactly its number of trials, and nothing is RUNNING."""
    complete = [number(run) for run in trials_of(client, study) if outcome(run) == COMPLETE]
    assert complete == list(range(N_TRIALS))
    assert outcome(client.get_run(study)) == COMPLETE
    assert client.search_runs(["0"], "attributes.status = 'RUNNING'", ViewType.ALL) == []
