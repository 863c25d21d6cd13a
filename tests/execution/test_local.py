"""Worker processes: they run side by side, and are found as the user's environment wants them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mltune import Trial
from mltune.errors import ObjectiveError
from mltune.execution import Ended, ObjectiveRef, Raised, Reported, Returned
from tests.execution.helpers import run, task


def test_one_worker_runs_one_task_after_the_other(executors: Any) -> None:
    executor = executors(lambda trial: {"pid": os.getpid(), "x": trial.params["x"]})
    first, second = (run(executor, task(n, x=n))[n] for n in range(2))
    assert (first.metrics["x"], second.metrics["x"]) == (0.0, 1.0)
    assert first.metrics["pid"] == second.metrics["pid"] != os.getpid()


def test_two_workers_run_at_once(executors: Any, tmp_path: Path) -> None:
    def meet(trial: Trial) -> float:
        import time

        (tmp_path / str(trial.number)).touch()
        while len(list(tmp_path.glob("[01]"))) < 2:
            time.sleep(0.01)
        return 1.0

    outcomes = run(executors(meet, n_jobs=2), task(0), task(1))
    assert outcomes == {0: Returned({"value": 1.0}), 1: Returned({"value": 1.0})}


@pytest.mark.parametrize(("stop", "last"), [(False, 2.0), (True, 1.0)])
def test_reports_are_answered(stop: bool, last: float, executors: Any) -> None:
    def objective(trial: Trial) -> float:
        trial.report(5.0, step=0)
        try:
            trial.report({"value": 6.0, "b": 1.0}, step=3)
        except Exception:
            return 1.0
        return 2.0

    executor = executors(objective)
    executor.submit(task(7))
    first = executor.next()
    executor.answer(7, stop=False)
    second = executor.next()
    executor.answer(7, stop=stop)
    assert isinstance(first, Reported)
    assert isinstance(second, Reported)
    assert (first.number, first.step, first.metrics) == (7, 0, {"value": 5.0})
    assert (second.step, second.metrics) == (3, {"value": 6.0, "b": 1.0})
    assert executor.next() == Ended(7, Returned({"value": last}))


def test_whatever_user_code_raises_is_an_outcome(executors: Any) -> None:
    def objective(trial: Trial) -> float:
        raise {"exit": SystemExit(0), "key": KeyboardInterrupt(), "value": ValueError("text")}[trial.params["kind"]]

    executor = executors(objective)
    for number, kind in enumerate(["exit", "key", "value"]):
        outcome = run(executor, task(number, kind=kind))[number]
        assert isinstance(outcome, Raised)
        assert outcome.traceback.startswith("Traceback")


def test_threads_are_divided_among_workers(executors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = len(os.sched_getaffinity(0))
    executor = executors(lambda trial: int(os.environ["OMP_NUM_THREADS"]), n_jobs=2)
    assert run(executor, task(0)) == {0: Returned({"value": float(max(1, cores // 2))})}


def test_the_run_of_mlflow_run_is_not_inherited(executors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "of-the-project")
    assert run(executors(lambda trial: "MLFLOW_RUN_ID" in os.environ), task(0)) == {0: Returned({"value": 0.0})}


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("import nothing_like_this", "No module named 'nothing_like_this'"),
        ("def train(trial:", "SyntaxError"),
        ("import os; os._exit(4)", "the worker exited with status 4"),
        ("", "has no 'train'"),
        ("train = 3", "has no 'train'"),
    ],
)
def test_an_objective_that_cannot_be_imported(source: str, sentence: str, executors: Any, tmp_path: Path) -> None:
    (tmp_path / "broken_objective.py").write_text(source)
    with pytest.raises(ObjectiveError) as caught:
        executors(ObjectiveRef("broken_objective", "train", str(tmp_path)))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_variable_can_be_unset(executors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLTUNE_EXAMPLE", "of-the-driver")
    executor = executors(lambda trial: "MLTUNE_EXAMPLE" in os.environ, environment={"MLTUNE_EXAMPLE": None})
    assert run(executor, task(0)) == {0: Returned({"value": 0.0})}
