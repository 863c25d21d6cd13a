"""What runs in Ray's processes: the slot that runs trials, and the mailbox between slots and driver."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune

from mltune.errors import ObjectiveError
from mltune.execution import Ended, Reported, Setup, Task


@dataclass(frozen=True)
class Ready:
    """A slot has loaded the objective, or could not."""

    actor: Any
    refusal: ObjectiveError | None


@ray.remote(num_cpus=0)
class Mailbox:
    """Passes messages from the slots to the driver, and the driver's answers back."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[Any] = asyncio.Queue()
        self._asked: dict[int, asyncio.Future[bool]] = {}

    async def put(self, message: Any) -> None:
        """A slot says something."""
        await self._messages.put(message)

    async def ask(self, reported: Reported) -> bool:
        """A slot reports, and waits for the answer."""
        self._asked[reported.number] = asyncio.get_running_loop().create_future()
        await self._messages.put(reported)
        return await self._asked[reported.number]

    async def answer(self, number: int, stop: bool) -> None:
        """The driver answers a report."""
        self._asked.pop(number).set_result(stop)

    async def take(self) -> Any:
        """The driver waits for the next message."""
        return await self._messages.get()


class Slot(tune.Trainable):
    """Runs one trial after the other in one process; Tune gives it a new trial by ``reset_config``."""

    def setup(self, config: dict[str, Any], setup: Setup, mailbox: Any) -> None:  # type: ignore[override]
        os.environ.update(setup.environment)
        from mltune.execution.runner import Runner  # after the environment: it imports mlflow and user code
        from mltune.tracking import attach

        attach.prepare_worker()
        self._mailbox = mailbox
        self._task: Task | None = config["task"]
        refusal = None
        try:
            self._runner = Runner(setup, lambda reported: bool(ray.get(mailbox.ask.remote(reported))))
        except ObjectiveError as error:
            refusal = error
        ray.get(mailbox.put.remote(Ready(ray.get_runtime_context().current_actor, refusal)))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._task = new_config["task"]
        return True

    def step(self) -> dict[str, Any]:
        if self._task is not None:
            ended: Ended = self._runner.run(self._task)
            ray.get(self._mailbox.put.remote(ended))
        return {"done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to keep: MLflow is the only state."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing was kept."""
