"""A fully resolved study request, and all that is wrong with one."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mltune.driver.problems import Problems
from mltune.engines import Engine, create_engine, get_engine
from mltune.errors import RequestError
from mltune.execution import Executor, ExecutorOptions, check_executor, get_executor
from mltune.objective import Objective, ObjectiveRef, pack
from mltune.search import SearchProblem
from mltune.tracking.limits import check_fits
from mltune.trial import Models

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mltune.config import Draft, StudyConfig
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


def prepare(
    draft: Draft, objective: Objective | str, folder: Path | None = None, *, faults: Sequence[str] = ()
) -> StudyRequest:
    """Return the request for a new study.

    Args:
        draft: The settings as requested.
        objective: A function, or ``module:function``.
        folder: Where the module is; by default the working folder.
        faults: What is wrong with the other arguments of the caller.

    Raises:
        MissingPackageError: Packages are all that is missing.
        RequestError: All that is wrong with it.
    """
    problems = Problems()
    problems.add(*draft.faults, *faults)
    study = resolve(draft, problems)
    if "objective" not in draft.wrong:
        with problems:
            packed = pack_for(study, objective, folder or ".")
    problems.check()
    assert study is not None
    return StudyRequest(study=study, objective=packed)


def pack_for(
    study: Resolved | None, objective: Objective | str, folder: Path | str
) -> ObjectiveRef | bytes | Objective:
    """Pack the objective for the study's executor; without a study only check that it can be called."""
    in_process = True if study is None else study.executor.limits.in_process
    return pack(objective, in_process=in_process, folder=folder)


def resolve(draft: Draft, problems: Problems) -> Resolved | None:
    """Replace all defaults of a study by values, and find those who carry it out.

    Args:
        draft: The settings as requested.
        problems: Collects the faults between keys, but for those that only follow from keys that are wrong themselves.

    Returns:
        The study, or None if its engine or its executor is not available.
    """
    config = draft.config
    seed = secrets.randbelow(2**31) if config.seed is None else config.seed
    with problems:
        check_fits(config.space)
    engine: Engine | None = None
    if "engine" not in draft.wrong and not (config.algorithm.name == "manual" and "initial_points" in draft.wrong):
        with problems:
            engine = create_engine(config.engine, _search(config, seed), config.n_trials)
    executor: tuple[str, type[Executor]] | None = None
    if "executor" not in draft.wrong and not (config.executor is None and "engine" in draft.wrong):
        executor = _executor(config, engine, problems)
    if config.keep_models is Models.NONE and config.registered_model_name is not None:
        problems.add(
            "`registered_model_name` needs the best trial's model, but got `keep_models: none`: use all or best"
        )
    if engine is None:
        return None
    algorithm = engine.search.algorithm
    n_trials, more = _n_trials(config, engine)
    if n_trials is None and config.timeout is None and not {"n_trials", "timeout", "algorithm"} & draft.wrong:
        problems.add(f"`n_trials` or `timeout` must be given if the algorithm is {algorithm.name}")
    if executor is None:
        return None
    name, executor_class = executor
    resolved = {
        "seed": seed,
        "algorithm": algorithm,
        "initial_points": engine.search.initial_points,
        "n_trials": n_trials,
        "executor": name,
    }
    notes = (*_notes(config, engine), *more)
    return Resolved(config=config.model_copy(update=resolved), engine=engine, executor=executor_class, notes=notes)


def _search(config: StudyConfig, seed: int) -> SearchProblem:
    return SearchProblem(
        space=config.space,
        goal=config.goal,
        seed=seed,
        algorithm=config.algorithm,
        scheduler=config.scheduler,
        initial_points=config.initial_points,
    )


def _executor(config: StudyConfig, engine: Engine | None, problems: Problems) -> tuple[str, type[Executor]] | None:
    """The executor that the study names or its engine implies, checked; None if it is not available."""
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
