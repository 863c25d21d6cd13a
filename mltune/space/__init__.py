"""The search space and its parameters. Every range includes both ends, with every engine."""

from __future__ import annotations

from mltune.space.parameters import Categorical, Float, Int, Parameter, Params, Value, identical
from mltune.space.space import NAME_RULE, SearchSpace, is_name

__all__ = [
    "NAME_RULE",
    "Categorical",
    "Float",
    "Int",
    "Parameter",
    "Params",
    "SearchSpace",
    "Value",
    "identical",
    "is_name",
    "same",
]

same = identical
"""The name of :func:`identical` in the first release."""
