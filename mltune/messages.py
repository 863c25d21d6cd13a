"""Tasks and messages between driver and executor, events from the tracker, and decisions of the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mltune.objective import Objective, ObjectiveRef
    from mltune.params import Params
    from mltune.trial import FrozenTrial


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """The configuration of a study's workers, the same for all trials.

    Attributes:
        objective: A name that the worker imports, a function pickled by cloudpickle, or, in the driver's own process,
            the function itself.
        metric: The name of the study's metric.
        environment: Environment variables of the worker's process, such as the tracking URI; None unsets one.
        trial_timeout: The time limit for one trial, in seconds, or None for no limit.
        log_models: Whether models that trials log are kept at all.
        store_timeout: Seconds for which logging a model is retried while the store does not answer.
    """

    objective: ObjectiveRef | bytes | Objective
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


@dataclass(frozen=True, kw_only=True)
class Verification:
    """A registered model to load, and to predict with, in a process that does nothing else.

    Attributes:
        uri: The model's URI, such as ``models:/NAME/3``.
        environment: The environment of the process.
        folder: Its working folder, which is empty.
    """

    uri: str
    environment: Mapping[str, str]
    folder: str


@dataclass(frozen=True)
class Reported:
    """A running trial reported the metrics of a step, and waits for an answer.

    Attributes:
        timestamp: Unix time in milliseconds.
    """

    number: int
    step: int
    metrics: Mapping[str, float]
    timestamp: int


@dataclass(frozen=True)
class Returned:
    """The objective returned metrics.

    Attributes:
        model_id: The ID of the last model that ``trial.log_model`` logged, or None.
    """

    metrics: Mapping[str, float]
    model_id: str | None = None


@dataclass(frozen=True)
class Pruned:
    """The objective ended with :class:`~mltune.errors.TrialPruned`."""

    model_id: str | None = None


@dataclass(frozen=True)
class Raised:
    """The objective raised an exception other than TrialPruned, or returned what are no metrics.

    Attributes:
        error: The exception, in one line.
        traceback: Python's traceback, from the objective on.
    """

    error: str
    traceback: str


@dataclass(frozen=True)
class TimedOut:
    """The objective took longer than ``trial_timeout``; ``traceback`` shows where it was, or is empty if unknown."""

    traceback: str = ""


@dataclass(frozen=True)
class Died:
    """The worker died during the trial: ``how``, in words, and the ``traceback``, empty if unknown."""

    how: str
    traceback: str = ""


@dataclass(frozen=True)
class Cost:
    """The cost of logging models: seconds, and bytes of files."""

    seconds: float = 0.0
    size: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, self.size + other.size)


@dataclass(frozen=True)
class Ended:
    """A trial ended with one of five outcomes; after the last two, the worker is replaced."""

    number: int
    outcome: Returned | Pruned | Raised | TimedOut | Died
    cost: Cost = Cost()


Message = Reported | Ended


class Decision(Enum):
    """A scheduler's answer to a report."""

    CONTINUE = "continue"
    STOP = "stop"


@dataclass(frozen=True)
class RunOpened:
    """The run of a trial's attempt exists in the store."""

    number: int
    attempt: int
    run_id: str


@dataclass(frozen=True)
class RunClosed:
    """The end of a trial's attempt is stored, and its run is closed."""

    trial: FrozenTrial


@dataclass(frozen=True)
class StoreDown:
    """The tracking store does not answer; pending writes wait in memory."""

    reason: str

    def __str__(self) -> str:
        return f"the tracking store does not answer, results wait in memory: {self.reason}"


@dataclass(frozen=True)
class StoreUp:
    """The tracking store answers again."""

    def __str__(self) -> str:
        return "the tracking store answers again"


Event = RunOpened | RunClosed | StoreDown | StoreUp
