"""The search space: its order, its conditions, its grid, and every fault at once."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mltune.errors import SpaceError
from mltune.space import Categorical, Float, Int, SearchSpace
from tests.strategies import spaces


@given(spaces(), st.integers(0, 2**64))
def test_drawn_points_have_no_faults(space: SearchSpace, seed: int) -> None:
    point = space.sample(random.Random(seed))
    assert space.faults(point) == []
    assert repr(space.coerce(point)) == repr(point)
    assert repr(space.sample(random.Random(seed))) == repr(point)


@given(spaces())
def test_plain_data_are_read_back(space: SearchSpace) -> None:
    again = SearchSpace(yaml.safe_load(yaml.safe_dump(space.to_dict(), sort_keys=False)))
    assert repr(again) == repr(space)


@given(spaces(), st.randoms(use_true_random=False))
def test_parents_come_first_whatever_the_order_given(space: SearchSpace, shuffle: random.Random) -> None:
    items = list(space.items())
    shuffle.shuffle(items)
    order = list(SearchSpace(dict(items)))
    assert all(order.index(parent) < order.index(name) for name, each in items for parent in each.when or {})


@given(spaces(), st.integers(0, 2**32), st.data())
def test_a_point_that_was_changed_has_a_fault(space: SearchSpace, seed: int, data: st.DataObject) -> None:
    point: dict[str, Any] = space.sample(random.Random(seed))
    name = data.draw(st.sampled_from(list(point)))
    assert any(f"'{name}'" in fault for fault in space.faults({**point, name: "nowhere"}))
    del point[name]
    assert any(f"'{name}' is missing" in fault for fault in space.faults(point))


def _deep() -> SearchSpace:
    return SearchSpace(
        {
            "momentum": Float(0, 0.9, when={"optimizer": ["sgd"]}),
            "optimizer": Categorical(["adam", "sgd"]),
            "nesterov": Categorical([True, False], when={"momentum_on": [1], "optimizer": ["sgd"]}),
            "momentum_on": Int(0, 1, when={"optimizer": ["sgd"]}),
        }
    )


def test_conditions_several_levels_deep() -> None:
    space = _deep()
    assert space.conditional == ("momentum", "momentum_on", "nesterov")
    assert space.faults({"optimizer": "adam"}) == []
    assert space.faults({"optimizer": "sgd", "momentum": 0.5, "momentum_on": 1, "nesterov": True}) == []
    assert space.faults({"optimizer": "adam", "momentum": 0.5, "nesterov": True}) == [
        "'momentum' is given, but exists only when optimizer is one of ['sgd']",
        "'nesterov' is given, but exists only when momentum_on is one of [1] and optimizer is one of ['sgd']",
    ]


def test_conditions_keep_types_apart() -> None:
    space = SearchSpace({"flag": Categorical([1, True]), "child": Int(0, 1, when={"flag": [True]})})
    assert space.faults({"flag": 1}) == []
    assert space.faults({"flag": True}) == ["'child' is missing; it must be an int from 0 to 1"]


def test_the_grid_lists_conditional_points_once() -> None:
    space = SearchSpace({"a": Categorical(["x", "y"]), "n": Int(1, 3, when={"a": ["x"]}), "b": Categorical([True, 1])})
    assert [tuple(point.values()) for point in space.grid()] == [
        ("x", 1, True),
        ("x", 1, 1),
        ("x", 2, True),
        ("x", 2, 1),
        ("x", 3, True),
        ("x", 3, 1),
        ("y", True),
        ("y", 1),
    ]


def test_the_grid_refuses_what_it_cannot_list() -> None:
    space = SearchSpace({"x": Float(0, 1), "y": Float(1, 2, log=True), "n": Int(0, 3)})
    with pytest.raises(SpaceError) as error:
        space.grid()
    assert len(error.value.faults) == 2
    assert error.value.faults[0] == (
        "`grid` needs a Categorical, Int or Float with `step`, but 'x' is a float from 0.0 to 1.0: "
        "give it a `step` or choose another algorithm"
    )


def test_a_grid_that_is_too_large_is_refused_before_it_is_built() -> None:
    with pytest.raises(SpaceError, match="at most 100,000 points, but with 'n' it has more"):
        SearchSpace({"n": Int(0, 2**53)}).grid()
    assert len(SearchSpace({"a": Int(1, 300), "b": Int(1, 400, when={"a": [1]})}).grid()) == 699


@pytest.mark.parametrize(
    ("space", "faults"),
    [
        ([], ["the space must map names to parameters, but got []"]),
        ({}, ["the space must hold at least one parameter, but it is empty"]),
        ({"x": 3}, ["space.x: must be a mapping such as {type: float, low: 0, high: 1}, but got 3"]),
        ({"x": {"low": 1}}, ["space.x: `type` must be one of categorical, float, int, but it is missing"]),
        (
            {"x": {"type": "flaot", "low": 0, "high": 1}},
            ["space.x: `type` must be one of categorical, float, int, but got 'flaot'; did you mean 'float'?"],
        ),
        (
            {"x": {"type": "int", "low": 0, "hihg": 1}},
            ["space.x: unknown key 'hihg'; did you mean 'high'?", "space.x: `high` is missing"],
        ),
        ({"x": {"type": "categorical"}}, ["space.x: `choices` is missing"]),
        (
            {"x": {"type": "int", "low": 1, "high": 0}, "y": {"type": "float", "low": 0, "high": 1, "log": True}},
            [
                "space.x: `low <= high` must hold, but got (low=1, high=0)",
                "space.y: `low > 0` must hold where `log` is true, but got low=0.0",
            ],
        ),
        (
            {"solver": Categorical(["a"]), "x": Int(0, 1, when={"slover": ["a"]})},
            ["space.x: `when` names 'slover', which is not in the space; did you mean 'solver'?"],
        ),
        (
            {"solver": Categorical(["a"]), "x": Int(0, 1, when={"solver": ["b"]})},
            ["space.x: `when.solver` must hold values of 'solver' (one of ['a']), but got 'b'"],
        ),
        (
            {"a": Int(0, 1, when={"b": [0]}), "b": Int(0, 1, when={"a": [0]})},
            ["`when` must not form a cycle, but got a -> b -> a"],
        ),
    ],
)
def test_every_fault_is_told_at_once(space: Any, faults: list[str]) -> None:
    with pytest.raises(SpaceError) as error:
        SearchSpace(space)
    assert list(error.value.faults) == faults


@pytest.mark.parametrize("name", ["", "a=b", "a" * 251, " x", ".x", "a//b", "a/../b", "a/", 3, None])
def test_names_that_mlflow_would_refuse(name: Any) -> None:
    with pytest.raises(SpaceError, match=re.escape(f"(MLflow's rule), but got {name!r}")):
        SearchSpace({name: Int(0, 1)})


@pytest.mark.parametrize("name", ["lr", "net/width", "a.b-c:d e", "größe", "9"])
def test_names_that_mlflow_accepts(name: str) -> None:
    from mlflow.utils.validation import _validate_param

    assert list(SearchSpace({name: Int(0, 1)})) == [name]
    _validate_param(name, "1")


def test_unknown_names_in_a_point() -> None:
    assert _deep().faults({"optimizer": "adam", "optimiser": "sgd"}) == [
        "'optimiser' is not in the space; did you mean 'optimizer'?"
    ]
