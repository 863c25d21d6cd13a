"""The timeline of a study: which worker ran which attempt, and when."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mltune.report.view import View
    from mltune.trial import FrozenTrial


@dataclass(frozen=True)
class Bar:
    """An attempt on the timeline.

    Attributes:
        start: Seconds since 1970.
        lane: The index of the worker, from 0.
    """

    trial: FrozenTrial
    start: float
    seconds: float
    lane: int


def lanes(view: View) -> list[Bar]:
    """Return the attempts of a study, each assigned to the worker that was free first.

    A run may be created before its trial starts; the attempt then starts when its worker is free.
    """
    created = view.record.created
    attempts = [trial for trials in view.record.attempts.values() for trial in trials if trial.run_id in created]
    lease = view.record.lease
    last = time.time() if view.record.is_driven or lease is None else lease.renewed
    free: list[float] = []
    bars: list[Bar] = []
    for trial in sorted(attempts, key=lambda trial: created[str(trial.run_id)]):
        created_at = created[str(trial.run_id)]
        if len(free) < view.n_jobs and all(end > created_at for end in free):
            free.append(created_at)
        lane = min(range(len(free)), key=free.__getitem__)
        start = max(created_at, free[lane])
        end = view.record.ended.get(str(trial.run_id), last)
        seconds = trial.duration if trial.duration is not None else max(0.0, end - start)
        free[lane] = start + seconds
        bars.append(Bar(trial, start, seconds, lane))
    return bars
