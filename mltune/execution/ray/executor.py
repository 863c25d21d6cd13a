"""Executor ray: Ray Tune places, starts and reuses the trials' processes, on this machine or on a cluster.

Tune runs ``n_jobs`` slots and restarts a slot that died. Each slot is a trial of one ``Tuner.fit``, and its steps run
trials of the study. If each trial of the study were a Tune trial instead, a warm process would be lost whenever two
trials end at once, because Tune keeps only one idle actor, and a new one takes seconds to start.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mltune._util import timing
from mltune._util.env import THREAD_VARIABLES, environment
from mltune._util.scoped import log_level, quiet
from mltune.errors import ObjectiveError, RequestError, first_line, nearest
from mltune.execution._base import Executor, ExecutorLostError, ExecutorOptions, Limits
from mltune.execution.ray.actors import Broker, Ready, Slot
from mltune.execution.ray.cluster import check_room, connected, python_path, within

if TYPE_CHECKING:
    from mltune.messages import Decision, Message, Task, WorkerConfig


_QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of Tune's own calls to actors that are killed
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # MLflow is the only state
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000",
}


class RayExecutor(Executor):
    """Executor that runs tasks in actors of Ray Tune, which are reused.

    Args:
        options: ``resources`` may hold ``cpu``, ``gpu`` and ``memory`` (bytes).
    """

    limits: ClassVar[Limits] = Limits(places=True)
    packages: ClassVar[tuple[str, ...]] = ("ray",)

    def __init__(self, options: ExecutorOptions) -> None:
        super().__init__(options)
        n_jobs, resources = options.n_jobs, options.resources
        self._n_jobs = n_jobs
        self._trial_memory = options.trial_memory
        self._resources = {"cpu": 1.0} | dict(resources)
        self._threads = max(1, int(resources["cpu"]) if "cpu" in resources else (os.cpu_count() or 1) // n_jobs)
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._first_ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._actors: list[Any] = []
        self._stopper = _Stopper()
        self._closing = contextlib.ExitStack()
        self._fit: threading.Thread | None = None

    @classmethod
    def errors(cls, options: ExecutorOptions) -> list[str]:
        return _resource_errors(options.resources)

    def start(self, setup: WorkerConfig) -> None:
        self._closing.enter_context(log_level("ray.tune", logging.CRITICAL + 1))  # mltune reports Tune's errors
        with quiet("ray"):
            breakpoint_hook = {"PYTHONBREAKPOINT": os.environ.get("PYTHONBREAKPOINT")}  # ray.init sets its own
            self._closing.enter_context(environment(_QUIET | breakpoint_hook))
            folder = self._closing.enter_context(connected(self._n_jobs, self._resources, setup))
            check_room(self._resources)
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            self._broker = Broker.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]
            threading.Thread(target=self._pump, daemon=True).start()
            self._fit = threading.Thread(target=self._run, args=(setup, folder), daemon=True)
            self._fit.start()
        self._await_ready()

    def submit(self, task: Task) -> None:
        self._broker.submit.remote(task)

    def next(self, timeout: float | None = None) -> Message | None:
        try:
            message = self._messages.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(message, Exception):
            raise message
        return message  # type: ignore[no-any-return]

    def wake(self) -> None:
        self._messages.put(None)

    def answer(self, number: int, decision: Decision) -> None:
        self._broker.answer.remote(number, decision)

    def close(self) -> None:
        self._stopper.stopped = True
        with quiet("ray"):
            if self._fit is not None:
                within(timing.TIMING.ray_close, self._kill)
                self._fit.join(timing.TIMING.ray_close)
                self._fit = None
            self._closing.close()

    def _kill(self) -> None:
        """Kill all actors, so that Tune notices that it has been stopped."""
        for actor in [*self._actors, self._broker]:
            with contextlib.suppress(Exception):  # the actor is gone already
                ray.kill(actor)

    def _await_ready(self) -> None:
        """Wait until the first slot is ready.

        Raises:
            ObjectiveError: The slot could not load the objective, or died while it started.
        """
        ready = self._first_ready.get()
        if isinstance(ready, Exception):
            raise ready
        if ready.refusal is not None:
            raise ready.refusal

    def _lost(self, slot: str) -> None:
        """End the task of a slot that died, or, if no slot was ready yet, make the start fail."""
        if self._actors:
            self._broker.lost.remote(slot)
        else:
            self._first_ready.put(ObjectiveError("mltune must start in Ray's workers, but the first one died"))

    def _pump(self) -> None:
        """Move the broker's messages into this process until the broker is gone."""
        try:
            while True:
                message = ray.get(self._broker.take_message.remote())
                if isinstance(message, Ready):
                    self._actors.append(message.actor)
                    self._first_ready.put(message)
                else:
                    self._messages.put(message)
        except Exception as error:
            self._give_up(f"the Ray cluster must live as long as the study, but it is lost ({type(error).__name__})")

    def _give_up(self, why: str) -> None:
        """Report to the driver that no more messages will come, unless it has closed this executor."""
        if not self._stopper.stopped:
            self._first_ready.put(RequestError(why))
            self._messages.put(ExecutorLostError(why))

    def _run(self, setup: WorkerConfig, folder: str) -> None:
        """Run all slots in one run of Tune, which restarts each slot that dies."""
        slot = tune.with_parameters(
            Slot, setup=setup, broker=self._broker, environment=self._environment(), trial_memory=self._trial_memory
        )
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
            self._give_up("Ray Tune must run as long as the study, but it ended")
        except (Exception, SystemExit) as error:  # Ray raises SystemExit in threads when it shuts down
            self._give_up(f"Ray Tune must run as long as the study, but it failed: {first_line(error)}")

    def _environment(self) -> dict[str, str]:
        """Return the module path and thread limits for the processes that slots start (Ray's default is one thread)."""
        threads = {name: os.environ.get(name, str(self._threads)) for name in THREAD_VARIABLES}
        return threads | {"PYTHONPATH": python_path()}


class _Stopper(tune.Stopper):
    """Stopper that ends Tune's run when the executor closes."""

    stopped = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.stopped

    def stop_all(self) -> bool:
        return self.stopped


class _Deaths(tune.Callback):
    """Tune callback that reports slots that died; Tune restarts them."""

    def __init__(self, lost: Callable[[str], None]) -> None:
        self._lost = lost

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._lost(trial.trial_id)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune writes a copy to disk, and never reads it


def _resource_errors(resources: Mapping[str, float]) -> list[str]:
    known = ("cpu", "gpu", "memory")
    errors = [f"`resources` may hold {', '.join(known)}, but got '{name}'; {nearest(name, known)}"
              for name in resources if name not in known]  # fmt: skip
    errors += [
        f"`resources.{name}` must be above 0, but got {value}" for name, value in resources.items() if value <= 0
    ]
    gpu = resources.get("gpu", 0)
    if gpu > 1 and gpu != int(gpu):
        errors.append(f"`resources.gpu` must be a whole number where it is above 1, but got {gpu}")
    return errors
