"""Keep a study's page in MLflow up to date: its description while it runs, its report at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mltune._util.redaction import redact
from mltune.driver.description import describe
from mltune.driver.events import Callback
from mltune.driver.refresher import Refresher, reports_enabled
from mltune.report import lint, missing
from mltune.search import FINITE
from mltune.tracking import reader
from mltune.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from mltune._util.timing import Timing
    from mltune.driver.request import StudyRequest
    from mltune.driver.state import StudyState
    from mltune.report.view import View
    from mltune.tracking.connection import Store
    from mltune.tracking.registration import Registration
    from mltune.tracking.runs import Tracker


class StudyPage(Callback):
    """Updates the page of a study's parent run.

    Args:
        tracker: Writes the description; its parent run is open.
        store: The tracking store.
        request: The study request.
        state: The state of the study.
        timing: How often the description is updated.

    Attributes:
        warnings: What the lint found when the study ended.
    """

    def __init__(
        self, tracker: Tracker, store: Store, request: StudyRequest, state: StudyState, timing: Timing
    ) -> None:
        self._tracker = tracker
        self._store = store
        self._request = request
        self._config = request.config
        self._state = state
        self._timing = timing
        self._enabled = reports_enabled()
        self._refresher = Refresher(store.environment) if self._enabled and not missing() else None
        self.warnings: tuple[str, ...] = ()
        self._reported = False
        self._next = 0.0

    def on_tick(self, study: StudyState) -> None:
        """Describe how far the study has come, and refresh its report, if it is time."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._timing.describe_every
            self.describe(TrialState.RUNNING)
        if self._refresher is not None:
            self._refresher.tick(self._tracker.run_id)

    def cancel(self) -> None:
        """Kill the process that refreshes the report, if one is running."""
        if self._refresher is not None:
            self._refresher.cancel()

    def _lint(self, trials: Sequence[FrozenTrial]) -> tuple[str, ...]:
        config = self._config
        finite = config.algorithm.name in FINITE
        try:
            return lint(trials, config.space, config.goal, initial_points=config.initial_points, finite=finite)
        except Exception as error:  # a study does not fail for advice
            return (f"lint failed: {redact(f'{type(error).__name__}: {error}')}",)

    def describe(self, state: TrialState, *, model: str | None = None, remarks: Sequence[str] = ()) -> None:
        """Update the description; the tracker writes it with the next heartbeat.

        Args:
            state: The state.
            model: The address of the registered model.
            remarks: What the user should know, besides the warnings.
        """
        self._tracker.description = describe(
            state=state,
            config=self._config,
            study=self._state,
            run_id=self._tracker.run_id,
            experiment_id=self._tracker.experiment_id,
            resume=self._resume_command(state),
            with_report=self._reported,
            model=model,
            remarks=[redact(remark) for remark in (*remarks, *self.warnings)],
        )

    def _resume_command(self, state: TrialState) -> str | None:
        """Return the command that resumes the study, or extends a complete one; None if that is not possible."""
        run_id, config, study = self._tracker.run_id, self._config, self._state
        if state is not TrialState.COMPLETE:
            return self._request.resume_command(run_id)
        budget = {}  # of what is used up as much again
        if config.n_trials is not None and study.done >= config.n_trials:
            if config.algorithm.name in FINITE:
                return None
            budget["n_trials"] = 2 * config.n_trials
        if config.timeout is not None and study.elapsed >= config.timeout:
            budget["timeout"] = math.ceil(study.elapsed + config.timeout)
        return self._request.resume_command(run_id, **budget)

    def describe_end(self, registration: Registration | None) -> None:
        """Describe the complete study, with its registered model if there is one."""
        remarks = [str(registration)] if registration is not None else []
        model = registration.uri if registration is not None and registration.fault is None else None
        self.describe(TrialState.COMPLETE, model=model, remarks=remarks)

    def report(self, state: TrialState) -> str | None:
        """Lint a study that is about to be in a state, and write its report; do nothing if reports are disabled.

        Returns:
            What went wrong, or None if nothing did.
        """
        if not self._enabled:
            return None
        self.cancel()
        trials = sorted(self._state.trials, key=lambda trial: trial.number)
        self.warnings = self._lint(trials)
        if faults := missing():
            return f"{faults[0]}; then make it with: mltune report {self._tracker.run_id}"
        from mltune.report.write import write_report

        try:
            write_report(self._store.client, self._view(state, trials), self.warnings)
            self._reported = True
        except Exception as error:  # a study does not fail for its report
            what = redact(f"{type(error).__name__}: {error}".partition("\n")[0])
            return f"no report was made ({what}); make it with: mltune report {self._tracker.run_id}"
        return None

    def _view(self, state: TrialState, known: Sequence[FrozenTrial]) -> View:
        """Read the study as its runs tell it, with what is about to be written."""
        from mltune.report.view import View

        client = self._store.client
        record = reader.read_study(client, self._tracker.run_id)
        now = {"state": str(state), "elapsed_s": str(self._state.elapsed), **self._tracker.cost.to_tags()}
        record = replace(record, tags={**record.tags, **now})
        return View.from_config(record, reader.read_reports(client, record, record.trials, known), self._config)
