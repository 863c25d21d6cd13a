"""The public names, and what importing them does to a process."""

from __future__ import annotations

import subprocess
import sys
import typing
from importlib.metadata import version

import pytest

import mltune
from mltune.cli import main


def test_the_public_names() -> None:
    assert mltune.__all__ == [
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


def test_the_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"mltune {version('mlflow-mltune')}\n")
    assert mltune.__version__ == version("mlflow-mltune")


def test_names_that_plugins_of_the_first_release_import() -> None:
    from mltune import engines, space

    assert (engines.AskTellEngine, engines.Method, engines.Search) == (
        engines.Engine,
        engines.AlgorithmInfo,
        engines.SearchProblem,
    )
    assert space.same is space.identical
    both = space.SearchSpace({"x": space.Float(0, 2), "n": space.Int(1, 3)})
    assert both.at([0.5, 1.0]) == both.from_unit([0.5, 1.0]) == {"x": 1.0, "n": 3}


@pytest.mark.parametrize("name", ["tune", "resume", "load_study", "list_studies"])
def test_the_types_of_public_functions_can_be_looked_up(name: str) -> None:
    hints = typing.get_type_hints(getattr(mltune, name))
    assert "return" in hints


def test_the_types_of_callbacks_can_be_looked_up() -> None:
    methods = [method for name, method in vars(mltune.Callback).items() if name.startswith("on_")]
    assert [typing.get_type_hints(method)["study"] for method in methods if method.__name__ != "on_note"] == [
        mltune.StudyState
    ] * 6
