"""mltune: hyperparameter search as a native part of MLflow.

Importing it loads no engine and no mlflow, and changes nothing in the process.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mltune.errors import MltuneError, RequestError, StudyFailedError, StudyInterrupted, TrialPruned
from mltune.space import Categorical, Float, Int, SearchSpace
from mltune.trial import Direction, FrozenTrial, Reason, Trial, TrialState

if TYPE_CHECKING:
    from mltune.api import resume, tune
    from mltune.driver.events import Callback
    from mltune.study import StudyResult

__all__ = [
    "Callback",
    "Categorical",
    "Direction",
    "Float",
    "FrozenTrial",
    "Int",
    "MltuneError",
    "Reason",
    "RequestError",
    "SearchSpace",
    "StudyFailedError",
    "StudyInterrupted",
    "StudyResult",
    "Trial",
    "TrialPruned",
    "TrialState",
    "resume",
    "tune",
]

_LAZY = {"Callback": "driver.events", "StudyResult": "study", "resume": "api", "tune": "api"}  # they import mlflow


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("mlflow-mltune")
    if name in _LAZY:
        return getattr(importlib.import_module(f"mltune.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'mltune' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
