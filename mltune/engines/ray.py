"""Ray Tune: places, starts and reuses the trials' processes, on this machine or on a cluster.

The proposals, schedulers and the loop are those of the Optuna engine, so that both engines mean the same. Ray Tune
is the executor: every trial of the study is a trial of one ``Tuner.fit``, which runs in a thread of the driver.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import queue
import shutil
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from tempfile import mkdtemp
from typing import Any, ClassVar

import ray
from ray import tune
from ray.tune.search import Searcher

from mltune.engines._ray_actors import Mailbox, Ready, Slot
from mltune.engines._scoped import quiet
from mltune.engines.optuna import OptunaEngine
from mltune.errors import ObjectiveError, RequestError, nearest
from mltune.execution import Died, Ended, Executor, Isolation, Message, ObjectiveRef, Setup, Task

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_OBJECT_STORE = 100 * 2**20  # bytes; only tasks and reports pass through it
_CLOSE_GRACE = 10.0  # seconds for Tuner.fit to notice that its trials are gone

_QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # MLflow is the only state
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000",
}


class RayEngine(OptunaEngine):
    """The Optuna engine's proposals, run by Ray Tune."""

    packages: ClassVar[tuple[str, ...]] = ("ray", "optuna")

    def executor(self, n_jobs: int, *, resources: Mapping[str, float], isolation: Isolation) -> Executor:
        if isolation is Isolation.NONE:
            raise RequestError(
                "`isolation: none` runs trials in the driver's process, but engine ray never does: use optuna"
            )
        return RayExecutor(n_jobs, _checked(resources))


class RayExecutor(Executor):
    """Runs tasks as trials of Ray Tune, in actors that are reused.

    Args:
        n_jobs: Trials at once.
        resources: What each trial takes: ``cpu``, ``gpu``, ``memory`` (bytes).
    """

    def __init__(self, n_jobs: int, resources: Mapping[str, float]) -> None:
        self._n_jobs = n_jobs
        self._resources = {"cpu": 1.0} | dict(resources)
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._tasks = _Tasks()
        self._actors: list[Any] = []
        self._closing = contextlib.ExitStack()
        self._fit: threading.Thread | None = None

    def start(self, setup: Setup) -> None:
        self._closing.enter_context(_muted("ray.tune"))
        with quiet("ray"):
            self._closing.enter_context(_environment(_QUIET))
            folder = mkdtemp(prefix="mltune-")
            self._closing.callback(shutil.rmtree, folder, ignore_errors=True)
            self._closing.enter_context(_connected(self._n_jobs, self._resources, folder, setup))
            _check_room(self._resources)
            self._mailbox = Mailbox.remote()  # type: ignore[attr-defined]
            threading.Thread(target=self._pump, daemon=True).start()
            self._fit = threading.Thread(target=self._run, args=(setup, folder), daemon=True)
            self._fit.start()
        self._tasks.put(None)  # an empty trial starts the first actor and loads the objective
        self._await_ready()

    def submit(self, task: Task) -> None:
        self._tasks.put(task)

    def next(self) -> Message:
        while True:
            message = self._messages.get()
            if isinstance(message, Exception):
                raise message
            if isinstance(message, Ready):
                self._actors.append(message.actor)
            elif message.number >= 0:
                return message  # type: ignore[no-any-return]

    def answer(self, number: int, *, stop: bool) -> None:
        self._mailbox.answer.remote(number, stop)

    def close(self) -> None:
        self._tasks.close()
        with quiet("ray"):
            if self._fit is not None:
                self._end_actors()
                self._fit.join(_CLOSE_GRACE)
                self._kill(self._mailbox)
                self._fit = None
            self._closing.close()

    def _end_actors(self) -> None:
        """Kill the actors where one is busy; idle ones leave with Tune, on their own."""
        if self._tasks.live:
            for actor in self._actors:
                self._kill(actor)

    def _kill(self, actor: Any) -> None:
        with contextlib.suppress(Exception):  # it is gone already
            ray.kill(actor)

    def _await_ready(self) -> None:
        """Wait for the first actor.

        Raises:
            ObjectiveError: It could not load the objective, or died.
        """
        message = self._messages.get()
        if isinstance(message, Exception):
            raise message
        if isinstance(message, Ended) and isinstance(message.outcome, Died):
            raise ObjectiveError(f"the objective must load in a worker, but there {message.outcome.how}")
        self._actors.append(message.actor)
        if message.refusal is not None:
            raise message.refusal

    def _pump(self) -> None:
        """Take the mailbox's messages into this process, until the mailbox is gone."""
        with contextlib.suppress(Exception):
            while True:
                self._messages.put(ray.get(self._mailbox.take.remote()))

    def _run(self, setup: Setup, folder: str) -> None:
        """All trials as one run of Tune."""
        trainable = tune.with_parameters(Slot, setup=setup, mailbox=self._mailbox)
        tuner = tune.Tuner(
            tune.with_resources(trainable, self._resources),
            tune_config=tune.TuneConfig(search_alg=self._tasks, num_samples=-1, reuse_actors=True),
            run_config=tune.RunConfig(
                name="study", storage_path=folder, verbose=0, callbacks=[_Deaths(self._messages)]
            ),
        )
        try:
            tuner.fit()
        except Exception as error:
            self._messages.put(error)


class _Tasks(Searcher):
    """Hands the submitted tasks to Tune as if it proposed them; ``live`` counts those that Tune has not ended."""

    def __init__(self) -> None:
        super().__init__(metric="none", mode="max")
        self._waiting: deque[Task | None] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.live = 0

    def put(self, task: Task | None) -> None:
        """Let Tune run a task."""
        with self._changed:
            self._waiting.append(task)
            self._changed.notify()

    def close(self) -> None:
        """Let Tune end."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def suggest(self, trial_id: str) -> Any:
        with self._changed:
            if not self.live:  # Tune would sleep for a whole second, and has nothing else to do
                self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return Searcher.FINISHED
            if not self._waiting:
                return None
            self.live += 1
            return {"task": self._waiting.popleft()}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        with self._changed:
            self.live -= 1

    def save(self, checkpoint_path: str) -> None:
        """Nothing to keep: MLflow is the only state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was kept."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune keeps a copy on disk, and never reads it


class _Deaths(tune.Callback):
    """Tells the driver of trials whose actor died."""

    def __init__(self, messages: queue.SimpleQueue[Any]) -> None:
        self._messages = messages

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        task: Task | None = trial.config["task"]
        self._messages.put(Ended(task.number if task is not None else -1, Died("the worker died")))

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _checked(resources: Mapping[str, float]) -> dict[str, float]:
    known = ("cpu", "gpu", "memory")
    faults = [f"`resources` may hold {', '.join(known)}, but got '{name}'; {nearest(name, known)}"
              for name in resources if name not in known]  # fmt: skip
    faults += [
        f"`resources.{name}` must be above 0, but got {value}" for name, value in resources.items() if value <= 0
    ]
    if faults:
        raise RequestError(faults)
    return dict(resources)


@contextlib.contextmanager
def _muted(name: str) -> Iterator[None]:
    """Nothing from a logger: Tune prints tracebacks of what the driver says in a sentence."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Environment variables as they are wanted (None: unset) for as long as the block runs."""
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextlib.contextmanager
def _connected(n_jobs: int, resources: Mapping[str, float], folder: str, setup: Setup) -> Iterator[None]:
    """A Ray that is there is used and left running; else one of our own, which nobody without the token can join."""
    if ray.is_initialized():
        yield
        return
    variables = _workers_environment(n_jobs, resources)
    quietly: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(runtime_env=_runtime_env(setup, variables), **quietly)
    else:
        with _environment(variables | {"RAY_AUTH_MODE": None}):  # unset, Ray makes a token and asks for it
            ray.init(
                address="local",
                num_cpus=max(os.cpu_count() or 1, math.ceil(n_jobs * resources["cpu"])),
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE,
                _temp_dir=os.path.join(folder, "ray"),
                **quietly,
            )
    try:
        yield
    finally:
        ray.shutdown()


def _workers_environment(n_jobs: int, resources: Mapping[str, float]) -> dict[str, str | None]:
    """Where workers find modules, and how many threads each may use (Ray's own default is one)."""
    threads = max(1, int(resources["cpu"]), (os.cpu_count() or 1) // n_jobs)
    given: dict[str, str | None] = {name: os.environ.get(name, str(threads)) for name in _THREAD_VARIABLES}
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    return given | {"PYTHONPATH": path, "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}


def _runtime_env(setup: Setup, variables: Mapping[str, str | None]) -> dict[str, Any]:
    """What travels to a cluster: the objective's folder, without what is never code."""
    environment: dict[str, Any] = {"env_vars": dict(variables)}
    if isinstance(setup.objective, ObjectiveRef):
        environment["working_dir"] = setup.objective.folder
        environment["excludes"] = [".git", ".venv", "mlruns", "mlartifacts", "*.db"]
    return environment


def _check_room(resources: Mapping[str, float]) -> None:
    """Refuse a trial that no node can hold; it would wait for ever.

    Raises:
        RequestError: No node is large enough.
    """
    names = {"cpu": "CPU", "gpu": "GPU", "memory": "memory"}
    nodes = [
        node["Resources"]
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]
    if not any(all(node.get(names[name], 0.0) >= value for name, value in resources.items()) for node in nodes):
        there = {name: max((node.get(key, 0.0) for node in nodes), default=0.0) for name, key in names.items()}
        asked = dict(resources)
        raise RequestError(
            f"`resources` must fit on one node of the Ray cluster, but got {asked} where the most is {there}"
        )
