"""The search space and its parameters. Every range includes both ends, with every engine."""

from __future__ import annotations

from mltune.params import NAME_RULE, Params, Value, identical, is_name
from mltune.space.categorical import Categorical
from mltune.space.parameter import Parameter
from mltune.space.ranges import Float, Int
from mltune.space.space import SearchSpace

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
