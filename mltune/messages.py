"""What travels: tasks and messages between driver and executor, events from the tracker, decisions of the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from mltune.objective import Objective, ObjectiveRef
from mltune.space import Params
from mltune.trial import FrozenTrial


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
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


class Decision(Enum):
    """What a scheduler answers to a report."""

    CONTINUE = "continue"
    STOP = "stop"


@dataclass(frozen=True)
class RunOpened:
    """The run of an attempt exists in the store."""

    number: int
    attempt: int
    run_id: str


@dataclass(frozen=True)
class RunClosed:
    """The end of a trial's attempt is stored, and its run closed."""

    trial: FrozenTrial


@dataclass(frozen=True)
class StoreDown:
    """The tracking store does not answer; what is to be written waits in memory."""

    reason: str

    def __str__(self) -> str:
        return f"the tracking store does not answer, results wait in memory: {self.reason}"


@dataclass(frozen=True)
class StoreUp:
    """The tracking store answers again."""

    def __str__(self) -> str:
        return "the tracking store answers again"


Event = RunOpened | RunClosed | StoreDown | StoreUp
