"""The champion of each kind of project: served over HTTP, asked on the command line, loaded, and moved."""

from __future__ import annotations

import json
import os
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
from mlflow.models.cli import commands
from mlflow.pyfunc import PyFuncModel
from sklearn.dummy import DummyRegressor

import mltune
from mltune.cli import main
from tests.servers import free_port, mlflow_server

pytestmark = pytest.mark.processes

PROJECTS = Path(__file__).parents[1] / "projects"
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@contextmanager
def served(uri: str, folder: Path) -> Iterator[str]:
    """`mlflow models serve`, as its documentation says, from an empty folder; its address."""
    folder.mkdir()
    port = str(free_port())
    address = f"http://127.0.0.1:{port}"
    command = ("models", "serve", "-m", uri, "--env-manager", "local", "-p", port)
    environment = os.environ | {"PATH": PATH}
    with mlflow_server(*command, probe=f"{address}/ping", folder=folder, environment=environment):
        yield address


def ask(address: str, rows: pd.DataFrame) -> requests.Response:
    body = {"dataframe_split": json.loads(rows.to_json(orient="split", index=False))}
    return requests.post(f"{address}/invocations", json=body, timeout=240)


def predict_on_csv(uri: str, rows: pd.DataFrame) -> Any:
    """`mlflow models predict` on a CSV file, in this process."""
    rows.to_csv("rows.csv", index=False)
    command = ["predict", "-m", uri, "-i", "rows.csv", "-t", "csv", "-o", "out.json", "--env-manager", "local"]
    commands(command, standalone_mode=False)
    return json.loads(Path("out.json").read_text())["predictions"]


def champion_of(project: str, name: str) -> tuple[str, PyFuncModel]:
    """The best model of a study of one trial, and its address."""
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["run", str(PROJECTS / project / "study.yaml"), "--n-trials", "1"])
    uri = f"models:/{name}@champion"
    return uri, mlflow.pyfunc.load_model(uri)


def check_answers(address: str, uri: str, loaded: PyFuncModel) -> None:
    """The same numbers however it is asked, any number of rows, clear errors."""
    rows = pd.concat([loaded.input_example] * 3, ignore_index=True)[:7]
    column = rows.columns[0]
    for count in (1, 3, 7):
        answer = ask(address, rows[:count])
        assert answer.status_code == 200, answer.text
        assert np.allclose(answer.json()["predictions"], np.asarray(loaded.predict(rows[:count])))
    lacking = ask(address, rows.drop(columns=column))
    assert lacking.status_code == 400
    assert f"missing inputs ['{column}']" in lacking.text
    wrong = ask(address, rows.assign(**{column: "a lot"}))
    assert wrong.status_code == 400
    assert column in wrong.text
    assert np.allclose(predict_on_csv(uri, rows), np.asarray(loaded.predict(rows)))


def test_the_champion_of_a_project_in_pytorch(client: MlflowClient, tmp_path: Path) -> None:
    uri, loaded = champion_of("house_prices", "house-prices")
    with served(uri, tmp_path / "empty") as address:
        check_answers(address, uri, loaded)


def test_the_champion_of_a_project_in_scikit_learn_and_a_better_one_after_a_restart(
    client: MlflowClient, tmp_path: Path
) -> None:
    def objective(trial: mltune.Trial) -> float:
        trial.log_model(DummyRegressor(strategy="constant", constant=2.0).fit([[0]], [0]), input_example=[[0.0]])
        return float(trial.params["loss"])

    uri, loaded = champion_of("breast_cancer", "breast-cancer")
    with served(uri, tmp_path / "empty") as address:
        check_answers(address, uri, loaded)
        mltune.tune(
            objective,
            {"loss": mltune.Categorical([0.0])},
            direction="minimize",
            metric="cv_log_loss",
            algorithm="grid",
            registered_model_name="breast-cancer",
            executor="inline",
            quiet=True,
        )
    with served(uri, tmp_path / "again") as address:
        said = requests.post(f"{address}/invocations", json={"inputs": [[0.0]]}, timeout=240).json()
    assert said == {"predictions": [2.0]}
    assert len(client.search_model_versions("name = 'breast-cancer'")) == 2
