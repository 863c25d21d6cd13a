"""Studies and engines as tables for people and as plain data for machines."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.table import Column, Table

from mltune.text import format_params, format_states
from mltune.trial import FrozenTrial, TrialState, is_finite

if TYPE_CHECKING:
    from mltune.engines import EngineInfo
    from mltune.report.view import View
    from mltune.study import StudySummary
    from mltune.tracking.reader import StudyRecord


def study_table(view: View, top: int) -> Group:
    """Return a study's summary and a table of its trials, the best first and those that are not COMPLETE last.

    Args:
        view: The study.
        top: The maximum number of trials in the table.
    """
    record, tags = view.record, view.record.tags
    head = f"study {record.name}: {_format_progress(record)}, {record.goal}"
    how = f"engine {tags['engine']}, algorithm {tags['algorithm']}, scheduler {tags['scheduler']}, seed {tags['seed']}"
    lines = [head, how] + ([f"reason: {tags['reason']}"] if "reason" in tags else [])
    if view.trials:
        lines.append(format_states(view.trials))
    if best := record.best_trial:
        lines.append(f"best: trial {best.number} with {best.value:g} ({format_params(best)}), run {best.run_id}")
    if importances := view.importances:
        lines.append("importances: " + ", ".join(f"{name} {share:.0%}" for name, share in importances.items()))
    if failures := view.failures:
        lines.append("failures: " + ", ".join(f"{count} {reason}" for reason, count in failures.items()))
    lines += [f"warning: {warning}" for warning in view.warnings]
    table = Table("trial", "state", "value", "seconds", "params", box=box.SIMPLE)
    for trial in view.ranked[:top]:
        table.add_row(*_row(trial))
    if len(view.trials) > top:
        lines.append(f"{top} of {len(view.trials)} trials (--top shows more):")
    return Group(*lines, table)


def study_data(view: View) -> dict[str, Any]:
    """Return a study as plain data, with all trials in the order of their numbers."""
    record, tags = view.record, view.record.tags
    best = record.best_trial
    return {
        "run_id": record.run_id,
        "experiment_id": record.experiment_id,
        "name": record.name,
        "state": tags.get("state"),
        "driven": record.is_driven,
        "reason": tags.get("reason"),
        **{name: tags[name] for name in ("metric", "direction", "engine", "algorithm", "scheduler")},
        "seed": int(tags["seed"]),
        "elapsed_s": float(tags["elapsed_s"]) if "elapsed_s" in tags else None,
        "states": Counter(str(trial.state) for trial in view.trials),
        "best": _trial_data(best) if best is not None else None,
        "importances": view.importances,
        "failures": view.failures,
        "warnings": list(view.warnings),
        "trials": [_trial_data(trial) for trial in view.trials],
    }


def list_table(studies: Sequence[StudySummary]) -> Table:
    """Return a table with one row per study."""
    table = Table(box=box.SIMPLE)
    table.add_column("run", no_wrap=True, min_width=32)
    for column in ("study", "state", "best", "begun"):
        table.add_column(column, overflow="fold")
    for study in studies:
        best = f"{study.metric} {study.best_value:g}" if study.best_value is not None else ""
        begun = time.strftime("%m-%d %H:%M", time.localtime(study.started))
        table.add_row(study.run_id, study.name, _format_state(study.state, is_driven=study.is_driven), best, begun)
    return table


def list_data(studies: Iterable[StudySummary]) -> list[dict[str, Any]]:
    """Return studies as plain data; ``started`` is in seconds since 1970."""
    return [asdict(study) for study in studies]


def engine_table(engines: Iterable[EngineInfo]) -> Table:
    """Return a table of what each engine offers, with remedies for what is missing."""
    installed = Column("installed", overflow="fold")  # a command must not be cut short
    table = Table("engine", "algorithms", "schedulers", installed, box=box.SIMPLE)
    for engine in engines:
        table.add_row(
            engine.name,
            ", ".join(engine.algorithms),
            ", ".join(engine.schedulers),
            _format_installed(engine),
        )
    return table


def _format_installed(engine: EngineInfo) -> str:
    if not engine.installed:
        return engine.remedy
    return f"yes, but {engine.remedy}" if engine.remedy else "yes"


def _format_state(state: str, *, is_driven: bool) -> str:
    """Return the state, with a note if the driver is gone."""
    return f"{state}, but its driver is gone" if state == TrialState.RUNNING and not is_driven else state


def _format_progress(record: StudyRecord) -> str:
    """Return the state and, if the study can be resumed, the command that resumes it."""
    state = _format_state(record.tags.get("state", "UNKNOWN"), is_driven=record.is_driven)
    if state == TrialState.COMPLETE or record.is_driven:
        return state
    by_name = "folder" in record.tags
    how = f"mltune resume {record.run_id}" if by_name else f'mltune.resume("{record.run_id}", objective)'
    return f"{state} (resume with: {how})"


def _trial_data(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "attempt": trial.attempt,
        "state": str(trial.state),
        "reason": str(trial.reason) if trial.reason else None,
        "value": _finite(trial.value),
        "params": dict(trial.params),
        "metrics": {name: _finite(value) for name, value in trial.metrics.items()},
        "duration_s": trial.duration,
        "run_id": trial.run_id,
    }


def _finite(value: float | None) -> float | None:
    """Return the value, or None if it is NaN or infinite, which JSON cannot represent."""
    return value if is_finite(value) else None


def _row(trial: FrozenTrial) -> tuple[str, ...]:
    state = f"{trial.state} ({trial.reason})" if trial.reason else str(trial.state)
    value = "" if trial.value is None else f"{trial.value:g}"
    seconds = "" if trial.duration is None else f"{trial.duration:.1f}"
    number = f"{trial.number}" if trial.attempt == 1 else f"{trial.number} (attempt {trial.attempt})"
    return (number, state, value, seconds, format_params(trial))
