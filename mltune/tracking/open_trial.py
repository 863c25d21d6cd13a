"""A trial's run until it is closed: its buffered entries, final metrics and final tags."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

from mlflow.entities import Metric

from mltune.tracking.entries import Entries
from mltune.tracking.tags import ALL_STEPS, LIMIT
from mltune.trial import DURATION, FrozenTrial, TrialState


def now() -> int:
    """Return the current time in milliseconds since 1970."""
    return int(time.time() * 1000)


@dataclass
class OpenTrial:
    """The open run of a trial: its buffered entries, and the data needed to close it.

    Attributes:
        created: Time at which the run was created, in milliseconds since 1970.
        shown: Whether the params are written, or queued to be written.
        flushed: Time of the last flush, in seconds of the monotonic clock.
        last_step: Step of the last report.
        last_time: Time of the last report, in milliseconds since 1970.
    """

    entries: Entries = field(default_factory=Entries)
    created: int = 0
    shown: bool = False
    flushed: float = field(default_factory=time.monotonic)
    last_step: int = 0
    last_time: int = 0


def final_metrics(trial: FrozenTrial, opened: OpenTrial) -> list[Metric]:
    """Return the duration and the final metrics, timed after all reports so that MLflow shows them as current."""
    time_ms = max(now(), opened.last_time + 1)
    returned = trial.metrics if trial.state is TrialState.COMPLETE or not trial.reports else {}
    metrics = [
        Metric(name, value, time_ms, opened.last_step, model_id=trial.model_id) for name, value in returned.items()
    ]
    return [*metrics, Metric(DURATION, trial.duration or 0.0, time_ms, 0)]


def final_tags(trial: FrozenTrial) -> dict[str, str]:
    """Return the tags that record the outcome of a trial."""
    tags = {"state": str(trial.state)}
    if trial.value is not None:
        tags["value"] = repr(trial.value)
    if trial.reason is not None:
        tags["reason"] = str(trial.reason)
    if trial.reports:
        steps = json.dumps(list(trial.reports))
        tags["steps"] = steps if len(steps) <= LIMIT else ALL_STEPS
    return tags
