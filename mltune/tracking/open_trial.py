"""What a trial's run is to hold, until it is closed."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

from mlflow.entities import Metric

from mltune.tracking.entries import Entries
from mltune.tracking.tags import ALL_STEPS, LIMIT
from mltune.trial import DURATION, FrozenTrial, TrialState


def now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


@dataclass
class OpenTrial:
    """What a trial's run is to hold, and what to know when it ends.

    Attributes:
        created: When its run was made, in milliseconds since 1970.
        shown: Whether its params are written, or about to be.
        flushed: When its reports were written, in seconds.
        last_step: Of the last report.
        last_time: Likewise, in milliseconds since 1970.
    """

    entries: Entries = field(default_factory=Entries)
    created: int = 0
    shown: bool = False
    flushed: float = field(default_factory=time.monotonic)
    last_step: int = 0
    last_time: int = 0


def final_metrics(trial: FrozenTrial, opened: OpenTrial) -> list[Metric]:
    """The returned metrics, later than all reports so that MLflow shows them as current; and the duration."""
    time_ms = max(now(), opened.last_time + 1)
    returned = trial.metrics if trial.state is TrialState.COMPLETE or not trial.reports else {}
    metrics = [
        Metric(name, value, time_ms, opened.last_step, model_id=trial.model_id) for name, value in returned.items()
    ]
    return [*metrics, Metric(DURATION, trial.duration or 0.0, time_ms, 0)]


def final_tags(trial: FrozenTrial) -> dict[str, str]:
    """What came of the trial."""
    tags = {"state": str(trial.state)}
    if trial.value is not None:
        tags["value"] = repr(trial.value)
    if trial.reason is not None:
        tags["reason"] = str(trial.reason)
    if trial.reports:
        steps = json.dumps(list(trial.reports))
        tags["steps"] = steps if len(steps) <= LIMIT else ALL_STEPS
    return tags
