"""The champion of each kind of project: served over HTTP, asked on the command line, loaded, and moved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
from mlflow import MlflowClient
from sklearn.dummy import DummyRegressor

import mltune
from mltune.cli import main
from tests.servers import free_port, mlflow_server

PROJECTS = Path(__file__).parents[1] / "projects"
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@contextmanager
def served(uri: str, folder: Path) -> Iterator[str]:
    """`mlflow models serve`, as its documentation says, from an empty folder; its address."""
    folder.mkdir()
    port = str(free_port())
    address = f"http://127.0.0.1:{port}"
    command = ("models", "serve", "-m", uri, "--env-manager", "local", "-p", port)
    with mlflow_server(*command, probe=f"{address}/ping", folder=folder, environment=os.environ | {"PATH": PATH}):
        yield address


def ask(address: str, rows: pd.DataFrame) -> requests.Response:
    body = {"dataframe_split": json.loads(rows.to_json(orient="split", index=False))}
    return requests.post(f"{address}/invocations", json=body, timeout=240)


def predict_on_csv(uri: str, rows: pd.DataFrame, folder: Path) -> Any:
    """`mlflow models predict` on a CSV file."""
    rows.to_csv(folder / "rows.csv", index=False)
    command = [
        "models",
        "predict",
        "-m",
        uri,
        "-i",
        "rows.csv",
        "-t",
        "csv",
        "-o",
        "out.json",
        "--env-manager",
        "local",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", *command],
        cwd=folder,
        env=os.environ | {"PATH": PATH},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "out.json").read_text())["predictions"]


@pytest.mark.parametrize(("project", "name"), [("breast_cancer", "breast-cancer"), ("house_prices", "house-prices")])
def test_the_champion_of_a_project(project: str, name: str, client: MlflowClient, tmp_path: Path) -> None:
    """scikit-learn and PyTorch: the same numbers however it is asked, any number of rows, clear errors."""
    with pytest.raises(SystemExit, match="0"):
        main(["run", str(PROJECTS / project / "study.yaml"), "--n-trials", "1"])
    uri = f"models:/{name}@champion"
    loaded = mlflow.pyfunc.load_model(uri)
    rows = pd.concat([loaded.input_example] * 3, ignore_index=True)[:7]
    column = rows.columns[0]
    with served(uri, tmp_path / "empty") as address:
        for count in (1, 3, 7):
            answer = ask(address, rows[:count])
            assert answer.status_code == 200, answer.text
            assert np.allclose(answer.json()["predictions"], loaded.predict(rows[:count]))
        lacking = ask(address, rows.drop(columns=column))
        assert lacking.status_code == 400
        assert f"missing inputs ['{column}']" in lacking.text
        wrong = ask(address, rows.assign(**{column: "a lot"}))
        assert wrong.status_code == 400
        assert column in wrong.text
    assert np.allclose(predict_on_csv(uri, rows, tmp_path), loaded.predict(rows))


def test_an_alias_that_moves_is_picked_up_by_a_restart(client: MlflowClient, tmp_path: Path) -> None:
    def objective(trial: mltune.Trial) -> float:
        value = trial.params["value"]
        trial.log_model(DummyRegressor(strategy="constant", constant=value).fit([[0]], [0]), input_example=[[0.0]])
        return float(value)

    for value, answer in ((2.0, 2.0), (1.0, 1.0)):
        space = {"value": mltune.Categorical([value])}
        mltune.tune(objective, space, direction="minimize", algorithm="grid", register="moved", quiet=True)
        with served("models:/moved@champion", tmp_path / str(value)) as address:
            said = requests.post(f"{address}/invocations", json={"inputs": [[0.0]]}, timeout=240).json()
        assert said == {"predictions": [answer]}
    assert len(client.search_model_versions("name = 'moved'")) == 2
