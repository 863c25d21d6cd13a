"""Repair the runs of a killed study: afterwards none is RUNNING, and each attempt has one run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable

from mlflow import MlflowClient
from mlflow.entities import Param, Run

from mltune._util import timing
from mltune.errors import RequestError
from mltune.tracking.lease import Lease
from mltune.tracking.models import remove_models
from mltune.tracking.other_runs import close_children, discard, duplicates
from mltune.tracking.reader import StudyRecord, parent_run, to_record, trial_runs
from mltune.tracking.tags import STATUS, own_tags, to_tags
from mltune.trial import DURATION, TrialState

_STEALS = 10  # times to overwrite a renewal that the old driver had begun; its next renewal reads the new lease


def take_over(client: MlflowClient, study: str, *, steal: bool) -> None:
    """Acquire the lease on a study that no driver holds. Idempotent.

    MLflow cannot compare and set a tag, so if two processes try at the same time, the last writer gets the lease.

    Args:
        client: A client of the store.
        study: The parent run.
        steal: Whether to take the lease from a driver that is alive.

    Raises:
        RequestError: Another process drives the study, or wrote its lease last.
    """
    lease = Lease.mine()
    record = own_tags(client.get_run(study))
    previous = Lease.parse(record.get("lease"))
    if previous is not None and previous.same_driver(lease):
        previous = None
    if not steal and record.get("state") == TrialState.RUNNING and previous is not None and previous.is_held(study):
        raise RequestError(f"study {study} has been resumed by another process meanwhile: leave it to that one")
    for _ in range(_STEALS if steal else 1):
        client.log_batch(study, tags=to_tags({"lease": str(lease), "state": str(TrialState.RUNNING)}))
        time.sleep(timing.TIMING.hesitate)
        tags = own_tags(client.get_run(study))
        current = Lease.parse(tags.get("lease"))
        if current is None or previous is None or not current.same_driver(previous):
            break
    if current is None or not current.same_driver(lease):
        raise RequestError(f"study {study} is being resumed by another process at this moment: leave it to that one")
    if "reason" in tags:
        client.delete_tag(study, "mltune.reason")
    client.update_run(study, status=STATUS[TrialState.RUNNING])


def reconcile(client: MlflowClient, study: str, last_heard: float) -> StudyRecord:
    """Complete the record that a driver was writing when it was killed, and return it.

    - If an attempt has duplicate runs (from a repeated request), keep the one that was used and delete the others.
    - Delete a prefetched run, which has no params yet, and everything that its trial may have logged.
    - Close a trial that has a final state but is RUNNING in MLflow.
    - Close a trial that was in flight as INTERRUPTED, at the time of the driver's last heartbeat.

    Idempotent, even after it was killed itself.

    Args:
        client: A client of the store.
        study: The parent run; no other process may write to the study.
        last_heard: Time of the last driver's last heartbeat, in seconds since 1970.
    """
    parent = parent_run(client, study)
    for run_id in duplicates(client, parent.info.experiment_id, own_tags(parent).get("uid", "")):
        if run_id != study:
            discard(client, run_id)
    by_uid: dict[str, list[Run]] = {}
    for run in trial_runs(client, parent):
        by_uid.setdefault(own_tags(run)["uid"], []).append(run)
    attempts: list[Run] = []
    for runs in by_uid.values():
        used, *others = sorted(runs, key=_progress, reverse=True)
        for run in others if "params" in own_tags(used) else runs:
            close_children(client, parent.info.experiment_id, run.info.run_id)
            remove_models(client, parent.info.experiment_id, run.info.run_id)
            discard(client, run.info.run_id)
        if "params" in own_tags(used):
            attempts.append(_close(client, used, int(last_heard * 1000)))
    return to_record(parent, attempts)


def discard_orphans(client: MlflowClient, study: str) -> None:
    """Delete orphans: runs that a driver created for its trials after the study had been taken from it.

    Args:
        client: A client of the store.
        study: The parent run; all trials of the current driver must have ended and been written.
    """
    for run in trial_runs(client, parent_run(client, study)):
        if run.info.status == "RUNNING":
            close_children(client, run.info.experiment_id, run.info.run_id)
            discard(client, run.info.run_id)


def _progress(run: Run) -> tuple[bool, int]:
    """Return a sort key: the more complete the record of a run, the greater."""
    return own_tags(run).get("state") != TrialState.RUNNING, len(run.data.params) + len(run.data.metrics)


def _close(client: MlflowClient, run: Run, last_heard: int) -> Run:
    """Close the run of an attempt if it is open; return it as it is then."""
    run_id, tags = str(run.info.run_id), own_tags(run)
    state = TrialState(tags["state"])
    if state is not TrialState.RUNNING:
        if run.info.status == STATUS[state]:
            return run
        duration = 1000 * run.data.metrics.get(DURATION, 0.0)
        client.set_terminated(run_id, STATUS[state], int(run.info.start_time + duration))
        return client.get_run(run_id)
    close_children(client, run.info.experiment_id, run_id)
    client.log_batch(run_id, params=list(_missing_params(run)), tags=to_tags({"state": str(TrialState.INTERRUPTED)}))
    client.set_terminated(run_id, STATUS[TrialState.INTERRUPTED], max(last_heard, run.info.start_time))
    return client.get_run(run_id)


def _missing_params(run: Run) -> Iterable[Param]:
    for name, value in json.loads(own_tags(run)["params"]).items():
        if name not in run.data.params:
            yield Param(name, str(value))
