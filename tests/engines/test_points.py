"""Points that mltune enumerates itself: grid, random, qmc and manual."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltune.engines import count_points
from mltune.engines._points import enumerate_points
from mltune.errors import SpaceError
from mltune.goal import Goal
from mltune.search import SearchProblem, Spec
from mltune.space import Categorical, Float, Int, Params, SearchSpace
from mltune.trial import Direction
from tests.strategies import spaces


def search(
    algorithm: str, space: SearchSpace | dict[str, Any], *, seed: int = 0, initial_points: tuple[Params, ...] = ()
) -> SearchProblem:
    return SearchProblem(
        space=space if isinstance(space, SearchSpace) else SearchSpace(space),
        goal=Goal("value", Direction.MINIMIZE),
        seed=seed,
        algorithm=Spec(algorithm),
        initial_points=initial_points,
    )


@given(spaces(), st.integers(0, 2**63 - 1), st.sampled_from(["qmc", "random"]))
def test_points_are_inside_and_the_same_for_the_same_index(space: SearchSpace, seed: int, algorithm: str) -> None:
    points, again = (enumerate_points(search(algorithm, space, seed=seed)) for _ in range(2))
    assert points is not None
    assert again is not None
    ahead = {index: again[index] for index in (9, 3, 0)}
    for index in (0, 3, 9):
        assert space.faults(points[index]) == []
        assert repr(points[index]) == repr(ahead[index])


@pytest.mark.parametrize("algorithm", ["qmc", "random"])
def test_neighbouring_seeds_are_unrelated(algorithm: str) -> None:
    first, second = (enumerate_points(search(algorithm, {"x": Float(0, 1)}, seed=seed)) for seed in (0, 1))
    assert first is not None
    assert second is not None
    assert not {first[i]["x"] for i in range(50)} & {second[i]["x"] for i in range(50)}


@pytest.mark.parametrize("seed", range(3))
def test_qmc_fills_every_sixteenth_of_each_parameter_once(seed: int) -> None:
    """A Sobol' sequence of 16 points puts one into each sixteenth, where random ones leave a third empty."""
    points = enumerate_points(search("qmc", {"x": Float(0, 16), "y": Float(0, 16)}, seed=seed))
    assert points is not None
    for name in ("x", "y"):
        assert sorted(int(float(str(points[i][name]))) for i in range(16)) == list(range(16))


def test_qmc_goes_on_beyond_a_block() -> None:
    points = enumerate_points(search("qmc", {"x": Float(0, 1)}))
    assert points is not None
    assert len({points[i]["x"] for i in range(600)}) == 600


def test_the_grid_leaves_out_the_hand_picked_points_by_type() -> None:
    space = {"c": Categorical([1, True, "1"]), "n": Int(1, 2)}
    given = search("grid", space, initial_points=({"c": True, "n": 1},))
    points = enumerate_points(given)
    assert points is not None
    assert [tuple(points[i].values()) for i in range(5)] == [(1, 1), (1, 2), (True, 2), ("1", 1), ("1", 2)]
    assert count_points(given) == 6


def test_manual_is_nothing_but_hand_picked_points() -> None:
    initial_points: tuple[Params, ...] = ({"n": 1}, {"n": 2})
    assert count_points(search("manual", {"n": Int(1, 9)}, initial_points=initial_points)) == 2


@pytest.mark.parametrize("algorithm", ["qmc", "random", "tpe"])
def test_other_algorithms_have_no_end(algorithm: str) -> None:
    assert count_points(search(algorithm, {"n": Int(1, 9)})) is None


def test_the_engines_own_algorithms_are_not_enumerated() -> None:
    assert enumerate_points(search("tpe", {"n": Int(1, 9)})) is None


def test_a_grid_over_a_range_is_refused() -> None:
    with pytest.raises(SpaceError, match="'x' is a float"):
        enumerate_points(search("grid", {"x": Float(0, 1)}))
