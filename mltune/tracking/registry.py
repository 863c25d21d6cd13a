"""Register the best model, and give it the alias ``champion`` unless a better version has the alias."""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from mltune.goal import Goal
from mltune.tracking.registration import ALIAS, Registration
from mltune.tracking.tags import prefixed, without_prefix
from mltune.trial import FrozenTrial, is_finite


def add_version(
    client: MlflowClient, name: str, trial: FrozenTrial, model_id: str, *, study: str, goal: Goal
) -> ModelVersion:
    """Return a registered model's version for a trial's model; create it if needed, and do not set the alias yet.

    Args:
        client: A client of the store.
        name: The registered model's name; the registered model is created if it does not exist.
        trial: The best trial; its value is stored in the version's tags.
        model_id: The LoggedModel's id.
        study: The parent run's id.
        goal: The metric of the trial's value, and whether smaller or larger values are better.
    """
    _ensure(client, name)
    tags = {
        "study": study,
        "trial": str(trial.run_id),
        "number": str(trial.number),
        "value": repr(trial.value),
        **goal.to_tags(),
    }
    source = f"models:/{model_id}"
    return _version_of(client, name, source, str(trial.run_id)) or client.create_model_version(
        name, source, run_id=trial.run_id, tags=prefixed(tags), model_id=model_id
    )


def promote(client: MlflowClient, version: ModelVersion, fault: str | None = None) -> Registration:
    """Give the alias to a version that :func:`add_version` returned, unless a better version has it.

    Args:
        client: A client of the store.
        version: The version.
        fault: Why the version cannot be used and must not get the alias, or None.
    """
    name, number = str(version.name), str(version.version)
    if fault is not None:
        client.set_model_version_tag(name, number, "mltune.fault", fault)
        return Registration(name, number, fault=fault)
    if "mltune.fault" in version.tags:
        client.delete_model_version_tag(name, number, "mltune.fault")
    champion, goal = _champion(client, name), Goal.from_tags(without_prefix(version.tags))
    value = float(version.tags["mltune.value"])
    if champion is not None:
        champion_value = _comparable_value(champion, goal)
        if champion_value is not None and goal.better(champion_value, value):
            return Registration(name, number, champion=(str(champion.version), champion_value))
    client.set_registered_model_alias(name, ALIAS, number)
    return Registration(name, number)


def _ensure(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _version_of(client: MlflowClient, name: str, source: str, run_id: str) -> ModelVersion | None:
    """Return the tagged version that an earlier attempt created from the model, or None if there is none."""
    versions = client.search_model_versions(f"run_id = '{run_id}'")
    same_model = (version for version in versions if (version.name, version.source) == (name, source))
    return next((version for version in same_model if "mltune.value" in version.tags), None)


def _champion(client: MlflowClient, name: str) -> ModelVersion | None:
    alias = client.get_registered_model(name).aliases.get(ALIAS)
    return client.get_model_version(name, alias) if alias is not None else None


def _comparable_value(version: ModelVersion, goal: Goal) -> float | None:
    """Return a version's recorded value, or None if it is unusable or of another goal."""
    tags = without_prefix(version.tags)
    if not goal.to_tags().items() <= tags.items():
        return None
    try:
        value = float(tags["value"])
    except (KeyError, ValueError):
        return None
    return value if is_finite(value) else None
