"""A study's trials as a table, the best first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from mltune.report.view import View


def leaderboard(view: View) -> pd.DataFrame:
    """Return a table with one row per trial, the best first.

    Returns:
        Columns ``rank`` (of COMPLETE trials, from 1), ``trial``, ``state``, ``value``, ``params.*``, ``metrics.*``,
        ``duration`` in seconds, ``reason``, ``attempt``, ``run_id``.
    """
    rows = []
    for rank, trial in enumerate(view.ranked, 1):
        metrics = {f"metrics.{name}": value for name, value in trial.metrics.items()}
        rows.append(
            {
                "rank": rank if trial.state == "COMPLETE" else None,
                "trial": trial.number,
                "state": str(trial.state),
                "value": trial.value,
                **{f"params.{name}": trial.params.get(name) for name in view.space},
                **metrics,
                "duration": trial.duration,
                "reason": trial.reason and str(trial.reason),
                "attempt": trial.attempt,
                "run_id": trial.run_id,
            }
        )
    return pd.DataFrame(rows, columns=None if rows else ["rank", "trial", "state"], dtype=object)  # integers stay int
