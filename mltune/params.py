"""The names and values of parameters: what a point of a search space is made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from posixpath import normpath

Value = bool | int | float | str | None
Params = Mapping[str, Value]

_NAME = re.compile(r"[\w][\w.\-:/ ]*")
_MAX_NAME = 250  # MLflow's limit for a param key

NAME_RULE = (
    f"at most {_MAX_NAME} letters, digits and _ - . : / or space, and a plain path where it has a / (MLflow's rule)"
)


def is_name(name: object) -> bool:
    """Return whether MLflow accepts ``name`` as the name of a param or metric."""
    return isinstance(name, str) and bool(_NAME.fullmatch(name)) and len(name) <= _MAX_NAME and normpath(name) == name


def identical(a: Value, b: Value) -> bool:
    """Return whether two values are equal and of the same type: ``1``, ``1.0``, ``True`` and ``"1"`` all differ."""
    return type(a) is type(b) and a == b
