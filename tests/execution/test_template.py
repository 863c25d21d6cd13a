"""The template process: workers are forked from it, and are as programs of their own would be."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from mltune import Trial
from mltune.errors import ObjectiveError
from mltune.execution import ExecutorOptions
from mltune.execution.local import LocalExecutor, prepared
from mltune.messages import Died, Returned, WorkerConfig
from tests.execution.helpers import SENT, alive, pids, run, send, task, wait_for

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="workers are forked from a template on Linux only"),
]


FAILING_FORK = """
import os
fork, failures = os.fork, [OSError(11, "Resource temporarily unavailable")]
def fork_later():
    if failures:
        raise failures.pop()
    return fork()
os.fork = fork_later
"""


def template_of(executor: LocalExecutor) -> psutil.Process:
    """The process from which the executor's workers are forked."""
    assert executor._template is not None
    assert executor._template.process is not None
    return psutil.Process(executor._template.process.pid)


def worker_pid(trial: Trial) -> float:
    return os.getpid()


def test_workers_are_forked_from_one_process_with_one_thread(workers: LocalExecutor) -> None:
    """On one core OpenBLAS has no threads of its own; on more it ends them before a fork."""

    def threads_of_the_template(trial: Trial) -> dict[str, float]:
        template = psutil.Process().parent().parent()
        return {"template": template.pid, "threads": template.num_threads(), "own": "mlflow" in sys.modules}

    for number in range(2):
        outcome = run(workers, send(threads_of_the_template, number))[number]
        assert outcome.metrics == {"template": template_of(workers).pid, "threads": 1.0, "own": 1.0}


def test_workers_draw_different_random_numbers(executors: Any, tmp_path: Path) -> None:
    def draw(trial: Trial) -> dict[str, float]:
        import random

        import numpy as np

        (tmp_path / f"trial-{trial.number}").touch()
        wait_for((tmp_path / f"trial-{trial.number ^ 1}").exists)  # so that there are two workers
        return {"python": random.random(), "numpy": float(np.random.random())}

    outcomes = run(executors(draw, n_jobs=2), task(0), task(1))
    assert outcomes[0].metrics["python"] != outcomes[1].metrics["python"]
    assert outcomes[0].metrics["numpy"] != outcomes[1].metrics["numpy"]


def test_a_worker_is_a_session_leader_without_the_templates_settings(workers: LocalExecutor) -> None:
    def look(trial: Trial) -> dict[str, float]:
        import signal

        return {
            "leader": os.getsid(0) == os.getpid(),
            "chld": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
            "term": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
            "arrow": "JE_ARROW_MALLOC_CONF" in os.environ,
            "shown": psutil.Process().environ()["MLTUNE_WORKER"] == os.environ["MLTUNE_WORKER"],
            "child": os.waitstatus_to_exitcode(os.system("exit 3")),
        }

    expected = {"leader": 1.0, "chld": 1.0, "term": 1.0, "arrow": 0.0, "shown": 1.0, "child": 3.0}
    assert run(workers, send(look)) == {0: Returned(expected)}


def test_a_fork_of_a_worker_whose_supervisor_was_killed_is_ended(workers: LocalExecutor, tmp_path: Path) -> None:
    def objective(trial: Trial) -> float:
        import signal
        import time

        if os.fork() == 0:
            os.setsid()
            (tmp_path / "fork.pid").write_text(str(os.getpid()))
            time.sleep(600)
        wait_for(lambda: bool(pids(tmp_path)))
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)
        return 1.0

    assert run(workers, send(objective)) == {0: Died("the worker was killed by SIGKILL")}
    assert not alive(pids(tmp_path)[0])


def test_workers_outlive_the_template_and_new_ones_are_programs(executors: Any) -> None:
    executor = executors(SENT)
    before = run(executor, send(worker_pid, 0))[0]
    template_of(executor).kill()
    assert run(executor, send(worker_pid, 1)) == {1: before}
    assert run(executor, send(lambda trial: os._exit(3), 2)) == {2: Died("the worker exited with status 3")}
    after = run(executor, send(worker_pid, 3))[3]
    assert psutil.Process(int(after.metrics["value"])).parent().ppid() == os.getpid()


def test_a_template_that_cannot_import_is_distinguished_from_a_worker_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['mlflow'] = None")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    executor = LocalExecutor(ExecutorOptions())
    with closing(executor), pytest.raises(ObjectiveError, match="the worker exited with status 1"):
        executor.start(WorkerConfig(objective=SENT, metric="value", environment={}))


def test_if_no_process_can_be_had_the_template_lives_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first fork of the template fails; the next worker is forked from it."""
    (tmp_path / "sitecustomize.py").write_text(FAILING_FORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with closing(LocalExecutor(ExecutorOptions())) as executor:
        config = WorkerConfig(objective=SENT, metric="value", environment={})
        with pytest.raises(ObjectiveError, match="the worker exited with status 1"):
            executor.start(config)
        template = template_of(executor)
        assert isinstance(run(executor, send(worker_pid))[0], Returned)
        assert template_of(executor) == template


def test_the_next_executor_takes_what_was_prepared() -> None:
    before = set(psutil.Process().children())
    with closing(LocalExecutor(ExecutorOptions())) as executor:
        with prepared(n_jobs=1):
            (template,) = set(psutil.Process().children()) - before
            executor.start(WorkerConfig(objective=SENT, metric="value", environment={}))
        assert isinstance(run(executor, send(worker_pid))[0], Returned)
        assert template_of(executor) == template
    assert not template.is_running()


def test_what_was_prepared_and_not_taken_is_ended() -> None:
    before = set(psutil.Process().children())
    with prepared(n_jobs=1):
        (template,) = set(psutil.Process().children()) - before
    assert not template.is_running()
