"""The names that keys of a study had in the first release, which stay accepted wherever a study is described."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from mltune.errors import RequestError

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Former:
    """A former key.

    Attributes:
        name: The key of today.
        values: The value of today for each former value, or None if values are the same.
    """

    name: str
    values: Mapping[Any, Any] | None = None

    def knows(self, value: object) -> bool:
        """Return whether the former key accepted a value, as far as this is known here."""
        return self.values is None or value in list(self.values)

    def convert(self, value: Any) -> Any:
        """Return the value of today."""
        return value if self.values is None else self.values[value]


FORMER: Mapping[str, Former] = {
    "grace": Former("grace_period"),
    "initial": Former("initial_points"),
    "isolation": Former("executor", {None: None, "none": "inline", "process": None}),
    "models": Former("keep_models"),
    "register": Former("registered_model_name"),
}


def with_current_names(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study's keys and values under the names of today; None counts as not given.

    A former key is left as it is if it cannot be converted: its value is unknown, or the key of today is given, too.
    :func:`former_fault` says so.
    """
    current = dict(keys)
    for key, former in FORMER.items():
        if key not in current or not former.knows(current[key]):
            continue
        if current.get(former.name) is None:
            current[former.name] = former.convert(current.pop(key))
        elif current[key] is None:
            del current[key]
    return current


def former_fault(key: str, value: object) -> str | None:
    """Return what is wrong with a key that :func:`with_current_names` has left, or None if it is no former key."""
    if key not in FORMER:
        return None
    former = FORMER[key]
    if not former.knows(value):
        known = " or ".join(repr(each) for each in former.values or () if each is not None)
        return f"`{key}` must be {known}, but got {value!r}"
    return f"`{key}` is the former name of `{former.name}`, and both are given: drop `{key}`"


def accepts_former_names(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function so that its keyword arguments, keys of a study, may have their former names.

    Calls raise RequestError if an argument is given under both names, or a former name has an unknown value.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        current = with_current_names(kwargs)
        faults = [fault for key, value in current.items() if (fault := former_fault(key, value)) is not None]
        if faults:
            raise RequestError(faults)
        return function(*args, **current)

    return call
