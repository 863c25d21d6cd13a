"""Format trials, states and durations as text for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mltune.trial import FrozenTrial, TrialState


def format_seconds(seconds: float) -> str:
    """Return a duration as text, in its two largest units.

    >>> format_seconds(4.21), format_seconds(75), format_seconds(3 * 86400 + 7230)
    ('4.2 s', '1 min 15 s', '3 d 2 h')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour} h"
    return f"{hours} h {minute} min" if hours else f"{minutes} min {second} s"


def format_counts(states: Mapping[TrialState, int], n_trials: int | None) -> str:
    """Return text such as ``12 of 30 trials: 10 complete, 2 pruned``."""
    of = f" of {n_trials}" if n_trials is not None else ""
    counts = ", ".join(f"{count} {str(state).lower()}" for state, count in states.items())
    return f"{sum(states.values())}{of} trials" + (f": {counts}" if counts else "")


def format_states(trials: Sequence[FrozenTrial]) -> str:
    """Return text such as ``12 trials: 10 complete, 2 pruned``."""
    states = Counter(str(trial.state).lower() for trial in trials)
    return f"{len(trials)} trials: {', '.join(f'{count} {state}' for state, count in states.items())}"


def format_trial(trial: FrozenTrial) -> str:
    """Return one line on a finished trial."""
    value = "" if trial.value is None else f" {trial.value:g}"
    reason = "" if trial.reason is None else f" ({trial.reason})"
    duration = "" if trial.duration is None else f" in {trial.duration:.1f} s"
    return f"trial {trial.number} {trial.state}{value}{reason}{duration}: {format_params(trial)}"


def format_params(trial: FrozenTrial) -> str:
    """Return the parameters as ``name=value, …``."""
    return ", ".join(
        f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}" for name, value in trial.params.items()
    )
