"""What runs in Ray's processes: the slots that run trials, and the desk between slots and driver."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune

from mltune.errors import ObjectiveError
from mltune.execution import Died, Ended, Reported, Setup, Task
from mltune.execution.worker import load_runner


@dataclass(frozen=True)
class Ready:
    """A slot has loaded the objective, or could not."""

    actor: Any
    refusal: ObjectiveError | None


@ray.remote(num_cpus=0)
class Desk:
    """Gives tasks to the slots and passes on what they say; one actor, so that all sees one order of events."""

    def __init__(self) -> None:
        self._tasks: asyncio.Queue[Task] = asyncio.Queue()
        self._messages: asyncio.Queue[Any] = asyncio.Queue()
        self._asked: dict[int, deque[asyncio.Future[bool]]] = defaultdict(deque)
        self._waiting: dict[str, asyncio.Task[Any] | None] = {}
        self._running: dict[str, int] = {}

    async def submit(self, task: Task) -> None:
        """The driver has a task."""
        await self._tasks.put(task)

    async def take_message(self) -> Any:
        """The driver waits for the next message."""
        return await self._messages.get()

    async def answer(self, number: int, stop: bool) -> None:
        """The driver answers a report."""
        self._asked[number].popleft().set_result(stop)

    async def lost(self, slot: str) -> None:
        """The driver has seen that a slot died; its task, if any, is over."""
        if (waiting := self._waiting.pop(slot, None)) is not None:
            waiting.cancel()  # it must take no task for a slot that is dead
        number = self._running.pop(slot, None)
        if number is not None:
            await self._messages.put(Ended(number, Died("the worker died")))

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

    async def report(self, reported: Reported) -> bool:
        """A slot reports, and waits for the answer."""
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._asked[reported.number].append(answer)
        await self._messages.put(reported)
        return await answer

    async def end(self, slot: str, ended: Ended) -> None:
        """A slot has run its task."""
        self._running.pop(slot, None)
        await self._messages.put(ended)


class Slot(tune.Trainable):
    """One place for a trial: a trial of Ray Tune whose every step runs one trial of the study."""

    def setup(self, config: dict[str, Any], setup: Setup, desk: Any) -> None:  # type: ignore[override]
        self._desk = desk
        self._refusal: ObjectiveError | None = None
        try:
            self._runner = load_runner(setup, lambda reported: bool(ray.get(desk.report.remote(reported))))
        except ObjectiveError as error:
            self._refusal = error
        ray.get(desk.ready.remote(Ready(ray.get_runtime_context().current_actor, self._refusal)))

    def step(self) -> dict[str, Any]:
        task: Task = ray.get(self._desk.take_task.remote(self.trial_id))
        refused = Ended(task.number, Died(str(self._refusal)))
        ended = self._runner.run(task) if self._refusal is None else refused
        ray.get(self._desk.end.remote(self.trial_id, ended))
        return {}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to keep: MLflow is the only state."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing was kept."""
