"""The output of a running study: a live panel on a terminal or in a notebook, elsewhere one line per trial."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mltune.driver.lines import Lines
from mltune.text import format_params, format_seconds
from mltune.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from mltune.driver.events import Callback
    from mltune.driver.state import StudyState
    from mltune.study import Study


def make_display(*, quiet: bool = False) -> Callback:
    """Return the display that suits standard output: a live panel or plain lines."""
    console = _Console(quiet=quiet, highlight=False, emoji=False, soft_wrap=True)
    live = console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
    return _Panel(console) if live and not quiet else _Lines(console)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Stop printing, but let the study go on, when the reader of the output exits, as with ``| head``."""
        self.quiet = True


class _Lines(Lines):
    """A display that prints one plain line per finished trial."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def write(self, text: str, level: int, label: str) -> None:
        self._console.print(f"{label}: {text}" if label else text, markup=False)


class _Panel(_Lines):
    """A progress bar, the pace and the best trial so far, below the lines of failed trials."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._study: StudyState | None = None
        self._live = Live(console=console, get_renderable=self.panel, refresh_per_second=4)

    def on_study_start(self, study: StudyState, notes: Sequence[str]) -> None:
        super().on_study_start(study, notes)
        self._study = study
        self._live.start(refresh=True)

    def on_trial_end(self, study: StudyState, trial: FrozenTrial) -> None:
        if trial.state is TrialState.FAILED:
            super().on_trial_end(study, trial)

    def on_study_end(self, study: StudyState, result: Study | None) -> None:
        if self._live.is_started:
            self._live.refresh()  # in a notebook, `stop` leaves the panel as of the last refresh
            self._live.stop()
        super().on_study_end(study, result)

    def panel(self) -> Group:
        """Return the panel below the lines; empty before the study starts."""
        study = self._study
        if study is None:
            return Group()
        bar = Table.grid(padding=(0, 1))
        trials = study.config.n_trials
        total, done = (trials, study.done) if trials is not None else (study.config.timeout, study.elapsed)
        name = Text(study.config.name, style="bold")
        bar.add_row(name, ProgressBar(total, done, width=40), study.format_counts())
        lines: list[RenderableType] = [bar, Text(f"  {_format_pace(study)}")]
        if study.best is not None:
            best = f"  best {study.best.value:g} (trial {study.best.number}: {format_params(study.best)})"
            lines.append(Text(best, no_wrap=True, overflow="ellipsis"))
        return Group(*lines)


def _format_pace(study: StudyState) -> str:
    """Return the running trials, their rate, and the elapsed and remaining time as text."""
    running = sorted(each.trial.number for each in list(study.running.values()) if each.trial.run_id is not None)
    parts = [f"running {', '.join(map(str, running[:8]))}{', …' if len(running) > 8 else ''}"] if running else []
    if (rate := study.per_second) is not None:
        parts.append(f"{rate:.1f} trials/s" if rate >= 1 else f"{60 * rate:.1f} trials/min")
    parts.append(f"{format_seconds(study.elapsed)} so far")
    if (left := study.left) is not None:
        parts.append(f"about {format_seconds(left)} left")
    return " · ".join(parts)
