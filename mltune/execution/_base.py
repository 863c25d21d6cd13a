"""What travels between the driver and those who run objectives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from mltune.space import Params

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""What tells numerical libraries how many threads to use; read when they are loaded."""


class Isolation(StrEnum):
    """Where objectives run: each in a worker process, or in the driver's own."""

    PROCESS = "process"
    NONE = "none"


@dataclass(frozen=True)
class ObjectiveRef:
    """An objective by name: ``module:function``, importable from ``folder``."""

    module: str
    function: str
    folder: str

    @classmethod
    def parse(cls, name: str, folder: str | Path) -> ObjectiveRef:
        """Read ``module:function``; the folder is made absolute."""
        module, _, function = name.partition(":")
        return cls(module, function, str(Path(folder).absolute()))

    def __str__(self) -> str:
        return f"{self.module}:{self.function}"


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is the same for all trials of a study.

    Attributes:
        objective: A name that the worker imports, a function as cloudpickle's bytes, or, in the driver's own
            process, the function itself.
        metric: The study's metric.
        environment: Variables of the worker's process, such as the tracking store's address; None unsets one.
        trial_timeout: Seconds that a trial may take, None for no limit.
        log_models: Whether models that trials log are kept at all.
        store_timeout: Seconds for which a store that does not answer is tried again to log a model.
    """

    objective: ObjectiveRef | bytes | Callable[..., Any]
    metric: str
    environment: Mapping[str, str | None]
    trial_timeout: float | None = None
    log_models: bool = True
    store_timeout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Task:
    """One trial to run."""

    number: int
    params: Params
    seed: int
    run_id: str
    experiment_id: str


@dataclass(frozen=True)
class Reported:
    """A running trial reported the metrics of a step, and waits for an answer.

    Attributes:
        timestamp: Milliseconds since 1970.
    """

    number: int
    step: int
    metrics: Mapping[str, float]
    timestamp: int


@dataclass(frozen=True)
class Returned:
    """The objective returned metrics.

    Attributes:
        model_id: The last model that ``trial.log_model`` logged.
    """

    metrics: Mapping[str, float]
    model_id: str | None = None


@dataclass(frozen=True)
class Pruned:
    """The objective let :class:`~mltune.errors.TrialPruned` pass."""

    model_id: str | None = None


@dataclass(frozen=True)
class Raised:
    """The objective raised; ``traceback`` as Python prints it."""

    error: str
    traceback: str


@dataclass(frozen=True)
class TimedOut:
    """The objective took longer than ``trial_timeout``; ``traceback`` is where it stood, empty if that is not known."""

    traceback: str = ""


@dataclass(frozen=True)
class Died:
    """The worker ended in the middle of the trial; ``how`` in words, ``traceback`` where it stood, if that is known."""

    how: str
    traceback: str = ""


@dataclass(frozen=True)
class Cost:
    """What logging models took: seconds, and bytes of files."""

    seconds: float = 0.0
    size: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, self.size + other.size)


@dataclass(frozen=True)
class Ended:
    """A trial ended, in one of five ways; after the last two the worker is replaced."""

    number: int
    outcome: Returned | Pruned | Raised | TimedOut | Died
    cost: Cost = Cost()


Message = Reported | Ended


class ExecutorLostError(Exception):
    """What runs the tasks is gone, and will not come back; one sentence."""


class Executor(ABC):
    """Runs tasks, at most ``n_jobs`` at once; used by one thread only, but for :meth:`wake`."""

    def warm_up(self) -> None:  # noqa: B027 - most have nothing to begin with
        """Begin with what needs no setup; may be called once, before :meth:`start`."""

    @abstractmethod
    def start(self, setup: Setup) -> None:
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
    def answer(self, number: int, *, stop: bool) -> None:
        """Answer the trial's last report."""

    @abstractmethod
    def close(self) -> None:
        """End all workers and whatever they started; running tasks are lost. May be called twice."""
