"""Log a model to a trial's run: fast, loadable without mltune, and always in the run's own experiment."""

from __future__ import annotations

import contextlib
import shutil
import sys
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

from mltune.retry import is_transient, patiently
from mltune.worker.dependencies import find_dependencies, references
from mltune.worker.remarks import suppressed

_TRUSTED = ("sklearn", "numpy", "scipy")
_SKLEARN = ("mlflow", "sklearn", "numpy", "scipy")
_TYPES_TO_TRUST: dict[frozenset[str], list[str] | None] = {}  # by what the model refers to
_ENVIRONMENT = ("conda.yaml", "requirements.txt", "constraints.txt")
_ENVIRONMENTS: dict[tuple[str, ...], dict[str, bytes]] = {}  # by the requirements, what is in these files
_Dumper: type[Any] = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

Predict = Callable[[Any], Any]


class Logged(NamedTuple):
    """A LoggedModel: its id, and the bytes of its files."""

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

    scikit-learn estimators are saved with skops, which unlike pickle runs no code from the file and loads only types
    that it is told to trust. It is told to trust those of the model's types that come from scikit-learn, NumPy and
    SciPy: this very process has made the model from them, and whoever loads it has these packages. The list is
    kept in the ``MLmodel`` file. A model with any other type, such as a transformer of the user's, is saved with
    cloudpickle, and who loads it must trust it.

    PyTorch modules are pickled, in evaluation mode. The ``pt2`` export, MLflow's default, keeps what happens to hold
    for the example (after a batch of one, only batches of one are served), and takes seconds.

    An estimator without ``predict`` is loaded by ``mlflow.sklearn.load_model`` only, as MLflow has it.

    Modules that are the user's own travel with the model; classes from ``__main__`` and notebooks travel inside of it.

    Args:
        model: A scikit-learn estimator, a ``torch.nn.Module`` or an ``mlflow.pyfunc.PythonModel``.
        name: The LoggedModel's name.
        run_id: The run.
        experiment_id: The run's experiment.
        tracking_uri: The store; None means the one that MLflow's settings name.
        params: Kept with the LoggedModel, as text.
        input_example: A few rows to predict on; they give the signature.
        signature: Given instead of the one that the example gives.
        pip_requirements: Given instead of those that are found.
        metadata: Kept in the ``MLmodel`` file.
        patience: Seconds for which a store that does not answer is tried again.

    Raises:
        TypeError: No such kind of model can be logged.
        ValueError: The model cannot predict on the example.
    """
    save = _saver(model)
    saved = Model(artifact_path=name, run_id=run_id, metadata=dict(metadata) if metadata else None)
    with TemporaryDirectory(prefix="mltune-") as folder:
        path = Path(folder, "model")
        with suppressed() as remarks:
            save(
                model,
                path,
                mlflow_model=saved,
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
            saved.model_id = saved.model_uuid = model_id
            saved.artifact_path = logged.artifact_location
            (path / "MLmodel").write_text(yaml.dump(saved.to_dict(), Dumper=_Dumper, default_flow_style=False))
            files = get_artifact_repository(logged.artifact_location, tracking_uri=client.tracking_uri)
            patiently(lambda: files.log_artifacts(str(path)), patience)  # type: ignore[no-untyped-call]
            patiently(lambda: _link(client, run_id, model_id), patience)
        return Logged(model_id, sum(file.stat().st_size for file in path.rglob("*") if file.is_file()))


def _link(client: MlflowClient, run_id: str, model_id: str) -> None:
    """Name a model among its run's outputs; MLflow refuses to do so twice, as where the first answer was lost."""
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
    """Mark a LoggedModel as READY, or as FAILED when its files did not arrive."""
    try:
        yield model_id
    except BaseException:
        with contextlib.suppress(Exception):  # what made it fail matters more
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
        uv_project_path=path.parent,  # nothing there: no uv.lock of the working folder travels with the model
        **_travelling(references(model), {"mlflow", "numpy", "cloudpickle"}, options),
    )


def _save_sklearn(model: Any, path: Path, **options: Any) -> None:
    options["input_example"] = _array(options["input_example"])
    options["signature"] = options["signature"] or _signature(options["input_example"], getattr(model, "predict", None))
    known = references(model)
    if known not in _TYPES_TO_TRUST:
        _TYPES_TO_TRUST[known] = _types_to_trust(model)
    types = _TYPES_TO_TRUST[known]
    if types is None or not _saved_with_skops(model, path, types, known, options):
        extras = _travelling(known, {*_SKLEARN, "cloudpickle"}, options)
        _save(mlflow.sklearn, model, path, serialization_format="cloudpickle", **extras)


def _saved_with_skops(model: Any, path: Path, types: list[str], known: frozenset[str], options: dict[str, Any]) -> bool:
    """Save with skops, unless what it saved does not load again."""
    extras = _travelling(known, {*_SKLEARN, "skops"}, options)
    try:
        _save(mlflow.sklearn, model, path, serialization_format="skops", skops_trusted_types=types, **extras)
    except MlflowException:
        shutil.rmtree(path)
        return False
    return True


def _save(flavor: ModuleType, model: Any, path: Path, **options: Any) -> None:
    """Save a model, but let MLflow work out the files that say what it needs only once for the same requirements.

    It reads the metadata of every package for them, which takes longer than to save a small model.
    """
    needed = tuple(options["pip_requirements"])
    if needed not in _ENVIRONMENTS:
        flavor.save_model(model, str(path), **options)
        if not any(requirement.startswith("-") for requirement in needed):  # a file may change
            _ENVIRONMENTS[needed] = {
                name: (path / name).read_bytes() for name in _ENVIRONMENT if (path / name).exists()
            }
        return
    flavor.save_model(model, str(path), **options | {"pip_requirements": [f"mlflow=={mlflow.__version__}"]})
    for name, content in _ENVIRONMENTS[needed].items():
        (path / name).write_bytes(content)


def _types_to_trust(model: Any) -> list[str] | None:
    """The types that skops must be told to trust; None for a model that skops cannot save, or must not load."""
    import skops.io

    try:
        types: list[str] = skops.io.get_untrusted_types(data=skops.io.dumps(model))
    except Exception:  # skops raises all sorts of things
        return None
    return types if all(name.partition(".")[0] in _TRUSTED for name in types) else None


def _save_torch(model: Any, path: Path, **options: Any) -> None:
    import mlflow.pytorch
    import torch

    options["input_example"] = _floats_like(model, _array(options["input_example"]))
    known = frozenset[str]() if isinstance(model, torch.jit.ScriptModule) else references(model)
    with _evaluating(model):
        options["signature"] = options["signature"] or _signature(options["input_example"], _torch_predict(model))
        extras = _travelling(known, {"mlflow", "torch", "numpy", "cloudpickle"}, options)
        _save(mlflow.pytorch, model, path, serialization_format="pickle", **extras)


def _torch_predict(model: Any) -> Predict:
    """Predict as the served model will, but on the device where the module is."""
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
    """Have a module and all within it in evaluation mode, then each as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _travelling(known: frozenset[str], packages: set[str], options: dict[str, Any]) -> dict[str, Any]:
    """The options, with the requirements and own modules that travel with the model."""
    found = find_dependencies(known, frozenset(packages))
    given = options["pip_requirements"]
    return options | {
        "pip_requirements": list(found.requirements) if given is None else given,
        "code_paths": list(found.code_paths) or None,
    }


def _array(example: Any) -> Any:
    """Tensors and lists of numbers as arrays, whatever else as it is."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(example, torch.Tensor):
        return example.detach().cpu().numpy()
    if isinstance(example, (list, tuple)):
        array = np.asarray(example)
        return array if array.dtype.kind in "biuf" else example
    return example


def _floats_like(model: Any, example: Any) -> Any:
    """An array of doubles as floats, unless the module computes with doubles."""
    import torch

    is_double = isinstance(example, np.ndarray) and example.dtype == np.float64
    if is_double and all(parameter.dtype != torch.float64 for parameter in model.parameters()):
        return example.astype(np.float32)
    return example


def _signature(example: Any, predict: Predict | None) -> ModelSignature | None:
    """The signature that an example gives, None without one.

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
