"""One evaluation of the objective: the ``Trial`` that user code gets, and the ``FrozenTrial`` that records it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from numbers import Real
from typing import Any, Protocol

from mltune.errors import TrialPruned
from mltune.params import NAME_RULE, Params, is_name

DURATION = "duration_s"
"""The name of the metric that records a trial's duration in seconds."""


class TrialState(StrEnum):
    """The state of a trial; stored as the tag ``mltune.state``."""

    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAILED = "FAILED"
    INTERRUPTED = "INTERRUPTED"


class Reason(StrEnum):
    """Why a trial FAILED; stored as the tag ``mltune.reason``."""

    EXCEPTION = "exception"
    NAN = "nan"
    MISSING_METRIC = "missing-metric"
    TIMEOUT = "timeout"
    WORKER_DIED = "worker-died"


class Models(StrEnum):
    """Which of the models logged by trials are kept: all, those of the best trial so far, or none."""

    ALL = "all"
    BEST = "best"
    NONE = "none"


class Direction(StrEnum):
    """Whether smaller or larger values of the metric are better."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"

    def better(self, value: float, than: float | None) -> bool:
        """Return whether ``value`` is strictly better than ``than``; any value is better than None."""
        if than is None:
            return True
        return value < than if self is Direction.MINIMIZE else value > than


@dataclass(frozen=True, kw_only=True)
class FrozenTrial:
    """A snapshot of a trial.

    Attributes:
        number: The position in the study, from 0.
        attempt: The number of this attempt at the trial, from 1.
        params: The point that is evaluated; inactive conditional parameters are absent.
        seed: The seed for the objective.
        value: The returned value of the study's metric (COMPLETE), the last reported one (PRUNED), else None.
        metrics: All returned metrics (COMPLETE), else the last reported ones.
        reports: The reported values of the study's metric by step, in the order of the steps.
        model_id: The id of the last model that ``trial.log_model`` logged.
        duration: The duration in seconds.
    """

    number: int
    params: Params
    seed: int
    attempt: int = 1
    state: TrialState = TrialState.RUNNING
    value: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    reports: Mapping[int, float] = field(default_factory=dict)
    run_id: str | None = None
    model_id: str | None = None
    reason: Reason | None = None
    duration: float | None = None

    @property
    def finished(self) -> bool:
        """Whether the trial is COMPLETE, PRUNED or FAILED."""
        return self.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED)


class TrialServices(Protocol):
    """The services that a worker provides to the trial that it runs."""

    def report(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Send the metrics of one step; return whether the trial should stop."""

    def log_model(self, model: Any, name: str, **options: Any) -> str:
        """Log a model to the trial's run; return the id of its LoggedModel."""


class _DetachedServices:
    """The services of a trial outside of a study: reports are ignored, models are not logged."""

    def report(self, step: int, metrics: Mapping[str, float]) -> bool:
        return False

    def log_model(self, model: Any, name: str, **options: Any) -> str:
        return ""


class Trial:
    """The argument of an objective: ``train(trial) -> float`` or ``-> {metric: float}``.

    To debug or test an objective outside of a study, create a trial by hand:

    >>> trial = Trial({"learning_rate": 0.1})
    >>> trial.report(0.5, step=0)
    >>> trial.params["learning_rate"]
    0.1

    Attributes:
        params: The values to train with; inactive conditional parameters are absent.
        number: The position in the study, from 0.
        seed: A seed for this trial alone, the same whenever the study is run with the same seed.
        run_id: The id of the nested MLflow run, or None outside of a study.
    """

    def __init__(
        self,
        params: Mapping[str, Any],
        *,
        number: int = 0,
        seed: int = 0,
        metric: str = "value",
        run_id: str | None = None,
        services: TrialServices | None = None,
    ) -> None:
        self.params = dict(params)
        self.number = number
        self.seed = seed
        self.run_id = run_id
        self._metric = metric
        self._services: TrialServices = services if services is not None else _DetachedServices()
        self._last_step: int | None = None
        self._stopped = False

    def report(self, metrics: float | Mapping[str, float], *, step: int) -> None:
        """Log the metrics of one step and ask the scheduler whether to go on.

        Args:
            metrics: The study's metric, or several metrics by name.
            step: An integer that increases from report to report, such as the epoch.

        Raises:
            TrialPruned: The scheduler stopped this trial; let the exception propagate.
            ValueError: The step does not increase, or a metric is not a number.
        """
        if self._stopped:
            raise TrialPruned(f"trial {self.number} was already stopped")
        step = self._next_step(step)
        self._stopped = self._services.report(step, as_metrics(metrics, self._metric))
        if self._stopped:
            raise TrialPruned(f"the scheduler stopped trial {self.number} at step {step}")

    def log_model(self, model: Any, name: str = "model", **options: Any) -> str:
        """Log a model to this trial's run, as a LoggedModel that loads without mltune.

        Args:
            model: A scikit-learn estimator, a ``torch.nn.Module`` or an ``mlflow.pyfunc.PythonModel``.
            name: The LoggedModel's name.
            **options: ``input_example`` (a few rows, which give the model its signature),
                ``signature``, ``pip_requirements``, ``metadata``.

        Returns:
            The LoggedModel's id; empty if the model is not kept: outside of a study, and with ``keep_models: none``.
        """
        return self._services.log_model(model, name, **options)

    def _next_step(self, step: int) -> int:
        if isinstance(step, bool) or not hasattr(step, "__index__"):
            raise ValueError(f"`step` must be an integer, but got {step!r}")
        step = step.__index__()
        if abs(step) >= 2**63:
            raise ValueError(f"`step` must be below 2**63, but got {step}")
        if self._last_step is not None and step <= self._last_step:
            raise ValueError(f"`step` must grow from report to report, but {step} came after {self._last_step}")
        self._last_step = step
        return step

    def __repr__(self) -> str:
        return f"Trial(number={self.number}, params={self.params})"


def as_metrics(returned: Any, metric: str) -> dict[str, float]:
    """Return metrics as plain floats by name, from a number or a mapping of numbers.

    Raises:
        ValueError: A metric is not a number, or its name is not allowed.
    """
    items = returned.items() if isinstance(returned, Mapping) else [(metric, returned)]
    metrics = {str(name): _as_float(value, str(name)) for name, value in items}
    invalid = [name for name in metrics if not is_name(name)]
    if invalid:
        raise ValueError(f"a metric's name must be {NAME_RULE}, but got {invalid[0]!r}")
    if DURATION in metrics:
        raise ValueError(f"a metric must not be named '{DURATION}', under which mltune records how long a trial took")
    return metrics


def _as_float(value: Any, name: str) -> float:
    if hasattr(value, "item"):  # a NumPy or torch scalar; more than one element raises ValueError or RuntimeError
        with contextlib.suppress(ValueError, RuntimeError):
            value = value.item()
    if not isinstance(value, Real):
        raise ValueError(f"metric '{name}' must be a number, but got {type(value).__name__} {str(value)[:80]!r}")
    return float(value)


def is_finite(value: float | None) -> bool:
    """Return whether the value is not None, not NaN and not infinite."""
    return value is not None and math.isfinite(value)


def final_value(trial: FrozenTrial) -> float | None:
    """Return the value of a COMPLETE trial, or None for any other trial."""
    return trial.value if trial.state is TrialState.COMPLETE and is_finite(trial.value) else None
