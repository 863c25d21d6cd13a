"""The one place that compares trials: what is better, which trial is the best, and their order."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltune.goal import Goal
from mltune.trial import Direction, FrozenTrial, TrialState

LEAST, MOST = Goal("loss", Direction.MINIMIZE), Goal("score", Direction.MAXIMIZE)


def trial(number: int, value: float | None, state: TrialState = TrialState.COMPLETE) -> FrozenTrial:
    return FrozenTrial(number=number, params={}, seed=0, value=value, state=state)


def numbers(trials: list[FrozenTrial]) -> list[int]:
    return [trial.number for trial in trials]


trials = st.lists(
    st.builds(
        trial,
        st.integers(0, 99),
        st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 2).map(float),
        st.sampled_from(TrialState),
    ),
    unique_by=lambda trial: trial.number,
)


def test_better_is_strict_and_nothing_is_worse_than_none() -> None:
    assert (LEAST.better(1.0, 2.0), LEAST.better(2.0, 2.0), LEAST.better(3.0, 2.0)) == (True, False, False)
    assert (MOST.better(1.0, 2.0), MOST.better(2.0, 2.0), MOST.better(3.0, 2.0)) == (False, False, True)
    assert LEAST.better(math.inf, None)
    assert (LEAST.worst, MOST.worst) == (math.inf, -math.inf)


def test_nan_is_better_than_nothing_else() -> None:
    assert not LEAST.better(math.nan, 1.0)
    assert LEAST.best([trial(0, 1.0), trial(1, math.nan)]) == trial(0, 1.0)
    assert LEAST.best([trial(0, math.nan), trial(1, 1.0)]) == trial(1, 1.0)


def test_it_is_written_as_people_say_it() -> None:
    assert (str(LEAST), str(MOST)) == ("minimize loss", "maximize score")


@pytest.mark.parametrize("goal", [LEAST, MOST], ids=str)
@given(trials=trials)
def test_the_best_is_a_complete_trial_that_none_beats(goal: Goal, trials: list[FrozenTrial]) -> None:
    best = goal.best(trials)
    complete = [each for each in trials if each.state is TrialState.COMPLETE and each.value is not None]
    assert (best is None) == (not complete)
    if best is not None:
        assert best in complete
        assert not any(goal.better(float(each.value or 0), best.value) for each in complete)
        assert best.number == min(each.number for each in complete if each.value == best.value)
        assert goal.ranked(trials)[0] == best == goal.best(reversed(trials))


@pytest.mark.parametrize("goal", [LEAST, MOST], ids=str)
@given(trials=trials)
def test_the_ranking_has_all_trials_each_better_than_the_next(goal: Goal, trials: list[FrozenTrial]) -> None:
    ranked = goal.ranked(trials)
    assert sorted(numbers(ranked)) == sorted(numbers(trials))
    complete = [each.value for each in ranked if each.state is TrialState.COMPLETE and each.value is not None]
    assert complete == sorted(complete, reverse=goal is MOST)
    others = numbers(ranked[len(complete) :])
    assert others == sorted(others)


def test_equal_trials_are_ordered_by_number() -> None:
    trials = [trial(2, 1.0), trial(0, 1.0), trial(1, None, TrialState.FAILED), trial(3, 0.0, TrialState.PRUNED)]
    assert numbers(LEAST.ranked(trials)) == [0, 2, 1, 3]


def test_improvements_are_better_than_all_before_them() -> None:
    values = [3.0, 5.0, 2.0, 2.5, None, 2.0, 1.0]
    trials = [trial(number, value) for number, value in enumerate(values)]
    assert numbers(LEAST.improvements(trials)) == [0, 2, 6]
    assert numbers(MOST.improvements(trials)) == [0, 1]
    assert LEAST.improvements([trial(0, 1.0, TrialState.PRUNED)]) == []
