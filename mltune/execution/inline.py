"""The driver's own process as executor, for debugging: one trial at a time, in a thread."""

from __future__ import annotations

import queue
import threading

from mltune.execution._base import Executor, Message, Reported, Setup, Task


class InlineExecutor(Executor):
    """Runs objectives in this process; what needs a process of its own is refused elsewhere."""

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._answers: dict[int, queue.SimpleQueue[bool]] = {}

    def start(self, setup: Setup) -> None:
        from mltune.execution.runner import Runner

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

    def answer(self, number: int, *, stop: bool) -> None:
        self._answers[number].put(stop)

    def close(self) -> None:
        """Nothing to end: a thread that still runs is left behind, its trial is closed by the driver."""

    def _report(self, reported: Reported) -> bool:
        answers = self._answers.setdefault(reported.number, queue.SimpleQueue())
        self._messages.put(reported)
        return answers.get()
