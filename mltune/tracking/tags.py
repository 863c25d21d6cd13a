"""The vocabulary of the record: ``mltune.*`` tags, and the meaning of MLflow's run statuses."""

from __future__ import annotations

from collections.abc import Mapping

from mlflow.entities import Run, RunTag

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
