"""One session of a study: from the request to the closed parent run, whether it begins or goes on."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from mltune._util.redaction import cause
from mltune._util.signals import Signals, Stop
from mltune.driver.attempts import Attempts
from mltune.driver.events import Callback
from mltune.driver.loop import Budget, StudyDriver
from mltune.driver.page import StudyPage
from mltune.driver.progress import Progress
from mltune.driver.reasons import meant, why_ended, why_failed
from mltune.driver.request import StudyRequest, executor_options
from mltune.errors import RequestError, StudyFailedError, StudyInterrupted
from mltune.execution import Executor, ExecutorLostError
from mltune.messages import Setup
from mltune.objective import ObjectiveRef
from mltune.retry import LeaseLostError, StoreError, sentence, store_error
from mltune.study import StudyResult, no_model
from mltune.tracking import connection, delete, other_runs, proof, reader, reconcile, registry
from mltune.tracking.connection import Store
from mltune.tracking.cost import TrackingCost
from mltune.tracking.reader import StudyRecord
from mltune.tracking.registry import Registration
from mltune.tracking.runs import Tracker
from mltune.trial import FrozenTrial, Models, TrialState, best_of

T = TypeVar("T")

_UNLIMITED = 10**9  # trials, where only a timeout ends the study
_CLOSE_GRACE = 10.0  # seconds for the last writes of a study that ends early


def run_session(request: StudyRequest, display: Callback) -> StudyResult:
    """Run a study, or what is left of it.

    Raises:
        RequestError: The objective cannot be loaded, or the store cannot be used; nothing was created or changed.
        StudyFailedError: No trial completed, no model could be registered, or the store failed.
        StudyInterrupted: A signal ended the study.
    """
    executor = request.study.executor(executor_options(request.config))
    with Signals() as signals, contextlib.closing(executor), connection.quiet(), _calls(executor) as settings, display:
        there = _start_workers(request, executor, signals, settings)
        signals.wake = executor.wake
        tracker = _tracker(request, there, executor)
        session = _Session(request, there, tracker, executor, signals, display, settings)
        try:
            with session.closing_runs():
                session.begin()
                request.study.engine.run(session.driver)
                signals.check()
                result = session.conclude()
            display.study_completed(result)
        finally:
            if tracker.run_id:
                display.study_ended(tracker.run_id, there.uri, tracker.experiment_id)
        return result


def _calls(executor: Executor) -> contextlib.AbstractContextManager[Mapping[str, str | None]]:
    """MLflow's own retries, off where they are not the objective's too; what workers need to have them on."""
    return contextlib.nullcontext({}) if executor.limits.in_process else connection.one_try_a_call()


def _start_workers(
    request: StudyRequest, executor: Executor, signals: Signals, settings: Mapping[str, str | None]
) -> Store:
    """Reach the store and load the objective, before anything of the study is in MLflow.

    Raises:
        StudyInterrupted: A signal came.
    """
    config = request.config
    try:
        with signals.at_once():
            executor.warm_up()
            there = connection.connect()
            executor.start(
                Setup(
                    objective=request.objective,
                    metric=config.metric,
                    environment={**there.environment, **settings},
                    trial_timeout=config.trial_timeout,
                    log_models=config.models is not Models.NONE,
                    store_timeout=config.store_timeout,
                )
            )
            return there
    except Stop as stop:
        raise StudyInterrupted(stop.signum, request.past.run_id if request.past else None) from None


def _tracker(request: StudyRequest, there: Store, executor: Executor) -> Tracker:
    config, past = request.config, request.past
    project_run = other_runs.project_run(there.client) if past is None else None
    if past is not None:
        experiment_id = past.experiment_id
    else:
        experiment_id = connection.experiment(there.client, config.experiment_name, project_run)
    return Tracker(
        there.client,
        experiment_id,
        name=config.name,
        metric=config.metric,
        models=config.models,
        project_run=project_run,
        patience=config.store_timeout,
        wake=executor.wake,
    )


class _Session:
    """What one process does for a study."""

    def __init__(
        self,
        request: StudyRequest,
        there: Store,
        tracker: Tracker,
        executor: Executor,
        signals: Signals,
        display: Callback,
        settings: Mapping[str, str | None],
    ) -> None:
        self._request = request
        self._config = request.config
        self._notes = [*request.notes, *request.study.notes]
        self._tracker = tracker
        self._executor = executor
        self._signals = signals
        self._display = display
        self._there = there
        self._settings = settings
        self._driver: StudyDriver | None = None
        self._page: StudyPage | None = None
        self._trouble: str | None = None

    @property
    def driver(self) -> StudyDriver:
        """The driver, once the session has begun."""
        assert self._driver is not None
        return self._driver

    @property
    def page(self) -> StudyPage:
        """What the study's run shows, once the session has begun."""
        assert self._page is not None
        return self._page

    def begin(self) -> None:
        """Open the parent run, or take it over with what the runs tell."""
        config, past, tracker = self._config, self._request.past, self._tracker
        study_yaml = config.to_yaml()
        if past is None:
            attempts = Attempts(config.retries, {})
            self._do(lambda: tracker.start_study(self._tags(study_yaml), study_yaml))
        else:
            attempts = self._go_on(past, study_yaml)
        self._progress = Progress(
            config.direction,
            n_trials=config.n_trials,
            timeout=config.timeout,
            elapsed=tracker.elapsed,
            finished=attempts.finished(),
        )
        self._page = StudyPage(tracker, self._there, self._request, self._progress)
        self._driver = self._make_driver(attempts)
        self._display.study_started(config, tracker.run_id, self._notes, self._progress)

    def trial_changed(self, trial: FrozenTrial) -> None:
        self._progress.trial_changed(trial)
        self._display.trial_changed(trial)

    def note(self, text: str) -> None:
        self._display.note(text)

    def _go_on(self, past: StudyRecord, study_yaml: str) -> Attempts:
        """Take the study over; the attempts of its earlier sessions."""
        config, tracker, study, there = self._config, self._tracker, past.run_id, self._there

        def take() -> None:
            reconcile.take_over(there.client, study, steal=self._request.steal)
            size = TrackingCost.from_tags(past.tags).size
            tracker.take_study(study, float(past.tags.get("elapsed_s", 0.0)), size)

        self._do(take)
        last_heard = past.lease.renewed if past.lease is not None else 0.0
        self._do(lambda: reconcile.reconcile(there.client, study, last_heard))
        record = self._do(lambda: reader.read_study(there.client, study))
        attempts = Attempts(config.retries, record.attempts)
        finished = self._do(lambda: reader.read_reports(there.client, record, attempts.finished()))
        again = attempts.unfinished()
        if again:
            numbers = ", ".join(str(trial.number) for trial in again)
            self._notes.append(f"trials that were cut off are tried again: {numbers}")
        known = [replace(trial, params=config.space.coerce(trial.params)) for trial in (*finished, *again)]
        valid = [trial for trial in known if not config.space.faults(trial.params)]
        self._request.study.engine.rebuild(sorted(valid, key=lambda trial: trial.number))
        self._do(lambda: tracker.resume_study(self._tags(study_yaml), study_yaml))
        best = best_of(finished, config.direction)
        if config.models is Models.BEST:
            self._do(lambda: self._remove_beaten_models(record, best))
        if best is not None and record.tags.get("best_run_id") != best.run_id:
            tracker.log_best(best, len(finished) - 1)
        return attempts

    def _remove_beaten_models(self, record: StudyRecord, best: FrozenTrial | None) -> None:
        runs = {str(trial.run_id) for attempts in record.attempts.values() for trial in attempts}
        delete.remove_beaten_models(self._there.client, record.experiment_id, runs, best.run_id if best else None)

    def _do(self, call: Callable[[], T]) -> T:
        """What a call returns, tried again while the store does not answer."""
        return self._tracker.do(call, self._check)

    def _check(self) -> None:
        self._tell_trouble()
        self._signals.check()

    def _tell_trouble(self) -> None:
        """Let the user know when the store stops to answer, and when it answers again."""
        before, now = self._trouble, self._tracker.trouble
        self._trouble = now
        if before is None and now is not None:
            self._display.note(f"the tracking store does not answer, results wait in memory: {now}")
        elif before is not None and now is None:
            self._display.note("the tracking store answers again")

    def _attend(self) -> None:
        self._tell_trouble()
        if self._page is not None:
            self._page.attend()

    def _make_driver(self, attempts: Attempts) -> StudyDriver:
        config = self._config
        assert config.seed is not None
        return StudyDriver(
            self._tracker,
            self._executor,
            budget=Budget(
                n_trials=config.n_trials or _UNLIMITED,
                n_jobs=config.n_jobs,
                timeout=config.timeout,
                grace=config.grace,
            ),
            attempts=attempts,
            metric=config.metric,
            direction=config.direction,
            seed=config.seed,
            watcher=self,
            attend=self._attend,
            signals=self._signals,
        )

    def _tags(self, study_yaml: str) -> dict[str, str]:
        config, objective = self._config, self._request.objective
        return {
            "engine": config.engine,
            "executor": str(config.executor),
            "algorithm": str(config.algorithm),
            "scheduler": str(config.scheduler),
            "metric": config.metric,
            "direction": config.direction,
            "seed": str(config.seed),
            "study_digest": hashlib.sha256(study_yaml.encode()).hexdigest(),
        } | ({"folder": objective.folder} if isinstance(objective, ObjectiveRef) else {})

    @contextlib.contextmanager
    def closing_runs(self) -> Iterator[None]:
        """Whatever ends the study, no run stays RUNNING, as far as the store still answers.

        Raises:
            StudyInterrupted: A signal came.
            StudyFailedError: The tracking store failed, or as raised within.
        """
        try:
            yield
        except BaseException as raised:
            error = meant(raised, self._signals.received)
            written = self._close_early(error)
            run_id = self._tracker.run_id or (self._request.past.run_id if self._request.past is not None else "")
            if isinstance(error, Stop):
                raise StudyInterrupted(error.signum, run_id or None, self._request.resume_command(run_id)) from None
            if isinstance(error, LeaseLostError):
                raise StudyFailedError(str(error), run_id) from None
            if isinstance(error, (ExecutorLostError, StoreError, MlflowException)):
                raise StudyFailedError(self._why_cut_off(error, run_id, written=written), run_id) from cause(error)
            raise
        self._tracker.close(self._config.store_timeout)

    def _close_early(self, error: BaseException) -> bool:
        """Close what is open; whether the store took it."""
        if self._page is not None:
            self._page.cancel()
        self._executor.close()
        if self._driver is not None:
            self._driver.interrupt()
        state, why = (TrialState.INTERRUPTED if isinstance(error, Stop) else TrialState.FAILED), why_ended(error)
        if self._page is not None:
            self._page.describe(state, remarks=[why] if why else [])
        self._tracker.end_study(state, why)
        return self._tracker.close(_CLOSE_GRACE)

    def conclude(self) -> StudyResult:
        """Register the best model, make the report and close the parent run.

        Raises:
            StudyFailedError: There is no best trial, or its model could not be registered.
        """
        config, driver, tracker = self._config, self.driver, self._tracker
        self._do(lambda: None)  # all trials are written
        tracker.settle()
        best = driver.best
        if best is None or driver.gave_up:
            self._report(TrialState.FAILED)
            raise StudyFailedError(why_failed(driver), tracker.run_id)
        registration = None
        if config.register_as is not None:
            try:
                registration = self._register(config.register_as, best)
            except (RequestError, MlflowException) as error:
                self._report(TrialState.FAILED)
                reason = f"nothing was registered as '{config.register_as}': {sentence(error)}"
                raise StudyFailedError(reason, tracker.run_id) from cause(error)
        if self._request.steal:
            self._do(lambda: reconcile.discard_strays(self._there.client, tracker.run_id))
        trials = tuple(sorted(map(self._as_kept, driver.trials), key=lambda trial: trial.number))
        self._report(TrialState.COMPLETE)
        self._describe_end(registration)
        tracker.end_study(TrialState.COMPLETE)
        self._do(lambda: None)
        tracker.settle()
        return StudyResult(
            run_id=tracker.run_id,
            name=config.name,
            metric=config.metric,
            direction=config.direction,
            state=TrialState.COMPLETE,
            trials=trials,
            best_trial=best,
            registration=registration,
            warnings=self.page.warnings,
            cost=tracker.cost,
        )

    def _report(self, state: TrialState) -> None:
        with self._signals.at_once():
            fault = self.page.report(state, sorted(self.driver.trials, key=lambda trial: trial.number))
        said = self.page.warnings if state is TrialState.FAILED else ()  # of a COMPLETE study the result says them
        for note in (*said, *([fault] if fault is not None else [])):
            self._display.note(note)

    def _describe_end(self, registration: Registration | None) -> None:
        remarks = [str(registration)] if registration is not None else []
        model = registration.uri if registration is not None and registration.fault is None else None
        self.page.describe(TrialState.COMPLETE, model=model, remarks=remarks)

    def _as_kept(self, trial: FrozenTrial) -> FrozenTrial:
        """A trial without the model that is not kept."""
        beaten = self._config.models is Models.BEST and trial is not self.driver.best
        return replace(trial, model_id=None) if beaten else trial

    def _register(self, name: str, best: FrozenTrial) -> Registration:
        """Register the best model; it gets the alias once a fresh process could use it."""
        config, study, client = self._config, self._tracker.run_id, self._there.client

        def add() -> ModelVersion:
            model_id = best.model_id or registry.find_model(client, str(best.run_id))
            if model_id is None:
                raise RequestError(no_model(best))
            return registry.add_version(
                client, name, best, model_id, study=study, metric=config.metric, direction=config.direction
            )

        version = self._do(add)
        uri = f"models:/{name}/{version.version}"
        fault = proof.fault(uri, {**self._there.environment, **self._settings}, self._check)
        return self._do(lambda: registry.promote(client, version, fault))

    def _why_cut_off(self, error: Exception, run_id: str, *, written: bool) -> str:
        said = error if isinstance(error, ExecutorLostError) else store_error(error)
        if self._driver is None and self._request.past is None:
            return f"{said}; the study had not begun"
        open_runs = "" if written else " (runs that are still open are closed then)"
        return f"{said}; resume with: {self._request.resume_command(run_id)}{open_runs}"
