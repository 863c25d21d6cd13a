"""The description of a study's run: markdown that MLflow shows at the top of its page."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mltune.text import format_params, format_seconds
from mltune.tracking.note import MARK
from mltune.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from mltune.config import StudyConfig
    from mltune.driver.state import StudyState

_LONGEST = 600  # characters of a remark, or of the best params


def describe(
    *,
    state: TrialState,
    config: StudyConfig,
    study: StudyState,
    run_id: str,
    experiment_id: str,
    resume: str | None,
    with_report: bool = True,
    model: str | None = None,
    remarks: Sequence[str] = (),
) -> str:
    """Return the description of a study and its progress, as markdown.

    Args:
        state: The state of the study, or the one it is about to enter.
        config: The resolved study.
        study: Its progress.
        run_id: The parent run.
        experiment_id: Its experiment.
        resume: The command that resumes or extends it, or None if that is not possible.
        with_report: Whether it has a report.
        model: The URI of the registered model, or None.
        remarks: Notes for the user, such as the findings of the lint.
    """
    report = f"[Report](#/experiments/{experiment_id}/runs/{run_id}/artifacts/report/report.html)"
    lines = [_head(state, study) + (f" {report}" if state is not TrialState.RUNNING and with_report else "")]
    if study.best is not None:
        lines.append(_best(study.best, config, experiment_id))
    lines.append(
        f"Engine {config.engine}, algorithm {config.algorithm}, scheduler {config.scheduler}, seed {config.seed}."
    )
    lines += [f"- {remark[:_LONGEST]}" for remark in remarks]
    if resume is not None:
        more = "Extend it, for example" if state is TrialState.COMPLETE else "Go on after it was cut off"
        lines.append(f"{more}:\n\n    {resume}")
    if model is not None:
        lines.append(f"Serve the best model:\n\n    mlflow models serve -m {shlex.quote(model)} --env-manager local")
    return "\n\n".join(lines)


def _head(state: TrialState, study: StudyState) -> str:
    head = f"{MARK}{state}** — {study.format_counts()}, in {format_seconds(study.elapsed)}"
    if state is not TrialState.RUNNING:
        return f"{head}."
    left = f"; about {format_seconds(study.left)} left" if study.left is not None else ""
    return f"{head}{left} (as of {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())})."


def _best(trial: FrozenTrial, config: StudyConfig, experiment_id: str) -> str:
    link = f"[trial {trial.number}](#/experiments/{experiment_id}/runs/{trial.run_id})"
    params = format_params(trial)[:_LONGEST]
    return f"Best ({config.goal}): {link} with **{trial.value:g}** ({params})."
