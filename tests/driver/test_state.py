"""The state of a running study: counts, best, budget, retries and the time that is left."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mltune._util.timing import Stopwatch
from mltune.config import validate
from mltune.driver.attempts import Attempts
from mltune.driver.state import StudyState
from mltune.trial import FrozenTrial, Reason, TrialState

GIVEN = {"name": "s", "direction": "minimize", "seed": 1, "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}}}


def ended(number: int, state: TrialState, value: float | None = None) -> FrozenTrial:
    return FrozenTrial(number=number, params={}, seed=0, state=state, value=value)


def state_of(*past: FrozenTrial, elapsed: float = 0.0, **keys: Any) -> StudyState:
    config = validate(GIVEN | {"n_trials": 10} | keys)
    return StudyState(config, Attempts(config.retries, {each.number: [each] for each in past}), Stopwatch(elapsed))


def run_one(state: StudyState, outcome: TrialState, value: float | None = None) -> FrozenTrial:
    number = state.upcoming()
    assert number is not None
    state.begin(number, {"x": 0.5})
    reason = Reason.EXCEPTION if outcome is TrialState.FAILED else None
    trial = state.end(number, outcome, value=value, metrics={}, reason=reason)
    state.challenge(trial)
    state.count(trial)
    return trial


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("mltune._util.timing.time.monotonic", lambda: now[0])
    return now


def test_what_uses_up_budget_is_counted(clock: list[float]) -> None:
    state = state_of(ended(0, TrialState.COMPLETE, 3.0), ended(1, TrialState.FAILED), elapsed=50.0)
    assert (state.done, state.per_second, state.left, state.elapsed) == (2, None, None, 50.0)
    clock[0] += 4
    run_one(state, TrialState.COMPLETE, 1.0)
    run_one(state, TrialState.INTERRUPTED)
    assert state.running == {}
    assert state.best is not None
    assert state.best.number == 2
    assert (state.done, state.per_second, state.left) == (3, 0.25, 28.0)
    assert state.format_counts() == "3 of 10 trials: 2 complete, 1 failed"


def test_a_timeout_is_the_budget_where_there_is_no_number_of_trials(clock: list[float]) -> None:
    state = state_of(n_trials=None, timeout=60.0, elapsed=45.0)
    assert (state.left, state.overdue, state.upcoming()) == (15.0, 0.0, 0)
    clock[0] += 20
    assert (state.left, state.overdue, state.upcoming()) == (0.0, 5.0, None)
    assert state.format_counts() == "0 trials"


def test_numbers_that_are_finished_or_running_are_not_started() -> None:
    state = state_of(ended(0, TrialState.COMPLETE, 1.0), ended(2, TrialState.PRUNED), n_trials=5)
    begun = []
    while (number := state.upcoming()) is not None:
        begun.append(number)
        state.begin(number, {})
    assert begun == [1, 3, 4]


def test_of_equal_trials_the_one_with_the_lower_number_is_the_best() -> None:
    state = state_of(n_jobs=2)
    for number in (0, 1):
        state.begin(number, {})
    later = state.end(1, TrialState.COMPLETE, value=1.0)
    assert (state.challenge(later), state.best) == (None, later)
    earlier = state.end(0, TrialState.COMPLETE, value=1.0)
    assert (state.challenge(earlier), state.best) == (later, earlier)
    worse = replace(earlier, number=2, value=2.0)
    assert (state.challenge(worse), state.best) == (worse, earlier)


@pytest.mark.parametrize("n_trials", [3, 10, None])
def test_a_study_is_aborted_when_its_first_trials_all_failed(n_trials: int | None) -> None:
    state = state_of(n_trials=n_trials, timeout=60)
    aborted = []
    for _ in range(min(5, n_trials or 5)):
        run_one(state, TrialState.FAILED)
        aborted.append(state.aborted)
    assert aborted == [False] * (len(aborted) - 1) + [True]
    assert state.upcoming() is None


def test_one_success_among_the_first_trials_is_enough() -> None:
    state = state_of()
    run_one(state, TrialState.FAILED)
    run_one(state, TrialState.PRUNED)
    for _ in range(8):
        run_one(state, TrialState.FAILED)
    assert not state.aborted


def test_a_retry_is_the_next_attempt_at_the_same_number() -> None:
    state = state_of(retries={"exception": 1})
    first = state.begin(0, {"x": 0.5})
    state.end(0, TrialState.FAILED, reason=Reason.EXCEPTION)
    assert state.attempts.may_try_again(0)
    second = state.begin(0, {"x": 0.5})
    assert (first.attempt, second.attempt, first.seed) == (1, 2, second.seed)
    state.end(0, TrialState.FAILED, reason=Reason.EXCEPTION)
    assert not state.attempts.may_try_again(0)
