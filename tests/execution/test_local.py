"""Worker processes: they run side by side, and are found as the user's environment wants them."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from mltune import Trial
from mltune.errors import ObjectiveError
from mltune.execution import ExecutorOptions
from mltune.execution.local import LocalExecutor
from mltune.messages import Decision, Ended, Raised, Reported, Returned
from mltune.objective import ObjectiveRef, load
from tests.execution.helpers import run, send, task, wait_for

pytestmark = pytest.mark.processes


def test_one_worker_runs_one_task_after_the_other(workers: LocalExecutor) -> None:
    def objective(trial: Trial) -> dict[str, float]:
        return {"pid": os.getpid(), "x": trial.params["x"]}

    first, second = (run(workers, send(objective, n, x=n))[n] for n in range(2))
    assert (first.metrics["x"], second.metrics["x"]) == (0.0, 1.0)
    assert first.metrics["pid"] == second.metrics["pid"] != os.getpid()


def test_two_workers_run_at_once(workers: LocalExecutor, tmp_path: Path) -> None:
    def meet(trial: Trial) -> float:
        (tmp_path / str(trial.number)).touch()
        wait_for(lambda: len(list(tmp_path.glob("[01]"))) == 2)
        return 1.0

    outcomes = run(workers, send(meet, 0), send(meet, 1))
    assert outcomes == {0: Returned({"value": 1.0}), 1: Returned({"value": 1.0})}


@pytest.mark.parametrize(("stop", "last"), [(False, 2.0), (True, 1.0)])
def test_reports_are_answered(stop: bool, last: float, workers: LocalExecutor) -> None:
    def objective(trial: Trial) -> float:
        trial.report(5.0, step=0)
        try:
            trial.report({"value": 6.0, "b": 1.0}, step=3)
        except Exception:
            return 1.0
        return 2.0

    workers.submit(send(objective, 7))
    first = workers.next()
    workers.answer(7, Decision.CONTINUE)
    second = workers.next()
    workers.answer(7, Decision.STOP if stop else Decision.CONTINUE)
    assert isinstance(first, Reported)
    assert isinstance(second, Reported)
    assert (first.number, first.step, first.metrics) == (7, 0, {"value": 5.0})
    assert (second.step, second.metrics) == (3, {"value": 6.0, "b": 1.0})
    assert workers.next() == Ended(7, Returned({"value": last}))


def test_whatever_user_code_raises_is_an_outcome(workers: LocalExecutor) -> None:
    def objective(trial: Trial) -> float:
        raise {"exit": SystemExit(0), "key": KeyboardInterrupt(), "value": ValueError("text")}[trial.params["kind"]]

    for number, kind in enumerate(["exit", "key", "value"]):
        outcome = run(workers, send(objective, number, kind=kind))[number]
        assert isinstance(outcome, Raised)
        assert outcome.traceback.startswith("Traceback")


def test_a_worker_finds_its_share_of_the_threads_and_what_the_study_sets_and_no_run(
    executors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def objective(trial: Trial) -> dict[str, int]:
        names = ("MLFLOW_RUN_ID", "MLTUNE_UNSET", "MLTUNE_SET", "MLTUNE_LEFT")
        return {"OMP_NUM_THREADS": int(os.environ["OMP_NUM_THREADS"])} | {name: name in os.environ for name in names}

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MLFLOW_RUN_ID", "of `mlflow run`'s project")
    monkeypatch.setenv("MLTUNE_UNSET", "of the driver")
    monkeypatch.setenv("MLTUNE_LEFT", "of the driver")
    executor = executors(objective, n_jobs=2, environment={"MLTUNE_UNSET": None, "MLTUNE_SET": "of the study"})
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    assert run(executor, task(0))[0].metrics == {
        "OMP_NUM_THREADS": threads, "MLFLOW_RUN_ID": 0.0, "MLTUNE_UNSET": 0.0, "MLTUNE_SET": 1.0, "MLTUNE_LEFT": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("import nothing_like_this", "No module named 'nothing_like_this'"),
        ("import os; os._exit(4)", "the worker exited with status 4"),
    ],
)
def test_an_objective_that_a_worker_cannot_import(source: str, sentence: str, executors: Any, tmp_path: Path) -> None:
    (tmp_path / "broken_objective.py").write_text(source)
    with pytest.raises(ObjectiveError) as caught:
        executors(ObjectiveRef("broken_objective", "train", str(tmp_path)))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [("def train(trial:", "SyntaxError"), ("", "has no 'train'"), ("train = 3", "has no 'train'")],
)
def test_an_objective_that_cannot_be_imported(
    source: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faulty_objective.py").write_text(source)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "faulty_objective", raising=False)
    with pytest.raises(ObjectiveError) as caught:
        load(ObjectiveRef("faulty_objective", "train", str(tmp_path)))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_worker_that_starts_while_the_executor_closes_is_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = LocalExecutor(ExecutorOptions())
    executor.warm_up()
    (worker,) = executor._workers
    wait_for(worker.supervisor.has_started)
    has_started = itertools.chain([False], itertools.repeat(True))
    monkeypatch.setattr(worker.supervisor, "has_started", lambda: next(has_started))
    executor.close()
    assert worker._crash.closed
