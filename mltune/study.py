"""Where engine, tracker and objective meet: run one study from the request to the registered model."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import cloudpickle
import mlflow
from mlflow.exceptions import MlflowException

from mltune.config import StudyConfig, validate
from mltune.display import Display, make_display
from mltune.driver import Budget, StudyDriver
from mltune.engines import Engine, Search, count_points, create_engine
from mltune.errors import ObjectiveError, RequestError, StudyFailedError, StudyInterrupted, first_line
from mltune.execution import Executor, Isolation, ObjectiveRef, Setup
from mltune.signals import Signals, Stop
from mltune.space import Params, SearchSpace
from mltune.tracking import connect, registry, runs
from mltune.tracking.connect import Store
from mltune.tracking.registry import Registration
from mltune.tracking.runs import Tracker
from mltune.trial import Direction, FrozenTrial, Trial, TrialState

if TYPE_CHECKING:
    import pandas as pd

_UNLIMITED = 10**9  # trials, where only a timeout ends the study

Objective = Callable[[Trial], "float | Mapping[str, float]"]


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """What a study came to.

    Attributes:
        run_id: The parent run.
        state: COMPLETE.
        trials: All trials in the order of their numbers.
        best_trial: The best COMPLETE trial.
        registration: The registered model version, None where none was asked for.
    """

    run_id: str
    name: str
    metric: str
    direction: Direction
    state: TrialState
    trials: tuple[FrozenTrial, ...]
    best_trial: FrozenTrial
    registration: Registration | None = None

    def to_dataframe(self) -> pd.DataFrame:
        """One row per trial: number, state, value, ``params.*``, ``metrics.*``, duration in seconds, run_id."""
        import pandas as pd

        rows = [
            {"number": trial.number, "state": str(trial.state), "value": trial.value}
            | {f"params.{name}": value for name, value in trial.params.items()}
            | {f"metrics.{name}": value for name, value in trial.metrics.items()}
            | {"duration": trial.duration, "run_id": trial.run_id}
            for trial in self.trials
        ]
        return pd.DataFrame(rows)

    def load_best_model(self) -> Any:
        """The best trial's model, as ``mlflow.pyfunc`` loads it.

        Raises:
            RequestError: The best trial logged no model.
        """
        best = self.best_trial
        model_id = best.model_id or registry.find_model(mlflow.MlflowClient(), str(best.run_id))
        if model_id is None:
            raise RequestError(_no_model(self.best_trial))
        return mlflow.pyfunc.load_model(f"models:/{model_id}")


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
    resources: Mapping[str, float] | None = None,
    isolation: Literal["process", "none"] = "process",
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
        seed: Makes a study with ``n_jobs=1`` repeatable; drawn and recorded by default.
        initial: Points to try first.
        resources: Per trial, for an engine that places trials: ``{"cpu": 1, "gpu": 0.5}``.
        isolation: ``none`` runs the objective in this process, for debugging.
        register: Register the best model under this name, with the alias ``champion``.
        experiment_name: The MLflow experiment; by default the active one.
        quiet: Print nothing.

    Returns:
        The trials, the best of them, and the registered model.

    Raises:
        RequestError: The request is wrong; nothing was created.
        StudyFailedError: No trial completed, or no model could be registered.
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
            "resources": resources or {},
            "isolation": isolation,
            "register": register,
            "experiment_name": experiment_name,
        }
        | ({"objective": objective} if isinstance(objective, str) else {})
    )
    return run_study(config, _source(objective, config.isolation), make_display(quiet=quiet))


def run_study(config: StudyConfig, objective: ObjectiveRef | bytes | Objective, display: Display) -> StudyResult:
    """Run a study; as :func:`tune`, which see."""
    config, engine, notes = _settle(config)
    executor = engine.executor(config.n_jobs, resources=config.resources, isolation=config.isolation)
    with Signals() as signals, contextlib.closing(executor), connect.quiet(), display:
        store = _make_ready(config, objective, executor, signals)
        project_run = runs.project_run(store.client)
        experiment_id = connect.experiment(store.client, config.experiment_name, project_run)
        tracker = Tracker(store.client, experiment_id, name=config.name, metric=config.metric, project_run=project_run)
        driver = _driver(config, tracker, executor, signals, display)
        try:
            with _closing_runs(tracker, driver, executor):
                study_yaml = config.to_yaml()
                tracker.start_study(_tags(config, study_yaml), study_yaml)
                display.study_started(config, tracker.run_id, notes)
                engine.run(driver)
                result = _conclude(config, driver, tracker, store.client)
            display.study_completed(result)
        finally:
            display.study_ended(tracker.run_id, store.uri, experiment_id)
        return result


def _make_ready(
    config: StudyConfig, objective: ObjectiveRef | bytes | Objective, executor: Executor, signals: Signals
) -> Store:
    """Reach the store and load the objective, before anything of the study is in MLflow.

    Raises:
        StudyInterrupted: A signal came.
    """
    try:
        with signals.waiting():
            store = connect.connect()
            executor.start(Setup(objective=objective, metric=config.metric, environment=store.environment))
            return store
    except Stop as stop:
        raise StudyInterrupted(stop.signum, None) from None


def _settle(config: StudyConfig) -> tuple[StudyConfig, Engine, list[str]]:
    """The request with nothing left open, its engine, and what the user should know of the choices."""
    runs.check_fits(config.space)
    seed = secrets.randbelow(2**31) if config.seed is None else config.seed
    search = Search(
        space=config.space,
        direction=config.direction,
        seed=seed,
        algorithm=config.algorithm,
        scheduler=config.scheduler,
        initial=tuple(config.space.coerce(point) for point in config.initial),
    )
    engine = create_engine(config.engine, search, config.n_trials)
    algorithm = engine.search.algorithm
    notes = [] if algorithm == config.algorithm else [f"algorithm auto is {algorithm} here"]
    if config.space.conditional and (note := engine.algorithms[algorithm.name].note):
        notes.append(note)
    n_trials = config.n_trials
    available = count_points(engine.search)
    if available is not None:
        if n_trials is not None and n_trials > available:
            notes.append(
                f"algorithm {algorithm.name} has {available} points, so n_trials is {available}, not {n_trials}"
            )
        n_trials = min(n_trials or available, available)
    if n_trials is None and config.timeout is None:
        raise RequestError(f"`n_trials` or `timeout` must be given where the algorithm is {algorithm.name}")
    settled = {"seed": seed, "algorithm": algorithm, "n_trials": n_trials, "initial": engine.search.initial}
    return config.model_copy(update=settled), engine, notes


def _driver(
    config: StudyConfig, tracker: Tracker, executor: Executor, signals: Signals, display: Display
) -> StudyDriver:
    assert config.seed is not None
    return StudyDriver(
        tracker,
        executor,
        budget=Budget(n_trials=config.n_trials or _UNLIMITED, n_jobs=config.n_jobs, timeout=config.timeout),
        metric=config.metric,
        direction=config.direction,
        seed=config.seed,
        watch=display.trial_changed,
        signals=signals,
    )


@contextlib.contextmanager
def _closing_runs(tracker: Tracker, driver: StudyDriver, executor: Executor) -> Iterator[None]:
    """Whatever ends the study, no run stays RUNNING, as far as the store still answers.

    Raises:
        StudyInterrupted: A signal came.
        StudyFailedError: The tracking store failed, or as raised within.
    """
    try:
        yield
    except BaseException as error:
        executor.close()
        driver.interrupt()
        stopped = isinstance(error, Stop)
        with contextlib.suppress(Exception):  # the store may be what failed
            tracker.end_study(TrialState.INTERRUPTED if stopped else TrialState.FAILED, _why(error))
        if isinstance(error, Stop):
            raise StudyInterrupted(error.signum, tracker.run_id) from None
        if isinstance(error, MlflowException):
            raise StudyFailedError(f"the tracking store failed: {first_line(error)}", tracker.run_id) from error
        raise


def _why(error: BaseException) -> str | None:
    if isinstance(error, Stop):
        return None
    return error.reason if isinstance(error, StudyFailedError) else f"{type(error).__name__}: {error}"


def _conclude(config: StudyConfig, driver: StudyDriver, tracker: Tracker, client: mlflow.MlflowClient) -> StudyResult:
    """Register the best model and close the parent run.

    Raises:
        StudyFailedError: There is no best trial, or its model could not be registered.
    """
    best = driver.best
    if best is None:
        raise StudyFailedError(_why_none(driver), tracker.run_id)
    registration = None
    if config.register_as is not None:
        try:
            registration = _register(config, config.register_as, best, tracker.run_id, client)
        except (RequestError, MlflowException) as error:
            reason = f"nothing was registered as '{config.register_as}': {first_line(error)}"
            raise StudyFailedError(reason, tracker.run_id) from error
    tracker.end_study(TrialState.COMPLETE)
    return StudyResult(
        run_id=tracker.run_id,
        name=config.name,
        metric=config.metric,
        direction=config.direction,
        state=TrialState.COMPLETE,
        trials=tuple(sorted(driver.trials, key=lambda trial: trial.number)),
        best_trial=best,
        registration=registration,
    )


def _register(
    config: StudyConfig, name: str, best: FrozenTrial, study: str, client: mlflow.MlflowClient
) -> Registration:
    model_id = best.model_id or registry.find_model(client, str(best.run_id))
    if model_id is None:
        raise RequestError(_no_model(best))
    return registry.register(
        client, name, best, model_id, study=study, metric=config.metric, direction=config.direction
    )


def _why_none(driver: StudyDriver) -> str:
    if not driver.trials:
        return "no trial was started before the timeout"
    if driver.last_error is None:
        return f"none of {len(driver.trials)} trials completed: the scheduler stopped all of them"
    first = "the first " if driver.gave_up else ""
    failed = sum(trial.state is TrialState.FAILED for trial in driver.trials)
    return (
        f"{first}{failed} of {len(driver.trials)} trials failed and none completed; the last one: {driver.last_error}"
    )


def _tags(config: StudyConfig, study_yaml: str) -> dict[str, str]:
    return {
        "engine": config.engine,
        "algorithm": str(config.algorithm),
        "scheduler": str(config.scheduler),
        "metric": config.metric,
        "direction": config.direction,
        "seed": str(config.seed),
        "study_digest": hashlib.sha256(study_yaml.encode()).hexdigest(),
    }


def _no_model(trial: FrozenTrial) -> str:
    return f"the best trial must have logged a model, but trial {trial.number} has none: call trial.log_model in it"


def _name_of(objective: Objective | str) -> str:
    if isinstance(objective, str):
        return objective.rpartition(":")[2]
    name = getattr(objective, "__name__", type(objective).__name__)
    return "study" if name == "<lambda>" else name


def _source(objective: Objective | str, isolation: Isolation) -> ObjectiveRef | bytes | Objective:
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
