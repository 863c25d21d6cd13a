"""The registry of engines, and the check that an engine supports a search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint

from mltune.engines._base import Engine
from mltune.errors import MissingPackageError, RequestError, SpaceError, nearest
from mltune.params import Params, identical
from mltune.plugins import Registry, missing_packages, provider
from mltune.search import AlgorithmInfo, SearchProblem, Spec

ENGINES: Registry[Engine] = Registry(
    "engine",
    Engine,
    {"optuna": "mltune.engines.optuna:OptunaEngine", "ray": "mltune.engines.ray:RayEngine"},
)


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """An engine as ``mltune engines`` lists it.

    Attributes:
        provider: ``mltune``, or the distribution that provides the plugin.
        installed: Whether the engine can be used.
        remedy: What to do if something is missing or broken, else empty.
        algorithms: The names of its algorithms, empty if the engine cannot be loaded.
        schedulers: The names of its schedulers, likewise.
    """

    name: str
    provider: str
    installed: bool
    remedy: str = ""
    algorithms: tuple[str, ...] = ()
    schedulers: tuple[str, ...] = ()


_FORMER = {"run": "a loop of its own", "rebuild": "a rebuild(), which is replay() now"}


def get_engine(name: str) -> type[Engine]:
    """Import the engine of that name.

    Raises:
        MissingPackageError: It needs a package that is not installed.
        RequestError: It is unknown, broken, or written for an earlier contract.
    """
    engine = ENGINES.get(name)
    former = [what for method, what in _FORMER.items() if hasattr(engine, method)]
    if not isinstance(engine.executor, str):
        former.append("an executor() that is no name")
    if former:
        raise RequestError(
            f"engine '{name}' must keep today's contract, but it has {' and '.join(former)}: see mltune.engines.Engine"
        )
    return engine


def create_engine(name: str, search: SearchProblem, n_trials: int | None = None) -> Engine:
    """Create the engine for a search; the engine's ``search.algorithm`` is never ``auto``.

    Args:
        name: The engine's name.
        search: The search; its ``initial_points`` are coerced to the space's types: ``1`` to ``1.0`` for a Float.
        n_trials: The number of trials, or None if only time limits the study.

    Raises:
        MissingPackageError: Packages are missing, and nothing else is wrong.
        RequestError: All faults of engine, algorithm, scheduler, options and ``initial_points`` at once.
    """
    search, faults = _read_initial(search)
    try:
        engine_class = get_engine(name)
    except RequestError as error:
        if not faults:
            raise
        raise RequestError([*error.faults, *faults]) from error
    return engine_class(check_search(name, engine_class, search, n_trials, faults))


def check_search(
    name: str, engine_class: type[Engine], search: SearchProblem, n_trials: int | None, faults: Iterable[str] = ()
) -> SearchProblem:
    """Return the search with ``auto`` resolved; raise if the engine does not support it.

    Raises:
        MissingPackageError: Packages are missing, and nothing else is wrong.
        RequestError: All faults at once, including ``faults``.
    """
    search, all_faults = _resolve_auto(engine_class, search, n_trials)
    all_faults += _method_faults(name, "algorithm", search.algorithm, engine_class.algorithms)
    all_faults += _method_faults(name, "scheduler", search.scheduler, engine_class.schedulers)
    all_faults += [*_enumeration_faults(search), *faults]
    missing = _missing_packages("algorithm", search.algorithm, engine_class.algorithms)
    missing += _missing_packages("scheduler", search.scheduler, engine_class.schedulers)
    if all_faults:
        raise RequestError(all_faults + missing)
    if missing:
        raise MissingPackageError(missing)
    return search


def list_engines() -> list[EngineInfo]:
    """Return all engines, mltune's own first; a broken plugin is included, with what is wrong with it."""
    plugins = ENGINES.plugins()
    names = [*ENGINES.own, *dict.fromkeys(entry.name for entry in plugins if entry.name not in ENGINES.own)]
    shadowed = [_shadowed(entry) for entry in plugins if entry.name in ENGINES.own]
    return [_describe(name, [entry for entry in plugins if entry.name == name]) for name in names] + shadowed


def _describe(name: str, found: list[EntryPoint]) -> EngineInfo:
    providers = ["mltune"] if name in ENGINES.own else sorted({provider(entry) for entry in found})
    try:
        engine_class = get_engine(name)
    except RequestError as error:
        return EngineInfo(name=name, provider=" and ".join(providers), installed=False, remedy="; ".join(error.faults))
    missing = [
        fault
        for kind, offered in (("algorithm", engine_class.algorithms), ("scheduler", engine_class.schedulers))
        for method in offered
        for fault in _missing_packages(kind, Spec(method), offered)
    ]
    return EngineInfo(
        name=name,
        provider=" and ".join(providers),
        installed=True,
        remedy="; ".join(missing),
        algorithms=tuple(sorted(engine_class.algorithms)),
        schedulers=tuple(sorted(engine_class.schedulers)),
    )


def _shadowed(entry: EntryPoint) -> EngineInfo:
    remedy = f"'{entry.name}' is the name of an engine of mltune's own: give the plugin's entry point another name"
    return EngineInfo(name=entry.name, provider=provider(entry), installed=False, remedy=remedy)


def _resolve_auto(
    engine_class: type[Engine], search: SearchProblem, n_trials: int | None
) -> tuple[SearchProblem, list[str]]:
    if search.algorithm.name != "auto":
        return search, []
    options = search.algorithm.options
    faults = [f"algorithm auto takes no options, but got '{key}': name the algorithm" for key in options]
    return replace(search, algorithm=Spec(engine_class.auto(search, n_trials))), faults


def _method_faults(engine: str, kind: str, spec: Spec, offered: Mapping[str, AlgorithmInfo]) -> list[str]:
    if spec.name not in offered:
        names = [*offered, *(["auto"] if kind == "algorithm" else [])]
        near = nearest(spec.name, names)
        also = "" if near.startswith("known") else f" It has: {', '.join(sorted(names))}"
        return [f"engine {engine} has no {kind} '{spec.name}'; {near}{also}"]
    options, faults = offered[spec.name].options, []
    for key, value in spec.options.items():
        if key not in options:
            faults.append(f"{kind} {spec.name} has no option '{key}'; {nearest(key, options)}")
        elif not options[key].accepts(value):
            faults.append(f"{kind} {spec.name}: `{key}` must be {options[key]}, but got {value!r}")
    return faults


def _missing_packages(kind: str, spec: Spec, offered: Mapping[str, AlgorithmInfo]) -> list[str]:
    packages = offered[spec.name].packages if spec.name in offered else ()
    return missing_packages(f"{kind} {spec.name}", packages)


def _enumeration_faults(search: SearchProblem) -> list[str]:
    if search.algorithm.name == "manual" and not search.initial_points:
        return ["algorithm manual runs the `initial_points`, but there are none: give some"]
    if search.algorithm.name == "grid":
        try:
            search.space.grid()
        except SpaceError as error:
            return list(error.faults)
    return []


def _read_initial(search: SearchProblem) -> tuple[SearchProblem, list[str]]:
    """Return the search with its ``initial_points`` coerced to the space's types, and all faults of these points."""
    points: list[Params] = []
    faults: list[str] = []
    for i, given in enumerate(search.initial_points):
        if not isinstance(given, Mapping):
            faults.append(f"initial_points[{i}] must map names to values, but got {given!r}")
            continue
        point = search.space.coerce(given)
        faults += [f"initial_points[{i}]: {fault}" for fault in search.space.faults(point)]
        faults += [f"initial_points[{i}] must differ from the points before it, but is {point}"] * _holds(points, point)
        points.append(point)
    return replace(search, initial_points=tuple(points)), faults


def _holds(points: list[Params], point: Params) -> bool:
    return any(p.keys() == point.keys() and all(identical(p[name], point[name]) for name in point) for p in points)
