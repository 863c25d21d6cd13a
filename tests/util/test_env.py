"""`conda.yaml` in a fresh environment, as `mlflow run` makes it; minutes long."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.projects.conftest import ROOT, trials_of
from tests.store import experiment_named


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_both_engines_in_a_fresh_environment(client: MlflowClient, tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "MLFLOW_ENV_ROOT": str(tmp_path / "envs")}
    for engine in ("optuna", "ray"):
        done = subprocess.run(
            [
                *("mlflow", "run", str(ROOT), "--env-manager", "uv", "--experiment-name", engine),
                *("-P", f"engine={engine}", "-P", "n_trials=2"),
            ],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(trials_of(client.search_runs([experiment_named(client, engine).experiment_id]))) == 2
    assert list((tmp_path / "envs").iterdir())
