"""Register the best model, and give it the alias ``champion`` unless a better one has it."""

from __future__ import annotations

from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from mltune.trial import Direction, FrozenTrial, is_finite

ALIAS = "champion"


@dataclass(frozen=True)
class Registration:
    """A registered model version.

    Attributes:
        kept: The version that keeps the alias because its recorded value is better, with that value.
        fault: Why the version cannot be used and so is not given the alias.
    """

    name: str
    version: str
    kept: tuple[str, float] | None = None
    fault: str | None = None

    @property
    def uri(self) -> str:
        """Where MLflow loads the version from."""
        plain = self.kept is not None or self.fault is not None
        return f"models:/{self.name}/{self.version}" if plain else f"models:/{self.name}@{ALIAS}"

    def __str__(self) -> str:
        made = f"registered model '{self.name}' version {self.version}"
        if self.fault is not None:
            return f"{made}, not made {ALIAS}: it must load and predict in a fresh process, but: {self.fault}"
        if self.kept is None:
            return f"{made} as {ALIAS}"
        version, value = self.kept
        return f"{made}; version {version} stays {ALIAS}, its recorded value {value:g} is better"


def outputs(run: Run) -> set[str]:
    """The ids of the LoggedModels among a run's outputs, where MLflow has them in no order."""
    return {str(output.model_id) for output in run.outputs.model_outputs} if run.outputs is not None else set()


def find_model(client: MlflowClient, run_id: str) -> str | None:
    """The id of the last LoggedModel of a run, None where it has none."""
    run = client.get_run(run_id)
    whole = outputs(run)
    if len(whole) < 2:
        return next(iter(whole), None)
    models = client.search_logged_models(
        [run.info.experiment_id],
        f"source_run_id = '{run_id}'",
        order_by=[{"field_name": "creation_timestamp", "ascending": False}],
    )
    return next((str(model.model_id) for model in models if model.model_id in whole), None)


def add_version(
    client: MlflowClient, name: str, trial: FrozenTrial, model_id: str, *, study: str, metric: str, direction: Direction
) -> ModelVersion:
    """Make a trial's model a version of a registered model, unless it is one already; it gets no alias yet.

    Args:
        client: A client of the store.
        name: The registered model's name; it is made if it is not there.
        trial: The best trial; its value goes into the version's tags.
        model_id: The LoggedModel.
        study: The parent run's id.
        metric: What the value is of.
        direction: Which values are better.
    """
    _ensure(client, name)
    tags = {
        "mltune.study": study,
        "mltune.trial": str(trial.run_id),
        "mltune.number": str(trial.number),
        "mltune.metric": metric,
        "mltune.value": repr(trial.value),
        "mltune.direction": str(direction),
    }
    source = f"models:/{model_id}"
    return _version_of(client, name, source, str(trial.run_id)) or client.create_model_version(
        name, source, run_id=trial.run_id, tags=tags, model_id=model_id
    )


def promote(client: MlflowClient, version: ModelVersion, fault: str | None = None) -> Registration:
    """Give a version that :func:`add_version` made the alias, unless a better one has it.

    Args:
        client: A client of the store.
        version: The version.
        fault: Why it cannot be used, see :func:`mltune.tracking.proof.verify_model`; it then stays without the alias.
    """
    name, number = str(version.name), str(version.version)
    if fault is not None:
        client.set_model_version_tag(name, number, "mltune.fault", fault)
        return Registration(name, number, fault=fault)
    if "mltune.fault" in version.tags:
        client.delete_model_version_tag(name, number, "mltune.fault")
    champion, direction = _champion(client, name), Direction(version.tags["mltune.direction"])
    ours = float(version.tags["mltune.value"])
    if champion is not None:
        value = _comparable_value(champion, version.tags["mltune.metric"], direction)
        if value is not None and direction.better(value, ours):
            return Registration(name, number, kept=(str(champion.version), value))
    client.set_registered_model_alias(name, ALIAS, number)
    return Registration(name, number)


def _ensure(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _version_of(client: MlflowClient, name: str, source: str, run_id: str) -> ModelVersion | None:
    """The version that an earlier try has made of the model, and tagged."""
    versions = client.search_model_versions(f"run_id = '{run_id}'")
    ours = (version for version in versions if (version.name, version.source) == (name, source))
    return next((version for version in ours if "mltune.value" in version.tags), None)


def _champion(client: MlflowClient, name: str) -> ModelVersion | None:
    alias = client.get_registered_model(name).aliases.get(ALIAS)
    return client.get_model_version(name, alias) if alias is not None else None


def _comparable_value(version: ModelVersion, metric: str, direction: Direction) -> float | None:
    """A version's recorded value, None where it was measured by another metric or in another direction."""
    tags = version.tags
    if tags.get("mltune.metric") != metric or tags.get("mltune.direction") != direction:
        return None
    try:
        value = float(tags["mltune.value"])
    except (KeyError, ValueError):
        return None
    return value if is_finite(value) else None
