"""Close a study: conclude a finished one, or close the runs of one that ends early and say why."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

from mltune._util.redaction import cause, redact
from mltune._util.signals import Stop
from mltune.driver import champion
from mltune.driver.events import CallbackError
from mltune.errors import RequestError, StudyFailedError, StudyInterrupted
from mltune.execution import ExecutorLostError
from mltune.retry import LeaseLostError, StoreError, sentence, store_error
from mltune.study import Study
from mltune.tracking import reconcile
from mltune.trial import FrozenTrial, Models, TrialState

if TYPE_CHECKING:
    from mltune.driver.session import OpenStudy, Session
    from mltune.driver.state import StudyState
    from mltune.tracking.registration import Registration


@contextlib.contextmanager
def closing_runs(session: Session) -> Iterator[None]:
    """Leave no run RUNNING whatever ends the study, as far as the store still answers.

    Raises:
        StudyInterrupted: A signal came.
        StudyFailedError: The tracking store or the executor failed, or as raised within.
    """
    try:
        yield
    except BaseException as raised:
        error = _root_cause(raised.error if isinstance(raised, CallbackError) else raised, session.signals.received)
        written = _close_early(session, error)
        if isinstance(error, Stop):
            remedy = session.request.resume_command(session.run_id)
            raise StudyInterrupted(error.signum, session.run_id or None, remedy) from None
        if isinstance(raised, CallbackError):
            raise error from error.__cause__
        failure = _failure(session, error, written=written)
        if failure is None:
            raise
        if session.study is not None:
            failure.study = as_study(session, session.study, TrialState.FAILED, failure.reason)
        raise failure from _cause_of(failure, error)
    session.tracker.close(session.request.config.store_timeout)


def conclude(session: Session, study: OpenStudy) -> Study:
    """Register the best model, make the report and close the parent run.

    Raises:
        StudyFailedError: There is no best trial, or its model could not be registered.
    """
    tracker, state = session.tracker, study.state
    session.flush()
    best = state.best
    if best is None or state.aborted:
        _report(session, study, TrialState.FAILED)
        raise StudyFailedError(_why_failed(state), tracker.run_id)
    registration = _register(session, study, best)
    if session.request.steal:
        session.do(lambda: reconcile.discard_orphans(session.store.client, tracker.run_id))
    _report(session, study, TrialState.COMPLETE)
    study.page.describe_end(registration)
    tracker.end_study(TrialState.COMPLETE)
    session.flush()
    return replace(as_study(session, study, TrialState.COMPLETE), registration=registration)


def as_study(session: Session, study: OpenStudy, state: TrialState, reason: str | None = None) -> Study:
    """Return the study as it is now, in a final state."""
    config, tracker = session.request.config, session.tracker
    return Study(
        run_id=tracker.run_id,
        experiment_id=tracker.experiment_id,
        name=config.name,
        goal=config.goal,
        state=state,
        reason=reason,
        trials=_kept(study.state),
        store=session.store,
        n_trials=config.n_trials,
        elapsed=study.state.elapsed,
        warnings=study.page.warnings,
        cost=tracker.cost,
    )


def _register(session: Session, study: OpenStudy, best: FrozenTrial) -> Registration | None:
    name = session.request.config.registered_model_name
    if name is None:
        return None
    try:
        return champion.register(session, name, best)
    except (RequestError, MlflowException) as error:
        _report(session, study, TrialState.FAILED)
        reason = f"nothing was registered as '{name}': {sentence(error)}"
        raise StudyFailedError(reason, session.run_id) from cause(error)


def _report(session: Session, study: OpenStudy, state: TrialState) -> None:
    with session.signals.at_once():
        fault = study.page.report(state)
    warnings = study.page.warnings if state is TrialState.FAILED else ()  # of a COMPLETE study the result has them
    for note in (*warnings, *([fault] if fault is not None else [])):
        session.callback.on_note(note)


def _kept(state: StudyState) -> tuple[FrozenTrial, ...]:
    """Return the trials ordered by number, without the models that were deleted."""
    only_best = state.config.keep_models is Models.BEST
    trials = (replace(each, model_id=None) if only_best and each is not state.best else each for each in state.trials)
    return tuple(sorted(trials, key=lambda trial: trial.number))


def _close_early(session: Session, error: BaseException) -> bool:
    """Close what is open; return whether it was written to the store."""
    study = session.study
    state, why = (TrialState.INTERRUPTED if isinstance(error, Stop) else TrialState.FAILED), _why_ended(error)
    if study is not None:
        study.page.cancel()
    session.executor.close()
    if study is not None:
        study.loop.interrupt()
        study.page.describe(state, remarks=[why] if why else [])
    session.tracker.end_study(state, why)
    return session.tracker.close(session.timing.close_grace)


def _root_cause(error: BaseException, signum: int | None) -> BaseException:
    """What ended a study: if a signal came, it came to the executor's processes, too."""
    return Stop(signum) if isinstance(error, ExecutorLostError) and signum is not None else error


def _cause_of(failure: StudyFailedError, error: BaseException) -> BaseException | None:
    if failure is error:
        return error.__cause__
    return None if isinstance(error, LeaseLostError) else cause(error)


def _failure(session: Session, error: BaseException, *, written: bool) -> StudyFailedError | None:
    """The error that a study ends with whose store or executor failed, or that has failed by itself; else None."""
    if isinstance(error, StudyFailedError):
        return error
    if isinstance(error, LeaseLostError):
        return StudyFailedError(str(error), session.run_id)
    if isinstance(error, (ExecutorLostError, StoreError, MlflowException)):
        return StudyFailedError(_why_cut_off(session, error, written=written), session.run_id)
    return None


def _why_cut_off(session: Session, error: Exception, *, written: bool) -> str:
    why = error if isinstance(error, ExecutorLostError) else store_error(error)
    if session.study is None and session.request.past is None:
        return f"{why}; the study had not begun"
    open_runs = "" if written else " (runs that are still open are closed then)"
    return f"{why}; resume with: {session.request.resume_command(session.run_id)}{open_runs}"


def _why_ended(error: BaseException) -> str | None:
    """Return why a study ended early, or None if a signal ended it."""
    if isinstance(error, Stop):
        return None
    if isinstance(error, (ExecutorLostError, StudyFailedError, StoreError)):
        return str(error)
    return redact(f"{type(error).__name__}: {error}")


def _why_failed(state: StudyState) -> str:
    """Return why a study has no result."""
    n_trials = len(state.trials)
    if state.aborted and state.best is not None:
        return f"the first trials since the study was resumed all failed; the last one: {state.last_error}"
    if not state.trials:
        return "no trial was started before the timeout"
    failed = sum(trial.state is TrialState.FAILED for trial in state.trials)
    if failed == 0 and any(trial.state is TrialState.INTERRUPTED for trial in state.trials):
        return f"none of {n_trials} trials completed before the timeout and its grace period: raise them"
    if failed == 0:
        return f"none of {n_trials} trials completed: the scheduler stopped all of them"
    first = "the first " if state.aborted else ""
    last = f"; the last one: {state.last_error}" if state.last_error else ""
    return f"{first}{failed} of {n_trials} trials failed and none completed{last}"
