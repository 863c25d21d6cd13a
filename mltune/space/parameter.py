"""The common interface of the parameter types, and the conditions under which a parameter is active."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, ClassVar

from mltune.params import Value

When = Mapping[str, Sequence[Value]]


class Parameter:
    """The common interface of the three parameter types."""

    kind: ClassVar[str]
    when: When | None

    def contains(self, value: object) -> bool:
        """Return whether the value is valid without conversion; its type counts."""
        raise NotImplementedError

    def coerce(self, value: Any) -> Any:
        """Convert a value to the parameter's type if that loses nothing; otherwise return it as it is."""
        return plain(value)

    def from_unit(self, u: float) -> Value:
        """Return the value at the fraction ``u`` of the range; uniform ``u`` give uniform (or log-uniform) values.

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


def assign(parameter: Parameter, **values: Any) -> None:
    """Set attributes of a frozen parameter, for its ``__init__``."""
    for name, value in values.items():
        object.__setattr__(parameter, name, value)


def plain(value: Any) -> Any:
    """Convert a NumPy scalar to a Python value; return anything else as it is."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


def freeze_when(parameter: Parameter) -> list[str]:
    """Convert the lists in ``when`` to tuples of plain values; return the faults."""
    when = parameter.when
    if when is None:
        return []
    if not isinstance(when, Mapping) or not when:
        return [f"`when` must map a parent to a list of its values, but got {when!r}"]
    invalid = [parent for parent, allowed in when.items() if not isinstance(allowed, (list, tuple)) or not allowed]
    if invalid:
        return [f"`when.{invalid[0]}` must be a list of values, but got {when[invalid[0]]!r}"]
    assign(parameter, when={str(parent): tuple(plain(v) for v in allowed) for parent, allowed in when.items()})
    return []
