"""Run a project as a user does, and look at a champion where nothing but MLflow is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.entities import Run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def mlflow_run(tracking_uri: str) -> Callable[..., None]:
    """`mlflow run .` at the root of the repository, with parameters."""

    def run(experiment: str = "Default", **parameters: object) -> None:
        given = [text for name, value in parameters.items() for text in ("-P", f"{name}={value}")]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["mlflow", "run", str(ROOT), "--env-manager", "local", "--experiment-name", experiment, *given],
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=800,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return run


def trials_of(runs: list[Run]) -> list[Run]:
    """The trial runs by number; there is one parent, and no run is left RUNNING."""
    parents = [run for run in runs if run.data.tags["mltune.kind"] == "study"]
    assert len(parents) == 1
    assert all(run.info.status != "RUNNING" for run in runs)
    trials = [run for run in runs if run.data.tags["mltune.kind"] == "trial"]
    assert all(run.data.tags["mlflow.parentRunId"] == parents[0].info.run_id for run in trials)
    return sorted(trials, key=lambda run: int(run.data.tags["mltune.number"]))
