"""What waits to be written to one run."""

from __future__ import annotations

from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from mltune.tracking.entries import Entries


@pytest.fixture
def run_id(client: MlflowClient) -> str:
    return str(client.create_run("0").info.run_id)


def metrics(n: int) -> list[Metric]:
    return [Metric("m", float(step), 1_000 + step, step) for step in range(n)]


def test_all_that_was_added_is_written_once(client: MlflowClient, run_id: str) -> None:
    entries = Entries()
    entries.add(params=[Param("p", "1")], tags={"state": "RUNNING", "seed": "3"})
    entries.add(metrics=metrics(2), tags={"state": "COMPLETE"})
    entries.write(client, run_id)
    client.set_tag(run_id, "mltune.seed", "4")
    entries.write(client, run_id)  # there is nothing left
    data = client.get_run(run_id).data
    assert (data.params, data.metrics) == ({"p": "1"}, {"m": 1.0})
    assert (data.tags["mltune.state"], data.tags["mltune.seed"]) == ("COMPLETE", "4")


def test_more_than_one_call_takes(client: MlflowClient, run_id: str) -> None:
    entries = Entries()
    entries.add(metrics=metrics(2_001), params=[Param(f"p{i}", str(i)) for i in range(250)], tags={"state": "COMPLETE"})
    entries.write(client, run_id)
    assert [metric.step for metric in client.get_metric_history(run_id, "m")] == list(range(2_001))
    assert client.get_run(run_id).data.params == {f"p{i}": str(i) for i in range(250)}


def test_what_could_not_be_written_is_written_later(client: MlflowClient, run_id: str) -> None:
    entries = Entries()
    entries.add(metrics=metrics(900), tags={"state": "RUNNING"})
    client.delete_run(run_id)
    with pytest.raises(MlflowException):
        entries.write(client, run_id)
    entries.add(metrics=[Metric("last", 1.0, 0, 0)], tags={"state": "COMPLETE"})
    client.restore_run(run_id)
    entries.write(client, run_id)
    assert len(client.get_metric_history(run_id, "m")) == 900
    data = client.get_run(run_id).data
    assert (data.metrics["last"], data.tags["mltune.state"]) == (1.0, "COMPLETE")


def test_params_that_user_code_has_logged_in_its_own_words_stay(client: MlflowClient, run_id: str) -> None:
    client.log_param(run_id, "x", "one half")
    entries = Entries()
    entries.add(params=[Param("x", "0.5"), Param("y", "1")], metrics=metrics(1), tags={"state": "COMPLETE"})
    entries.write(client, run_id)
    data = client.get_run(run_id).data
    assert (data.params, data.metrics) == ({"x": "one half", "y": "1"}, {"m": 0.0})
    assert data.tags["mltune.state"] == "COMPLETE"


def test_what_mlflow_refuses_for_another_reason_is_an_error(client: MlflowClient, run_id: str) -> None:
    entries = Entries()
    entries.add(params=[Param("x", "0.5")], metrics=[Metric("not/../allowed", 1.0, 0, 0)])
    with pytest.raises(MlflowException):
        entries.write(client, run_id)


def test_what_is_added_meanwhile_waits_for_the_next_write(client: MlflowClient, run_id: str) -> None:
    entries = Entries()

    class Reporting(MlflowClient):
        """A store so slow that a trial reports again before each call is over."""

        def log_batch(self, *arguments: Any, **options: Any) -> None:
            entries.add(metrics=[Metric("later", 1.0, 0, 0)])
            super().log_batch(*arguments, **options)

    entries.add(metrics=metrics(1_000))
    entries.write(Reporting(client.tracking_uri), run_id)
    assert len(client.get_metric_history(run_id, "m")) == 1_000
    entries.write(client, run_id)
    assert client.get_run(run_id).data.metrics["later"] == 1.0
