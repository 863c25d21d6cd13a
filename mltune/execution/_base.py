"""The contract of executors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from mltune.execution.template import Start
    from mltune.messages import Decision, Message, Task, WorkerConfig


@dataclass(frozen=True, kw_only=True)
class ExecutorOptions:
    """The options that a study sets for its executor.

    Attributes:
        n_jobs: The number of trials that run at once.
        resources: The resources of each trial, by name, such as ``{"cpu": 1, "gpu": 0.5}``.
        trial_memory: The memory limit for the processes of one trial, in bytes, or None for no limit.
        trial_timeout: The time limit for one trial, in seconds, or None for no limit.
    """

    n_jobs: int = 1
    resources: Mapping[str, float] = field(default_factory=dict)
    trial_memory: int | None = None
    trial_timeout: float | None = None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The capabilities of an executor, against which requests are checked.

    Attributes:
        max_jobs: The maximum number of trials at once, or None for no limit.
        in_process: Whether objectives run in the driver's own process: they need not be pickled, and cannot be ended.
        places: Whether it places each trial where the trial's ``resources`` are available.
        ends_trials: Whether it ends trials that exceed ``trial_timeout`` or ``trial_memory``.
    """

    max_jobs: int | None = None
    in_process: bool = False
    places: bool = False
    ends_trials: bool = True


class ExecutorLostError(Exception):
    """The backend that runs the tasks is lost for good; the message is one sentence."""


class Executor(ABC):
    """Base class of executors, which run at most ``n_jobs`` tasks at once.

    Only one thread calls the methods, except for :meth:`wake`.

    Args:
        options: The study's options, already checked by :func:`~mltune.execution.check_executor`.

    Attributes:
        limits: What the executor can do.
        packages: Packages that must be importable for the executor.
    """

    limits: ClassVar[Limits] = Limits()
    packages: ClassVar[tuple[str, ...]] = ()

    def __init__(self, options: ExecutorOptions) -> None:
        self.options = options

    @classmethod
    def errors(cls, options: ExecutorOptions) -> list[str]:
        """Return what is wrong with the options beyond the declared limits, one sentence each."""
        return []

    def warm_up(self) -> None:  # noqa: B027 - most executors have nothing to start early
        """Start what needs no setup; may be called once, before :meth:`start`."""

    @abstractmethod
    def start(self, setup: WorkerConfig) -> None:
        """Prepare to run tasks; called once, before all other methods except :meth:`warm_up`.

        Raises:
            RequestError: The objective cannot be imported, or something that the study requests is not available.
        """

    @abstractmethod
    def submit(self, task: Task) -> None:
        """Run a task; the caller ensures that a worker is free."""

    @abstractmethod
    def next(self, timeout: float | None = None) -> Message | None:
        """Wait for the next message and return it, or None after ``timeout`` seconds or a call of :meth:`wake`.

        Raises:
            ExecutorLostError: No more messages will come.
        """

    @abstractmethod
    def wake(self) -> None:
        """Make :meth:`next` return soon; may be called from any thread, and from a signal handler."""

    @abstractmethod
    def answer(self, number: int, decision: Decision) -> None:
        """Send the decision on the trial's last report."""

    def fresh_process(self) -> Start | None:
        """Return what starts a process that has run no user code faster than a new program does, or None."""
        return None

    @abstractmethod
    def close(self) -> None:
        """End all workers and everything they started; running tasks are lost. May be called twice."""
