"""mltune: hyperparameter search as a native part of MLflow.

Importing it loads no engine and no mlflow, and changes nothing in the process but its own logger, ``mltune``, under
which is also logged what a study tells.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from mltune.errors import MltuneError, RequestError, StudyFailedError, StudyInterrupted, TrialPruned
from mltune.space import Categorical, Float, Int, SearchSpace
from mltune.trial import Direction, FrozenTrial, Reason, Trial, TrialState

if TYPE_CHECKING:
    from mltune.api import list_studies, load_study, resume, tune
    from mltune.driver.events import Callback
    from mltune.driver.state import StudyState
    from mltune.study import Study, StudyResult, StudySummary

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
    "Study",
    "StudyFailedError",
    "StudyInterrupted",
    "StudyResult",
    "StudyState",
    "StudySummary",
    "Trial",
    "TrialPruned",
    "TrialState",
    "list_studies",
    "load_study",
    "resume",
    "tune",
]

_LAZY = {  # they import mlflow
    "Callback": "driver.events",
    "Study": "study",
    "StudyResult": "study",
    "StudyState": "driver.state",
    "StudySummary": "study",
    "list_studies": "api",
    "load_study": "api",
    "resume": "api",
    "tune": "api",
}


logging.getLogger("mltune").addHandler(logging.NullHandler())  # what is logged goes where the user's program sends it


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("mlflow-mltune")
    if name in _LAZY:
        return getattr(importlib.import_module(f"mltune.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'mltune' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
