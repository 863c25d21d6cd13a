"""Callbacks: what a study tells while it runs."""

from __future__ import annotations

from collections.abc import Sequence

from mltune.driver.state import StudyState
from mltune.study import Study
from mltune.trial import FrozenTrial


class Callback:
    """Told of what happens in a study; override the methods that you need.

    They are called in the driver's process and thread, between trials of others: a slow one delays the study, and what
    it raises ends the study. ``study`` is the study as it is at that moment; read it, do not change it.
    """

    def on_study_start(self, study: StudyState, notes: Sequence[str]) -> None:
        """The parent run is open; ``notes`` say what the user should know of the choices that were made."""

    def on_trial_start(self, study: StudyState, trial: FrozenTrial) -> None:
        """A trial has its run, and was given to the executor."""

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


class Callbacks(Callback):
    """Several callbacks as one, told in their order."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = callbacks

    def on_study_start(self, study: StudyState, notes: Sequence[str]) -> None:
        for callback in self._callbacks:
            callback.on_study_start(study, notes)

    def on_trial_start(self, study: StudyState, trial: FrozenTrial) -> None:
        for callback in self._callbacks:
            callback.on_trial_start(study, trial)

    def on_trial_end(self, study: StudyState, trial: FrozenTrial) -> None:
        for callback in self._callbacks:
            callback.on_trial_end(study, trial)

    def on_new_best(self, study: StudyState, trial: FrozenTrial) -> None:
        for callback in self._callbacks:
            callback.on_new_best(study, trial)

    def on_note(self, text: str) -> None:
        for callback in self._callbacks:
            callback.on_note(text)

    def on_tick(self, study: StudyState) -> None:
        for callback in self._callbacks:
            callback.on_tick(study)

    def on_study_end(self, study: StudyState, result: Study | None) -> None:
        for callback in self._callbacks:
            callback.on_study_end(study, result)
