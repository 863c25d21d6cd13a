"""Ray when things go wrong: limits, dead actors and nodes, a lost cluster, a killed driver, wrong addresses."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import psutil
import pytest

from mltune import Trial
from mltune.errors import RequestError
from mltune.execution import ExecutorLostError, ExecutorOptions
from mltune.execution.ray.executor import RayExecutor
from mltune.messages import Died, Ended, Returned, TimedOut
from tests.execution.test_ray import run, setup, task
from tests.servers import RAY_VARIABLES

pytestmark = pytest.mark.alone
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # else every worker imports this module, and so Ray

ROOT = Path(__file__).parents[2]
FINE = Returned({"value": 1.0})
LOST = Died("the worker's Ray actor or its node died")


def objective(trial: Trial) -> float:
    """What may happen to a trial; first of all it starts a process in a session of its own."""
    import ctypes
    import subprocess
    import time

    folder = Path(trial.params["folder"])
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    (folder / f"child-{child.pid}").touch()
    match trial.params["what"]:
        case "signal":
            ctypes.string_at(0)
        case "hang":
            time.sleep(1000)
        case "hold the GIL":
            ctypes.PyDLL(None).sleep(1000)
        case "kill the actor":
            next(each for each in psutil.Process().parents() if each.name().startswith("ray::")).kill()
            time.sleep(1000)
        case "stand until told":
            (folder / f"stands-{trial.number}").touch()
            while not (folder / "go").exists():
                time.sleep(0.05)
    return 1.0


def heard(executor: RayExecutor, count: int) -> dict[int, Any]:
    """The next trials to end."""
    ended = [message for message in (executor.next(60) for _ in range(count)) if isinstance(message, Ended)]
    return {message.number: message.outcome for message in ended}


def assert_children_are_gone(folder: Path) -> None:
    pids = [int(path.name.removeprefix("child-")) for path in folder.glob("child-*")]
    assert pids
    assert_gone([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)])


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=120)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


@pytest.fixture(scope="module")
def executor(join_ray: Callable[[], AbstractContextManager[None]]) -> Iterator[RayExecutor]:
    """Two slots on a Ray that runs already, where a trial may take three seconds."""
    with join_ray(), closing(RayExecutor(ExecutorOptions(n_jobs=2, resources={"cpu": 1}))) as made:
        made.start(replace(setup(objective), trial_timeout=3.0))
        yield made


def without_ray() -> dict[str, str]:
    """The environment for a process that is to join no Ray."""
    return {name: value for name, value in os.environ.items() if name not in RAY_VARIABLES}


def test_nothing_to_hear(executor: RayExecutor) -> None:
    assert executor.next(0.01) is None
    executor.wake()
    assert executor.next() is None


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("signal", Died("the worker was killed by SIGSEGV", "Fatal Python error: Segmentation fault")),
        ("hang", TimedOut("Traceback (most recent call last):")),
        ("hold the GIL", TimedOut("Timeout")),
        ("kill the actor", LOST),
    ],
)
def test_only_the_guilty_trial_ends(what: str, expected: Any, executor: RayExecutor, tmp_path: Path) -> None:
    guilty, other = task(0, what=what, folder=str(tmp_path)), task(1, what="return", folder=str(tmp_path))
    outcomes = run(executor, guilty, other)
    assert outcomes[1] == FINE
    assert replace(outcomes[0], traceback="") == replace(expected, traceback="")
    assert outcomes[0].traceback.startswith(expected.traceback)
    assert run(executor, *(replace(each, params=other.params) for each in (guilty, other))) == {0: FINE, 1: FINE}
    assert executor.next(0.1) is None


def test_closing_ends_what_trials_started(executor: RayExecutor, tmp_path: Path) -> None:
    executor.submit(task(4, what="stand until told", folder=str(tmp_path)))
    while not (tmp_path / "stands-4").exists():
        time.sleep(0.05)
    executor.close()
    assert_children_are_gone(tmp_path)


KILLED = """
import sys
from mltune.execution.ray.executor import RayExecutor
from mltune.errors import RequestError
from mltune.execution import ExecutorOptions
from tests.execution.test_ray import setup, task
from tests.execution.test_ray_faults import objective
executor = RayExecutor(ExecutorOptions(n_jobs=1))
executor.start(setup(objective))
executor.submit(task(0, what="stand until told", folder=sys.argv[1]))
executor.next()
"""


def test_a_killed_driver_leaves_nothing_behind(tmp_path: Path) -> None:
    short = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    driver = subprocess.Popen(command, cwd=ROOT, env=without_ray() | {"TMPDIR": str(short)})
    while not (tmp_path / "stands-0").exists():
        assert driver.poll() is None
        time.sleep(0.05)
    started = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.wait()
    assert_gone(started)
    assert_children_are_gone(tmp_path)
    assert list(short.iterdir()) == []
    short.rmdir()


def lose_a_node_and_then_the_cluster(tmp_path: Path) -> None:
    """On a cluster of two nodes with room for one trial each, named by `RAY_ADDRESS`."""
    from ray.cluster_utils import Cluster

    from mltune._util import timing

    timing.TIMING = timing.Timing(ray_close=1.0, ray_shutdown=1.0)  # a lost cluster uses them up
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    os.environ["RAY_ADDRESS"] = cluster.address
    executor = RayExecutor(ExecutorOptions(n_jobs=2))
    executor.start(setup(objective))

    def stand(*numbers: int) -> Path:
        """Have two trials stand there, each on its node."""
        folder = tmp_path / str(numbers[0])
        folder.mkdir()
        for number in numbers:
            executor.submit(task(number, what="stand until told", folder=str(folder)))
        while len(list(folder.glob("stands-*"))) < 2:
            assert executor.next(0.05) is None
        return folder

    try:
        folder = stand(0, 1)
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        ((lost, outcome),) = heard(executor, 1).items()
        assert outcome == LOST
        (folder / "go").touch()
        assert heard(executor, 1) == {1 - lost: FINE}
        others = [task(number, what="return", folder=str(folder)) for number in (2, 3, 4)]
        assert run(executor, *others) == {2: FINE, 3: FINE, 4: FINE}

        cluster.add_node(num_cpus=1)
        folder = stand(5, 6)
        head = cluster.head_node
        head.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)  # type: ignore[attr-defined]
        with pytest.raises(ExecutorLostError, match="the Ray cluster must live as long as the study, but it is lost"):
            heard(executor, 3)
    finally:
        executor.close()
        cluster.shutdown()
    assert_children_are_gone(tmp_path / "0")


def test_a_node_and_then_the_cluster_are_lost(tmp_path: Path) -> None:
    """In a process of its own: Ray ends a process that has lost its cluster, a minute later.

    Ray by itself takes 15 seconds to see that a node is gone, and meanwhile places slots there.
    """
    soon = {"RAY_health_check_period_ms": "300", "RAY_health_check_initial_delay_ms": "300"}
    call = f"import pathlib; {__name__}.{lose_a_node_and_then_the_cluster.__name__}(pathlib.Path({str(tmp_path)!r}))"
    ended = subprocess.run(
        [sys.executable, "-c", f"import {__name__}; {call}"],
        cwd=ROOT,
        env=without_ray() | soon,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("127.0.0.1:1", "must name a running Ray cluster, but at '127.0.0.1:1' there is none"),
        ("nowhere", "must name a running Ray cluster, but at 'nowhere' there is none"),
        ("ray://127.0.0.1:10001", "run mltune on a node of the cluster"),
    ],
)
def test_an_address_of_no_cluster(address: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    executor = RayExecutor(ExecutorOptions(n_jobs=1))
    try:
        with pytest.raises(RequestError, match=sentence):
            executor.start(setup(objective))
    finally:
        executor.close()
