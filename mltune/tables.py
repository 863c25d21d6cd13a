"""Tables for the terminal: the trials of a study, and what each engine offers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.table import Table

from mltune.display import spell_params
from mltune.trial import Direction, FrozenTrial, TrialState

if TYPE_CHECKING:
    from mltune.engines import EngineInfo
    from mltune.tracking.store import StudyRecord

_SHOWN = 20


def study_table(record: StudyRecord) -> Group:
    """A study's summary, and its trials from the best to those without a value."""
    tags = record.tags
    head = f"study {record.name}: {_spell_state(record)}, {tags['direction']} {tags['metric']}"
    how = f"engine {tags['engine']}, algorithm {tags['algorithm']}, scheduler {tags['scheduler']}, seed {tags['seed']}"
    lines = [head, how] + ([f"reason: {tags['reason']}"] if "reason" in tags else [])
    if best := record.best_trial:
        lines.append(f"best: trial {best.number} with {best.value:g} ({spell_params(best)}), run {best.run_id}")
    table = Table("trial", "state", "value", "seconds", "params", box=box.SIMPLE)
    ranked = sorted(record.trials, key=lambda trial: _rank(trial, Direction(tags["direction"])))
    for trial in ranked[:_SHOWN]:
        table.add_row(*_row(trial))
    if len(ranked) > _SHOWN:
        lines.append(f"{_SHOWN} of {len(ranked)} trials:")
    return Group(*lines, table)


def engine_table(engines: Iterable[EngineInfo]) -> Table:
    """What each engine offers; a missing one with what to type."""
    table = Table("engine", "algorithms", "schedulers", "installed", box=box.SIMPLE)
    for engine in engines:
        table.add_row(
            engine.name,
            ", ".join(engine.algorithms),
            ", ".join(engine.schedulers),
            "yes" if engine.installed else engine.remedy,
        )
    return table


def _spell_state(record: StudyRecord) -> str:
    """The state, and what to type where a study can be resumed."""
    state = record.tags.get("state", "UNKNOWN")
    if state == TrialState.COMPLETE or record.is_driven:
        return state
    gone = ", but its driver is gone" if state == TrialState.RUNNING else ""
    by_name = "folder" in record.tags
    how = f"mltune resume {record.run_id}" if by_name else f'mltune.resume("{record.run_id}", objective)'
    return f"{state}{gone} (go on with: {how})"


def _rank(trial: FrozenTrial, direction: Direction) -> tuple[bool, float, int]:
    complete = trial.state is TrialState.COMPLETE and trial.value is not None
    value = trial.value if complete and trial.value is not None else 0.0
    return (not complete, value if direction is Direction.MINIMIZE else -value, trial.number)


def _row(trial: FrozenTrial) -> tuple[str, ...]:
    state = f"{trial.state} ({trial.reason})" if trial.reason else str(trial.state)
    value = "" if trial.value is None else f"{trial.value:g}"
    seconds = "" if trial.duration is None else f"{trial.duration:.1f}"
    number = f"{trial.number}" if trial.attempt == 1 else f"{trial.number} (attempt {trial.attempt})"
    return (number, state, value, seconds, spell_params(trial))
