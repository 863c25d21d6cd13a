"""The vocabulary of the record: ``mltune.*`` tags, and the meaning of MLflow's run statuses."""

from __future__ import annotations

import json
from collections.abc import Mapping

from mlflow.entities import Run, RunTag

from mltune.errors import SpaceError
from mltune.goal import Goal
from mltune.space import Categorical, Parameter, SearchSpace
from mltune.trial import Direction

STATUS: Mapping[str, str] = {
    "RUNNING": "RUNNING",
    "COMPLETE": "FINISHED",
    "PRUNED": "KILLED",
    "FAILED": "FAILED",
    "INTERRUPTED": "KILLED",
}
"""State (``mltune.state``) to MLflow's run status, for studies and trials; as in ``mlflow.optuna``."""

LIMIT = 8000  # maximum characters of a tag

ALL_STEPS = "all"  # replaces a list of steps that is too long for a tag

_PREFIX = "mltune."


def prefixed(tags: Mapping[str, str]) -> dict[str, str]:
    """Return mltune's tags with the prefix that they have in MLflow."""
    return {f"{_PREFIX}{name}": str(value) for name, value in tags.items()}


def to_tags(tags: Mapping[str, str]) -> list[RunTag]:
    """Return mltune's tags as MLflow's entities, with the prefix."""
    return [RunTag(name, value) for name, value in prefixed(tags).items()]


def own_tags(run: Run) -> dict[str, str]:
    """Return mltune's tags of a run, without the prefix."""
    return without_prefix(run.data.tags)


def without_prefix(tags: Mapping[str, str]) -> dict[str, str]:
    """Return those of MLflow's tags that are mltune's, without the prefix."""
    return {key.removeprefix(_PREFIX): value for key, value in tags.items() if key.startswith(_PREFIX)}


def goal_tags(goal: Goal) -> dict[str, str]:
    """Return the tags that record a goal, without the prefix."""
    return {"metric": goal.metric, "direction": str(goal.direction)}


def read_goal(tags: Mapping[str, str]) -> Goal:
    """Return the goal that tags without the prefix record."""
    return Goal(tags["metric"], Direction(tags["direction"]))


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
