"""The parameter types whose values lie in a range that includes both ends: Float and Int."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, ClassVar

from mltune.errors import SpaceError
from mltune.params import Value
from mltune.space.parameter import Parameter, When, assign, freeze_when, plain

_EXACT = 2**53  # floats represent every integer up to this one


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
        faults += freeze_when(self)
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
        assign(self, low=low, high=high, log=log, step=step, when=when)
        self._check()

    def contains(self, value: object) -> bool:
        if type(value) is not float or not self.low <= value <= self.high:
            return False
        return self.step is None or self.snap(value) == value

    def coerce(self, value: Any) -> Any:
        value = plain(value)
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
        assign(self, low=low, high=high, log=log, step=step, when=when)
        self._check()

    def contains(self, value: object) -> bool:
        return type(value) is int and self.low <= value <= self.high and (value - self.low) % (self.step or 1) == 0

    def coerce(self, value: Any) -> Any:
        value = plain(value)
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
