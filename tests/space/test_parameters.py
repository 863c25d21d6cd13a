"""Float, Int and Categorical: what they contain, draw, list, read and refuse."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mltune.errors import SpaceError
from mltune.space import Categorical, Float, Int, Parameter, identical
from tests.strategies import (
    categoricals,
    fractions,
    free_floats,
    ints,
    log_floats,
    log_ints,
    parameters,
    stepped_floats,
)


@given(parameters, fractions)
def test_every_fraction_gives_a_value_inside(parameter: Parameter, u: float) -> None:
    assert parameter.contains(parameter.from_unit(u))


@given(st.one_of(free_floats(), log_floats(), stepped_floats(), ints(), log_ints()))
def test_the_fractions_0_and_1_give_the_ends(parameter: Float | Int) -> None:
    assert identical(parameter.from_unit(0.0), parameter.low)
    assert identical(parameter.from_unit(1.0), parameter.high)


@given(parameters, fractions)
def test_to_unit_is_the_inverse_of_from_unit(parameter: Parameter, u: float) -> None:
    value = parameter.from_unit(u)
    assume(parameter.n_values is None or parameter.n_values <= 10**6)
    place = parameter.to_unit(value)
    assert 0.0 <= place <= 1.0
    if parameter.n_values is not None:
        assert identical(parameter.from_unit(place), value)
    else:
        assert isinstance(parameter, Float)
        width = 0.0 if parameter.log else parameter.high - parameter.low
        assert parameter.from_unit(place) == pytest.approx(value, rel=1e-6, abs=1e-9 * width)


@given(st.one_of(free_floats(), log_floats(), stepped_floats(), ints(), log_ints()))
def test_the_ends_are_at_0_and_1(parameter: Float | Int) -> None:
    assume(parameter.low < parameter.high)
    assert (parameter.to_unit(parameter.low), parameter.to_unit(parameter.high)) == (0.0, 1.0)


@given(log_floats(), fractions)
def test_log_floats_are_uniform_in_the_logarithm(parameter: Float, u: float) -> None:
    low, high = math.log(parameter.low), math.log(parameter.high)
    assert math.log(float(str(parameter.from_unit(u)))) == pytest.approx(
        low + u * (high - low), abs=1e-9 * (1 + abs(low))
    )


@given(st.one_of(stepped_floats(), categoricals))
def test_the_grid_lists_what_is_contained_in_order_and_once(parameter: Float | Categorical) -> None:
    grid = parameter.grid()
    assert grid is not None
    assert len(grid) == parameter.n_values == len({repr(value) for value in grid})
    assert all(parameter.contains(value) for value in grid)
    if isinstance(parameter, Float):
        assert all(isinstance(value, float) for value in grid)
        assert grid == sorted(float(str(value)) for value in grid)
        assert (grid[0], grid[-1]) == (parameter.low, parameter.high)


@given(stepped_floats(), fractions)
def test_stepped_floats_are_the_decimals_that_people_write(parameter: Float, u: float) -> None:
    assert len(repr(parameter.from_unit(u))) <= 12


@given(parameters, fractions)
def test_what_is_contained_is_read_as_it_is(parameter: Parameter, u: float) -> None:
    value = parameter.from_unit(u)
    assert identical(parameter.coerce(value), value)


@given(parameters, st.one_of(st.floats(), st.integers(), st.text(max_size=3), st.none(), st.booleans()))
def test_reading_never_moves_a_value_by_more_than_rounding(parameter: Parameter, value: Any) -> None:
    read = parameter.coerce(value)
    if isinstance(value, (str, bool)) or value is None or read is value:
        assert read is value
    else:
        assert read == pytest.approx(value, rel=1e-8, abs=1e-8 * (getattr(parameter, "step", None) or 0), nan_ok=True)


@given(st.one_of(free_floats(), log_floats()))
def test_just_outside_is_not_contained(parameter: Float) -> None:
    assert not parameter.contains(math.nextafter(parameter.low, -math.inf))
    assert not parameter.contains(math.nextafter(parameter.high, math.inf))


@given(ints())
def test_ints_hold_whole_numbers_on_their_steps_only(parameter: Int) -> None:
    assert not parameter.contains(parameter.low - 1)
    assert not parameter.contains(parameter.high + 1)
    assert not parameter.contains(float(parameter.low))
    assume((parameter.step or 1) > 1 and parameter.low < parameter.high)
    assert not parameter.contains(parameter.low + 1)


@given(categoricals)
def test_choices_are_found_by_value_and_type(parameter: Categorical) -> None:
    assert [parameter.index(choice) for choice in parameter.choices] == list(range(len(parameter.choices)))
    with pytest.raises(ValueError, match="is none of"):
        parameter.index("not there")


@pytest.mark.parametrize("value", [1, 1.0, True, "1", None], ids=repr)
def test_equal_choices_of_other_types_are_not_contained(value: Any) -> None:
    others = [other for other in (1, 1.0, True, "1", None) if other is not value]
    assert not Categorical(others).contains(value)
    assert Categorical([1, 1.0, True, "1", None]) == Categorical([1, 1.0, True, "1", None])
    assert Categorical([value]) != Categorical(others[:1])


def test_numpy_scalars_become_plain() -> None:
    one, half, text = np.array([1])[0], np.array([0.5], dtype="float32")[0], np.array(["a"])[0]
    assert identical(Int(one, 3).low, 1)
    assert identical(Float(half, 1).low, 0.5)
    assert identical(Categorical([one, text]).choices[1], "a")
    assert identical(Int(1, 3).coerce(np.float64(2.0)), 2)
    assert identical(Float(0, 1).coerce(np.int64(1)), 1.0)


def test_whole_numbers_are_read_as_floats_where_nothing_is_lost() -> None:
    assert identical(Float(0, 2).coerce(1), 1.0)
    assert identical(Float(0, 1.2, step=0.4).coerce(1), 1.0)
    assert not Float(0, 1.2, step=0.4).contains(1.0)
    assert identical(Float(0.1, 0.3, step=0.1).coerce(0.1 + 0.2), 0.3)
    assert identical(Float(0, 1).coerce(10**400), 10**400)


@pytest.mark.parametrize(
    ("build", "fault"),
    [
        (lambda: Float(1, 0), "`low <= high` must hold, but got (low=1.0, high=0.0)"),
        (lambda: Float(0, 1, log=True), "`low > 0` must hold where `log` is true, but got low=0.0"),
        (lambda: Float(1, 2, log=True, step=1), "`log` excludes `step`, but got step=1.0: remove one of them"),
        (lambda: Float(0, 1, step=0.3), "(low=0.0, high=1.0, step=0.3): use high=0.9"),
        (lambda: Float(0, 1, step=0), "`step > 0` must hold, but got step=0.0"),
        (lambda: Float(0, 1e300, step=1e-300), "`step` must leave at most 2**53 values"),
        (lambda: Float(0, sys.float_info.max, step=5e-324), "`step` must leave at most 2**53 values"),
        (lambda: Float(-sys.float_info.max, sys.float_info.max), "`high - low` must be a finite number"),
        (lambda: Float("0", 1), "`low` must be a finite number, but got '0'"),  # type: ignore[arg-type]
        (lambda: Float(0, math.inf), "`high` must be a finite number, but got inf"),
        (lambda: Float(0, math.nan), "`high` must be a finite number, but got nan"),
        (lambda: Float(False, 1), "`low` must be a finite number, but got False"),
        (lambda: Float(0, 1, log="yes"), "`log` must be true or false, but got 'yes'"),  # type: ignore[arg-type]
        (lambda: Int(0, 1.5), "`high` must be a whole number within ±2**53, but got 1.5"),  # type: ignore[arg-type]
        (lambda: Int(0, 2**60), "`high` must be a whole number within ±2**53"),
        (lambda: Int(0, 10, step=3), "(low=0, high=10, step=3): use high=9"),
        (lambda: Int(0, 10, log=True), "`low > 0` must hold"),
        (lambda: Categorical([]), "`choices` must hold at least one value"),
        (lambda: Categorical([1, 1]), "`choices` must differ, but 1 is there twice"),
        (lambda: Categorical("adam"), "`choices` must be a list, but got 'adam'"),
        (lambda: Categorical([[1]]), "must be a boolean, finite number, string or null, but got [1]"),  # type: ignore[list-item]
        (lambda: Categorical([math.nan]), "but got nan"),
        (lambda: Int(0, 1, when={}), "`when` must map a parent to a list of its values"),
        (lambda: Int(0, 1, when={"a": "b"}), "`when.a` must be a list of values, but got 'b'"),
        (lambda: Int(0, 1, when={"a": []}), "`when.a` must be a list of values, but got []"),
    ],
)
def test_faults_say_what_must_hold_and_what_was_given(build: Callable[[], Parameter], fault: str) -> None:
    with pytest.raises(SpaceError, match=re.escape(fault)):
        build()


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(SpaceError) as error:
        Float(-1, -2, log=True, step=-1, when={})
    assert len(error.value.faults) == 5


def test_choices_in_sets_and_beside_other_things() -> None:
    assert len({Categorical([1, 2]), Categorical([1, 2]), Categorical([2, 1])}) == 2
    assert Categorical([1, 2]) != (1, 2)
