"""The driver in memory keeps what it promises to engines."""

from __future__ import annotations

import math

from mltune.engines import Driver, Report
from mltune.testing import MemoryDriver, Outcome
from mltune.trial import FrozenTrial, Reason, TrialState


def drive(outcome: Outcome, stop_at: int | None = None) -> FrozenTrial:
    driver: Driver = MemoryDriver(lambda params: outcome, n_trials=1)
    driver.start(0, {"x": 1})
    while isinstance(event := driver.wait(), Report):
        driver.answer(event, stop=event.step == stop_at)
    assert event is not None
    assert (driver.wait(), driver.next_number()) == (None, None)
    return event


def test_the_four_ends_of_a_trial() -> None:
    complete = drive(Outcome(3.0, (5.0, 4.0)))
    assert (complete.state, complete.value, complete.reports) == (TrialState.COMPLETE, 3.0, {1: 5.0, 2: 4.0})
    stopped = drive(Outcome(3.0, (5.0, 4.0, 3.5)), stop_at=2)
    assert (stopped.state, stopped.value, stopped.reports) == (TrialState.PRUNED, 4.0, {1: 5.0, 2: 4.0})
    assert drive(Outcome(pruned=True)).state is TrialState.PRUNED
    assert (drive(Outcome(None)).reason, drive(Outcome(math.nan)).reason) == (Reason.EXCEPTION, Reason.NAN)


def test_at_most_n_jobs_run_at_once_and_they_end_in_any_order() -> None:
    driver = MemoryDriver(lambda params: Outcome(0.0, (1.0, 1.0)), n_trials=30, n_jobs=3)
    most = 0
    while len(driver.trials) < 30:
        while (number := driver.next_number()) is not None:
            driver.start(number, {})
        most = max(most, len(driver.started) - len(driver.trials))
        event = driver.wait()
        if isinstance(event, Report):
            driver.answer(event, stop=False)
    assert most == 3
    numbers = [trial.number for trial in driver.trials]
    assert numbers != sorted(numbers) == list(range(30))
