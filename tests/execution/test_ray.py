"""Ray as an executor: reuse, death, room, whose Ray it is, and nothing left behind."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cloudpickle
import psutil
import pytest

from mltune import Trial
from mltune.errors import RequestError
from mltune.execution import Executor, ExecutorOptions, check_executor
from mltune.execution.ray.executor import RayExecutor
from mltune.messages import Ended, Returned, Task, WorkerConfig
from mltune.objective import ObjectiveRef

pytestmark = pytest.mark.alone
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # else every worker imports this module, and so Ray


def setup(objective: Any) -> WorkerConfig:
    return WorkerConfig(
        objective=objective if isinstance(objective, ObjectiveRef) else cloudpickle.dumps(objective),
        metric="value",
        environment={},
    )


def task(number: int, **params: Any) -> Task:
    return Task(number=number, params=params, seed=0, run_id="0" * 32, experiment_id="0")


def run(executor: Executor, *tasks: Task) -> dict[int, Any]:
    for each in tasks:
        executor.submit(each)
    ended = [executor.next() for _ in tasks]
    return {message.number: message.outcome for message in ended if isinstance(message, Ended)}


def objective(trial: Trial) -> Any:
    """What the tests of one shared executor need."""
    import os

    match trial.params.get("what"):
        case "pid":
            return os.getpid()
        case "sleep":
            time.sleep(1.0)
        case "environment":
            return int(os.environ["OMP_NUM_THREADS"])
    return 1.0


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


@pytest.fixture(scope="module")
def before() -> tuple[dict[str, str], list[psutil.Process]]:
    """The environment and this process's children before the shared executor starts."""
    return environment(), psutil.Process().children(recursive=True)


@pytest.fixture(scope="module")
def executor(before: Any) -> Iterator[RayExecutor]:
    """One executor of two slots on a Ray of its own."""
    with closing(RayExecutor(ExecutorOptions(n_jobs=2))) as made:
        made.start(setup(objective))
        yield made


def test_actors_are_reused(executor: RayExecutor) -> None:
    pids = {run(executor, task(n, what="pid"))[n].metrics["value"] for n in range(5)}
    assert len(pids) <= 2
    assert float(os.getpid()) not in pids


def test_each_trial_has_its_share_of_the_cores(executor: RayExecutor) -> None:
    threads = run(executor, task(9, what="environment"))[9].metrics["value"]
    assert threads == max(1, (os.cpu_count() or 1) // 2) or "OMP_NUM_THREADS" in os.environ


def test_errors_that_nobody_asks_ray_for_are_not_printed(
    executor: RayExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as those of Tune's calls to actors that are killed when the study ends."""
    import ray

    @ray.remote(num_cpus=0)  # the slots have the cores
    def fail() -> None:
        raise ValueError("nobody asks")

    answers = [fail.remote() for _ in range(3)]
    for number in range(11, 14):
        assert run(executor, task(number, what="sleep"))[number] == Returned({"value": 1.0})
    printed: list[str] = []
    monkeypatch.setattr(logging.getLogger("ray._private.worker"), "error", printed.append)
    del answers
    time.sleep(1.0)
    assert printed == []


def test_closing_leaves_nothing_behind(executor: RayExecutor, before: Any) -> None:
    executor.submit(task(10, what="sleep"))
    variables, others = before
    started = [each for each in psutil.Process().children(recursive=True) if each not in others]
    assert any("raylet" in process.name() for process in started)
    executor.close()
    executor.close()
    assert environment() == variables
    _, alive = psutil.wait_procs(started, timeout=120)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
    assert logging.getLogger("ray.tune").level == logging.NOTSET


def test_a_cluster_is_joined_by_its_address_and_left_running(joined_ray: None) -> None:
    import ray

    made = RayExecutor(ExecutorOptions(n_jobs=1))
    try:
        made.start(setup(objective))
        assert run(made, task(0)) == {0: Returned({"value": 1.0})}
    finally:
        made.close()
    assert not ray.is_initialized()
    ray.init(os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level=logging.ERROR)
    try:
        assert [node for node in ray.nodes() if node["Alive"]]
    finally:
        ray.shutdown()


@pytest.fixture(scope="module")
def users_ray(executor: RayExecutor) -> Iterator[None]:
    """A Ray that the user has started in this process, with one GPU that is only said to be there."""
    import ray

    executor.close()
    ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


STRANGER = """
import sys, ray
ray.init(address=sys.argv[1], logging_level="ERROR")
"""


@pytest.fixture(scope="module")
def stranger(users_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A process that tries to join with another token: Ray has it wait for 20 s, while other tests run."""
    import ray

    environment = {
        "HOME": str(tmp_path_factory.mktemp("stranger")),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "b" * 64,
    }
    process = subprocess.Popen(
        [sys.executable, "-c", STRANGER, ray.get_runtime_context().gcs_address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    yield process
    process.kill()
    process.communicate()


def look_around(trial: Trial) -> dict[str, float]:
    """What the process has, and the nodes of the Ray that it is in."""
    import ray

    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    return {"value": float(len(ray.nodes()))} | {name: float(os.environ[name]) for name in names}


@pytest.mark.usefixtures("stranger")
def test_the_users_ray_is_used_and_left_running(users_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    made = RayExecutor(ExecutorOptions(n_jobs=1, resources={"cpu": 1, "gpu": 0.5}))
    try:
        made.start(setup(look_around))
        assert run(made, task(0))[0] == Returned({"value": 1.0, "OMP_NUM_THREADS": 1.0, "CUDA_VISIBLE_DEVICES": 0.0})
    finally:
        made.close()
    assert ray.is_initialized()


def test_a_trial_that_fits_nowhere_is_refused(users_ray: None) -> None:
    made = RayExecutor(ExecutorOptions(n_jobs=1, resources={"gpu": 2}))
    try:
        with pytest.raises(RequestError, match=r"must fit on one node.*'gpu': 2"):
            made.start(setup(objective))
    finally:
        made.close()


@pytest.mark.parametrize(
    ("resources", "sentence"),
    [
        ({"gpus": 1}, "did you mean 'gpu'?"),
        ({"cpu": 0}, "`resources.cpu` must be above 0, but got 0"),
        ({"gpu": 1.5}, "`resources.gpu` must be a whole number where it is above 1, but got 1.5"),
    ],
)
def test_wrong_resources(resources: dict[str, float], sentence: str) -> None:
    (error,) = check_executor("ray", RayExecutor, ExecutorOptions(resources=resources))
    assert sentence in error


QUIET = """
import mltune
result = mltune.tune(lambda trial: trial.params["x"], {"x": mltune.Float(0, 1)}, direction="minimize",
                     algorithm="random", engine="ray", n_trials=2, quiet=True)
"""


def test_a_study_on_ray_prints_nothing_of_its_own(tracking_uri: str, chdir: Path) -> None:
    """Nor does it need a home, or a short name of the folder for temporary files."""
    folder = chdir / ("long" * 25)
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", QUIET],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=os.environ | {"TMPDIR": str(folder), "HOME": "/proc/no-home"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nobody_joins_without_the_token(stranger: subprocess.Popen[str]) -> None:
    _, err = stranger.communicate(timeout=600)
    assert stranger.returncode != 0
    assert "InvalidAuthToken" in err
