"""Registering the best model, and who keeps the alias."""

from __future__ import annotations

import math

import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput

from mltune import Direction, FrozenTrial
from mltune.goal import Goal
from mltune.tracking.outputs import find_model
from mltune.tracking.registration import ALIAS
from mltune.tracking.registry import add_version, promote


def a_trial(client: MlflowClient, value: float) -> tuple[FrozenTrial, str]:
    """A finished trial with a LoggedModel, which need not hold anything to be registered."""
    run_id = client.create_run("0").info.run_id
    model = client.create_logged_model("0", name="model", source_run_id=run_id)
    client.finalize_logged_model(model.model_id, "READY")
    return FrozenTrial(number=4, params={}, seed=0, value=value, run_id=run_id), model.model_id


def registered(client: MlflowClient, value: float, direction: str = "minimize", metric: str = "loss") -> str:
    trial, model_id = a_trial(client, value)
    made = add_version(client, "name", trial, model_id, study="parent", goal=Goal(metric, Direction(direction)))
    return str(promote(client, made))


def champion(client: MlflowClient) -> str:
    return str(client.get_model_version_by_alias("name", ALIAS).version)


def test_a_version_says_where_it_comes_from(client: MlflowClient) -> None:
    trial, model_id = a_trial(client, 0.25)
    made = add_version(client, "name", trial, model_id, study="parent", goal=Goal("loss", Direction.MINIMIZE))
    promote(client, made)
    version = client.get_model_version_by_alias("name", ALIAS)
    assert version.run_id == trial.run_id
    assert version.source == f"models:/{model_id}"
    assert version.tags == {
        "mltune.study": "parent",
        "mltune.trial": trial.run_id,
        "mltune.number": "4",
        "mltune.metric": "loss",
        "mltune.value": "0.25",
        "mltune.direction": "minimize",
    }


@pytest.mark.parametrize(("direction", "values", "winners"), [
    ("minimize", [2.0, 1.0, 3.0, 1.0], ["1", "2", "2", "4"]),
    ("maximize", [2.0, 1.0, 3.0, 3.0], ["1", "1", "3", "4"]),
])  # fmt: skip
def test_a_better_champion_keeps_the_alias(
    direction: str, values: list[float], winners: list[str], client: MlflowClient
) -> None:
    for version, (value, winner) in enumerate(zip(values, winners, strict=True), start=1):
        said = registered(client, value, direction)
        assert champion(client) == winner
        if winner == str(version):
            assert said == f"registered model 'name' version {version} as champion"
        else:
            best = values[int(winner) - 1]
            assert said.endswith(f"version {winner} stays champion, its recorded value {best:g} is better")


def test_values_of_another_metric_or_direction_are_not_compared(client: MlflowClient) -> None:
    registered(client, 0.0)
    registered(client, 5.0, metric="rmse")
    assert champion(client) == "2"
    registered(client, 9.0, direction="maximize", metric="rmse")
    assert champion(client) == "3"


@pytest.mark.parametrize("value", ["abc", str(math.nan), None])
def test_a_champion_without_a_usable_value_loses_the_alias(value: str | None, client: MlflowClient) -> None:
    registered(client, 0.0)
    if value is None:
        client.delete_model_version_tag("name", "1", "mltune.value")
    else:
        client.set_model_version_tag("name", "1", "mltune.value", value)
    registered(client, 5.0)
    assert champion(client) == "2"


def test_the_last_model_of_a_run_is_found(client: MlflowClient) -> None:
    trial, _ = a_trial(client, 0.0)
    run_id = str(trial.run_id)
    assert find_model(client, run_id) is None  # made, but not among the run's outputs
    made = []
    for step in range(8):  # each in its millisecond
        made.append(str(client.create_logged_model("0", name="model", source_run_id=run_id).model_id))
        client.log_outputs(run_id, [LoggedModelOutput(made[-1], step=0)])
        assert find_model(client, run_id) == made[-1], step
