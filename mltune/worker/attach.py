"""Let user code's own ``mlflow.*`` calls land in its trial's run.

MLflow keeps the active run on a stack of each thread. The public way to put a run there asks the store for it
and marks it as RUNNING; here it is built from what the driver has said, so that attaching costs no call.
``mlflow.tracking.fluent._active_run_stack`` is the one private name that mltune touches.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import mlflow
from mlflow.entities import LifecycleStage, Run, RunData, RunInfo

_INHERITED = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID")
_DRIVERS_STORE: dict[str, str] = {}


def prepare_worker() -> None:
    """Make this process a worker: from now on each trial finds MLflow's settings as the driver wants them.

    Called once, before user code is imported. Without it, as in the user's own process, attaching changes nothing
    but the active run of its thread.
    """
    for name in _INHERITED:
        os.environ.pop(name, None)
    _DRIVERS_STORE.update(tracking=mlflow.get_tracking_uri(), registry=mlflow.get_registry_uri())


@contextlib.contextmanager
def attached(run_id: str, experiment_id: str) -> Iterator[None]:
    """Make a run the active one of this thread, and leave it open at the end.

    Runs that user code started inside and left open are ended: FINISHED, or FAILED if it raised.

    Args:
        run_id: The trial's run.
        experiment_id: The run's experiment.
    """
    if _DRIVERS_STORE:
        _reset(experiment_id)
    outer = mlflow.active_run()
    not_ours_to_end = {run_id} | ({outer.info.run_id} if outer is not None else set())
    leave = _enter(run_id, experiment_id)
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    finally:
        while (left_open := mlflow.active_run()) is not None and left_open.info.run_id not in not_ours_to_end:
            mlflow.end_run(status)
        leave()


def _enter(run_id: str, experiment_id: str) -> Callable[[], None]:
    """Put the run on this thread's stack; what takes it off again."""
    try:
        from mlflow.tracking.fluent import _active_run_stack

        stack: list[Any] = _active_run_stack.get()  # type: ignore[no-untyped-call]
        depth = len(stack)
        stack.append(_active_run(run_id, experiment_id))
    except (ImportError, AttributeError, TypeError):
        mlflow.start_run(run_id=run_id, nested=True)
        return lambda: None  # ending it would close it in the store; it is forgotten with this thread
    return lambda: stack.__delitem__(slice(depth, None))


def _active_run(run_id: str, experiment_id: str) -> mlflow.ActiveRun:
    info = RunInfo(
        run_id=run_id,
        experiment_id=experiment_id,
        user_id="",
        status="RUNNING",
        start_time=int(time.time() * 1000),
        end_time=None,
        lifecycle_stage=LifecycleStage.ACTIVE,
    )
    return mlflow.ActiveRun(Run(info, RunData()))  # type: ignore[no-untyped-call]


def _reset(experiment_id: str) -> None:
    """Undo what an earlier objective in this process did to MLflow's settings; no store call unless it did."""
    if mlflow.get_tracking_uri() != _DRIVERS_STORE["tracking"]:
        mlflow.set_tracking_uri(_DRIVERS_STORE["tracking"])
    if mlflow.get_registry_uri() != _DRIVERS_STORE["registry"]:
        mlflow.set_registry_uri(_DRIVERS_STORE["registry"])
    if os.environ.get("MLFLOW_EXPERIMENT_ID", experiment_id) != experiment_id:
        mlflow.set_experiment(experiment_id=experiment_id)  # for `mlflow.set_experiment` has changed it
    for name in _INHERITED:
        os.environ.pop(name, None)
    os.environ["MLFLOW_EXPERIMENT_ID"] = experiment_id
