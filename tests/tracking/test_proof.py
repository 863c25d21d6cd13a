"""Before the alias moves, a fresh process loads the model and predicts."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient
from sklearn.linear_model import LinearRegression

import mltune
from mltune import Float
from mltune.tracking.registry import promote

pytestmark = pytest.mark.processes

MODELS = """
import os
import mlflow.pyfunc

def check():
    if os.environ["MADE_IN"] != str(os.getpid()):
        raise ValueError("this is another process, password=hunter22")

class Elsewhere(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        check()

    def predict(self, context, model_input, params=None):
        return model_input

class Choosy(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        check()
        return model_input
"""


def tune(model: Any, **options: Any) -> mltune.StudyResult:
    def objective(trial: mltune.Trial) -> float:
        trial.log_model(model, **options)
        return float(trial.params["x"])

    return mltune.tune(
        objective,
        {"x": Float(0, 1)},
        direction="minimize",
        algorithm="random",
        n_trials=1,
        registered_model_name="proven",
        executor="inline",
    )


def test_a_model_that_cannot_be_used_gets_no_alias(
    client: MlflowClient, chdir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One fails to load, one to predict; a good one, without an example, has the alias."""
    (chdir / "models_elsewhere.py").write_text(MODELS)
    monkeypatch.syspath_prepend(chdir)
    monkeypatch.setenv("MADE_IN", str(os.getpid()))
    models = importlib.import_module("models_elsewhere")
    good = tune(LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]))
    assert good.registration is not None
    assert good.registration.fault is None
    assert int(client.get_model_version_by_alias("proven", "champion").version) == 1
    client.set_model_version_tag("proven", "1", "mltune.value", "99.0")  # the next ones are better
    why = "ValueError: this is another process, password=***"
    for version, model in (("2", models.Elsewhere()), ("3", models.Choosy())):
        capsys.readouterr()
        result = tune(model, input_example=pd.DataFrame({"x": [1.0]}))
        assert result.state == "COMPLETE"
        assert result.registration is not None
        assert result.registration.fault == why
        assert client.get_model_version_by_alias("proven", "champion").run_id == good.best_trial.run_id
        assert client.get_model_version("proven", version).tags["mltune.fault"] == why
        sentence = (
            f"registered model 'proven' version {version}, not made champion: "
            f"it must load and predict in a fresh process, but: {why}"
        )
        assert sentence in capsys.readouterr().out
        assert sentence in client.get_run(result.run_id).data.tags["mlflow.note.content"]
        assert str(promote(client, client.get_model_version("proven", version))).endswith(" as champion")
        assert "mltune.fault" not in client.get_model_version("proven", version).tags
        client.set_registered_model_alias("proven", "champion", "1")
