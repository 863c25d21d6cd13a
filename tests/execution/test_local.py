"""Worker processes: they run side by side, die alone, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import psutil
import pytest

from mltune import Trial
from mltune.errors import ObjectiveError
from mltune.execution import Died, Ended, ObjectiveRef, Raised, Reported, Returned, Setup, Task
from mltune.execution.local import LocalExecutor


@pytest.fixture
def executors(tracking_uri: str) -> Iterator[Callable[..., LocalExecutor]]:
    """Makes started executors, and closes them."""
    made: list[LocalExecutor] = []

    def make(objective: Callable[[Trial], Any] | ObjectiveRef, n_jobs: int = 1) -> LocalExecutor:
        executor = LocalExecutor(n_jobs)
        made.append(executor)
        source = objective if isinstance(objective, ObjectiveRef) else cloudpickle.dumps(objective)
        executor.start(Setup(objective=source, metric="value", environment={"MLFLOW_TRACKING_URI": tracking_uri}))
        return executor

    yield make
    for executor in made:
        executor.close()


def task(number: int, **params: Any) -> Task:
    return Task(number=number, params=params, seed=0, run_id="0" * 32, experiment_id="0")


def run(executor: LocalExecutor, *tasks: Task) -> dict[int, Any]:
    for each in tasks:
        executor.submit(each)
    ended = [executor.next() for _ in tasks]
    assert all(isinstance(message, Ended) for message in ended)
    return {message.number: message.outcome for message in ended if isinstance(message, Ended)}


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
    first, second = None, None
    first = executor.next()
    executor.answer(7, stop=False)
    second = executor.next()
    executor.answer(7, stop=stop)
    assert isinstance(first, Reported)
    assert isinstance(second, Reported)
    assert (first.number, first.step, first.metrics) == (7, 0, {"value": 5.0})
    assert (second.step, second.metrics) == (3, {"value": 6.0, "b": 1.0})
    assert executor.next() == Ended(7, Returned({"value": last}))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("os._exit(3)", "the worker exited with status 3"),
        ("os.kill(os.getpid(), 11)", "the worker was killed by SIGSEGV"),
    ],
)
def test_a_worker_dies_alone_and_is_replaced(how: str, words: str, executors: Any) -> None:
    def objective(trial: Trial) -> float:
        import time

        if trial.params["die"]:
            exec(f"import os; {how}")
        time.sleep(0.3)
        return 1.0

    executor = executors(objective, n_jobs=2)
    outcomes = run(executor, task(0, die=True), task(1, die=False))
    assert outcomes == {0: Died(words), 1: Returned({"value": 1.0})}
    assert run(executor, task(2, die=False), task(3, die=False)) == {n: Returned({"value": 1.0}) for n in (2, 3)}


def test_a_worker_that_dies_is_noticed_while_its_forked_child_lives(executors: Any) -> None:
    def objective(trial: Trial) -> float:
        import os
        import time

        if os.fork() == 0:
            time.sleep(600)
        os.kill(os.getpid(), 9)
        return 1.0

    assert run(executors(objective), task(0)) == {0: Died("the worker was killed by SIGKILL")}


def test_whatever_user_code_raises_is_an_outcome(executors: Any) -> None:
    def objective(trial: Trial) -> float:
        raise {"exit": SystemExit(0), "key": KeyboardInterrupt(), "value": ValueError("text")}[trial.params["kind"]]

    executor = executors(objective)
    for number, kind in enumerate(["exit", "key", "value"]):
        outcome = run(executor, task(number, kind=kind))[number]
        assert isinstance(outcome, Raised)
        assert outcome.traceback.startswith("Traceback")


def test_closing_ends_workers_and_what_they_started(executors: Any, tmp_path: Path) -> None:
    def objective(trial: Trial) -> float:
        import subprocess
        import sys
        import time

        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (tmp_path / f"{trial.number}.pid").write_text(str(child.pid))
        while trial.params["hang"]:
            time.sleep(1)
        return 1.0

    executor = executors(objective, n_jobs=2)
    run(executor, task(0, hang=False), task(1, hang=False))
    executor.submit(task(2, hang=True))
    wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == 3)
    workers = [worker.process.pid for worker in executor._workers]
    executor.close()
    grandchildren = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
    wait_for(lambda: not any(alive(pid) for pid in workers + grandchildren))


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


DRIVER = """
import cloudpickle, time
from mltune.execution import Setup, Task
from mltune.execution.local import LocalExecutor

def objective(trial):
    while trial.number:
        pass
    return 1.0

executor = LocalExecutor(2)
executor.start(Setup(objective=cloudpickle.dumps(objective), metric="value", environment={}))
for number in range(2):
    executor.submit(Task(number=number, params={}, seed=0, run_id="0" * 32, experiment_id="0"))
    if number == 0:
        executor.next()
print(*[worker.process.pid for worker in executor._workers], flush=True)
time.sleep(600)
"""


def test_workers_die_within_a_second_of_their_driver(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", DRIVER], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        workers = [int(pid) for pid in driver.stdout.readline().split()]
        driver.send_signal(signal.SIGKILL)
    assert len(workers) == 2
    wait_for(lambda: not any(alive(pid) for pid in workers), seconds=3)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)
