"""A study with nothing left open, before anything of it runs."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mltune.config import StudyConfig
from mltune.engines import Engine, Search, count_points, create_engine
from mltune.errors import RequestError
from mltune.execution import Isolation, ObjectiveRef
from mltune.tracking import tags
from mltune.tracking.store import StudyRecord
from mltune.trial import Models, Trial

Objective = Callable[[Trial], "float | Mapping[str, float]"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study with nothing left open.

    Attributes:
        notes: What the user should know of the choices that were made.
        past: The record of a study that goes on, None for a new one.
        steal: Whether to take it from a driver that is alive.
    """

    config: StudyConfig
    engine: Engine
    objective: ObjectiveRef | bytes | Objective
    notes: list[str]
    past: StudyRecord | None = None
    steal: bool = False


def settle(config: StudyConfig) -> tuple[StudyConfig, Engine, list[str]]:
    """The request with nothing left open, its engine, and what the user should know of the choices.

    Raises:
        RequestError: It cannot be met.
    """
    tags.check_fits(config.space)
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
    if config.isolation is Isolation.NONE and config.trial_timeout is not None:
        raise RequestError("`trial_timeout` needs a process of its own, but got `isolation: none`: drop one of them")
    if config.models is Models.NONE and config.register_as is not None:
        raise RequestError("`register` needs the best trial's model, but got `models: none`: use all or best")
    settled = {"seed": seed, "algorithm": algorithm, "n_trials": n_trials, "initial": engine.search.initial}
    return config.model_copy(update=settled), engine, notes


def how_to_go_on(plan: Plan, run_id: str, **budget: int) -> str | None:
    """What to type to resume a study, with a new budget where one is given; None where there is no study yet."""
    if not run_id:
        return None
    if isinstance(plan.objective, ObjectiveRef):
        options = (f" --{name.replace('_', '-')} {value}" for name, value in budget.items())
        return f"mltune resume {run_id}{''.join(options)}"
    arguments = (f", {name}={value}" for name, value in budget.items())
    return f'mltune.resume("{run_id}", objective{"".join(arguments)})'
