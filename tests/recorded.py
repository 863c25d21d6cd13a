"""Studies that are recorded once a run of the suite, for the tests that only read: of each kind one."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from sklearn.linear_model import LinearRegression

import mltune
from mltune import Categorical, Float, Int
from tests.drivers import wait_for
from tests.shared import copy_store
from tests.store import forget_tracking_uri

SPACE = {"x": Float(-1.0, 1.0), "rate": Float(1e-4, 1.0, log=True), "kind": Categorical(["a", "b"])}
CONDITIONAL = {
    "kind": Categorical(["a", "b"]),
    "x": Float(-1.0, 1.0, when={"kind": ["a"]}),
    "n": Int(1, 3, when={"kind": ["b"]}),
}


def reports(trial: mltune.Trial) -> float:
    """A curve of four steps; every sixth trial fails."""
    if trial.number % 6 == 5:
        raise ValueError("no")
    value = trial.params["x"] ** 2 + abs(trial.params["rate"] - 0.01)
    for step in range(4):
        trial.report(value + 1 / (step + 1), step=step)
    return float(value)


def logs_a_model(trial: mltune.Trial) -> float:
    """Trial 3 fails; all others have a model."""
    if trial.number == 3:
        raise ValueError("no")
    trial.log_model(LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]), input_example=[[0.5]])
    return float(trial.params["x"] ** 2 + trial.params["rate"] / 100)


def is_cut(trial: mltune.Trial) -> float:
    """The study is interrupted in the third trial, as by Ctrl-C."""
    if trial.number == 2:
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait()
    return float(trial.params["x"])


def is_killed(trial: mltune.Trial) -> float:
    """The driver is killed in the third trial, once the first two are written."""
    if trial.number == 2:
        written = "tags.`mltune.state` = 'COMPLETE'"
        wait_for(lambda: len(MlflowClient().search_runs(["0"], written)) == 2)
        os.kill(os.getpid(), signal.SIGKILL)
    return float(trial.params["x"])


def plain(trial: mltune.Trial) -> float:
    """Nothing but a value."""
    return float(trial.params.get("x", 0.0) or 0.0)


def fails(trial: mltune.Trial) -> float:
    """No trial completes."""
    raise ValueError("never")


def tune(objective: Callable[[mltune.Trial], Any], space: Mapping[str, Any] = SPACE, **arguments: Any) -> None:
    """Run a study in this process."""
    defaults: dict[str, Any] = {"direction": "minimize", "n_trials": 6, "seed": 1, "algorithm": "random"}
    with contextlib.suppress(mltune.StudyFailedError, mltune.StudyInterrupted):
        mltune.tune(objective, dict(space), **defaults | {"executor": "inline", "quiet": True} | arguments)


def tune_in_a_fork(objective: Callable[[mltune.Trial], Any], **arguments: Any) -> None:
    """Run a study in a process that may be interrupted or killed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
            tune(objective, **arguments)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)


STUDIES: Mapping[str, Callable[[], None]] = {
    "finished": lambda: tune(reports, n_trials=18, scheduler="asha", algorithm="tpe", name="finished"),
    "models": lambda: tune(logs_a_model, n_trials=12, name="models", register="kept"),
    "grid": lambda: tune(plain, {"x": Int(1, 3), "kind": Categorical(["a", "b"])}, algorithm="grid", name="grid"),
    "conditional": lambda: tune(plain, CONDITIONAL, n_trials=8, name="conditional"),
    "failed": lambda: tune(fails, n_trials=18, name="failed"),
    "cut": lambda: tune_in_a_fork(is_cut, name="cut", grace=0.1),
    "killed": lambda: tune_in_a_fork(is_killed, name="killed"),
}
"""By kind; each with its report, as users have it."""


def record(kind: str, folder: Path, empty: Path) -> None:
    """Run a study in a folder, on a copy of the empty store of another folder."""
    uri = copy_store(empty, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLTUNE_REPORT", "true")
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        forget_tracking_uri()
        STUDIES[kind]()
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert not busy, "the database must be whole without its write-ahead log"
