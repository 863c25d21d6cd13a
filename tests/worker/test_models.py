"""Models: every kind loads where mltune is not, with exact requirements and its own modules."""

from __future__ import annotations

import subprocess
import sys
import tempfile
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
from mlflow.models import infer_signature
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

from mltune.worker import models
from mltune.worker.models import log_model
from tests.store import model_ids

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

    def log(model: Any, **options: Any) -> str:
        return log_model(model, "model", run_id=run_id, experiment_id=experiment, **options).model_id

    return log


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
    assert model_ids(run) == [model_id]
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


PYTHON_MODEL = """
import mlflow
class Adder(mlflow.pyfunc.PythonModel):
    def __init__(self, amount):
        self.amount = amount
    def predict(self, context, model_input, params=None):
        return model_input["a"].to_numpy() + self.amount
"""
SCRIPT = f"""{PYTHON_MODEL}
import pandas as pd
from mltune.worker.models import log_model
example = pd.DataFrame({{{{"a": [1.0]}}}})
logged = log_model(Adder(3), "m", run_id="{{run_id}}", experiment_id="{{experiment_id}}", input_example=example)
print(logged.model_id)
"""


@pytest.mark.processes
def test_what_is_the_users_own_travels_inside_of_the_model(
    log: Any, own_module: Any, run_id: str, client: MlflowClient, tmp_path: Path, predict_each_elsewhere: Any
) -> None:
    """A transformer with a helper, a `PythonModel`, and a class of a script."""
    own_module("helper_of_mine", "def double(X):\n    return X * 2\n")
    mine = own_module("transformer_of_mine", TRANSFORMER)
    pipeline = make_pipeline(mine.Doubler(), LogisticRegression()).fit(FRAME, Y)
    transformer = log(pipeline, input_example=FRAME[:3])
    assert mlmodel(transformer).flavors["sklearn"]["serialization_format"] == "cloudpickle"

    python_model = log(own_module("model_of_mine", PYTHON_MODEL).Adder(2.0), input_example=FRAME[:3])

    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(run_id=run_id, experiment_id=client.get_run(run_id).info.experiment_id))
    in_script = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout.strip()
    assert mlmodel(in_script).flavors["python_function"]["code"] is None

    predicted = predict_each_elsewhere(*((f"models:/{i}", FRAME[:5]) for i in (transformer, python_model, in_script)))
    assert predicted[0] == pipeline.predict(FRAME[:5]).tolist()
    assert predicted[1] == pytest.approx((FRAME["a"][:5] + 2.0).tolist())
    assert predicted[2] == pytest.approx((FRAME["a"][:5] + 3.0).tolist())


@pytest.mark.processes
def test_pytorch_at_any_batch_size(log: Any, predict_each_elsewhere: Any) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout(0.5), torch.nn.Linear(3, 2))
    model.train()
    uris = [f"models:/{log(model, input_example=np.ones((rows, 4)))}" for rows in (1, 5)]
    assert model.training
    model.eval()
    loaded = [mlflow.pyfunc.load_model(uri) for uri in uris]
    for batch in (1, 3, 7):
        values = np.random.default_rng(batch).random((batch, 4), dtype=np.float32)
        expected = model(torch.from_numpy(values)).detach().numpy()
        assert all(np.allclose(each.predict(values), expected) for each in loaded)
    predicted = predict_each_elsewhere(*((uri, pd.DataFrame(values)) for uri in uris), kind="array")
    assert np.allclose(predicted, [expected, expected], atol=1e-5)


def test_pytorch_modes_are_left_as_they_were(log: Any) -> None:
    net = torch.nn.Sequential(torch.nn.BatchNorm1d(4).eval(), torch.nn.Dropout(), torch.nn.Linear(4, 2))
    log(net, input_example=np.ones((2, 4)))
    assert [part.training for part in (net, *net)] == [True, False, True, True]


@pytest.mark.parametrize("example", [X[:2], X[:2].tolist(), torch.tensor(X[:2])], ids=["array", "list", "tensor"])
def test_pytorch_doubles_become_floats(example: Any, log: Any) -> None:
    (spec,) = mlmodel(log(torch.nn.Linear(4, 2), input_example=example)).signature.inputs.inputs
    assert (spec.type, spec.shape) == (np.float32, (-1, 4))


def test_pytorch_doubles_and_integers_stay_what_the_module_needs(log: Any) -> None:
    (doubles,) = mlmodel(log(torch.nn.Linear(4, 2).double(), input_example=X[:2])).signature.inputs.inputs
    assert doubles.type == np.float64
    tokens = np.array([[1, 2], [3, 4]])
    embedding = mlflow.pyfunc.load_model(f"models:/{log(torch.nn.Embedding(9, 3), input_example=tokens)}")
    assert embedding.predict(tokens).shape == (2, 2, 3)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")  # mlflow.pytorch with pandas 3
def test_pytorch_serves_data_frames(log: Any) -> None:
    loaded = mlflow.pyfunc.load_model(f"models:/{log(torch.nn.Linear(4, 2), input_example=FRAME[:2])}")
    assert loaded.predict(FRAME[:5]).shape == (5, 2)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_scripted_module(log: Any) -> None:
    assert log(torch.jit.script(torch.nn.Linear(4, 2)), input_example=X[:2])


def test_a_model_that_skops_does_not_load_again_is_pickled(log: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_TYPES_TO_TRUST", {})
    monkeypatch.setattr(models, "_types_to_trust", lambda model: [])
    forest = RandomForestClassifier(n_estimators=2).fit(X, Y)
    loaded = mlflow.pyfunc.load_model(f"models:/{log(forest, input_example=X[:2])}")
    assert loaded.metadata.flavors["sklearn"]["serialization_format"] == "cloudpickle"
    assert (loaded.predict(X) == forest.predict(X)).all()


def test_an_estimator_that_cannot_predict_is_for_scikit_learn_alone(log: Any) -> None:
    model_id = log(StandardScaler().fit(X), input_example=X[:3])
    assert set(mlmodel(model_id).flavors) == {"sklearn"}
    assert mlflow.sklearn.load_model(f"models:/{model_id}").mean_.shape == (4,)


def test_the_users_uv_project_does_not_travel(log: Any, own_module: Any) -> None:
    Path("uv.lock").touch()
    Path("pyproject.toml").touch()
    model = own_module("model_in_a_uv_project", PYTHON_MODEL).Adder(1)
    root = Path(mlflow.artifacts.download_artifacts(f"models:/{log(model, input_example=FRAME[:2])}"))
    assert not {"uv.lock", "pyproject.toml"} & {path.name for path in root.iterdir()}


def test_what_is_given_is_kept(log: Any, client: MlflowClient) -> None:
    signature = infer_signature(X[:2])
    model_id = log(
        LogisticRegression().fit(X, Y),
        signature=signature,
        pip_requirements=["scikit-learn>=1"],
        metadata={"colour": "blue"},
        params={"C": 0.5},
    )
    stored = mlmodel(model_id)
    assert (stored.signature, stored.metadata, stored.model_id) == (signature, {"colour": "blue"}, model_id)
    assert Path(mlflow.pyfunc.get_model_dependencies(f"models:/{model_id}")).read_text().split() == [
        f"mlflow=={mlflow.__version__}",
        "scikit-learn>=1",
    ]
    assert client.get_logged_model(model_id).params == {"C": "0.5"}


def test_a_model_goes_to_the_store_that_is_given(log: Any, tracking_uri: str, tmp_path: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/other.db")
    model_id = log(LogisticRegression().fit(X, Y), tracking_uri=tracking_uri)
    assert MlflowClient(tracking_uri=tracking_uri).get_logged_model(model_id).model_id == model_id


def test_logging_a_model_prints_nothing(log: Any, own_module: Any, capfd: pytest.CaptureFixture[str]) -> None:
    integers = pd.DataFrame({"a": [0, 1, 2, 3]})
    quiet = (
        LogisticRegression().fit(integers, [0, 0, 1, 1]),
        torch.nn.Linear(1, 1),
        own_module("quiet_model", PYTHON_MODEL).Adder(1),
    )
    scaler = StandardScaler().fit(X)
    capfd.readouterr()
    for model in quiet:
        log(model, input_example=integers)
    log(scaler, input_example=X[:2])
    assert capfd.readouterr() == ("", "")


def test_nothing_of_a_failure_stays_on_the_disk(log: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with pytest.raises(ValueError, match="must predict on its input_example, but ValueError: X has 9 features"):
        log(LogisticRegression().fit(X, Y), input_example=np.ones((2, 9)))
    assert list(scratch.iterdir()) == []


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
