"""The Ray actors: the slots, which run trials, and the broker between slots and driver."""

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
    """Message: a slot has loaded the objective, or could not."""

    actor: Any
    refusal: ObjectiveError | None


@ray.remote(num_cpus=0)
class Broker:
    """Actor that passes tasks to slots and their messages to the driver; just one, so that all see the same order."""

    def __init__(self) -> None:
        self._tasks: asyncio.Queue[Task] = asyncio.Queue()
        self._messages: asyncio.Queue[Any] = asyncio.Queue()
        self._asked: dict[int, asyncio.Future[Decision]] = {}
        self._waiting: dict[str, asyncio.Task[Any] | None] = {}
        self._running: dict[str, int] = {}

    async def submit(self, task: Task) -> None:
        """Queue a task from the driver."""
        await self._tasks.put(task)

    async def take_message(self) -> Any:
        """Wait for the next message to the driver and return it."""
        return await self._messages.get()

    async def answer(self, number: int, decision: Decision) -> None:
        """Pass the driver's answer to the trial that reported."""
        self._asked.pop(number).set_result(decision)

    async def lost(self, slot: str) -> None:
        """Record that a slot died, and end the task that it was running, if any."""
        if (waiting := self._waiting.pop(slot, None)) is not None:
            waiting.cancel()  # else it would take a task for a dead slot
        number = self._running.pop(slot, None)
        if number is not None:
            await self._messages.put(Ended(number, Died("the worker's Ray actor or its node died")))

    async def take_task(self, slot: str) -> Task:
        """Wait for a task for a free slot and return it."""
        await self.lost(slot)  # it may have died and been restarted before the driver noticed
        self._waiting[slot] = asyncio.current_task()
        task = await self._tasks.get()
        del self._waiting[slot]
        self._running[slot] = task.number
        return task

    async def ready(self, ready: Ready) -> None:
        """Pass on to the driver that a slot has started."""
        await self._messages.put(ready)

    async def report(self, reported: Reported) -> Decision:
        """Pass a slot's report to the driver; wait for the answer and return it."""
        answer: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
        self._asked[reported.number] = answer
        await self._messages.put(reported)
        return await answer

    async def end(self, slot: str, ended: Ended) -> None:
        """Pass the end of a slot's task to the driver."""
        self._running.pop(slot, None)
        await self._messages.put(ended)


class Slot(tune.Trainable):
    """A trial of Ray Tune in which each step runs one trial of the study.

    The objective runs in a worker process inside the slot, as it does with executor local. So on every node, limits
    hold, crashes are reported, and everything that the objective started ends with it.
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
        os.environ.update(environment, RAY_ADDRESS=context.gcs_address)  # for objectives that use Ray themselves
        Config.initialize('{"kill_child_processes_on_worker_exit": false}')  # the worker's supervisor does this
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
            if message is not None and message.number == task.number:  # else from a leftover thread of an earlier trial
                self._worker.answer(task.number, ray.get(self._broker.report.remote(message)))
        return message

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save nothing: MLflow is the only state."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Load nothing, because nothing was saved."""
