"""Run a project as a user does, and look at a champion where nothing but MLflow is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.entities import Run

ROOT = Path(__file__).parents[2]

LOAD = """
import json, sys
class NoMltune:
    def find_spec(self, name, path=None, target=None):
        assert name.partition(".")[0] != "mltune", "the model imports mltune"
sys.meta_path.insert(0, NoMltune())
import mlflow, numpy, pandas
rows = pandas.read_json(sys.argv[2], orient="split", precise_float=True)
if sys.argv[3] == "array":
    rows = rows.to_numpy(dtype="float32")
print(json.dumps(numpy.asarray(mlflow.pyfunc.load_model(sys.argv[1]).predict(rows)).tolist()))
"""

Predict = Callable[..., list[float]]


@pytest.fixture
def predict_elsewhere(tracking_uri: str, tmp_path: Path) -> Predict:
    """Load a model in an empty folder, in a process that cannot import mltune, and predict."""

    def predict(uri: str, rows: object, kind: str = "frame") -> list[float]:
        empty = tmp_path / "empty"
        empty.mkdir(exist_ok=True)
        path = tmp_path / "rows.json"
        path.write_text(rows.to_json(orient="split"))  # type: ignore[attr-defined]
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MLFLOW_TRACKING_URI": tracking_uri}
        command = [sys.executable, "-c", LOAD, uri, str(path), kind]
        done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert list(empty.iterdir()) == []
        return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]

    return predict


@pytest.fixture
def mlflow_run(tracking_uri: str) -> Callable[..., None]:
    """`mlflow run .` at the root of the repository, with parameters."""

    def run(**parameters: object) -> None:
        given = [text for name, value in parameters.items() for text in ("-P", f"{name}={value}")]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["mlflow", "run", str(ROOT), "--env-manager", "local", *given],
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
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
