"""Build a study's report and upload it to the study's run."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mlflow import MlflowClient

from mltune.errors import MissingPackageError
from mltune.report import missing
from mltune.report._leaderboard import leaderboard
from mltune.text import format_counts, format_params, format_seconds
from mltune.tracking.cost import TrackingCost
from mltune.trial import TrialState

if TYPE_CHECKING:
    from mltune.report.view import View

FOLDER = "report"
"""The artifact folder of a study's run that holds the report."""


def write_report(client: MlflowClient, view: View, warnings: Sequence[str] | None = None) -> None:
    """Build the report of a study, and upload it in place of an earlier one.

    Args:
        client: A client of the tracking store.
        view: The study.
        warnings: The warnings of :func:`mltune.report.lint`, or None to compute them.

    Raises:
        MissingPackageError: plotly or matplotlib is missing.
    """
    if sentences := missing():
        raise MissingPackageError(sentences)
    with TemporaryDirectory(prefix="mltune-") as folder:
        write_files(view, Path(folder), warnings)
        client.log_artifacts(view.record.run_id, folder, FOLDER)


def write_files(view: View, folder: Path, warnings: Sequence[str] | None = None) -> None:
    """Write ``report.html``, ``leaderboard.csv`` and, if a trial completed, ``history.png`` to a folder."""
    from mltune.report._charts import charts
    from mltune.report._page import page
    from mltune.report._picture import history_png

    leaderboard(view).to_csv(folder / "leaderboard.csv", index=False)
    html = page(view, charts(view), view.warnings if warnings is None else warnings, _facts(view))
    (folder / "report.html").write_text(html, encoding="utf-8", errors="backslashreplace")
    if view.ranked and view.ranked[0].state is TrialState.COMPLETE:
        with contextlib.suppress(Exception):  # matplotlib fails at values of 1e308: the report has no picture then
            (folder / "history.png").write_bytes(history_png(view))


def _facts(view: View) -> list[str]:
    tags = view.record.tags
    counts = format_counts(Counter(trial.state for trial in view.trials if trial.finished), view.n_trials)
    elapsed = format_seconds(float(tags.get("elapsed_s", 0.0)))
    facts = [f"{tags.get('state', 'UNKNOWN')}: {counts}, in {elapsed}."]
    if (best := view.goal.best(view.trials)) is not None:
        facts.append(f"Best ({view.goal}): trial {best.number} with {best.value:g}")
        facts.append(f"{format_params(best)} (run {best.run_id})")
    method = f"engine {tags['engine']}, algorithm {tags['algorithm']}, scheduler {tags['scheduler']}"
    return [*facts, f"Study {view.record.run_id}, {method}, seed {tags['seed']}; {TrackingCost.from_tags(tags)}."]
