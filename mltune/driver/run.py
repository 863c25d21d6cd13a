"""Run a study, or what is left of it: from the request to the closed parent run."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mltune._util import timing
from mltune._util.signals import Signals, Stop
from mltune._util.timing import Stopwatch
from mltune.driver import closing, opening
from mltune.driver.events import Callback, CallbackError, Callbacks
from mltune.driver.loop import Loop
from mltune.driver.page import StudyPage
from mltune.driver.request import StudyRequest, executor_options
from mltune.driver.session import OpenStudy, Session
from mltune.errors import StudyInterrupted
from mltune.messages import WorkerConfig
from mltune.tracking import connection, other_runs
from mltune.tracking.runs import Tracker
from mltune.tracking.writer import Writer
from mltune.trial import Models

if TYPE_CHECKING:
    from mltune.driver.state import StudyState
    from mltune.execution import Executor
    from mltune.study import Study
    from mltune.tracking.connection import Store


def run_session(request: StudyRequest, callback: Callback) -> Study:
    """Run a study, or what is left of it.

    Args:
        request: The study.
        callback: Told of what happens.

    Raises:
        RequestError: The objective cannot be loaded, or the store cannot be used; nothing was created or changed.
        StudyFailedError: No trial completed, no model could be registered, or the store failed.
        StudyInterrupted: A signal ended the study.
    """
    executor = request.study.executor(executor_options(request.config))
    with Signals() as signals, contextlib.closing(executor), connection.quiet(), _retries(executor) as settings:
        store = _start_workers(request, executor, signals, settings)
        signals.wake = executor.wake
        clock = Stopwatch(float(request.past.tags.get("elapsed_s", 0.0)) if request.past is not None else 0.0)
        session = Session(
            request=request,
            store=store,
            settings=settings,
            tracker=_make_tracker(request, store, executor, clock),
            executor=executor,
            callback=callback,
            signals=signals,
            timing=timing.TIMING,
            notes=[*request.notes, *request.study.notes],
        )
        try:
            with closing.closing_runs(session):
                study = session.study = _assemble(session, opening.open_study(session, clock))
                session.callback.on_study_start(study.state, session.notes)
                study.loop.run()
                signals.check()
                result = closing.conclude(session, study)
        except BaseException:
            with contextlib.suppress(CallbackError):  # the study's own error is the one to see
                _notify_end(session, None)
            raise
        try:
            _notify_end(session, result)
        except CallbackError as error:
            raise error.error from error.error.__cause__
        return result


def _assemble(session: Session, state: StudyState) -> OpenStudy:
    """Give an open study its page, and the loop that drives its trials."""
    page = StudyPage(session.tracker, session.store, session.request, state, session.timing)
    loop = Loop(
        session.request.study.engine,
        session.executor,
        session.tracker,
        state,
        callback=Callbacks([page, session.callback]),
        signals=session.signals,
        timing=session.timing,
    )
    return OpenStudy(state, loop, page)


def _notify_end(session: Session, result: Study | None) -> None:
    if session.study is not None:
        session.callback.on_study_end(session.study.state, result)


def _retries(executor: Executor) -> contextlib.AbstractContextManager[Mapping[str, str | None]]:
    """Disable MLflow's own HTTP retries in the driver; yield the settings that workers need to restore them."""
    return contextlib.nullcontext({}) if executor.limits.in_process else connection.no_mlflow_retries()


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
            store = connection.connect()
            executor.start(
                WorkerConfig(
                    objective=request.objective,
                    metric=config.metric,
                    environment={**store.environment, **settings},
                    trial_timeout=config.trial_timeout,
                    log_models=config.keep_models is not Models.NONE,
                    store_timeout=config.store_timeout,
                )
            )
            return store
    except Stop as stop:
        raise StudyInterrupted(stop.signum, request.past.run_id if request.past else None) from None


def _make_tracker(request: StudyRequest, store: Store, executor: Executor, clock: Stopwatch) -> Tracker:
    config, past = request.config, request.past
    project_run = other_runs.project_run(store.client) if past is None else None
    if past is not None:
        experiment_id = past.experiment_id
    else:
        experiment_id = connection.get_or_create_experiment(store.client, config.experiment_name, project_run)
    return Tracker(
        store.client,
        experiment_id,
        Writer(config.store_timeout, timing.TIMING.renew_every, wake=executor.wake),
        name=config.name,
        metric=config.metric,
        keep_models=config.keep_models,
        project_run=project_run,
        clock=clock,
        timing=timing.TIMING,
    )
