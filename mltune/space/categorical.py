"""The parameter type whose values are listed: Categorical."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mltune.errors import SpaceError
from mltune.params import Value, identical
from mltune.space.parameter import Parameter, When, assign, freeze_when, plain


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
        assign(self, choices=tuple(plain(c) for c in listed or ()), when=when)
        faults = [] if listed is not None else [f"`choices` must be a list, but got {choices!r}"]
        faults += self._check_choices() if listed is not None else []
        faults += freeze_when(self)
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


def _is_scalar(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or type(value) in (bool, int, str)
