"""A study that is cut off in any of its trials but the first goes on as if it had not been, shown in memory.

tests/test_same_study.py shows it with real kills.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import pytest

from mltune.engines import Engine, create_engine
from mltune.goal import Goal
from mltune.search import SearchProblem, Spec
from mltune.space import Categorical, Float, Int, Params, SearchSpace
from mltune.testing import MemoryDriver, Outcome
from mltune.trial import Direction, FrozenTrial, TrialState

N_TRIALS = 24
SPACE = SearchSpace(
    {"rate": Float(1e-4, 1, log=True), "depth": Int(1, 9), "kind": Categorical(["a", "b"])},
)
GRID = SearchSpace(
    {"rate": Float(0.25, 1, step=0.25), "depth": Int(1, 3), "kind": Categorical(["a", "b"])},
)

ALGORITHMS = ("random", "grid", "qmc", "tpe", "gp", "cmaes")
SCHEDULERS = ("asha", "hyperband", "median")
CUTS = [(case, cut) for case in ALGORITHMS + SCHEDULERS for cut in range(1, N_TRIALS) if case != "gp"]
CUTS.append(("gp", 15))  # each of its proposals takes a tenth of a second

Told = list[tuple[int, Params, TrialState, float | None, dict[int, float]]]


def train(params: Params) -> Outcome:
    """A level by the point, and a curve of nine steps that falls to it."""
    rate, depth = params["rate"], params["depth"]
    assert isinstance(rate, float)
    assert isinstance(depth, int)
    level = abs(math.log(rate) + 3) + (params["kind"] == "b")
    return Outcome(level + depth / 10, tuple(level + depth / step for step in range(1, 10)))


def engine(case: str) -> Engine:
    stops = case in SCHEDULERS
    search = SearchProblem(
        space=GRID if case == "grid" else SPACE,
        goal=Goal("value", Direction.MINIMIZE),
        seed=3,
        algorithm=Spec("tpe" if stops else case),
        scheduler=Spec(case if stops else "none"),
        initial_points=(),
    )
    return create_engine("optuna", search, N_TRIALS)


def tell(trials: list[FrozenTrial]) -> Told:
    return [(trial.number, trial.params, trial.state, trial.value, dict(trial.reports)) for trial in trials]


@cache
def uninterrupted(case: str) -> tuple[FrozenTrial, ...]:
    driver = MemoryDriver(train, N_TRIALS)
    driver.run(engine(case))
    return tuple(driver.trials)


@pytest.mark.parametrize(("case", "cut"), CUTS)
def test_the_rest_is_the_same(case: str, cut: int) -> None:
    whole = uninterrupted(case)
    rebuilt = engine(case)
    rebuilt.replay([*whole[:cut], replace(whole[cut], state=TrialState.INTERRUPTED, value=None, reports={})])
    rest = MemoryDriver(train, N_TRIALS, first=cut)
    rest.run(rebuilt)
    assert tell(rest.trials) == tell(list(whole[cut:]))


@pytest.mark.parametrize("case", SCHEDULERS)
def test_the_schedulers_had_something_to_decide(case: str) -> None:
    stopped = [len(trial.reports) for trial in uninterrupted(case) if trial.state is TrialState.PRUNED]
    assert 3 <= len(stopped) <= N_TRIALS - 3
    assert len(set(stopped)) > 1
