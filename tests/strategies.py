"""Hypothesis strategies for parameters and spaces."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import settings
from hypothesis import strategies as st

from mltune.space import Categorical, Float, Int, Parameter, SearchSpace, Value

settings.register_profile("mltune", deadline=None, database=None, max_examples=100)
settings.load_profile("mltune")

_reals = st.floats(-1e12, 1e12, allow_nan=False, allow_subnormal=False)
_whole = st.integers(-(2**52), 2**52)
_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([-1.0, 0.0, 1.0, 2.5]),
    st.sampled_from(["", "1", "a"]),
)


@st.composite
def free_floats(draw: st.DrawFn) -> Float:
    low, high = sorted((draw(_reals), draw(_reals)))
    return Float(low, high)


@st.composite
def log_floats(draw: st.DrawFn) -> Float:
    low, high = sorted(draw(st.floats(1e-300, 1e300)) for _ in range(2))
    return Float(low, high, log=True)


@st.composite
def stepped_floats(draw: st.DrawFn) -> Float:
    """Ranges as people write them, in decimals; most of their steps are not exact in binary."""
    unit = Decimal(10) ** draw(st.integers(-6, 3))
    low, step = draw(st.integers(-1000, 1000)) * unit, draw(st.integers(1, 300)) * unit
    return Float(float(low), float(low + draw(st.integers(0, 200)) * step), step=float(step))


@st.composite
def ints(draw: st.DrawFn) -> Int:
    low, high = sorted((draw(_whole), draw(_whole)))
    step = draw(st.one_of(st.none(), st.integers(1, 1000)))
    return Int(low, high - (high - low) % (step or 1), step=step)


@st.composite
def log_ints(draw: st.DrawFn) -> Int:
    low, high = sorted(draw(st.integers(1, 2**53)) for _ in range(2))
    return Int(low, high, log=True)


categoricals = st.lists(_scalars, min_size=1, max_size=6, unique_by=repr).map(Categorical)
parameters: st.SearchStrategy[Parameter] = st.one_of(
    free_floats(), log_floats(), stepped_floats(), ints(), log_ints(), categoricals
)
fractions = st.floats(0, 1)


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """One to six parameters, some of them under a condition on earlier ones."""
    built: dict[str, Parameter] = {}
    for i in range(draw(st.integers(1, 6))):
        given = draw(parameters)
        parents = draw(st.lists(st.sampled_from(sorted(built)), unique=True, max_size=2)) if built else []
        when = {parent: _values(draw, built[parent]) for parent in parents}
        built[f"p{i}"] = _with_when(given, when) if when else given
    return SearchSpace(built)


def _values(draw: st.DrawFn, parameter: Parameter) -> list[Value]:
    return [parameter.from_unit(u) for u in draw(st.lists(fractions, min_size=1, max_size=3))]


def _with_when(parameter: Parameter, when: dict[str, list[Value]]) -> Parameter:
    if isinstance(parameter, Categorical):
        return Categorical(parameter.choices, when=when)
    if isinstance(parameter, Int):
        return Int(parameter.low, parameter.high, log=parameter.log, step=parameter.step, when=when)
    assert isinstance(parameter, Float)
    return Float(parameter.low, parameter.high, log=parameter.log, step=parameter.step, when=when)
