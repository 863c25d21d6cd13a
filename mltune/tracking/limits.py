"""Whether what a study will write fits into the record."""

from __future__ import annotations

import json

from mltune.errors import SpaceError
from mltune.space import Categorical, Parameter, SearchSpace
from mltune.tracking.tags import LIMIT


def check_fits(space: SearchSpace) -> None:
    """Check that every point of a space fits into the tag with a trial's params.

    Raises:
        SpaceError: The longest point does not fit.
    """
    longest = sum(len(json.dumps(name)) + _longest(parameter) + 4 for name, parameter in space.items())
    if longest > LIMIT:
        raise SpaceError(
            f"a point of the space must fit into {LIMIT:,} characters of JSON (MLflow's limit for a tag), "
            f"but the longest has {longest:,}: shorten the names or choices"
        )


def _longest(parameter: Parameter) -> int:
    values = parameter.choices if isinstance(parameter, Categorical) else (-1.7976931348623157e308,)
    return max(len(json.dumps(value)) for value in values)
