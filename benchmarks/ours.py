"""The same with mltune. Each function runs ``n`` trials and returns when all is done."""

from __future__ import annotations

from typing import Any

import mltune
from benchmarks import work

SPACE = {name: {"type": "float", "low": low, "high": high, "log": True} for name, (low, high) in work.SPACE.items()}


def study(objective: Any, n: int, **options: Any) -> mltune.StudyResult:
    """Run a study as users do, with display and report; with Optuna's default algorithm, as the peers."""
    defaults: dict[str, Any] = {"algorithm": "tpe", "seed": 0, "direction": "maximize", "metric": "accuracy"}
    return mltune.tune(objective, SPACE, n_trials=n, **(defaults | options))


def with_model(n: int, milliseconds: int, **options: Any) -> mltune.StudyResult:
    """Trials that log their models."""

    def objective(trial: mltune.Trial) -> float:
        model, accuracy = work.fit(trial.params, milliseconds)
        trial.log_model(model, input_example=work.example())
        return accuracy

    return study(objective, n, **options)


def without_model(n: int, milliseconds: int, **options: Any) -> mltune.StudyResult:
    """Trials of parameters and a metric."""
    return study(lambda trial: work.fit(trial.params, milliseconds)[1], n, **options)


def with_default_algorithm(n: int, milliseconds: int) -> mltune.StudyResult:
    """Trials of parameters and a metric, proposed by ``auto``, which is ``gp`` here."""
    return without_model(n, milliseconds, algorithm="auto")


def spins(n: int, seconds: float, jobs: int) -> mltune.StudyResult:
    """Trials that use a core for so many seconds."""
    return study(lambda trial: work.spin(seconds), n, n_jobs=jobs)


def many_metrics(metrics: int, steps: int) -> mltune.StudyResult:
    """One trial that reports so many metrics at so many steps."""

    def objective(trial: mltune.Trial) -> float:
        for step in range(steps):
            trial.report({f"m{i}": float(step) for i in range(metrics)}, step=step)
        return 1.0

    return study(objective, 1)


def on_ray(n: int, milliseconds: int) -> mltune.StudyResult:
    """Trials without a model, run by Ray."""
    return without_model(n, milliseconds, engine="ray")
