"""What people write without mltune. Each function runs ``n`` trials and returns when all is done."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import mlflow
import optuna

from benchmarks import work

optuna.logging.set_verbosity(optuna.logging.ERROR)
logging.getLogger("mlflow").setLevel(logging.ERROR)


def suggest(trial: optuna.Trial) -> dict[str, float]:
    """A point of the space."""
    return {name: trial.suggest_float(name, low, high, log=True) for name, (low, high) in work.SPACE.items()}


def search(
    objective: Callable[[optuna.Trial], float],
    n: int,
    *,
    sampler: optuna.samplers.BaseSampler | None = None,
    n_jobs: int = 1,
) -> None:
    """Run an Optuna study in memory, by default with Optuna's default sampler."""
    study = optuna.create_study(direction="maximize", sampler=sampler or optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=n, n_jobs=n_jobs)


def _nested(
    n: int, milliseconds: int, log_model: Callable[[Any], Any], sampler: optuna.samplers.BaseSampler | None = None
) -> None:
    def objective(trial: optuna.Trial) -> float:
        with mlflow.start_run(nested=True):
            params = suggest(trial)
            mlflow.log_params(params)
            model, accuracy = work.fit(params, milliseconds)
            mlflow.log_metric("accuracy", accuracy)
            log_model(model)
        return accuracy

    with mlflow.start_run():
        search(objective, n, sampler=sampler)


def hand_written(n: int, milliseconds: int) -> None:
    """Nested runs with models, logged as someone does who has looked for what takes the time."""
    requirements = ["mlflow", "scikit-learn", "skops", "numpy"]
    _nested(
        n,
        milliseconds,
        lambda model: mlflow.sklearn.log_model(
            model, name="model", pip_requirements=requirements, input_example=work.example()
        ),
    )


def tutorial(n: int, milliseconds: int) -> None:
    """Nested runs with models, logged as MLflow's tutorials do."""
    _nested(n, milliseconds, lambda model: mlflow.sklearn.log_model(model, name="model"))


def without_model(n: int, milliseconds: int) -> None:
    """Nested runs of parameters and a metric."""
    _nested(n, milliseconds, lambda model: None)


def with_gp(n: int, milliseconds: int) -> None:
    """Nested runs of parameters and a metric, proposed by Optuna's Gaussian process on one thread."""
    import torch

    torch.set_num_threads(1)
    _nested(n, milliseconds, lambda model: None, optuna.samplers.GPSampler(seed=0))


def untracked(n: int, milliseconds: int) -> None:
    """The fits alone."""
    search(lambda trial: work.fit(suggest(trial), milliseconds)[1], n)


def untracked_spins(n: int, seconds: float, jobs: int) -> None:
    """Optuna's own threads, without any record."""
    search(lambda trial: work.spin(seconds) + suggest(trial)["eta0"], n, n_jobs=jobs)


def mlflow_storage(n: int, milliseconds: int) -> None:
    """MLflow's own storage for Optuna."""
    from mlflow.optuna.storage import MlflowStorage

    storage = MlflowStorage(experiment_id="0")
    study = optuna.create_study(
        storage=storage, study_name=f"peer-{n}", sampler=optuna.samplers.RandomSampler(seed=0), direction="maximize"
    )
    study.optimize(lambda trial: work.spin(0.0) + suggest(trial)["eta0"], n_trials=n)


def ray_callback(n: int, milliseconds: int) -> None:
    """Ray Tune with its MLflow callback, one trial at once."""
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    def objective(config: dict[str, float]) -> None:
        tune.report({"accuracy": work.fit(config, milliseconds)[1]})

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    tune.Tuner(
        objective,
        param_space={name: tune.loguniform(low, high) for name, (low, high) in work.SPACE.items()},
        tune_config=tune.TuneConfig(
            metric="accuracy", mode="max", num_samples=n, max_concurrent_trials=1, reuse_actors=True
        ),
        run_config=tune.RunConfig(
            storage_path=os.path.abspath("ray"),
            verbose=0,
            callbacks=[MLflowLoggerCallback(tracking_uri=mlflow.get_tracking_uri(), experiment_name="peer")],
        ),
    ).fit()
    ray.shutdown()


def metric_by_metric(metrics: int, steps: int) -> None:
    """One run that logs every value by itself."""
    with mlflow.start_run():
        for step in range(steps):
            for i in range(metrics):
                mlflow.log_metric(f"m{i}", float(step), step=step)
