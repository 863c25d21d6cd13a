"""What a study prints while it runs: a live line on a terminal, one plain line per trial elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mltune.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from mltune.config import StudyConfig
    from mltune.result import StudyResult


class Display(Protocol):
    """Told of all that happens in a study."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    def study_started(
        self, config: StudyConfig, run_id: str, notes: list[str], finished: Sequence[FrozenTrial]
    ) -> None:
        """The parent run is open; some trials may be finished by earlier sessions."""

    def trial_changed(self, trial: FrozenTrial) -> None:
        """A trial was given to a worker, or its end is written."""

    def note(self, text: str) -> None:
        """Something that the user should know."""

    def study_completed(self, result: StudyResult) -> None:
        """The study is COMPLETE and its parent run closed."""

    def study_ended(self, run_id: str, tracking_uri: str, experiment_id: str) -> None:
        """The parent run is closed, whatever came of the study."""


def make_display(*, quiet: bool = False) -> Display:
    """The display that suits standard output."""
    console = _Console(quiet=quiet, highlight=False, soft_wrap=True)
    return _Terminal(console) if console.is_terminal and not quiet else _Lines(console)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """A reader that has seen enough (``| head``) does not end the study."""
        self.quiet = True


class _Lines:
    """One plain line per finished trial."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        pass

    def study_started(
        self, config: StudyConfig, run_id: str, notes: list[str], finished: Sequence[FrozenTrial]
    ) -> None:
        trials = f"{config.n_trials} trials" if config.n_trials is not None else "trials until the timeout"
        self._print(
            f"study {config.name}: {trials}, engine {config.engine}, algorithm {config.algorithm}, "
            f"scheduler {config.scheduler}, seed {config.seed}, run {run_id}"
        )
        if finished:
            self._print(f"resumed: {len(finished)} trials are finished")
        for note in notes:
            self.note(note)

    def note(self, text: str) -> None:
        self._print(f"note: {text}")

    def trial_changed(self, trial: FrozenTrial) -> None:
        if trial.state is not TrialState.RUNNING:
            self._print(describe(trial))

    def study_completed(self, result: StudyResult) -> None:
        best = result.best_trial
        states = Counter(str(trial.state).lower() for trial in result.trials)
        self._print(f"{len(result.trials)} trials: {', '.join(f'{count} {state}' for state, count in states.items())}")
        self._print(f"best: trial {best.number} with {result.metric} = {best.value:g} ({spell_params(best)})")
        self._print(str(result.cost))
        if result.registration is not None:
            self._print(str(result.registration))
            self._print(f"load it: mlflow.pyfunc.load_model('{result.registration.uri}')")

    def study_ended(self, run_id: str, tracking_uri: str, experiment_id: str) -> None:
        self._print(f"look at it: {_where(run_id, tracking_uri, experiment_id)}")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False)


class _Terminal(_Lines):
    """A progress bar with the best value so far, below the lines of failed trials."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._best: float | None = None
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[best]}"),
            console=console,
        )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._progress.stop()

    def study_started(
        self, config: StudyConfig, run_id: str, notes: list[str], finished: Sequence[FrozenTrial]
    ) -> None:
        super().study_started(config, run_id, notes, finished)
        self._direction = config.direction
        self._task = self._progress.add_task(config.name, total=config.n_trials, completed=len(finished), best="")
        for trial in finished:
            self._show_best(trial)
        self._progress.start()

    def trial_changed(self, trial: FrozenTrial) -> None:
        if not trial.finished:
            return
        if trial.state is TrialState.FAILED:
            self._print(describe(trial))
        self._show_best(trial)
        self._progress.advance(self._task)

    def _show_best(self, trial: FrozenTrial) -> None:
        value = trial.value if trial.state is TrialState.COMPLETE else None
        if value is not None and self._direction.better(value, self._best):
            self._best = value
            self._progress.update(self._task, best=f"best {value:g} (trial {trial.number})")

    def study_completed(self, result: StudyResult) -> None:
        self._progress.stop()
        super().study_completed(result)


def describe(trial: FrozenTrial) -> str:
    """A finished trial on one line."""
    value = "" if trial.value is None else f" {trial.value:g}"
    reason = "" if trial.reason is None else f" ({trial.reason})"
    duration = "" if trial.duration is None else f" in {trial.duration:.1f} s"
    return f"trial {trial.number} {trial.state}{value}{reason}{duration}: {spell_params(trial)}"


def spell_params(trial: FrozenTrial) -> str:
    """The parameters as ``name=value, …``."""
    return ", ".join(
        f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}" for name, value in trial.params.items()
    )


def _where(run_id: str, tracking_uri: str, experiment_id: str) -> str:
    from mltune.tracking.connect import redact

    if tracking_uri.startswith(("http://", "https://")):
        return f"{redact(tracking_uri).rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"
    return f"mlflow ui --backend-store-uri {redact(tracking_uri)}   (experiment {experiment_id}, run {run_id})"
