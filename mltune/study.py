"""What a study came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import mlflow

from mltune.errors import RequestError
from mltune.tracking import registry
from mltune.tracking.cost import TrackingCost
from mltune.tracking.registry import Registration
from mltune.trial import Direction, FrozenTrial, TrialState

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """What a study came to.

    Attributes:
        run_id: The parent run.
        state: COMPLETE.
        trials: All trials in the order of their numbers.
        best_trial: The best COMPLETE trial.
        registration: The registered model version, None where none was asked for.
        warnings: What about the study's set-up is worth a look, with a remedy each; see
            ``docs/browse-compare-serve.md``.
        cost: What keeping the record took.
    """

    run_id: str
    name: str
    metric: str
    direction: Direction
    state: TrialState
    trials: tuple[FrozenTrial, ...]
    best_trial: FrozenTrial
    registration: Registration | None = None
    warnings: tuple[str, ...] = ()
    cost: TrackingCost = field(default_factory=TrackingCost)

    def to_dataframe(self) -> pd.DataFrame:
        """One row per trial: number, state, value, ``params.*``, ``metrics.*``, duration in seconds, run_id."""
        import pandas as pd

        rows = [
            {"number": trial.number, "state": str(trial.state), "value": trial.value}
            | {f"params.{name}": value for name, value in trial.params.items()}
            | {f"metrics.{name}": value for name, value in trial.metrics.items()}
            | {"duration": trial.duration, "run_id": trial.run_id}
            for trial in self.trials
        ]
        return pd.DataFrame(rows)

    def load_best_model(self) -> Any:
        """The best trial's model, as ``mlflow.pyfunc`` loads it.

        Raises:
            RequestError: The best trial logged no model.
        """
        best = self.best_trial
        model_id = best.model_id or registry.find_model(mlflow.MlflowClient(), str(best.run_id))
        if model_id is None:
            raise RequestError(no_model(best))
        return mlflow.pyfunc.load_model(f"models:/{model_id}")


def no_model(trial: FrozenTrial) -> str:
    """Why there is no model to load or to register."""
    return f"the best trial must have logged a model, but trial {trial.number} has none: call trial.log_model in it"
