"""What a study tells people, line by line: printed by the display, and logged under the logger ``mltune``."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from mltune._util.redaction import redact
from mltune.driver.events import Callback, Callbacks
from mltune.text import format_params, format_states, format_trial
from mltune.trial import Direction, FrozenTrial, TrialState

if TYPE_CHECKING:
    from mltune.config import StudyConfig
    from mltune.driver.state import StudyState
    from mltune.study import Study


class Lines(Callback):
    """Turns events into lines of text without credentials; subclasses say where the lines go."""

    def write(self, text: str, level: int, label: str) -> None:
        """Write a line.

        Args:
            text: One sentence or fact.
            level: ``logging.INFO``, or ``logging.WARNING`` for what went wrong or is worth a look.
            label: ``note``, ``warning`` or empty.
        """
        raise NotImplementedError

    def on_study_start(self, study: StudyState, notes: Sequence[str]) -> None:
        config = study.config
        trials = f"{config.n_trials} trials" if config.n_trials is not None else "trials until the timeout"
        self._say(
            f"study {config.name}: {trials}, engine {config.engine}, algorithm {config.algorithm}, "
            f"scheduler {config.scheduler}, seed {config.seed}, run {study.run_id}"
        )
        if study.done:
            self._say(f"resumed: {study.done} trials are finished")
        for note in notes:
            self._say(note, label="note")

    def on_note(self, text: str) -> None:
        self._say(text, logging.WARNING, "note")

    def on_trial_end(self, study: StudyState, trial: FrozenTrial) -> None:
        self._say(format_trial(trial), logging.WARNING if trial.state is TrialState.FAILED else logging.INFO)

    def on_study_end(self, study: StudyState, result: Study | None) -> None:
        if result is not None:
            self._tell_result(result)
        for line in locate(study.run_id, study.tracking_uri, study.experiment_id, study.config):
            self._say(line)

    def _tell_result(self, result: Study) -> None:
        best = result.best_trial
        self._say(format_states(result.trials))
        self._say(f"best: trial {best.number} with {result.metric} = {best.value:g} ({format_params(best)})")
        self._say(str(result.cost))
        for warning in result.warnings:
            self._say(warning, logging.WARNING, "warning")
        if (registration := result.registration) is not None:
            self._say(str(registration), logging.INFO if registration.fault is None else logging.WARNING)
            if registration.fault is None:
                self._say(f"load it: mlflow.pyfunc.load_model('{registration.uri}')")

    def _say(self, text: str, level: int = logging.INFO, label: str = "") -> None:
        self.write(redact(text), level, label)


class Log(Lines):
    """Logs under the logger ``mltune``, which has no handler but those that the user's program gives it."""

    _logger = logging.getLogger("mltune")

    def write(self, text: str, level: int, label: str) -> None:
        self._logger.log(level, "%s", text)

    def _say(self, text: str, level: int = logging.INFO, label: str = "") -> None:
        if self._logger.isEnabledFor(level):  # else nobody needs the text without its credentials
            super()._say(text, level, label)

    def on_study_end(self, study: StudyState, result: Study | None) -> None:
        if result is None:
            self._say(f"study {study.config.name} ended early: {study.format_counts()}", logging.WARNING)
        else:
            self._say(f"study {result.name} is {result.state}")
        super().on_study_end(study, result)


def logged(callback: Callback) -> Callback:
    """Return a callback that logs all that it is told."""
    return Callbacks([Log(), callback])


def locate(run_id: str, tracking_uri: str, experiment_id: str, config: StudyConfig | None) -> list[str]:
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
