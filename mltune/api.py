"""Begin and resume studies: ``mltune.tune``, ``mltune.resume``, and what the commands of these names call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mltune import studies
from mltune.config import Draft, draft_study
from mltune.driver.events import Callback, Callbacks
from mltune.driver.lines import logged
from mltune.driver.request import prepare
from mltune.driver.resume import prepare_resume
from mltune.driver.run import run_session
from mltune.former import accepts_former_names
from mltune.objective import Objective
from mltune.space import Params, SearchSpace
from mltune.study import Study, StudySummary
from mltune.terminal.display import make_display
from mltune.tracking import connection
from mltune.trial import Direction, Models

__all__ = ["list_studies", "load_study", "resume", "resume_study", "run_study", "tune"]


@accepts_former_names
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
    initial_points: Iterable[Params] = (),
    grace_period: float | str = 30.0,
    trial_timeout: float | str | None = None,
    trial_memory: int | str | None = None,
    retries: Mapping[str, int] | None = None,
    store_timeout: float | str = 600.0,
    resources: Mapping[str, float] | None = None,
    executor: str | None = None,
    keep_models: Models | Literal["all", "best", "none"] = "all",
    registered_model_name: str | None = None,
    experiment_name: str | None = None,
    callbacks: Sequence[Callback] = (),
    quiet: bool = False,
) -> Study:
    """Search for the best hyperparameters; every trial becomes a nested MLflow run.

    The arguments are also accepted under the names that they had in the first release: ``initial``, ``grace``,
    ``models``, ``register``, and ``isolation="none"`` for ``executor="inline"``.

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
        grace_period: Seconds that running trials then have to end, before they are interrupted; after a signal at
            most 5.
        trial_timeout: Seconds after which a trial has FAILED.
        trial_memory: Bytes, or text such as ``2GiB``, that the processes of one trial may hold.
        retries: How often a trial that failed is tried again, by the reason; by default ``{"worker-died": 2}``.
        store_timeout: Seconds for which results wait in memory while the tracking store does not answer.
        seed: Makes a study with ``n_jobs=1`` repeatable; drawn and recorded by default.
        initial_points: Points to try first.
        resources: Per trial, for an executor that places trials: ``{"cpu": 1, "gpu": 0.5}``.
        executor: Who runs the trials: ``local`` (worker processes of this machine), ``inline`` (this process, for
            debugging), ``ray``, or a plugin's name; by default what the engine implies: ``ray`` for engine ``ray``,
            else ``local``.
        keep_models: Which models that trials log are kept: those of ``all`` trials, of the ``best`` one so far (models
            of beaten trials are deleted, but not registered ones), or ``none``.
        registered_model_name: Register the best model under this name, with the alias ``champion``.
        experiment_name: The MLflow experiment; by default the active one.
        callbacks: Told of trials that start and end, of each new best one, and of the study's end.
        quiet: Print nothing.

    Returns:
        The trials, the best of them, and the registered model.

    Raises:
        RequestError: The request is wrong; nothing was created.
        StudyFailedError: No trial completed, no model could be registered, or the store failed.
        StudyInterrupted: A signal ended the study.
    """
    draft = draft_study(
        {
            "name": name or _name_of(objective),
            "space": space,
            "direction": direction,
            "metric": metric,
            "engine": engine,
            "executor": executor,
            "algorithm": algorithm,
            "scheduler": scheduler,
            "n_trials": n_trials,
            "n_jobs": n_jobs,
            "timeout": timeout,
            "seed": seed,
            "initial_points": tuple(initial_points),
            "grace_period": grace_period,
            "trial_timeout": trial_timeout,
            "trial_memory": trial_memory,
            "retries": retries or {},
            "store_timeout": store_timeout,
            "resources": resources or {},
            "keep_models": keep_models,
            "registered_model_name": registered_model_name,
            "experiment_name": experiment_name,
        }
        | ({"objective": objective} if isinstance(objective, str) else {})
    )
    callback, faults = _as_one(callbacks, quiet=quiet)
    return run_study(draft, objective, callback, faults=faults)


def resume(
    run_id: str,
    objective: Objective | str | None = None,
    space: SearchSpace | Mapping[str, Any] | None = None,
    *,
    engine: str | None = None,
    executor: str | None = None,
    n_trials: int | None = None,
    n_jobs: int | None = None,
    timeout: float | str | None = None,
    steal: bool = False,
    callbacks: Sequence[Callback] = (),
    quiet: bool = False,
) -> Study:
    """Go on where a study stopped: killed, interrupted, failed, or finished with too few trials.

    Finished trials stay as they are. Trials that were in flight are closed as INTERRUPTED and their points are tried
    again, as new attempts under the same numbers. All that is not given here is as the study's runs tell it.

    Args:
        run_id: The study's parent run.
        objective: As in :func:`mltune.tune`; must be given where the study was begun with a function.
        space: A changed space, in which all finished trials must be valid points.
        engine: Another engine.
        executor: Another executor.
        n_trials: Trials in all, the old ones included; more than before extend a finished study.
        n_jobs: Trials at once.
        timeout: Seconds in all, those before included.
        steal: Take the study over though its driver seems to be alive.
        callbacks: As in :func:`mltune.tune`.
        quiet: Print nothing.

    Returns:
        All trials, old and new, and the best of them. A finished study is left as it is.

    Raises:
        RequestError: The request is wrong; nothing was changed.
        StudyFailedError: As in :func:`mltune.tune`.
        StudyInterrupted: As in :func:`mltune.tune`.
    """
    options = {
        "engine": engine,
        "executor": executor,
        "n_trials": n_trials,
        "n_jobs": n_jobs,
        "timeout": timeout,
        "space": space,
    }
    changes = {key: value for key, value in options.items() if value is not None}
    callback, faults = _as_one(callbacks, quiet=quiet)
    return resume_study(run_id, changes, callback, objective=objective, steal=steal, faults=faults)


def load_study(run_id: str) -> Study:
    """Read a study from the tracking store: a running, failed, interrupted or finished one, of any age and machine.

    Args:
        run_id: The study's parent run.

    Raises:
        RequestError: There is no such run, or it is no study.
        StoreUnavailableError: The store does not answer.
    """
    with connection.reading() as store:
        return studies.read_study(store, run_id)


def list_studies(experiment_name: str | None = None) -> list[StudySummary]:
    """Read the studies of the tracking store, the latest first; :func:`load_study` reads one with its trials.

    Args:
        experiment_name: Only those of this MLflow experiment.

    Raises:
        RequestError: There is no such experiment.
        StoreUnavailableError: The store does not answer.
    """
    with connection.reading() as store:
        return studies.list_studies(store, experiment_name)


def run_study(
    draft: Draft,
    objective: Objective | str,
    callback: Callback,
    folder: Path | None = None,
    *,
    faults: Sequence[str] = (),
) -> Study:
    """Run a study; see :func:`tune`, and :func:`mltune.driver.request.prepare` for the arguments."""
    return run_session(prepare(draft, objective, folder, faults=faults), logged(callback))


def resume_study(
    run_id: str,
    changes: Mapping[str, Any],
    callback: Callback,
    *,
    objective: Objective | str | None = None,
    file: Draft | None = None,
    folder: Path | None = None,
    steal: bool = False,
    faults: Sequence[str] = (),
) -> Study:
    """Resume a study; see :func:`resume`, and :func:`mltune.driver.resume.prepare_resume` for the arguments."""
    callback = logged(callback)
    prepared = prepare_resume(
        run_id, changes, callback, objective=objective, file=file, folder=folder, steal=steal, faults=faults
    )
    return prepared if isinstance(prepared, Study) else run_session(prepared, callback)


def _as_one(callbacks: Sequence[Callback], *, quiet: bool) -> tuple[Callback, list[str]]:
    """Return the display and the user's callbacks as one, and what is wrong with them."""
    wrong = [each for each in callbacks if not isinstance(each, Callback)]
    faults = [f"`callbacks` must hold instances of mltune.Callback, but got {each!r}" for each in wrong]
    return Callbacks([make_display(quiet=quiet), *callbacks]), faults


def _name_of(objective: Objective | str) -> str:
    if isinstance(objective, str):
        return objective.rpartition(":")[2]
    name = getattr(objective, "__name__", type(objective).__name__)
    return "study" if name == "<lambda>" else name
