"""Which worker did what, and when."""

from __future__ import annotations

import time
from dataclasses import dataclass

from mltune.report.view import View
from mltune.trial import FrozenTrial


@dataclass(frozen=True)
class Bar:
    """An attempt on the timeline.

    Attributes:
        start: Seconds since 1970.
        lane: The worker, from 0.
    """

    trial: FrozenTrial
    start: float
    seconds: float
    lane: int


def lanes(view: View) -> list[Bar]:
    """The attempts of a study, each on the worker that was free first.

    A run may be made some time before its trial begins: it begins then when its worker is free.
    """
    created = view.record.created
    attempts = [trial for each in view.record.attempts.values() for trial in each if trial.run_id in created]
    lease = view.record.lease
    last = time.time() if view.record.is_driven or lease is None else lease.renewed
    free: list[float] = []
    bars: list[Bar] = []
    for trial in sorted(attempts, key=lambda trial: created[str(trial.run_id)]):
        made = created[str(trial.run_id)]
        if len(free) < view.n_jobs and all(end > made for end in free):
            free.append(made)
        lane = min(range(len(free)), key=free.__getitem__)
        start = max(made, free[lane])
        end = view.record.ended.get(str(trial.run_id), last)
        seconds = trial.duration if trial.duration is not None else max(0.0, end - start)
        free[lane] = start + seconds
        bars.append(Bar(trial, start, seconds, lane))
    return bars
