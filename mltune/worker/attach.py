"""Make the user's own ``mlflow.*`` calls log to the run of their trial.

MLflow keeps a stack of active runs per thread. Its public API for pushing a run fetches the run from the store and
sets it to RUNNING. Here the run is built from what the driver sent, so that attaching makes no store call.
``mlflow.tracking.fluent._active_run_stack`` is the only private name of MLflow that mltune uses.
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
    """Make this process a worker, in which every trial starts with the driver's MLflow settings.

    Called once, before user code is imported. Without this call, as in the driver's own process, attaching changes
    only the active run of its thread.
    """
    for name in _INHERITED:
        os.environ.pop(name, None)
    _DRIVERS_STORE.update(tracking=mlflow.get_tracking_uri(), registry=mlflow.get_registry_uri())


@contextlib.contextmanager
def attached(run_id: str, experiment_id: str) -> Iterator[None]:
    """Make a run the active run of this thread for the block, without ending it.

    End runs that user code started in the block and left open, as FINISHED, or as FAILED if the block raises.

    Args:
        run_id: The ID of the trial's run.
        experiment_id: The ID of the run's experiment.
    """
    if _DRIVERS_STORE:
        _reset(experiment_id)
    outer = mlflow.active_run()
    stay_open = {run_id} | ({outer.info.run_id} if outer is not None else set())
    detach = _enter(run_id, experiment_id)
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    finally:
        while (active := mlflow.active_run()) is not None and active.info.run_id not in stay_open:
            mlflow.end_run(status)
        detach()


def _enter(run_id: str, experiment_id: str) -> Callable[[], None]:
    """Push the run onto this thread's stack; return a function that removes it."""
    try:
        from mlflow.tracking.fluent import _active_run_stack

        stack: list[Any] = _active_run_stack.get()
        depth = len(stack)
        stack.append(_active_run(run_id, experiment_id))
    except (ImportError, AttributeError, TypeError):
        mlflow.start_run(run_id=run_id, nested=True)
        return lambda: None  # ending the run would close it in the store; the stack is gone with this thread
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
    return mlflow.ActiveRun(Run(info, RunData()))


def _reset(experiment_id: str) -> None:
    """Undo an earlier objective's changes to MLflow's settings; without changes, make no store call."""
    if mlflow.get_tracking_uri() != _DRIVERS_STORE["tracking"]:
        mlflow.set_tracking_uri(_DRIVERS_STORE["tracking"])
    if mlflow.get_registry_uri() != _DRIVERS_STORE["registry"]:
        mlflow.set_registry_uri(_DRIVERS_STORE["registry"])
    if os.environ.get("MLFLOW_EXPERIMENT_ID", experiment_id) != experiment_id:
        mlflow.set_experiment(experiment_id=experiment_id)  # an earlier objective called `mlflow.set_experiment`
    for name in _INHERITED:
        os.environ.pop(name, None)
    os.environ["MLFLOW_EXPERIMENT_ID"] = experiment_id
