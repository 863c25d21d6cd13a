"""Log a model to a trial's run: fast, loadable without mltune, and always in the run's own experiment."""

from __future__ import annotations

import contextlib
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, NamedTuple

import mlflow
import mlflow.sklearn
import numpy as np
import pandas as pd
import yaml
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature, infer_signature
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from mltune.plugins import missing_packages
from mltune.retry import is_transient, patiently
from mltune.worker.dependencies import find_dependencies, references
from mltune.worker.remarks import suppressed

_TRUSTED = ("sklearn", "numpy", "scipy")
_SKLEARN = ("mlflow", "sklearn", "numpy", "scipy")
_TYPES_TO_TRUST: dict[frozenset[str], list[str] | None] = {}  # by the model's references
_ENVIRONMENT = ("conda.yaml", "requirements.txt", "constraints.txt")
_ENVIRONMENTS: dict[tuple[str, ...], dict[str, bytes]] = {}  # contents of these files, by the requirements
_Dumper: type[Any] = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

Predict = Callable[[Any], Any]


class Logged(NamedTuple):
    """The ID of a LoggedModel, and the total size of its files in bytes."""

    model_id: str
    size: int


def log_model(
    model: Any,
    name: str,
    *,
    run_id: str,
    experiment_id: str,
    tracking_uri: str | None = None,
    params: Mapping[str, Any] | None = None,
    input_example: Any = None,
    signature: ModelSignature | None = None,
    pip_requirements: Sequence[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    patience: float = 0.0,
) -> Logged:
    """Save a model as a LoggedModel of a run.

    scikit-learn estimators are saved with skops, which unlike pickle runs no code from the file and loads only trusted
    types. The model's types from scikit-learn, NumPy and SciPy are trusted: this process built the model from them, and
    whoever loads it has these packages. The list of trusted types is stored in the ``MLmodel`` file. A model with any
    other type, such as the user's own transformer, is saved with cloudpickle, and whoever loads it must trust it.

    PyTorch modules are pickled, in evaluation mode. MLflow's default, the ``pt2`` export, takes seconds and specializes
    the model to the example: an export from a batch of one serves only batches of one.

    As always in MLflow, an estimator without ``predict`` can be loaded with ``mlflow.sklearn.load_model`` only.

    The user's own modules are saved with the model. Classes from ``__main__`` and notebooks are pickled by value.

    Args:
        model: A scikit-learn estimator, a ``torch.nn.Module`` or an ``mlflow.pyfunc.PythonModel``.
        name: The LoggedModel's name.
        run_id: The ID of the run.
        experiment_id: The ID of the run's experiment.
        tracking_uri: The tracking store, or None for the one in MLflow's settings.
        params: The LoggedModel's params, stored as text.
        input_example: A few rows to predict on; the signature is inferred from them.
        signature: Used instead of the inferred signature.
        pip_requirements: Used instead of the inferred requirements.
        metadata: Stored in the ``MLmodel`` file.
        patience: Seconds for which a call is retried while the store does not answer.

    Raises:
        TypeError: This kind of model cannot be logged.
        ValueError: The model cannot predict on the example.
    """
    save = _saver(model)
    mlmodel = Model(artifact_path=name, run_id=run_id, metadata=dict(metadata) if metadata else None)
    with TemporaryDirectory(prefix="mltune-") as folder:
        path = Path(folder, "model")
        with suppressed() as remarks:
            save(
                model,
                path,
                mlflow_model=mlmodel,
                input_example=input_example,
                signature=signature,
                pip_requirements=list(pip_requirements) if pip_requirements is not None else None,
            )
        if remarks.no_signature is not None:
            raise ValueError(f"the model must predict on its input_example, but: {remarks.no_signature}")
        client = MlflowClient(tracking_uri=tracking_uri)
        texts = {key: str(value) for key, value in (params or {}).items()}
        logged = patiently(
            lambda: client.create_logged_model(experiment_id, name=name, source_run_id=run_id, params=texts), patience
        )
        with _finalized(client, str(logged.model_id), patience) as model_id:
            mlmodel.model_id = mlmodel.model_uuid = model_id
            mlmodel.artifact_path = logged.artifact_location
            (path / "MLmodel").write_text(yaml.dump(mlmodel.to_dict(), Dumper=_Dumper, default_flow_style=False))
            files = get_artifact_repository(logged.artifact_location, tracking_uri=client.tracking_uri)
            patiently(lambda: files.log_artifacts(str(path)), patience)
            patiently(lambda: _link(client, run_id, model_id), patience)
        return Logged(model_id, sum(file.stat().st_size for file in path.rglob("*") if file.is_file()))


def _link(client: MlflowClient, run_id: str, model_id: str) -> None:
    """Add a model to its run's outputs; ignore MLflow's refusal if it is there, as when the first answer was lost."""
    try:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
    except MlflowException as error:
        if is_transient(error) or not _is_linked(client, run_id, model_id):
            raise


def _is_linked(client: MlflowClient, run_id: str, model_id: str) -> bool:
    outputs = client.get_run(run_id).outputs
    return outputs is not None and any(output.model_id == model_id for output in outputs.model_outputs)


@contextlib.contextmanager
def _finalized(client: MlflowClient, model_id: str, patience: float) -> Iterator[str]:
    """Mark a LoggedModel as READY after the block, or as FAILED if the block raises."""
    try:
        yield model_id
    except BaseException:
        with contextlib.suppress(Exception):  # the block's error matters more
            client.finalize_logged_model(model_id, "FAILED")
        raise
    patiently(lambda: client.finalize_logged_model(model_id, "READY"), patience)


def _saver(model: Any) -> Callable[..., None]:
    torch, sklearn = sys.modules.get("torch"), sys.modules.get("sklearn.base")
    if isinstance(model, mlflow.pyfunc.PythonModel):
        return _save_python
    if sklearn is not None and isinstance(model, sklearn.BaseEstimator):
        return _save_sklearn
    if torch is not None and isinstance(model, torch.nn.Module):
        return _save_torch
    raise TypeError(
        f"the model must be a scikit-learn estimator, a torch.nn.Module or an mlflow.pyfunc.PythonModel, "
        f"but got {type(model).__name__}: wrap it in a PythonModel, or call mlflow.<flavor>.log_model"
    )


def _save_python(model: Any, path: Path, **options: Any) -> None:
    mlflow.pyfunc.save_model(
        path=str(path),
        python_model=model,
        uv_project_path=path.parent,  # has no uv.lock, so that MLflow does not save the working folder's
        **_travelling(references(model), {"mlflow", "numpy", "cloudpickle"}, options),
    )


def _save_sklearn(model: Any, path: Path, **options: Any) -> None:
    options["input_example"] = _array(options["input_example"])
    options["signature"] = options["signature"] or _signature(options["input_example"], getattr(model, "predict", None))
    refs = references(model)
    if refs not in _TYPES_TO_TRUST:
        _TYPES_TO_TRUST[refs] = _types_to_trust(model)
    types = _TYPES_TO_TRUST[refs]
    if types is None or not _saved_with_skops(model, path, types, refs, options):
        extras = _travelling(refs, {*_SKLEARN, "cloudpickle"}, options)
        _save(mlflow.sklearn, model, path, serialization_format="cloudpickle", **extras)


def _saved_with_skops(model: Any, path: Path, types: list[str], known: frozenset[str], options: dict[str, Any]) -> bool:
    """Save with skops; return whether the saved model loads again, and remove it if not."""
    extras = _travelling(known, {*_SKLEARN, "skops"}, options)
    try:
        _save(mlflow.sklearn, model, path, serialization_format="skops", skops_trusted_types=types, **extras)
    except MlflowException:
        shutil.rmtree(path)
        return False
    return True


def _save(flavor: ModuleType, model: Any, path: Path, **options: Any) -> None:
    """Save a model, but let MLflow generate the environment files only once per set of requirements.

    MLflow reads the metadata of every package for these files, which takes longer than saving a small model.
    """
    requirements = tuple(options["pip_requirements"])
    if requirements not in _ENVIRONMENTS:
        flavor.save_model(model, str(path), **options)
        if not any(requirement.startswith("-") for requirement in requirements):  # a file, which may change
            _ENVIRONMENTS[requirements] = {
                name: (path / name).read_bytes() for name in _ENVIRONMENT if (path / name).exists()
            }
        return
    flavor.save_model(model, str(path), **options | {"pip_requirements": [f"mlflow=={mlflow.__version__}"]})
    for name, content in _ENVIRONMENTS[requirements].items():
        (path / name).write_bytes(content)


def _types_to_trust(model: Any) -> list[str] | None:
    """Return the types that skops must trust, or None if it is missing, cannot save the model or must not load it."""
    if missing := missing_packages("saving a scikit-learn model without pickle", ["skops"]):
        warnings.warn(missing[0], stacklevel=2)
        return None
    import skops.io

    try:
        types: list[str] = skops.io.get_untrusted_types(data=skops.io.dumps(model))
    except Exception:  # skops raises many kinds of errors
        return None
    return types if all(name.partition(".")[0] in _TRUSTED for name in types) else None


def _save_torch(model: Any, path: Path, **options: Any) -> None:
    import mlflow.pytorch
    import torch

    options["input_example"] = _floats_like(model, _array(options["input_example"]))
    refs = frozenset[str]() if isinstance(model, torch.jit.ScriptModule) else references(model)
    with _evaluating(model):
        options["signature"] = options["signature"] or _signature(options["input_example"], _torch_predict(model))
        extras = _travelling(refs, {"mlflow", "torch", "numpy", "cloudpickle"}, options)
        _save(mlflow.pytorch, model, path, serialization_format="pickle", **extras)


def _torch_predict(model: Any) -> Predict:
    """Return a function that predicts as the served model will, but on the module's device."""
    import torch

    device = next((tensor.device for tensor in [*model.parameters(), *model.buffers()]), torch.device("cpu"))

    def predict(rows: Any) -> Any:
        values = rows.to_numpy(np.float32) if isinstance(rows, pd.DataFrame) else rows
        with torch.no_grad():
            predicted = model(torch.tensor(values, device=device)).cpu().numpy()
        return pd.DataFrame(predicted) if isinstance(rows, pd.DataFrame) else predicted

    return predict


@contextlib.contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Put a module and its submodules into evaluation mode for the block, then restore their modes."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _travelling(known: frozenset[str], packages: set[str], options: dict[str, Any]) -> dict[str, Any]:
    """Return the options with the model's own modules and, unless given, its requirements."""
    dependencies = find_dependencies(known, frozenset(packages))
    requirements = options["pip_requirements"]
    return options | {
        "pip_requirements": list(dependencies.requirements) if requirements is None else requirements,
        "code_paths": list(dependencies.code_paths) or None,
    }


def _array(example: Any) -> Any:
    """Convert tensors and lists of numbers to arrays; return anything else unchanged."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(example, torch.Tensor):
        return example.detach().cpu().numpy()
    if isinstance(example, (list, tuple)):
        array = np.asarray(example)
        return array if array.dtype.kind in "biuf" else example
    return example


def _floats_like(model: Any, example: Any) -> Any:
    """Convert a float64 array to float32, unless the module has float64 parameters."""
    import torch

    is_double = isinstance(example, np.ndarray) and example.dtype == np.float64
    if is_double and all(parameter.dtype != torch.float64 for parameter in model.parameters()):
        return example.astype(np.float32)
    return example


def _signature(example: Any, predict: Predict | None) -> ModelSignature | None:
    """Return the signature inferred from an example, or None without an example.

    Raises:
        ValueError: The model cannot predict on the example.
    """
    if example is None:
        return None
    if predict is None:
        return infer_signature(example)
    try:
        predicted = predict(example)
        if isinstance(example, pd.DataFrame) and isinstance(predicted, np.ndarray) and predicted.ndim == 1:
            predicted = pd.Series(predicted)
        return infer_signature(example, predicted)
    except Exception as error:
        raise ValueError(f"the model must predict on its input_example, but {type(error).__name__}: {error}") from error
