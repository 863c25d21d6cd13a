"""Ray Tune: places, starts and reuses the trials' processes, on this machine or on a cluster.

The proposals, schedulers and the loop are those of the Optuna engine, so that both engines mean the same. Ray Tune
is the executor: it places ``n_jobs`` slots, each a trial of one ``Tuner.fit`` whose steps run trials of the study, and
starts a slot again when it died. (As one Tune trial each, trials would lose their warm process whenever two end at
once: Tune keeps one idle actor, and a new one takes seconds.)
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import queue
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from tempfile import mkdtemp
from typing import Any, ClassVar

import ray
from ray import tune

from mltune.engines._ray_actors import Desk, Ready, Slot
from mltune.engines._scoped import log_level, quiet
from mltune.engines.optuna import OptunaEngine
from mltune.environment import environment
from mltune.errors import ObjectiveError, RequestError, nearest
from mltune.execution import THREAD_VARIABLES, Executor, Isolation, Message, ObjectiveRef, Setup, Task

_OBJECT_STORE = 100 * 2**20  # bytes; only tasks and reports pass through it
_CLOSE_GRACE = 10.0  # seconds for Tuner.fit to notice that its trials are gone

_QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
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
        self._actors: list[Any] = []
        self._stopper = _Stopper()
        self._closing = contextlib.ExitStack()
        self._fit: threading.Thread | None = None

    def start(self, setup: Setup) -> None:
        self._closing.enter_context(log_level("ray.tune", logging.CRITICAL + 1))  # it prints what we say in a sentence
        with quiet("ray"):
            breakpoint_hook = {"PYTHONBREAKPOINT": os.environ.get("PYTHONBREAKPOINT")}  # ray.init sets its own
            self._closing.enter_context(environment(_QUIET | breakpoint_hook))
            folder = mkdtemp(prefix="mltune-")
            self._closing.callback(shutil.rmtree, folder, ignore_errors=True)
            self._closing.enter_context(_connected(self._n_jobs, self._resources, folder, setup))
            _check_room(self._resources)
            self._desk = Desk.remote()  # type: ignore[attr-defined]
            threading.Thread(target=self._pump, daemon=True).start()
            self._fit = threading.Thread(target=self._run, args=(setup, folder), daemon=True)
            self._fit.start()
        self._await_ready()

    def submit(self, task: Task) -> None:
        self._desk.submit.remote(task)

    def next(self) -> Message:
        while True:
            message = self._messages.get()
            if isinstance(message, Exception):
                raise message
            if not isinstance(message, Ready):
                return message  # type: ignore[no-any-return]
            self._actors.append(message.actor)

    def answer(self, number: int, *, stop: bool) -> None:
        self._desk.answer.remote(number, stop)

    def close(self) -> None:
        self._stopper.stopped = True
        with quiet("ray"):
            if self._fit is not None:
                for actor in [*self._actors, self._desk]:
                    with contextlib.suppress(Exception):  # it is gone already
                        ray.kill(actor)
                self._fit.join(_CLOSE_GRACE)
                self._fit = None
            self._closing.close()

    def _await_ready(self) -> None:
        """Wait for the first slot.

        Raises:
            ObjectiveError: It could not load the objective, or died over it.
        """
        message = self._messages.get()
        if isinstance(message, Exception):
            raise message
        self._actors.append(message.actor)
        if message.refusal is not None:
            raise message.refusal

    def _lost(self, slot: str) -> None:
        """A slot died: over its task, or, before any was ready, over the objective."""
        if self._actors:
            self._desk.lost.remote(slot)
        else:
            self._messages.put(ObjectiveError("the objective must load in a worker, but the worker died while it did"))

    def _pump(self) -> None:
        """Take the desk's messages into this process, until the desk is gone."""
        try:
            while True:
                self._messages.put(ray.get(self._desk.take_message.remote()))
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Let the driver know that nothing more will come, unless it has closed us itself."""
        if not self._stopper.stopped:
            self._messages.put(error)

    def _run(self, setup: Setup, folder: str) -> None:
        """All slots as one run of Tune, which starts a slot again whenever it died."""
        slot = tune.with_parameters(Slot, setup=setup, desk=self._desk)
        tuner = tune.Tuner(
            tune.with_resources(slot, self._resources),
            tune_config=tune.TuneConfig(num_samples=self._n_jobs),
            run_config=tune.RunConfig(
                name="study",
                storage_path=folder,
                verbose=0,
                stop=self._stopper,
                callbacks=[_Deaths(self._lost)],
                failure_config=tune.FailureConfig(max_failures=-1),
            ),
        )
        try:
            tuner.fit()
            self._give_up(RuntimeError("Ray Tune ended before the study"))
        except Exception as error:
            self._give_up(error)


class _Stopper(tune.Stopper):
    """Ends Tune's run when the executor closes."""

    stopped = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.stopped

    def stop_all(self) -> bool:
        return self.stopped


class _Deaths(tune.Callback):
    """Hears of slots that died; Tune starts them again."""

    def __init__(self, lost: Callable[[str], None]) -> None:
        self._lost = lost

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._lost(trial.trial_id)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune keeps a copy on disk, and never reads it


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
def _connected(n_jobs: int, resources: Mapping[str, float], folder: str, setup: Setup) -> Iterator[None]:
    """A Ray that is there is used and left running; else one of our own, which nobody without the token can join."""
    if ray.is_initialized():
        yield
        return
    variables = _workers_environment(n_jobs, resources)
    try:
        if os.environ.get("RAY_ADDRESS"):
            _init(runtime_env=_runtime_env(setup, variables))
        else:
            with environment(variables | {"RAY_AUTH_MODE": None}):  # unset, Ray makes a token and asks for it
                _init(
                    address="local",
                    num_cpus=max(os.cpu_count() or 1, math.ceil(n_jobs * resources["cpu"])),
                    include_dashboard=False,
                    object_store_memory=_OBJECT_STORE,
                    _temp_dir=os.path.join(folder, "ray"),
                )
        yield
    finally:
        ray.shutdown()


def _init(**arguments: Any) -> None:
    """``ray.init``, quietly, and without the SIGTERM handler that it installs."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **arguments)
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _workers_environment(n_jobs: int, resources: Mapping[str, float]) -> dict[str, str | None]:
    """Where workers find modules, and how many threads each may use (Ray's own default is one)."""
    threads = max(1, int(resources["cpu"]), (os.cpu_count() or 1) // n_jobs)
    given: dict[str, str | None] = {name: os.environ.get(name, str(threads)) for name in THREAD_VARIABLES}
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
        raise RequestError(
            f"`resources` must fit on one node of the Ray cluster, but got {dict(resources)} where the most is {there}"
        )
