"""The public names, and what importing them does to a process."""

from __future__ import annotations

import subprocess
import sys

import mltune


def test_the_public_names() -> None:
    assert mltune.__all__ == [
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
    assert all(getattr(mltune, name) is not None for name in mltune.__all__)
    assert dir(mltune) == mltune.__all__


def test_importing_mltune_loads_nothing_heavy_and_changes_nothing() -> None:
    code = """
import os, sys, logging, signal, warnings
before = dict(os.environ), logging.root.level, signal.getsignal(signal.SIGINT), list(warnings.filters)
import mltune
assert (dict(os.environ), logging.root.level, signal.getsignal(signal.SIGINT), list(warnings.filters)) == before
heavy = {"mlflow", "optuna", "ray", "torch", "sklearn", "numpy", "pandas", "pydantic"} & set(sys.modules)
assert not heavy, heavy
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
