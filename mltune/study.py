"""Begin a study: ``mltune.tune``, and what the command ``mltune run`` calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import cloudpickle

from mltune.config import StudyConfig, validate
from mltune.display import Display, make_display
from mltune.errors import ObjectiveError
from mltune.execution import Isolation, ObjectiveRef
from mltune.plan import Objective, Plan, settle
from mltune.result import StudyResult
from mltune.session import carry_out
from mltune.space import Params, SearchSpace
from mltune.trial import Direction, Models


def tune(
    objective: Objective | str,
    space: SearchSpace | Mapping[str, Any],
    *,
    direction: Direction | Literal["minimize", "maximize"],
    metric: str = "value",
    name: str | None = None,
    engine: str = "optuna",
    algorithm: str | Mapping[str, Any] = "auto",
    scheduler: str | Mapping[str, Any] = "none",
    n_trials: int | None = None,
    n_jobs: int = 1,
    timeout: float | str | None = None,
    seed: int | None = None,
    initial: Iterable[Params] = (),
    grace: float | str = 30.0,
    trial_timeout: float | str | None = None,
    trial_memory: int | str | None = None,
    retries: Mapping[str, int] | None = None,
    store_timeout: float | str = 600.0,
    resources: Mapping[str, float] | None = None,
    isolation: Literal["process", "none"] = "process",
    models: Models | Literal["all", "best", "none"] = "all",
    register: str | None = None,
    experiment_name: str | None = None,
    quiet: bool = False,
) -> StudyResult:
    """Search for the best hyperparameters; every trial becomes a nested MLflow run.

    Args:
        objective: ``train(trial) -> float`` or ``-> {metric: float}``; or ``"module:function"``.
        space: Parameters by name.
        direction: Whether a smaller or a larger metric is better.
        metric: Which of the returned and reported metrics decides.
        name: The study's name; by default the objective's.
        engine: ``optuna``, ``ray`` or a plugin's name.
        algorithm: Who proposes; a name, or a mapping with ``name`` and options.
        scheduler: Who stops trials early; likewise.
        n_trials: Trials in all; by default the size of a grid.
        n_jobs: Trials at once.
        timeout: Seconds, or text such as ``10m``, after which no trial is started.
        grace: Seconds that running trials then have to end, before they are interrupted; after a signal 5 at most.
        trial_timeout: Seconds after which a trial has FAILED.
        trial_memory: Bytes, or text such as ``2GiB``, that the processes of one trial may hold.
        retries: How often a trial that failed is tried again, by the reason; by default ``{"worker-died": 2}``.
        store_timeout: Seconds for which results wait in memory while the tracking store does not answer.
        seed: Makes a study with ``n_jobs=1`` repeatable; drawn and recorded by default.
        initial: Points to try first.
        resources: Per trial, for an engine that places trials: ``{"cpu": 1, "gpu": 0.5}``.
        isolation: ``none`` runs the objective in this process, for debugging.
        models: Which models that trials log are kept: those of ``all`` trials, of the ``best`` one so far (models of
            beaten trials are deleted, but not registered ones), or ``none``.
        register: Register the best model under this name, with the alias ``champion``.
        experiment_name: The MLflow experiment; by default the active one.
        quiet: Print nothing.

    Returns:
        The trials, the best of them, and the registered model.

    Raises:
        RequestError: The request is wrong; nothing was created.
        StudyFailedError: No trial completed, no model could be registered, or the store failed.
        StudyInterrupted: A signal ended the study.
    """
    config = validate(
        {
            "name": name or _name_of(objective),
            "space": space,
            "direction": direction,
            "metric": metric,
            "engine": engine,
            "algorithm": algorithm,
            "scheduler": scheduler,
            "n_trials": n_trials,
            "n_jobs": n_jobs,
            "timeout": timeout,
            "seed": seed,
            "initial": tuple(initial),
            "grace": grace,
            "trial_timeout": trial_timeout,
            "trial_memory": trial_memory,
            "retries": retries or {},
            "store_timeout": store_timeout,
            "resources": resources or {},
            "isolation": isolation,
            "models": models,
            "register": register,
            "experiment_name": experiment_name,
        }
        | ({"objective": objective} if isinstance(objective, str) else {})
    )
    return run_study(config, source(objective, config.isolation), make_display(quiet=quiet))


def run_study(config: StudyConfig, objective: ObjectiveRef | bytes | Objective, display: Display) -> StudyResult:
    """Run a study; as :func:`tune`, which see."""
    config, engine, notes = settle(config)
    return carry_out(Plan(config=config, engine=engine, objective=objective, notes=notes), display)


def _name_of(objective: Objective | str) -> str:
    if isinstance(objective, str):
        return objective.rpartition(":")[2]
    name = getattr(objective, "__name__", type(objective).__name__)
    return "study" if name == "<lambda>" else name


def source(objective: Objective | str, isolation: Isolation) -> ObjectiveRef | bytes | Objective:
    """The objective in the form that travels to where it runs.

    Raises:
        ObjectiveError: It is no function, or holds something that cannot travel.
    """
    if isinstance(objective, str):
        return ObjectiveRef.parse(objective, ".")
    if not callable(objective):
        raise ObjectiveError(f"the objective must be a function of one trial, but got {objective!r}")
    if isolation is Isolation.NONE:
        return objective
    try:
        return cloudpickle.dumps(objective)  # type: ignore[no-any-return]
    except Exception as error:
        raise ObjectiveError(
            f"the objective must be picklable to travel to a worker, but: {error}; "
            f"make what it refers to inside the function, or keep it in an importable module"
        ) from error
