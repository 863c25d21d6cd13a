"""A study that is killed and resumed is the study that was never interrupted: the same points, the same stops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mltune import TrialState
from mltune.tracking import reader
from mltune.tracking.reader import StudyRecord
from tests.drivers import Drivers, Zygote, has_begun, kill, wait_for

pytestmark = pytest.mark.alone

N_TRIALS = 24

STUDY = """
import math, time
from pathlib import Path
import mltune

def train(trial):
    level = abs(math.log(trial.params["rate"]) + 3) + (trial.params["kind"] == "b")
    for step in range(1, {n_reports} + 1):
        try:
            trial.report(level + trial.params["depth"] / step, step=step)
        finally:
            hang(trial.number)
    hang(trial.number)
    return level + trial.params["depth"] / 10

def hang(number):
    first = Path("hung")
    if number == {hang_in} and not first.exists():
        first.touch()
        time.sleep(600)

if {run_id!r}:
    mltune.resume({run_id!r}, train, quiet=True)
else:
    mltune.tune(train, {space}, direction="minimize", algorithm={algorithm!r}, scheduler={scheduler!r}, name={case!r},
                n_trials={n_trials}, seed=3, executor="inline", quiet=True)
"""
SPACE = '{"rate": mltune.Float(1e-4, 1, log=True), "depth": mltune.Int(1, 9), "kind": mltune.Categorical(["a", "b"])}'
GRID = '{"rate": mltune.Float(0.25, 1, step=0.25), "depth": mltune.Int(1, 3), "kind": mltune.Categorical(["a", "b"])}'

ALGORITHMS = ("random", "grid", "qmc", "tpe", "gp", "cmaes")
SCHEDULERS = ("asha", "hyperband", "median")
KILLED_IN = dict(zip(ALGORITHMS + SCHEDULERS, (1, 7, 15, 7, 15, 1, 15, 1, 7), strict=True))
"""In which trial, by case; that it might be any is shown in memory, by tests/engines/test_every_cut.py."""

Told = list[tuple[int, Mapping[str, Any], float | None, TrialState, dict[int, float]]]


def code(case: str, *, hang_in: int | None = None, run_id: str | None = None) -> str:
    """A driver that begins or resumes the study of an algorithm or of a scheduler."""
    stops = case in SCHEDULERS
    return STUDY.format(
        case=case,
        algorithm="tpe" if stops else case,
        scheduler=case if stops else "none",
        n_reports=9 if stops else 0,
        space=GRID if case == "grid" else SPACE,
        n_trials=N_TRIALS,
        hang_in=hang_in,
        run_id=run_id,
    )


def read(client: MlflowClient, case: str) -> StudyRecord:
    (parent,) = client.search_runs(["0"], f"tags.`mltune.kind` = 'study' AND attributes.run_name = '{case}'")
    return reader.read_study(client, parent.info.run_id)


def tell(client: MlflowClient, record: StudyRecord) -> Told:
    """What came of each trial in the end, and what it had reported."""
    trials = reader.read_reports(client, record, record.trials)
    return [(each.number, each.params, each.value, each.state, dict(each.reports)) for each in trials]


@pytest.fixture(scope="module")
def uninterrupted(warm: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Told]:
    """The trials of a study that ran in one go."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    uri = f"sqlite:///{folder}/mlflow.db"
    drivers = Drivers(warm, folder, {"MLFLOW_TRACKING_URI": uri})

    @cache
    def run(case: str) -> Told:
        assert drivers.run(code(case)) == 0, drivers.log.read_text()
        client = MlflowClient(uri)
        return tell(client, read(client, case))

    return run


@pytest.mark.parametrize(("case", "killed_in"), KILLED_IN.items())
def test_the_same_trials(
    case: str, killed_in: int, drivers: Drivers, client: MlflowClient, chdir: Path, uninterrupted: Callable[[str], Told]
) -> None:
    driver = drivers.start(code(case, hang_in=killed_in))
    wait_for((chdir / "hung").exists)
    wait_for(lambda: has_begun(client, killed_in))
    kill(driver)
    assert drivers.wait(driver) == -9
    run_id = read(client, case).run_id
    assert drivers.run(code(case, hang_in=killed_in, run_id=run_id)) == 0, drivers.log.read_text()

    record = read(client, case)
    expected = uninterrupted(case)
    assert tell(client, record) == expected
    assert [len(attempts) for attempts in record.attempts.values()] == [
        2 if number == killed_in else 1 for number in range(N_TRIALS)
    ]
    first, second = record.attempts[killed_in]
    assert (first.state, second.attempt, first.params) == (TrialState.INTERRUPTED, 2, second.params)


@pytest.mark.parametrize("case", SCHEDULERS)
def test_the_schedulers_had_something_to_decide(case: str, uninterrupted: Callable[[str], Told]) -> None:
    stopped = [max(reports) for _, _, _, state, reports in uninterrupted(case) if state is TrialState.PRUNED]
    assert 3 <= len(stopped) <= N_TRIALS - 3
    assert len(set(stopped)) > 1, stopped
