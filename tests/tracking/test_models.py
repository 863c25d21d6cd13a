"""Models: every kind loads where mltune is not, with exact requirements and its own modules."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sklearn.base import BaseEstimator
from sklearn.datasets import make_classification
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils import all_estimators

from mltune.tracking.models import log_model

X, Y = make_classification(60, 4, random_state=0)
FRAME = pd.DataFrame(X, columns=list("abcd"))


@pytest.fixture
def run_id(client: MlflowClient) -> str:
    """A run in an experiment that is not the active one."""
    return str(client.create_run(client.create_experiment("elsewhere")).info.run_id)


@pytest.fixture
def log(client: MlflowClient, run_id: str) -> Any:
    """Log a model to the run; its LoggedModel id."""
    experiment = client.get_run(run_id).info.experiment_id
    return lambda model, **options: log_model(model, "model", run_id=run_id, experiment_id=experiment, **options)


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Write a module of the user's own, and import it."""
    made: list[str] = []
    folder = tmp_path / "users"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def make(name: str, source: str) -> Any:
        import importlib

        made.append(name)
        (folder / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield make
    for name in made:
        sys.modules.pop(name, None)


def mlmodel(model_id: str) -> Any:
    return mlflow.models.Model.load(f"models:/{model_id}")


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(),
        RandomForestClassifier(n_estimators=3),
        GradientBoostingClassifier(n_estimators=3),
        HistGradientBoostingClassifier(max_iter=3),
        KNeighborsClassifier(),
        MLPClassifier((3,), max_iter=2000, tol=0.1),
        GaussianProcessClassifier(),
        make_pipeline(StandardScaler(), SVC()),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_scikit_learn(estimator: Any, log: Any, client: MlflowClient, run_id: str) -> None:
    estimator.fit(FRAME, Y)
    model_id = log(estimator, input_example=FRAME[:3])
    logged = client.get_logged_model(model_id)
    run = client.get_run(run_id)
    assert (logged.source_run_id, logged.experiment_id) == (run_id, run.info.experiment_id)
    assert str(logged.status) == "READY"
    assert [output.model_id for output in run.outputs.model_outputs] == [model_id]
    loaded = mlflow.pyfunc.load_model(f"models:/{model_id}")
    assert loaded.metadata.flavors["sklearn"]["serialization_format"] == "skops"
    assert loaded.metadata.signature.inputs.input_names() == list("abcd")
    assert (loaded.predict(FRAME) == estimator.predict(FRAME)).all()


def test_only_types_of_scikit_learn_numpy_and_scipy_are_trusted(log: Any) -> None:
    trusted = mlmodel(log(RandomForestClassifier(n_estimators=2).fit(X, Y))).flavors["sklearn"]["skops_trusted_types"]
    assert "sklearn.tree._tree.Tree" in trusted
    assert {name.partition(".")[0] for name in trusted} <= {"sklearn", "numpy", "scipy"}


TRANSFORMER = """
from sklearn.base import BaseEstimator, TransformerMixin
import helper_of_mine

class Doubler(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self
    def transform(self, X):
        return helper_of_mine.double(X)
"""


def test_a_transformer_of_the_users_own_travels(log: Any, own_module: Any, predict_elsewhere: Any) -> None:
    own_module("helper_of_mine", "def double(X):\n    return X * 2\n")
    mine = own_module("transformer_of_mine", TRANSFORMER)
    model = make_pipeline(mine.Doubler(), LogisticRegression()).fit(FRAME, Y)
    model_id = log(model, input_example=FRAME[:3])
    assert mlmodel(model_id).flavors["sklearn"]["serialization_format"] == "cloudpickle"
    assert predict_elsewhere(f"models:/{model_id}", FRAME[:5]) == model.predict(FRAME[:5]).tolist()


PYTHON_MODEL = """
import mlflow
class Adder(mlflow.pyfunc.PythonModel):
    def __init__(self, amount):
        self.amount = amount
    def predict(self, context, model_input, params=None):
        return model_input["a"].to_numpy() + self.amount
"""


def test_a_python_model_travels(log: Any, own_module: Any, predict_elsewhere: Any) -> None:
    model = own_module("model_of_mine", PYTHON_MODEL).Adder(2.0)
    model_id = log(model, input_example=FRAME[:3])
    assert predict_elsewhere(f"models:/{model_id}", FRAME[:4]) == pytest.approx((FRAME["a"][:4] + 2.0).tolist())


@pytest.mark.parametrize("rows", [1, 5])
def test_pytorch_at_any_batch_size(rows: int, log: Any, predict_elsewhere: Any) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout(0.5), torch.nn.Linear(3, 2))
    model.train()
    model_id = log(model, input_example=np.ones((rows, 4)))
    assert model.training
    model.eval()
    for batch in (1, 3, 7):
        values = np.random.default_rng(batch).random((batch, 4), dtype=np.float32)
        expected = model(torch.from_numpy(values)).detach().numpy()
        loaded = mlflow.pyfunc.load_model(f"models:/{model_id}")
        assert np.allclose(loaded.predict(values), expected)
    assert np.allclose(predict_elsewhere(f"models:/{model_id}", pd.DataFrame(values), "array"), expected, atol=1e-5)


def test_requirements_are_exact_and_found_without_a_subprocess(log: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("a subprocess was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    model_id = log(torch.nn.Linear(4, 1), input_example=np.ones((2, 4)))
    lines = mlflow.pyfunc.get_model_dependencies(f"models:/{model_id}")
    pins = dict(line.split("==") for line in Path(lines).read_text().split())
    assert pins["torch"] == torch.__version__.partition("+")[0]
    assert pins["mlflow"] == mlflow.__version__
    assert "mltune" not in pins
    assert "mlflow-mltune" not in pins


def test_a_class_beside_the_objective_is_warned_of(log: Any, own_module: Any) -> None:
    mine = own_module("train_of_mine", "import mltune\n" + PYTHON_MODEL)
    with pytest.warns(UserWarning, match="module 'train_of_mine', which imports mltune: move the model's class"):
        log(mine.Adder(1.0), input_example=FRAME[:3])


def test_nothing_is_left_of_a_model_that_cannot_be_logged(log: Any, client: MlflowClient, run_id: str) -> None:
    with pytest.raises(TypeError, match="must be a scikit-learn estimator"):
        log({"not": "a model"})
    with pytest.raises(ValueError, match="must predict on its input_example"):
        log(LogisticRegression().fit(X, Y), input_example=np.ones((2, 9)))
    experiment = client.get_run(run_id).info.experiment_id
    assert client.search_logged_models([experiment]) == []


def test_a_model_whose_files_do_not_arrive_is_failed(client: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    experiment = client.create_experiment("broken", artifact_location=f"{tmp_path}/file")
    run_id = client.create_run(experiment).info.run_id
    with pytest.raises((OSError, MlflowException)):
        log_model(LogisticRegression().fit(X, Y), "model", run_id=run_id, experiment_id=experiment)
    assert [str(model.status) for model in client.search_logged_models([experiment])] == ["FAILED"]


def _fitted(estimator_class: type[BaseEstimator]) -> Any:
    """The estimator fitted on what it takes, None for one that takes none of this."""
    targets = (Y, X[:, :2], None, Y.astype(float))
    for features in (np.abs(X), X[:, :1], X[:, 0], [str(row) for row in range(60)]):
        for target in targets:
            try:
                return (
                    estimator_class().fit(features, target) if target is not None else estimator_class().fit(features)
                )
            except Exception:
                continue
    return None


@pytest.mark.slow
def test_every_estimator_of_scikit_learn(log: Any) -> None:
    saved, unfit = 0, []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, estimator_class in all_estimators():
            estimator = _fitted(estimator_class)
            if estimator is None:
                unfit.append(name)
                continue
            mlflow.sklearn.load_model(f"models:/{log(estimator)}")
            saved += 1
    assert saved > 150, unfit
