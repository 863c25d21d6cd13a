"""A fully resolved study request, and all that is wrong with one."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mltune.engines import Engine, create_engine, get_engine
from mltune.errors import MissingPackageError, RequestError
from mltune.execution import Executor, ExecutorOptions, check_executor, get_executor
from mltune.objective import Objective, ObjectiveRef
from mltune.search import SearchProblem
from mltune.tracking.limits import check_fits
from mltune.trial import Models

if TYPE_CHECKING:
    from mltune.config import StudyConfig
    from mltune.tracking.reader import StudyRecord


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A study with nothing left to defaults, and those who carry it out.

    Attributes:
        config: The study.
        engine: Proposes.
        executor: The executor's class.
        notes: What the user should know of the choices that were made.
    """

    config: StudyConfig
    engine: Engine
    executor: type[Executor]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class StudyRequest:
    """All that a session needs to run a study.

    Attributes:
        study: The resolved study.
        objective: The objective, packed.
        past: The record of a study that is resumed, or None for a new one.
        notes: What the user should know before it starts.
        steal: Whether to take it from a driver that is alive.
    """

    study: Resolved
    objective: ObjectiveRef | bytes | Objective
    past: StudyRecord | None = None
    notes: tuple[str, ...] = ()
    steal: bool = False

    @property
    def config(self) -> StudyConfig:
        """The study, with nothing left to defaults."""
        return self.study.config

    def resume_command(self, run_id: str, **budget: int) -> str | None:
        """What to type to resume the study, with a new budget if one is given; None before there is a study."""
        if not run_id:
            return None
        if isinstance(self.objective, ObjectiveRef):
            options = (f" --{name.replace('_', '-')} {value}" for name, value in budget.items())
            return f"mltune resume {run_id}{''.join(options)}"
        arguments = (f", {name}={value}" for name, value in budget.items())
        return f'mltune.resume("{run_id}", objective{"".join(arguments)})'


def resolve(config: StudyConfig) -> Resolved:
    """Replace all defaults of a study by values, and find those who carry it out.

    Raises:
        MissingPackageError: Packages are all that is missing.
        RequestError: All that is wrong with it at once, across keys.
    """
    seed = secrets.randbelow(2**31) if config.seed is None else config.seed
    problems = _Problems()
    with problems:
        check_fits(config.space)
    engine: Engine | None = None
    with problems:
        engine = create_engine(config.engine, _search(config, seed), config.n_trials)
    executor = _executor(config, engine, problems)
    if config.keep_models is Models.NONE and config.registered_model_name is not None:
        problems.add(
            "`registered_model_name` needs the best trial's model, but got `keep_models: none`: use all or best"
        )
    resolved: dict[str, Any] = {"seed": seed}
    notes: list[str] = []
    if engine is not None:
        notes = _notes(config, engine)
        resolved |= {"algorithm": engine.search.algorithm, "initial_points": engine.search.initial_points}
        resolved["n_trials"], more = _n_trials(config, engine)
        notes += more
        if resolved["n_trials"] is None and config.timeout is None:
            algorithm = engine.search.algorithm.name
            problems.add(f"`n_trials` or `timeout` must be given if the algorithm is {algorithm}")
    problems.check()
    assert engine is not None
    assert executor is not None
    resolved["executor"], executor_class = executor
    return Resolved(
        config=config.model_copy(update=resolved), engine=engine, executor=executor_class, notes=tuple(notes)
    )


class _Problems:
    """Collects what is wrong with a request."""

    def __init__(self) -> None:
        self._problems: list[RequestError] = []

    def __enter__(self) -> None:
        """Add a RequestError that the block raises, and end the block."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if not isinstance(error, RequestError):
            return False
        self._problems.append(error)
        return True

    def add(self, *sentences: str) -> None:
        """Add problems."""
        if sentences:
            self._problems.append(RequestError(sentences))

    def check(self) -> None:
        """Raise if there was a problem: a single one as it was raised."""
        if not self._problems:
            return
        if len(self._problems) == 1:
            raise self._problems[0]
        only_packages = all(isinstance(problem, MissingPackageError) for problem in self._problems)
        sentences = dict.fromkeys(fault for problem in self._problems for fault in problem.faults)
        raise (MissingPackageError if only_packages else RequestError)(list(sentences))


def _search(config: StudyConfig, seed: int) -> SearchProblem:
    return SearchProblem(
        space=config.space,
        goal=config.goal,
        seed=seed,
        algorithm=config.algorithm,
        scheduler=config.scheduler,
        initial_points=config.initial_points,
    )


def _executor(config: StudyConfig, engine: Engine | None, problems: _Problems) -> tuple[str, type[Executor]] | None:
    """The executor that the study names or its engine implies, checked; None if it cannot be had."""
    name = config.executor or (implied_executor(config.engine) if engine is None else engine.executor)
    if name is None:
        return None
    with problems:
        executor = get_executor(name)
        problems.add(*check_executor(name, executor, executor_options(config)))
        return name, executor
    return None


def implied_executor(engine: str) -> str | None:
    """The executor of a study that names none, or None if the engine cannot be had."""
    try:
        return get_engine(engine).executor
    except RequestError:
        return None


def executor_options(config: StudyConfig) -> ExecutorOptions:
    """What the study asks of its executor."""
    return ExecutorOptions(
        n_jobs=config.n_jobs,
        resources=config.resources,
        trial_memory=config.trial_memory,
        trial_timeout=config.trial_timeout,
    )


def _notes(config: StudyConfig, engine: Engine) -> list[str]:
    algorithm = engine.search.algorithm
    notes = [] if algorithm == config.algorithm else [f"algorithm auto is {algorithm} here"]
    note = engine.algorithms[algorithm.name].note
    return [*notes, note] if config.space.conditional and note else notes


def _n_trials(config: StudyConfig, engine: Engine) -> tuple[int | None, list[str]]:
    """How many trials there will be, or None if only a timeout limits them; and what the user should know of it."""
    available, wanted = engine.n_points, config.n_trials
    if available is None:
        return wanted, []
    if wanted is None or wanted <= available:
        return min(wanted or available, available), []
    algorithm = engine.search.algorithm.name
    return available, [f"algorithm {algorithm} has {available} points, so n_trials is {available}, not {wanted}"]
