"""Executor inline: run trials in the driver's own process for debugging, one at a time, each in a thread."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, ClassVar

from mltune.execution._base import Executor, ExecutorOptions, Limits

if TYPE_CHECKING:
    from mltune.messages import Decision, Message, Reported, Task, WorkerConfig


class InlineExecutor(Executor):
    """Executor that runs objectives in this process, where a debugger can reach them."""

    limits: ClassVar[Limits] = Limits(max_jobs=1, in_process=True, ends_trials=False)

    def __init__(self, options: ExecutorOptions) -> None:
        super().__init__(options)
        self._messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._answers: dict[int, queue.SimpleQueue[Decision]] = {}

    def start(self, setup: WorkerConfig) -> None:
        from mltune.worker.runner import Runner

        self._runner = Runner(setup, self._report)

    def submit(self, task: Task) -> None:
        threading.Thread(target=lambda: self._messages.put(self._runner.run(task)), daemon=True).start()

    def next(self, timeout: float | None = None) -> Message | None:
        try:
            return self._messages.get(timeout=timeout)
        except queue.Empty:
            return None

    def wake(self) -> None:
        self._messages.put(None)

    def answer(self, number: int, decision: Decision) -> None:
        self._answers[number].put(decision)

    def close(self) -> None:
        """Do nothing: a thread that still runs is left behind, and the driver closes its trial."""

    def _report(self, reported: Reported) -> Decision:
        answers = self._answers.setdefault(reported.number, queue.SimpleQueue())
        self._messages.put(reported)
        return answers.get()
