"""Spaces, objectives and learning curves for the laws."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from mltune.search import Observation
from mltune.space import Categorical, Float, Int, Params, SearchSpace
from mltune.testing._driver import Outcome

STEPS = 30  # reports per learning curve

Objective = Callable[[Params], Outcome]

INITIAL: tuple[Params, ...] = ({"x": 0.25, "y": 0.5, "n": 3}, {"x": 1.0, "y": 0.001, "n": 8})
RICH_POINT: Params = {"x": 0.5, "lr": 0.01, "dropout": 0.2, "width": 64, "layers": 5, "optimizer": "adam"}


def plain_space() -> SearchSpace:
    return SearchSpace({"x": Float(0, 1), "y": Float(1e-3, 1, log=True), "n": Int(1, 8)})


def grid_space() -> SearchSpace:
    return SearchSpace(
        {
            "kind": Categorical(["a", "b"]),
            "n": Int(1, 3),
            "step": Float(0.1, 0.3, step=0.1),
            "child": Categorical([1, True], when={"kind": ["a"], "n": [2, 3]}),
        }
    )


def rich_space() -> SearchSpace:
    """Return a space with all types of parameters and with conditions two levels deep."""
    return SearchSpace(
        {
            "x": Float(-1.0, 1.0),
            "lr": Float(1e-5, 1e-1, log=True),
            "dropout": Float(0.1, 0.3, step=0.1),
            "width": Int(1, 1024, log=True),
            "layers": Int(2, 8, step=3),
            "optimizer": Categorical(["adam", "sgd"]),
            "schedule": Categorical(["none", "step"], when={"optimizer": ["sgd"]}),
            "gamma": Float(0.1, 0.9, when={"schedule": ["step"]}),
        }
    )


def observations() -> list[Observation]:
    """Return thirty random points of :func:`plain_space` with the values of :func:`bowl`."""
    rng = random.Random(1)
    points = [plain_space().sample(rng) for _ in range(30)]
    return [Observation(point, number(bowl(point).value)) for point in points]


def number(value: object) -> float:
    assert isinstance(value, float)
    return value


def distance(value: object) -> float:
    return (number(value) - 0.8) ** 2


def by_x(params: Params) -> Outcome:
    return Outcome(distance(params["x"]))


def bowl(params: Params) -> Outcome:
    return Outcome(
        distance(params["x"]) + (math.log10(number(params["y"])) + 1.5) ** 2 + 0.01 * float(str(params["n"]))
    )


def negate(outcome: Outcome) -> Outcome:
    value = None if outcome.value is None else -outcome.value
    return replace(outcome, value=value, reports=tuple(-report for report in outcome.reports))


def negated(objective: Objective) -> Objective:
    return lambda params: negate(objective(params))


def sometimes_bad(objective: Objective) -> Objective:
    """Return an objective that fails at some points and is pruned at others, each time after a report."""

    def bad(params: Params) -> Outcome:
        x = number(params["x"])
        if x < -0.6:
            return Outcome(None, (1.0,))
        return replace(objective(params), reports=(x,), pruned=x < -0.2)

    return bad


def one_by_one(outcomes: Sequence[Outcome]) -> Objective:
    remaining: Iterator[Outcome] = iter(outcomes)
    return lambda params: next(remaining)


def curve(level: float) -> Outcome:
    """Return a loss curve that falls towards ``level``."""
    return Outcome(level, tuple(level + 1 / step for step in range(1, STEPS + 1)))


def good_then_bad() -> list[Outcome]:
    return [curve(0.01 * (i % 4)) for i in range(12)] + [curve(10.0)] * 9


def random_curves() -> list[Outcome]:
    """Return thirty curves with random levels; every seventh trial fails at its end."""
    rng = random.Random(1)
    curves = [curve(rng.random()) for _ in range(30)]
    return [replace(curve, value=None) if i % 7 == 6 else curve for i, curve in enumerate(curves)]
