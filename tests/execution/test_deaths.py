"""Workers die alone, are replaced, say where they stood, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from mltune import Trial
from mltune._util.processes import end_marked
from mltune.execution.local import LocalExecutor
from mltune.messages import Died, Returned
from mltune.objective import ObjectiveRef
from tests.drivers import Drivers, kill
from tests.execution.helpers import ROOT, STRAYS, alive, idle, pids, run, send, start_strays, task, wait_for

pytestmark = pytest.mark.processes


DEATHS = (
    ("os._exit(3)", "the worker exited with status 3", False),
    ("os.kill(os.getpid(), 9)", "the worker was killed by SIGKILL", False),
    ("os.kill(os.getpid(), 35)", "the worker was killed by signal 35", False),
    ("os.abort()", "the worker was killed by SIGABRT", True),
    ("ctypes.string_at(0)", "the worker was killed by SIGSEGV", True),
)
"""How a worker ends itself, in which words that is told, and whether it leaves a traceback."""


def test_workers_die_alone_and_are_replaced(executors: Any, tmp_path: Path, capfd: Any) -> None:
    def objective(trial: Trial) -> float:
        (tmp_path / f"trial-{trial.number}").touch()
        wait_for((tmp_path / f"trial-{trial.number ^ 1}").exists)  # so that there are two workers
        exec("import ctypes, os; " + trial.params["how"])
        return 1.0

    executor = executors(objective, n_jobs=2)
    for number, (how, words, where) in enumerate(DEATHS):
        first, second = 2 * number, 2 * number + 1
        outcomes = run(executor, task(first, how=how), task(second, how=""))
        assert outcomes == {first: Died(words, outcomes[first].traceback), second: Returned({"value": 1.0})}
        assert ("in objective" in outcomes[first].traceback) == bool(outcomes[first].traceback) == where
    assert run(executor, task(98, how=""), task(99, how="")) == {n: Returned({"value": 1.0}) for n in (98, 99)}
    assert capfd.readouterr() == ("", "")


def test_a_crash_that_a_trial_survived_is_not_that_of_the_next(workers: LocalExecutor) -> None:
    def objective(trial: Trial) -> float:
        if trial.number == 1:
            os._exit(3)
        if (child := os.fork()) == 0:
            os.abort()
        os.waitpid(child, 0)
        return 1.0

    assert run(workers, send(objective, 0)) == {0: Returned({"value": 1.0})}
    assert run(workers, send(objective, 1)) == {1: Died("the worker exited with status 3")}


def test_a_worker_that_dies_is_noticed_while_its_forked_child_lives(workers: LocalExecutor) -> None:
    def objective(trial: Trial) -> float:
        if os.fork() == 0:
            time.sleep(600)
        os.kill(os.getpid(), 9)
        return 1.0

    assert run(workers, send(objective)) == {0: Died("the worker was killed by SIGKILL")}


@pytest.mark.parametrize(
    ("how", "kinds"),
    [
        ("os._exit(3)", STRAYS),
        ("ctypes.string_at(0)", STRAYS),
        ("os.kill(os.getppid(), 9); time.sleep(600)", ("child", "session", "daemon")),  # the supervisor
        ("os.kill(os.getppid(), 19); os._exit(3)", ("child", "session", "daemon")),  # the same, stopped
    ],
)
def test_what_a_dead_worker_started_is_ended(how: str, kinds: Any, workers: LocalExecutor, tmp_path: Path) -> None:
    def objective(trial: Trial) -> float:
        start_strays(tmp_path, kinds)
        exec("import ctypes, os, time; " + how)
        return 1.0

    assert isinstance(run(workers, send(objective))[0], Died)
    assert len(pids(tmp_path)) == len(kinds)
    assert [pid for pid in pids(tmp_path) if alive(pid)] == []


def test_closing_ends_workers_and_what_they_started(executors: Any, tmp_path: Path) -> None:
    def objective(trial: Trial) -> float:
        folder = tmp_path / str(trial.number)
        folder.mkdir()
        start_strays(folder)
        (tmp_path / f"{trial.number}.pid").write_text(str(os.getpid()))
        while trial.params["hang"]:
            time.sleep(1)
        return 1.0

    executor = executors(objective, n_jobs=2)
    run(executor, task(0, hang=False), task(1, hang=False))
    executor.submit(task(2, hang=True))
    wait_for(lambda: len(pids(tmp_path)) == 3)
    started = [pid for folder in (tmp_path, *map(tmp_path.joinpath, "012")) for pid in pids(folder)]
    assert len(started) == 3 * (len(STRAYS) + 1)
    assert all(alive(pid) for pid in started)
    executor.close()
    executor.wake()  # though nobody waits
    assert [pid for pid in started if alive(pid)] == []


def test_closing_ends_a_worker_that_is_deaf_and_holds_the_gil(executors: Any, tmp_path: Path) -> None:
    def objective(trial: Trial) -> float:
        import ctypes

        ctypes.CDLL(None).signal(signal.SIGTERM, ctypes.c_void_p(1))
        (tmp_path / "worker.pid").write_text(str(os.getpid()))
        ctypes.PyDLL(None).sleep(600)
        return 1.0

    executor = executors(objective)
    executor.submit(task(0))
    wait_for(lambda: bool(pids(tmp_path)))
    executor.close()
    assert not alive(pids(tmp_path)[0])


NO_PIDFDS = """
import mltune._util.processes
mltune._util.processes.open_pidfd = lambda pid: None
"""
PROGRAMS = """
import os
import mltune.execution.template
mltune.execution.template.open_pidfd = lambda pid: None
os.environ["PYTHONPATH"] = os.getcwd()
"""
"""For a driver in the folder with `NO_PIDFDS` as a `sitecustomize.py`: its workers are programs without pidfds."""

DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, ROOT)
import cloudpickle
from mltune.execution import ExecutorOptions
from mltune.messages import WorkerConfig
from mltune.execution.local import LocalExecutor
from tests.execution.helpers import start_strays, task

def objective(trial):
    import ctypes, os
    folder = Path(str(trial.number))
    folder.mkdir()
    start_strays(folder)
    (folder / "worker.pid").write_text(str(os.getpid()))
    if trial.params["hang"] == "gil":
        ctypes.PyDLL(None).sleep(600)
    while trial.params["hang"]:
        pass
    return 1.0

executor = LocalExecutor(ExecutorOptions(n_jobs=3))
executor.start(WorkerConfig(objective=cloudpickle.dumps(objective), metric="value", environment={}))
for number, hang in enumerate(["", "busy", "gil"]):
    executor.submit(task(number, hang=hang))
while True:
    executor.next()
"""


@pytest.mark.alone
@pytest.mark.parametrize("forked", [True, False], ids=["forked", "without pidfds"])
def test_nothing_survives_a_killed_driver(forked: bool, drivers: Drivers, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_PIDFDS)
    folders = [tmp_path / str(number) for number in range(3)]
    driver = drivers.start(("" if forked else PROGRAMS) + DRIVER.replace("ROOT", repr(str(ROOT))))
    wait_for(lambda: all((folder / "worker.pid").exists() for folder in folders))
    started = [pid for folder in folders for pid in pids(folder)]
    children = psutil.Process(driver).children()
    assert len(children) == (1 if forked else 3)
    started += [child.pid for child in psutil.Process(driver).children(recursive=True)]
    kill(driver)
    assert drivers.wait(driver) == -signal.SIGKILL
    assert len(started) >= 3 * (len(STRAYS) + 1)
    wait_for(lambda: not any(alive(pid) for pid in started))


FLAKY = """
import pathlib
folder = pathlib.Path(__file__).parent
with open(folder / "imports", "a") as file:
    file.write("x")
if (folder / "broken").exists():
    raise ValueError("broken now")

def train(trial):
    import os
    if trial.params["die"]:
        os._exit(3)
    return 1.0
"""


def test_a_worker_that_cannot_get_ready_is_started_once_a_task(executors: Any, tmp_path: Path) -> None:
    (tmp_path / "flaky_objective.py").write_text(FLAKY)
    executor = executors(ObjectiveRef("flaky_objective", "train", str(tmp_path)))
    (tmp_path / "broken").touch()
    assert run(executor, task(0, die=True)) == {0: Died("the worker exited with status 3")}
    wait_for(lambda: executor.next(0.1) is None and not executor._workers)
    assert executor.next(0.5) is None
    assert executor._workers == []
    assert (tmp_path / "imports").read_text() == "xx"
    outcome = run(executor, task(1, die=False))[1]
    assert isinstance(outcome, Died)
    assert "broken now" in outcome.how
    (tmp_path / "broken").unlink()
    assert run(executor, task(2, die=False)) == {2: Returned({"value": 1.0})}
    assert (tmp_path / "imports").read_text() == "xxxx"


def test_an_idle_worker_that_dies_is_replaced_for_the_next_task(workers: LocalExecutor, tmp_path: Path) -> None:
    def dies_later(trial: Trial) -> float:
        def die() -> None:
            wait_for((tmp_path / "idle").exists)
            os._exit(3)

        threading.Thread(target=die).start()
        return 1.0

    def meet(trial: Trial) -> float:
        (tmp_path / str(trial.number)).touch()
        wait_for(lambda: len(list(tmp_path.glob("[12]"))) == 2)
        return 1.0

    assert run(workers, send(dies_later)) == {0: Returned({"value": 1.0})}
    (tmp_path / "idle").touch()
    wait_for(lambda: idle(workers) == 1)
    assert len(workers._workers) == 1
    assert run(workers, send(meet, 1), send(meet, 2)) == {n: Returned({"value": 1.0}) for n in (1, 2)}


def test_marked_processes_are_ended_and_no_others() -> None:
    def start(mark: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sleep", "600"], env={"MLTUNE_WORKER": mark, "PATH": os.environ["PATH"]})

    with start("ours") as ours, start("theirs") as theirs:
        end_marked({"ours"})
        assert ours.wait() == -signal.SIGKILL
        assert theirs.poll() is None
        theirs.kill()
