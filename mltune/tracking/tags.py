"""The words of the record: ``mltune.*`` tags, and what MLflow's statuses mean."""

from __future__ import annotations

import json
from collections.abc import Mapping

from mlflow.entities import Run, RunTag

from mltune.errors import SpaceError
from mltune.space import Categorical, Parameter, SearchSpace

STATUS: Mapping[str, str] = {
    "RUNNING": "RUNNING",
    "COMPLETE": "FINISHED",
    "PRUNED": "KILLED",
    "FAILED": "FAILED",
    "INTERRUPTED": "KILLED",
}
"""State (``mltune.state``) to MLflow's run status, for studies and trials alike; as in ``mlflow.optuna``."""

LIMIT = 8000  # characters of a tag

ALL_STEPS = "all"  # in place of a list of steps that is too long for a tag

_PREFIX = "mltune."


def prefixed(tags: Mapping[str, str]) -> dict[str, str]:
    """Our tags under the names that they have in MLflow."""
    return {f"{_PREFIX}{name}": str(value) for name, value in tags.items()}


def to_tags(tags: Mapping[str, str]) -> list[RunTag]:
    """Our tags as MLflow takes them."""
    return [RunTag(name, value) for name, value in prefixed(tags).items()]


def own_tags(run: Run) -> dict[str, str]:
    """Our tags on a run, without their prefix."""
    return {key.removeprefix(_PREFIX): value for key, value in run.data.tags.items() if key.startswith(_PREFIX)}


def check_fits(space: SearchSpace) -> None:
    """Make sure that the tag with a trial's params holds any point of a space.

    Raises:
        SpaceError: The longest point is too long.
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
