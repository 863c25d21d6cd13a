"""Put the runs of a killed study right: after it none is RUNNING, and each attempt has one run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable

from mlflow import MlflowClient
from mlflow.entities import Param, Run

from mltune.errors import RequestError
from mltune.tracking.delete import remove_models
from mltune.tracking.lease import Lease
from mltune.tracking.other_runs import close_children, discard, duplicates
from mltune.tracking.reader import parent_run, trial_runs
from mltune.tracking.tags import STATUS, own_tags, to_tags
from mltune.trial import DURATION, TrialState

_HESITATION = 0.5  # seconds in which another one who resumes the study at this moment shows
_STEALS = 10  # times that we write over a renewal by the old driver which was under way; its next one reads ours


def take_over(client: MlflowClient, study: str, *, steal: bool) -> None:
    """Make a study that nobody drives ours; may be called again.

    MLflow cannot compare and set a tag, so of two who come at the same moment the later writer has it.

    Args:
        client: A client of the store.
        study: The parent run.
        steal: Whether to take it from a driver that is alive.

    Raises:
        RequestError: Another process drives it, or was the later one.
    """
    mine = Lease.mine()
    record = own_tags(client.get_run(study))
    other = Lease.parse(record.get("lease"))
    if other is not None and other.same_driver(mine):
        other = None
    if not steal and record.get("state") == TrialState.RUNNING and other is not None and other.is_held(study):
        raise RequestError(f"study {study} has been resumed by another process meanwhile: leave it to that one")
    for _ in range(_STEALS if steal else 1):
        client.log_batch(study, tags=to_tags({"lease": str(mine), "state": str(TrialState.RUNNING)}))
        time.sleep(_HESITATION)
        tags = own_tags(client.get_run(study))
        found = Lease.parse(tags.get("lease"))
        if found is None or other is None or not found.same_driver(other):
            break
    if found is None or not found.same_driver(mine):
        raise RequestError(f"study {study} is being resumed by another process at this moment: leave it to that one")
    if "reason" in tags:
        client.delete_tag(study, "mltune.reason")
    client.update_run(study, status=STATUS[TrialState.RUNNING])


def reconcile(client: MlflowClient, study: str, last_heard: float) -> None:
    """Finish what a driver had begun to write when it was killed.

    - Of several runs of one attempt (a repeated request) the one that was used stays; the others are deleted.
    - A run that was made ahead of its trial, and so has no params, is deleted, with what its trial may have logged.
    - A trial that has a final state but is RUNNING for MLflow is closed.
    - A trial that was in flight is closed as INTERRUPTED, when the driver was last heard of.

    It may be called again, and be killed itself.

    Args:
        client: A client of the store.
        study: The parent run; nobody else writes to the study.
        last_heard: When the last driver said that it lives, in seconds since 1970.
    """
    parent = parent_run(client, study)
    for twin in duplicates(client, parent.info.experiment_id, own_tags(parent).get("uid", "")):
        if twin != study:
            discard(client, twin)
    by_uid: dict[str, list[Run]] = {}
    for run in trial_runs(client, parent):
        by_uid.setdefault(own_tags(run)["uid"], []).append(run)
    for runs in by_uid.values():
        used, *others = sorted(runs, key=_progress, reverse=True)
        for run in others if "params" in own_tags(used) else runs:
            close_children(client, parent.info.experiment_id, run.info.run_id)
            remove_models(client, parent.info.experiment_id, run.info.run_id)
            discard(client, run.info.run_id)
        if "params" in own_tags(used):
            _close(client, used, int(last_heard * 1000))


def discard_orphans(client: MlflowClient, study: str) -> None:
    """Delete the runs that a driver made for its trials after the study had been taken from it.

    Args:
        client: A client of the store.
        study: The parent run; all trials of ours have ended and are written.
    """
    for run in trial_runs(client, parent_run(client, study)):
        if run.info.status == "RUNNING":
            close_children(client, run.info.experiment_id, run.info.run_id)
            discard(client, run.info.run_id)


def _progress(run: Run) -> tuple[bool, int]:
    """How far the record of a run has come."""
    return own_tags(run).get("state") != TrialState.RUNNING, len(run.data.params) + len(run.data.metrics)


def _close(client: MlflowClient, run: Run, last_heard: int) -> None:
    run_id, tags = str(run.info.run_id), own_tags(run)
    state = TrialState(tags["state"])
    if state is not TrialState.RUNNING:
        if run.info.status != STATUS[state]:
            duration = 1000 * run.data.metrics.get(DURATION, 0.0)
            client.set_terminated(run_id, STATUS[state], int(run.info.start_time + duration))
        return
    close_children(client, run.info.experiment_id, run_id)
    client.log_batch(run_id, params=list(_missing_params(run)), tags=to_tags({"state": str(TrialState.INTERRUPTED)}))
    client.set_terminated(run_id, STATUS[TrialState.INTERRUPTED], max(last_heard, run.info.start_time))


def _missing_params(run: Run) -> Iterable[Param]:
    for name, value in json.loads(own_tags(run)["params"]).items():
        if name not in run.data.params:
            yield Param(name, str(value))
