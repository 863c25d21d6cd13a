"""Open a study: a new one, or one that is taken over and replayed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mltune._util.redaction import redact
from mltune.driver.attempts import Attempts
from mltune.driver.state import StudyState
from mltune.objective import ObjectiveRef
from mltune.tracking import models, reader, reconcile
from mltune.tracking.cost import TrackingCost
from mltune.trial import FrozenTrial, Models

if TYPE_CHECKING:
    from mltune._util.timing import Stopwatch
    from mltune.driver.session import Session
    from mltune.tracking.reader import StudyRecord


def open_study(session: Session, clock: Stopwatch) -> StudyState:
    """Open the parent run, or take it over; return what is known of the study then.

    Raises:
        RequestError: Another driver has the study.
        StoreError: The store did not come back.
        Stop: A signal came.
    """
    config, past, tracker = session.request.config, session.request.past, session.tracker
    study_yaml = config.to_yaml()
    tags = _tags(session, study_yaml)
    if past is None:
        attempts = Attempts(config.retries, {})
        session.do(lambda: tracker.start_study(tags, study_yaml))
        clock.start()  # making its run is no part of a study's time
    else:
        attempts = _take_over(session, past, clock)
        session.do(lambda: tracker.resume_study(tags, study_yaml))
        _restore_best(session, past, attempts)
    return StudyState(
        config,
        attempts,
        clock,
        run_id=tracker.run_id,
        experiment_id=tracker.experiment_id,
        tracking_uri=redact(session.store.uri),
    )


def _tags(session: Session, study_yaml: str) -> dict[str, str]:
    config, objective = session.request.config, session.request.objective
    return {
        "engine": config.engine,
        "executor": str(config.executor),
        "algorithm": str(config.algorithm),
        "scheduler": str(config.scheduler),
        **config.goal.to_tags(),
        "seed": str(config.seed),
        "study_digest": hashlib.sha256(study_yaml.encode()).hexdigest(),
    } | ({"folder": objective.folder} if isinstance(objective, ObjectiveRef) else {})


def _take_over(session: Session, past: StudyRecord, clock: Stopwatch) -> Attempts:
    """Take the study's lease, finish what its last driver had begun to write, and replay its trials into the engine.

    Returns:
        All earlier attempts.
    """
    client, study = session.store.client, past.run_id
    config = session.request.config

    def take() -> None:
        reconcile.take_over(client, study, steal=session.request.steal)
        session.tracker.take_study(study, TrackingCost.from_tags(past.tags).size)

    session.do(take)
    clock.start()
    last_heard = past.lease.renewed if past.lease is not None else 0.0
    record = session.do(lambda: reconcile.reconcile(client, study, last_heard))
    attempts = Attempts(config.retries, record.attempts)
    finished = session.do(lambda: reader.read_reports(client, record, attempts.finished()))
    _replay(session, finished, attempts.unfinished())
    return attempts


def _replay(session: Session, finished: Sequence[FrozenTrial], unfinished: Sequence[FrozenTrial]) -> None:
    if unfinished:
        numbers = ", ".join(str(trial.number) for trial in unfinished)
        session.notes.append(f"trials that were cut off are tried again: {numbers}")
    space = session.request.config.space
    known = [replace(trial, params=space.coerce(trial.params)) for trial in (*finished, *unfinished)]
    valid = [trial for trial in known if not space.faults(trial.params)]
    session.request.study.engine.replay(sorted(valid, key=lambda trial: trial.number))


def _restore_best(session: Session, past: StudyRecord, attempts: Attempts) -> None:
    """Finish what the last driver had not written of the best trial, and not deleted of beaten ones."""
    config, finished = session.request.config, attempts.finished()
    best = config.goal.best(finished)
    if config.keep_models is Models.BEST:
        keep = best.run_id if best is not None else None
        runs = attempts.runs()
        session.do(lambda: models.remove_beaten_models(session.store.client, past.experiment_id, runs, keep))
    if best is not None and past.tags.get("best_run_id") != best.run_id:
        session.tracker.log_best(best, len(finished) - 1)
