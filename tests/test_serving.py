"""The registered champion, served over HTTP from an empty folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import requests
from mlflow import MlflowClient

import mltune
from tests.servers import free_port, mlflow_server


@contextmanager
def served(uri: str, folder: Path) -> Iterator[str]:
    """`mlflow models serve`, as its documentation says; its address."""
    folder.mkdir()
    port = str(free_port())
    address = f"http://127.0.0.1:{port}"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ("models", "serve", "-m", uri, "--env-manager", "local", "-p", port)
    with mlflow_server(*command, probe=f"{address}/ping", folder=folder, environment=os.environ | {"PATH": path}):
        yield address


def sklearn_objective(trial: mltune.Trial) -> float:
    from sklearn.datasets import load_diabetes
    from sklearn.ensemble import RandomForestRegressor

    frame, target = load_diabetes(return_X_y=True, as_frame=True)
    model = RandomForestRegressor(n_estimators=5, max_depth=trial.params["depth"], random_state=0).fit(frame, target)
    trial.log_model(model, input_example=frame[:3])
    return float(model.score(frame, target))


def torch_objective(trial: mltune.Trial) -> float:
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, trial.params["depth"]), torch.nn.ReLU(), torch.nn.Linear(trial.params["depth"], 2)
    )
    trial.log_model(model, input_example=np.ones((1, 4), dtype=np.float32))
    return float(trial.params["depth"])


@pytest.mark.parametrize("objective", [sklearn_objective, torch_objective], ids=["sklearn", "torch"])
def test_the_served_champion_answers_like_the_loaded_one(objective: Any, client: MlflowClient, tmp_path: Path) -> None:
    mltune.tune(
        objective,
        {"depth": mltune.Int(2, 3)},
        direction="maximize",
        algorithm="grid",
        register="served",
        quiet=True,
    )
    uri = "models:/served@champion"
    loaded = mlflow.pyfunc.load_model(uri)
    with served(uri, tmp_path / "empty") as address:
        for body, rows in _requests(loaded):
            answer = requests.post(f"{address}/invocations", json=body, timeout=60)
            assert answer.status_code == 200, answer.text
            assert np.allclose(answer.json()["predictions"], loaded.predict(rows))
        wrong = requests.post(f"{address}/invocations", json={"inputs": [["a", "b"]]}, timeout=60)
        assert wrong.status_code == 400


def _requests(loaded: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    """Request bodies of one, three and seven rows, and the rows."""
    example = loaded.input_example
    for count in (1, 3, 7):
        if hasattr(example, "iloc"):
            rows = example.sample(count, replace=True, random_state=0)
            yield {"dataframe_split": rows.to_dict(orient="split", index=False)}, rows
        else:
            rows = np.linspace(0, 1, count * 4, dtype=np.float32).reshape(count, 4)
            yield {"inputs": rows.tolist()}, rows
