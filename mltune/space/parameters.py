"""The three parameter types: Float, Int and Categorical. Every range includes both ends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, ClassVar

from mltune.errors import SpaceError

Value = bool | int | float | str | None
Params = Mapping[str, Value]
When = Mapping[str, Sequence[Value]]


_EXACT = 2**53  # floats represent every integer up to this one


def identical(a: Value, b: Value) -> bool:
    """Return whether two values are equal and of the same type: ``1``, ``1.0``, ``True`` and ``"1"`` all differ."""
    return type(a) is type(b) and a == b


class Parameter:
    """The common interface of the three parameter types."""

    kind: ClassVar[str]
    when: When | None

    def contains(self, value: object) -> bool:
        """Return whether the value is valid without conversion; its type counts."""
        raise NotImplementedError

    def coerce(self, value: Any) -> Any:
        """Convert a value to the parameter's type if that loses nothing; otherwise return it as it is."""
        return _plain(value)

    def from_unit(self, u: float) -> Value:
        """Return the value at the fraction ``u`` of the range; it is uniform (or log-uniform) if ``u`` is uniform.

        Args:
            u: From 0 to 1, both included.
        """
        raise NotImplementedError

    def to_unit(self, value: Any) -> float:
        """Return where in the range a valid value is, from 0 to 1: ``from_unit`` returns that value, up to rounding."""
        raise NotImplementedError

    def format(self) -> str:
        """Return a description of the valid values, to be used in a sentence."""
        raise NotImplementedError

    @property
    def n_values(self) -> int | None:
        """The number of values, or None if they cannot be listed."""
        raise NotImplementedError

    def grid(self) -> list[Value] | None:
        """Return every value in order, or None if they cannot be listed."""
        raise NotImplementedError

    def at(self, u: float) -> Value:
        """Return :meth:`from_unit`; its name in the first release, which plugins use."""
        return self.from_unit(u)

    @property
    def count(self) -> int | None:
        """:attr:`n_values`; its name in the first release, which plugins use."""
        return self.n_values

    def to_dict(self) -> dict[str, Any]:
        """Return plain data as in a study file, without the arguments that have their default."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        data = {name: value for name, value in values.items() if value is not None and value is not False}
        if self.when:
            data["when"] = {parent: list(allowed) for parent, allowed in self.when.items()}
        if "choices" in data:
            data["choices"] = list(data["choices"])
        return {"type": self.kind, **data}


class _Range(Parameter):
    """A numeric range, whose subclasses ``Float`` and ``Int`` define the type of its numbers."""

    low: Any
    high: Any
    log: bool
    step: Any

    def to_unit(self, value: Any) -> float:
        if value in (self.low, self.high):
            return 0.0 if value == self.low else 1.0
        low, high = self._unit_ends()
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return float((value - low) / (high - low))

    def format(self) -> str:
        step = f" in steps of {self.step}" if self.step is not None else ""
        return f"{'a float' if self.kind == 'float' else 'an int'} from {self.low} to {self.high}{step}"

    def _unit_ends(self) -> tuple[float, float]:
        """Return the numbers that 0 and 1 stand for."""
        return self.low, self.high

    def _check(self) -> None:
        faults = self._check_numbers() or self._check_range()
        if not isinstance(self.log, bool):
            faults.append(f"`log` must be true or false, but got {self.log!r}")
        faults += _freeze_when(self)
        if faults:
            raise SpaceError(faults)

    def _check_numbers(self) -> list[str]:
        faults = []
        for name in ("low", "high", "step"):
            value = getattr(self, name)
            if name == "step" and value is None:
                continue
            number = self._number(value)
            if number is None:
                faults.append(f"`{name}` must be {self._is_a}, but got {value!r}")
            else:
                object.__setattr__(self, name, number)
        return faults

    def _check_range(self) -> list[str]:
        given = f"(low={self.low!r}, high={self.high!r})"
        faults = []
        if self.low > self.high:
            faults.append(f"`low <= high` must hold, but got {given}")
        if self.log and self.low <= 0:
            faults.append(f"`low > 0` must hold where `log` is true, but got low={self.low!r}")
        if not math.isfinite(self.high - self.low):
            faults.append(f"`high - low` must be a finite number, but got {given}")
        if self.step is None:
            return faults
        if self.log:
            faults.append(f"`log` excludes `step`, but got step={self.step!r}: remove one of them")
        if self.step <= 0:
            faults.append(f"`step > 0` must hold, but got step={self.step!r}")
        elif not self.high - self.low <= _EXACT * self.step:
            faults.append(f"`step` must leave at most 2**53 values, but got {given[:-1]}, step={self.step!r})")
        elif self.low <= self.high and not self._divides():
            faults.append(
                f"`high - low` must be a multiple of `step`, but got {given[:-1]}, step={self.step!r}): "
                f"use high={self._on_grid(math.floor((self.high - self.low) / self.step))!r}"
            )
        return faults

    _is_a: ClassVar[str]

    def _number(self, value: Any) -> Any:
        raise NotImplementedError

    def _divides(self) -> bool:
        raise NotImplementedError

    def _on_grid(self, index: int) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class Float(_Range):
    """A real number in ``[low, high]``.

    Args:
        low: Smallest value, included.
        high: Largest value, included.
        log: Draw uniformly in the logarithm; requires ``low > 0`` and excludes ``step``.
        step: Allow only the values ``low + k * step``; must divide ``high - low``.
        when: ``{parent: [values]}``: the parameter is active only if every parent has one of its listed values.

    Raises:
        SpaceError: An argument is invalid; the error lists all faults.

    >>> Float(0.1, 0.3, step=0.1).grid()
    [0.1, 0.2, 0.3]
    """

    kind: ClassVar[str] = "float"
    _is_a: ClassVar[str] = "a finite number"

    low: float
    high: float
    log: bool = False
    step: float | None = None
    when: When | None = None

    def __init__(
        self, low: float, high: float, *, log: bool = False, step: float | None = None, when: When | None = None
    ) -> None:
        _assign(self, low=low, high=high, log=log, step=step, when=when)
        self._check()

    def contains(self, value: object) -> bool:
        if type(value) is not float or not self.low <= value <= self.high:
            return False
        return self.step is None or self.snap(value) == value

    def coerce(self, value: Any) -> Any:
        value = _plain(value)
        if type(value) is int and abs(value) <= _EXACT:
            value = float(value)
        if type(value) is not float or not math.isfinite(value):
            return value
        near = self.snap(value)
        return near if math.isclose(near, value, rel_tol=1e-9, abs_tol=1e-9 * (self.step or 0.0)) else value

    def snap(self, value: float) -> float:
        """Return the valid value that is nearest to ``value``."""
        value = float(min(max(value, self.low), self.high))
        return value if self.step is None else self._on_grid(round((value - self.low) / self.step))

    def from_unit(self, u: float) -> Value:
        if self.n_values is not None:
            return self._on_grid(min(int(u * self.n_values), self.n_values - 1))
        if self.log and 0 < u < 1:
            return self.snap(math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low))))
        return self.snap(self.low * (1 - u) + self.high * u)

    @property
    def n_values(self) -> int | None:
        if self.low == self.high:
            return 1
        return None if self.step is None else round((self.high - self.low) / self.step) + 1

    def grid(self) -> list[Value] | None:
        return None if self.n_values is None else [self._on_grid(i) for i in range(self.n_values)]

    def _number(self, value: Any) -> float | None:
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            return None
        return float(value)

    def _divides(self) -> bool:
        assert self.step is not None
        width = self.high - self.low
        return abs(round(width / self.step) * self.step - width) <= 1e-9 * max(abs(self.low), abs(self.high))

    def _on_grid(self, index: int) -> float:
        """Return ``low + index * step`` in decimal arithmetic: 0.1 + 2 * 0.1 is 0.3; the last value equals ``high``."""
        if self.step is None:
            return self.low
        value = float(Decimal(repr(self.low)) + index * Decimal(repr(self.step)))
        return self.high if abs(self.high - value) < self.step / 2 and self._divides() else value


@dataclass(frozen=True)
class Int(_Range):
    """An integer in ``[low, high]``; the arguments are those of :class:`Float`.

    >>> Int(1, 3).grid()
    [1, 2, 3]
    """

    kind: ClassVar[str] = "int"
    _is_a: ClassVar[str] = "a whole number within ±2**53"

    low: int
    high: int
    log: bool = False
    step: int | None = None
    when: When | None = None

    def __init__(
        self, low: int, high: int, *, log: bool = False, step: int | None = None, when: When | None = None
    ) -> None:
        _assign(self, low=low, high=high, log=log, step=step, when=when)
        self._check()

    def contains(self, value: object) -> bool:
        return type(value) is int and self.low <= value <= self.high and (value - self.low) % (self.step or 1) == 0

    def coerce(self, value: Any) -> Any:
        value = _plain(value)
        return int(value) if isinstance(value, float) and value.is_integer() else value

    def from_unit(self, u: float) -> Value:
        if self.log and 0 < u < 1:
            low, high = map(math.log, self._unit_ends())
            return min(max(round(math.exp(low + u * (high - low))), self.low), self.high)
        return self._on_grid(min(int(u * self.n_values), self.n_values - 1))

    @property
    def n_values(self) -> int:
        return (self.high - self.low) // (self.step or 1) + 1

    def grid(self) -> list[Value] | None:
        return list(range(self.low, self.high + 1, self.step or 1))

    def _unit_ends(self) -> tuple[float, float]:
        return (self.low - 0.5, self.high + 0.5) if self.log else (self.low, self.high)

    def _number(self, value: Any) -> int | None:
        whole = isinstance(value, Integral) or (isinstance(value, Real) and float(value).is_integer())
        return int(value) if whole and not isinstance(value, bool) and abs(value) <= _EXACT else None

    def _divides(self) -> bool:
        assert self.step is not None
        return (self.high - self.low) % self.step == 0

    def _on_grid(self, index: int) -> int:
        return self.low + index * (self.step or 1)


@dataclass(frozen=True)
class Categorical(Parameter):
    """One of several scalars, distinguished by type: ``1``, ``1.0``, ``"1"``, ``True`` and ``None`` all differ.

    Args:
        choices: Booleans, numbers, strings or None; at least one, without duplicates.
        when: As for :class:`Float`.

    Raises:
        SpaceError: An argument is invalid; the error lists all faults.
    """

    kind: ClassVar[str] = "categorical"

    choices: tuple[Value, ...]
    when: When | None = None

    def __init__(self, choices: Sequence[Value], *, when: When | None = None) -> None:
        listed = choices if isinstance(choices, (list, tuple)) else None
        _assign(self, choices=tuple(_plain(c) for c in listed or ()), when=when)
        faults = [] if listed is not None else [f"`choices` must be a list, but got {choices!r}"]
        faults += self._check_choices() if listed is not None else []
        faults += _freeze_when(self)
        if faults:
            raise SpaceError(faults)

    def _check_choices(self) -> list[str]:
        if not self.choices:
            return ["`choices` must hold at least one value, but it is empty"]
        invalid = [c for c in self.choices if not _is_scalar(c)]
        if invalid:
            return [f"each of `choices` must be a boolean, finite number, string or null, but got {invalid[0]!r}"]
        duplicates = [c for i, c in enumerate(self.choices) if any(identical(c, d) for d in self.choices[:i])]
        return [f"`choices` must differ, but {duplicates[0]!r} is there twice"] if duplicates else []

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Categorical):
            return NotImplemented
        return self.to_dict() == other.to_dict() and [*map(type, self.choices)] == [*map(type, other.choices)]

    def __hash__(self) -> int:
        return hash(self.choices)

    def contains(self, value: object) -> bool:
        return any(type(value) is type(c) and value == c for c in self.choices)

    def index(self, value: Value) -> int:
        """Return the index of a choice.

        Raises:
            ValueError: The value is not one of the choices.
        """
        for i, choice in enumerate(self.choices):
            if identical(value, choice):
                return i
        raise ValueError(f"{value!r} is none of {list(self.choices)}")

    @property
    def n_values(self) -> int:
        return len(self.choices)

    def from_unit(self, u: float) -> Value:
        return self.choices[min(int(u * len(self.choices)), len(self.choices) - 1)]

    def to_unit(self, value: Any) -> float:
        return self.index(value) / max(1, len(self.choices) - 1)

    def format(self) -> str:
        return f"one of {list(self.choices)}"

    def grid(self) -> list[Value] | None:
        return list(self.choices)


KINDS: Mapping[str, type[Float] | type[Int] | type[Categorical]] = {
    "categorical": Categorical,
    "float": Float,
    "int": Int,
}


def _assign(parameter: Parameter, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(parameter, name, value)


def _plain(value: Any) -> Any:
    """Convert a NumPy scalar to a Python value; return anything else as it is."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


def _is_scalar(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or type(value) in (bool, int, str)


def _freeze_when(parameter: Parameter) -> list[str]:
    """Convert the lists in ``when`` to tuples of plain values; return the faults."""
    when = parameter.when
    if when is None:
        return []
    if not isinstance(when, Mapping) or not when:
        return [f"`when` must map a parent to a list of its values, but got {when!r}"]
    invalid = [parent for parent, allowed in when.items() if not isinstance(allowed, (list, tuple)) or not allowed]
    if invalid:
        return [f"`when.{invalid[0]}` must be a list of values, but got {when[invalid[0]]!r}"]
    _assign(parameter, when={str(parent): tuple(_plain(v) for v in allowed) for parent, allowed in when.items()})
    return []
