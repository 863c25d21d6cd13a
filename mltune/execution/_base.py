"""The contract of those who run trials."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from mltune.messages import Decision, Message, Task, WorkerConfig


@dataclass(frozen=True, kw_only=True)
class ExecutorOptions:
    """What a study asks of its executor.

    Attributes:
        n_jobs: Trials at once.
        resources: What each trial takes, by name, such as ``{"cpu": 1, "gpu": 0.5}``.
        trial_memory: The most bytes that the processes of one trial may hold, or None for no limit.
        trial_timeout: Seconds that one trial may take, or None for no limit.
    """

    n_jobs: int = 1
    resources: Mapping[str, float] = field(default_factory=dict)
    trial_memory: int | None = None
    trial_timeout: float | None = None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an executor can do, as data that a request is checked against.

    Attributes:
        max_jobs: The most trials at once, or None for no limit.
        in_process: Whether objectives run in the driver's own process: they need not be pickled, and cannot be ended.
        places: Whether it finds a place for each trial that has the trial's ``resources``.
        ends_trials: Whether it ends trials that break ``trial_timeout`` or ``trial_memory``.
    """

    max_jobs: int | None = None
    in_process: bool = False
    places: bool = False
    ends_trials: bool = True


class ExecutorLostError(Exception):
    """What runs the tasks is gone, and will not come back; one sentence."""


class Executor(ABC):
    """Runs tasks, at most ``n_jobs`` at once; used by one thread only, except for :meth:`wake`.

    Args:
        options: What the study asks for; :func:`~mltune.execution.check_executor` has checked it.

    Attributes:
        limits: What it can do.
        packages: What must be importable for it.
    """

    limits: ClassVar[Limits] = Limits()
    packages: ClassVar[tuple[str, ...]] = ()

    def __init__(self, options: ExecutorOptions) -> None:
        self.options = options

    @classmethod
    def errors(cls, options: ExecutorOptions) -> list[str]:
        """What is wrong with the options beyond the declared limits, one sentence each."""
        return []

    def warm_up(self) -> None:  # noqa: B027 - most have nothing to begin with
        """Begin with what needs no setup; may be called once, before :meth:`start`."""

    @abstractmethod
    def start(self, setup: WorkerConfig) -> None:
        """Make ready to run; called once, before all else but :meth:`warm_up`.

        Raises:
            RequestError: The objective cannot be imported, or what was asked for is not there.
        """

    @abstractmethod
    def submit(self, task: Task) -> None:
        """Run a task; the caller sees to it that a worker is free."""

    @abstractmethod
    def next(self, timeout: float | None = None) -> Message | None:
        """Wait for the next message; None after ``timeout`` seconds, or when :meth:`wake` was called.

        Raises:
            ExecutorLostError: No message will come any more.
        """

    @abstractmethod
    def wake(self) -> None:
        """Let :meth:`next` return soon; may be called from any thread, and from a signal handler."""

    @abstractmethod
    def answer(self, number: int, decision: Decision) -> None:
        """Answer the trial's last report."""

    @abstractmethod
    def close(self) -> None:
        """End all workers and whatever they started; running tasks are lost. May be called twice."""
