"""What runs in Ray's processes: the slots that run trials, and the broker between slots and driver."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune
from ray._raylet import Config  # type: ignore[attr-defined]

from mltune.errors import ObjectiveError
from mltune.execution._base import Executor, ExecutorOptions
from mltune.execution.local import LocalExecutor
from mltune.messages import Decision, Died, Ended, Reported, Task, WorkerConfig


@dataclass(frozen=True)
class Ready:
    """A slot has loaded the objective, or could not."""

    actor: Any
    refusal: ObjectiveError | None


@ray.remote(num_cpus=0)
class Broker:
    """Gives tasks to the slots and passes on what they say; one actor, so that all sees one order of events."""

    def __init__(self) -> None:
        self._tasks: asyncio.Queue[Task] = asyncio.Queue()
        self._messages: asyncio.Queue[Any] = asyncio.Queue()
        self._asked: dict[int, asyncio.Future[Decision]] = {}
        self._waiting: dict[str, asyncio.Task[Any] | None] = {}
        self._running: dict[str, int] = {}

    async def submit(self, task: Task) -> None:
        """The driver has a task."""
        await self._tasks.put(task)

    async def take_message(self) -> Any:
        """The driver waits for the next message."""
        return await self._messages.get()

    async def answer(self, number: int, decision: Decision) -> None:
        """The driver answers a report."""
        self._asked.pop(number).set_result(decision)

    async def lost(self, slot: str) -> None:
        """The driver has seen that a slot died; its task, if any, is over."""
        if (waiting := self._waiting.pop(slot, None)) is not None:
            waiting.cancel()  # it must take no task for a slot that is dead
        number = self._running.pop(slot, None)
        if number is not None:
            await self._messages.put(Ended(number, Died("the worker's Ray actor or its node died")))

    async def take_task(self, slot: str) -> Task:
        """A slot is free, and waits for a task."""
        await self.lost(slot)  # it died and is back, before the driver saw it
        self._waiting[slot] = asyncio.current_task()
        task = await self._tasks.get()
        del self._waiting[slot]
        self._running[slot] = task.number
        return task

    async def ready(self, ready: Ready) -> None:
        """A slot has started."""
        await self._messages.put(ready)

    async def report(self, reported: Reported) -> Decision:
        """A slot reports, and waits for the answer."""
        answer: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
        self._asked[reported.number] = answer
        await self._messages.put(reported)
        return await answer

    async def end(self, slot: str, ended: Ended) -> None:
        """A slot has run its task."""
        self._running.pop(slot, None)
        await self._messages.put(ended)


class Slot(tune.Trainable):
    """One place for a trial: a trial of Ray Tune whose every step runs one trial of the study.

    The objective runs in a worker process of the slot's own, as it does on engine optuna: so limits hold, crashes are
    told, and whatever the objective started ends with it, wherever the slot is.
    """

    def setup(  # type: ignore[override]
        self,
        config: dict[str, Any],
        setup: WorkerConfig,
        broker: Any,
        environment: Mapping[str, str],
        trial_memory: int | None,
    ) -> None:
        self._broker = broker
        self._worker: Executor = LocalExecutor(ExecutorOptions(trial_memory=trial_memory))
        self._refusal: ObjectiveError | None = None
        context = ray.get_runtime_context()
        os.environ.update(environment, RAY_ADDRESS=context.gcs_address)  # an objective that uses Ray uses this one
        Config.initialize('{"kill_child_processes_on_worker_exit": false}')  # the worker's supervisor sees to that
        try:
            self._worker.start(setup)
        except ObjectiveError as error:
            self._refusal = error
        ray.get(broker.ready.remote(Ready(context.current_actor, self._refusal)))

    def step(self) -> dict[str, Any]:
        task: Task = ray.get(self._broker.take_task.remote(self.trial_id))
        refused = Ended(task.number, Died(str(self._refusal)))
        ended = self._run(task) if self._refusal is None else refused
        ray.get(self._broker.end.remote(self.trial_id, ended))
        return {}

    def _run(self, task: Task) -> Ended:
        self._worker.submit(task)
        while not isinstance(message := self._worker.next(), Ended):
            if message is not None and message.number == task.number:  # else a thread that an earlier trial left behind
                self._worker.answer(task.number, ray.get(self._broker.report.remote(message)))
        return message

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to keep: MLflow is the only state."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing was kept."""
