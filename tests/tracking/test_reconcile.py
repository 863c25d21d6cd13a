"""What was being written when a driver was killed is finished, and read in the same go."""

from __future__ import annotations

import pytest
from mlflow import MlflowClient

from mltune import TrialState
from mltune.tracking.reader import read_study
from mltune.tracking.reconcile import reconcile


@pytest.mark.recorded("killed")
def test_the_repaired_record_is_the_one_that_is_read_afterwards(recorded_study: str, client: MlflowClient) -> None:
    trial = read_study(client, recorded_study).trials[-1]
    client.set_tag(str(trial.run_id), "mltune.state", "RUNNING")
    client.update_run(str(trial.run_id), status="RUNNING")
    repaired = reconcile(client, recorded_study, 0.0)
    assert [each.state for each in repaired.trials if each.number == trial.number] == [TrialState.INTERRUPTED]
    assert repaired == read_study(client, recorded_study)
    assert repaired == reconcile(client, recorded_study, 0.0)
