"""Study lint: the right warning where it is known, and silence on healthy studies."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from mltune import Categorical, Direction, Float, FrozenTrial, Int, Reason, SearchSpace, TrialState
from mltune.engines import create_engine
from mltune.goal import Goal
from mltune.report import lint
from mltune.search import SearchProblem, Spec, trial_seed
from mltune.space import Params

Objective = Callable[[Mapping[str, Any]], float]
GOAL = Goal("value", Direction.MINIMIZE)
HEALTHY = SearchSpace({"rate": Float(1e-5, 1.0, log=True), "depth": Int(1, 12), "kind": Categorical(["a", "b", "c"])})


def healthy(params: Mapping[str, Any]) -> float:
    rate = (math.log10(params["rate"]) + 2.5) ** 2
    depth = 0.15 * (params["depth"] - 6) ** 2
    return float(rate + depth + {"a": 0.0, "b": 1.5, "c": 3.0}[params["kind"]])


def studied(
    objective: Objective,
    space: SearchSpace,
    *,
    n_trials: int = 60,
    seed: int = 0,
    algorithm: str = "random",
    fails: Callable[[Mapping[str, Any]], bool] = lambda params: False,
) -> list[FrozenTrial]:
    """The trials of a study by a real engine, without workers and tracking."""
    search = SearchProblem(
        space=space,
        goal=GOAL,
        seed=seed,
        algorithm=Spec(algorithm),
        scheduler=Spec("none"),
        initial_points=(),
    )
    engine = create_engine("optuna", search, n_trials)
    trials = []
    for number in range(n_trials):
        params = dict(engine.propose(number))
        if fails(params):
            state, value, reason = TrialState.FAILED, None, Reason.EXCEPTION
        else:
            state, value, reason = TrialState.COMPLETE, objective(params), None
        trial = FrozenTrial(
            number=number, params=params, seed=trial_seed(seed, number), state=state, value=value, reason=reason
        )
        engine.tell(trial)
        trials.append(trial)
    return trials


def warnings(trials: list[FrozenTrial], space: SearchSpace, **arguments: Any) -> tuple[str, ...]:
    return lint(trials, space, GOAL, **arguments)


def only(trials: list[FrozenTrial], space: SearchSpace, **arguments: Any) -> str:
    (warning,) = warnings(trials, space, **arguments)
    return warning


@pytest.mark.parametrize("algorithm", ["random", "tpe", "qmc"])
@pytest.mark.parametrize("seed", range(5))
def test_silent_on_a_healthy_study(algorithm: str, seed: int) -> None:
    trials = studied(healthy, HEALTHY, algorithm=algorithm, seed=seed)
    assert min(trials, key=lambda trial: trial.value or 0.0).number > 0  # else it would be right to say so
    assert warnings(trials, HEALTHY) == ()


def test_silent_on_few_or_no_trials() -> None:
    assert warnings([], HEALTHY, finite=True) == ()
    assert warnings(studied(healthy, HEALTHY, n_trials=8, seed=2), HEALTHY) == ()


@pytest.mark.parametrize(("sign", "end"), [(1, "low"), (-1, "high")])
def test_best_on_a_bound(sign: int, end: str) -> None:
    space = SearchSpace({"x": Float(-5, 5), "y": Float(-1, 1)})
    trials = studied(lambda params: sign * params["x"] + params["y"] ** 2, space, algorithm="tpe")
    warning = only(trials, space)
    assert warning.startswith("the best value of 'x', ")
    assert f"is on the `{end}` end" in warning
    assert f"move `{end}` further out" in warning


@pytest.mark.parametrize("count", [2, 3, 4, 8])
def test_one_of_few_values_is_no_bound(count: int) -> None:
    space = SearchSpace({**HEALTHY, "layers": Int(1, count)})
    for seed in range(3):
        trials = studied(lambda params: healthy(params) + params["layers"], space, seed=seed)
        assert not any("end of its range" in warning for warning in warnings(trials, space))


def test_a_tie_with_the_first_trial_is_no_matter() -> None:
    trials = studied(lambda params: max(healthy(params), 6.0), HEALTHY, seed=1)
    assert trials[0].value == trials[1].value == 6.0 < max(trial.value for trial in trials if trial.value is not None)
    assert not any("first trial" in warning for warning in warnings(trials, HEALTHY))


def test_narrow_and_huge_ranges_are_told_apart() -> None:
    space = SearchSpace({"x": Float(1e9, 1e9 + 30), "y": Float(1e39, 9e39)})
    trials = studied(lambda params: (params["x"] - 1e9 - 12) ** 2 + (params["y"] / 1e39 - 4) ** 2, space, n_trials=40)
    assert warnings(trials, space) == ()


def test_decades_searched_linearly() -> None:
    space = SearchSpace({"rate": Float(1e-6, 1.0), "y": Float(-1, 1)})
    trials = studied(
        lambda params: abs(math.log10(params["rate"]) + 4) + params["y"] ** 2, space, algorithm="tpe", n_trials=80
    )
    warning = only(trials, space)
    assert warning.startswith("good values of 'rate' lie between ")
    assert warning.endswith("but it was searched linearly: give it `log: true`")


def test_no_influence() -> None:
    space = SearchSpace({**HEALTHY, "useless": Float(0, 1)})
    found = [warnings(studied(healthy, space, seed=seed, n_trials=100, algorithm="qmc"), space) for seed in range(10)]
    named = [
        warning.partition(" had no influence on the metric that 100 trials")[0] for each in found for warning in each
    ]
    assert set(named) == {"'useless'"}
    assert len(named) >= 7  # of ten; what it does not see it does not tell


def test_failures() -> None:
    trials = studied(healthy, HEALTHY, fails=lambda params: params["depth"] > 8)
    failed = sum(trial.state is TrialState.FAILED for trial in trials)
    assert only(trials, HEALTHY).startswith(f"{failed} of 60 trials failed (exception): read traceback.txt of trial ")


def test_few_failures_are_no_matter() -> None:
    rng = random.Random(0)
    trials = studied(healthy, HEALTHY, seed=1, fails=lambda params: rng.random() < 0.1)
    assert any(trial.state is TrialState.FAILED for trial in trials)
    assert warnings(trials, HEALTHY) == ()


def test_constant_metric() -> None:
    assert only(studied(lambda params: 0.5, HEALTHY), HEALTHY).startswith(
        "the metric was 0.5 in all 60 complete trials"
    )


def test_first_trial_still_best() -> None:
    trials = studied(lambda params: healthy(params) + 1, HEALTHY, seed=1)
    first = FrozenTrial(number=0, params=trials[0].params, seed=0, state=TrialState.COMPLETE, value=0.0)
    assert only([first, *trials[1:]], HEALTHY).startswith("the first trial is still the best of 60: ")


def test_initial_point_still_best() -> None:
    point: Params = {"rate": 10**-2.5, "depth": 6, "kind": "a"}
    first = FrozenTrial(number=0, params=point, seed=0, state=TrialState.COMPLETE, value=healthy(point))
    trials = [first, *studied(healthy, HEALTHY, seed=1)[1:]]
    warning = only(trials, HEALTHY, initial_points=[point])
    assert warning.startswith("the hand-picked point of trial 0 is still the best of 60 trials: ")


def test_few_trials() -> None:
    trials = studied(healthy, HEALTHY, n_trials=5)
    assert only(trials, HEALTHY).startswith("5 trials are few for 3 parameters: give at least 6 ")


def test_trials_to_come_are_no_few_trials() -> None:
    trials = studied(healthy, HEALTHY, n_trials=3)
    assert warnings(trials, HEALTHY, planned=60) == ()
    failed = studied(healthy, HEALTHY, n_trials=3, fails=lambda params: True)
    assert warnings(failed, HEALTHY) == ()


def test_a_grid_is_only_checked_for_what_it_can_help() -> None:
    space = SearchSpace({"x": Int(0, 9), "y": Int(0, 1)})
    trials = studied(lambda params: params["x"], space, algorithm="grid", n_trials=20)
    assert warnings(trials, space, finite=True) == ()
