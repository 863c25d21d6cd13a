"""Callbacks: what a study tells while it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mltune.driver.state import StudyState
from mltune.study import Study
from mltune.trial import FrozenTrial


class Callback:
    """Told of what happens in a study; override the methods that you need.

    They are called in the driver's process and thread, between trials of others: a slow one delays the study, and what
    it raises ends the study. ``study`` is the study as it is at that moment; read it, do not change it.
    """

    def on_study_start(self, study: StudyState, notes: Sequence[str]) -> None:
        """The parent run is open; ``notes`` are sentences for the user, such as which algorithm ``auto`` is."""

    def on_trial_start(self, study: StudyState, trial: FrozenTrial) -> None:
        """A trial has its run, and was submitted to the executor."""

    def on_trial_end(self, study: StudyState, trial: FrozenTrial) -> None:
        """The final state of a trial is stored, and its run closed."""

    def on_new_best(self, study: StudyState, trial: FrozenTrial) -> None:
        """A trial is better than all before it; it is about to be stored."""

    def on_note(self, text: str) -> None:
        """Something that the user should know, in one sentence."""

    def on_tick(self, study: StudyState) -> None:
        """Called several times a second."""

    def on_study_end(self, study: StudyState, result: Study | None) -> None:
        """The parent run is closed; ``result`` is None if the study failed or was interrupted."""


class CallbackError(Exception):
    """A callback of the user's raised ``error``; the study ends with it as it is."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Callbacks(Callback):
    """Several callbacks as one, called in order."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = callbacks

    def on_study_start(self, study: StudyState, notes: Sequence[str]) -> None:
        self._call(lambda callback: callback.on_study_start(study, notes))

    def on_trial_start(self, study: StudyState, trial: FrozenTrial) -> None:
        self._call(lambda callback: callback.on_trial_start(study, trial))

    def on_trial_end(self, study: StudyState, trial: FrozenTrial) -> None:
        self._call(lambda callback: callback.on_trial_end(study, trial))

    def on_new_best(self, study: StudyState, trial: FrozenTrial) -> None:
        self._call(lambda callback: callback.on_new_best(study, trial))

    def on_note(self, text: str) -> None:
        self._call(lambda callback: callback.on_note(text))

    def on_tick(self, study: StudyState) -> None:
        self._call(lambda callback: callback.on_tick(study))

    def on_study_end(self, study: StudyState, result: Study | None) -> None:
        self._call(lambda callback: callback.on_study_end(study, result))

    def _call(self, call: Callable[[Callback], None]) -> None:
        """Call all callbacks, then raise the first error of them.

        Raises:
            CallbackError: One of them raised.
        """
        errors: list[CallbackError] = []
        for callback in self._callbacks:
            try:
                call(callback)
            except CallbackError as error:
                errors.append(error)
            except Exception as error:
                errors.append(CallbackError(error))
        if errors:
            raise errors[0]


def notify(callback: Callback, text: str) -> None:
    """Pass a note to a callback outside of a session; what the user's own raises is raised as it is."""
    try:
        callback.on_note(text)
    except CallbackError as error:
        raise error.error from error.error.__cause__
