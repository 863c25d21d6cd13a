"""The output of a running study: a live panel on a terminal or in a notebook, elsewhere one line per trial."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mltune._util.redaction import redact
from mltune.driver.events import Callback
from mltune.driver.state import StudyState
from mltune.text import format_params, format_seconds, format_states, format_trial
from mltune.trial import Direction, FrozenTrial, TrialState

if TYPE_CHECKING:
    from mltune.config import StudyConfig
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


class _Lines(Callback):
    """A display that prints one plain line per finished trial."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def on_study_start(self, study: StudyState, notes: Sequence[str]) -> None:
        config = study.config
        trials = f"{config.n_trials} trials" if config.n_trials is not None else "trials until the timeout"
        self._print(
            f"study {config.name}: {trials}, engine {config.engine}, algorithm {config.algorithm}, "
            f"scheduler {config.scheduler}, seed {config.seed}, run {study.run_id}"
        )
        if study.done:
            self._print(f"resumed: {study.done} trials are finished")
        for note in notes:
            self.on_note(note)

    def on_note(self, text: str) -> None:
        self._print(f"note: {text}")

    def on_trial_end(self, study: StudyState, trial: FrozenTrial) -> None:
        self._print(format_trial(trial))

    def on_study_end(self, study: StudyState, result: Study | None) -> None:
        if result is not None:
            self._print_result(result)
        for line in where(study.run_id, study.tracking_uri, study.experiment_id, study.config):
            self._print(line)

    def _print_result(self, result: Study) -> None:
        best = result.best_trial
        self._print(format_states(result.trials))
        self._print(f"best: trial {best.number} with {result.metric} = {best.value:g} ({format_params(best)})")
        self._print(str(result.cost))
        for warning in result.warnings:
            self._print(f"warning: {warning}")
        if result.registration is not None:
            self._print(str(result.registration))
            if result.registration.fault is None:
                self._print(f"load it: mlflow.pyfunc.load_model('{result.registration.uri}')")

    def _print(self, line: str) -> None:
        self._console.print(redact(line), markup=False)


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


def where(run_id: str, tracking_uri: str, experiment_id: str, config: StudyConfig | None) -> list[str]:
    """Return lines on how to view a study and compare its trials: links if the store is a server, else what to enter.

    The link to the trials sorts them by the study's metric: MLflow then shows a flat list, the best first.
    """
    trials = f"tags.`mltune.study` = '{run_id}'"
    if not tracking_uri.startswith(("http://", "https://")):
        serve = f"mlflow ui --backend-store-uri {shlex.quote(redact(tracking_uri))}"
        return [
            f"view: {serve}   (experiment {experiment_id}, run {run_id})",
            f"compare its trials: search the runs for {trials}",
        ]
    home = f"{redact(tracking_uri).rstrip('/')}/#/experiments/{experiment_id}"
    query = {"searchFilter": trials}
    if config is not None:
        ascending = str(config.direction is Direction.MINIMIZE).lower()
        query |= {"orderByKey": f"metrics.`{config.metric}`", "orderByAsc": ascending}
    return [
        f"view: {home}/runs/{run_id}",
        f"compare its trials: {home}/runs?{urlencode(query, quote_via=quote)}",
    ]
