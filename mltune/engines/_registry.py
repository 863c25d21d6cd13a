"""Engines by name: mltune's own, and those of plugins in the entry-point group ``mltune.engines``.

An engine is imported when it is asked for, never before. Plugins are looked up only for a name that is not
mltune's own, and to list the engines.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType

from mltune.engines._base import Engine
from mltune.engines._spec import Method, Search, Spec
from mltune.errors import MissingPackageError, RequestError, SpaceError, nearest
from mltune.space import Params, same

_GROUP = "mltune.engines"
_OWN: Mapping[str, str] = MappingProxyType(
    {"optuna": "mltune.engines.optuna:OptunaEngine", "ray": "mltune.engines.ray:RayEngine"}
)
_REQUIREMENTS: Mapping[str, str] = MappingProxyType(
    {"ray": '"ray[tune]"', "skopt": "scikit-optimize", "sklearn": "scikit-learn"}
)


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """An engine as ``mltune engines`` lists it.

    Attributes:
        provider: ``mltune``, or the distribution that brings the plugin.
        installed: Whether it can be used.
        remedy: What to do where something is missing or broken, else empty.
        algorithms: Names; empty where the engine cannot be loaded.
        schedulers: Likewise.
    """

    name: str
    provider: str
    installed: bool
    remedy: str = ""
    algorithms: tuple[str, ...] = ()
    schedulers: tuple[str, ...] = ()


def get_engine(name: str) -> type[Engine]:
    """The engine of that name, imported.

    Raises:
        MissingPackageError: It needs a package that is not installed.
        RequestError: There is none, there are two, or it is broken.
    """
    if name in _OWN:
        return _import(name, "mltune", lambda: _load(_OWN[name]))
    found = [entry for entry in _plugins() if entry.name == name]
    if not found:
        known = [*_OWN, *(entry.name for entry in _plugins())]
        raise RequestError(f"there is no engine '{name}'; {nearest(name, known)}")
    if len(found) > 1:
        raise RequestError(_two_providers(name, found))
    return _import(name, _provider(found[0]), found[0].load)


def create_engine(name: str, search: Search, n_trials: int | None = None) -> Engine:
    """The engine for a search; ``search.algorithm`` of what is returned is never ``auto``.

    Args:
        name: The engine.
        search: Its ``initial`` points are read as the space wants them: ``1`` as ``1.0`` for a Float.
        n_trials: None where only time limits the study.

    Raises:
        MissingPackageError: Packages are all that is missing.
        RequestError: All that is wrong with engine, algorithm, scheduler, options and ``initial`` points at once.
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
    name: str, engine_class: type[Engine], search: Search, n_trials: int | None, faults: Iterable[str] = ()
) -> Search:
    """The search that the engine gets: ``auto`` is resolved, and the engine has what is asked for.

    Raises:
        MissingPackageError: Packages are all that is missing.
        RequestError: All that is wrong at once, ``faults`` included.
    """
    search, wrong = _resolve_auto(engine_class, search, n_trials)
    wrong += _method_faults(name, "algorithm", search.algorithm, engine_class.algorithms)
    wrong += _method_faults(name, "scheduler", search.scheduler, engine_class.schedulers)
    wrong += [*_enumeration_faults(search), *faults]
    missing = _missing_packages("algorithm", search.algorithm, engine_class.algorithms)
    missing += _missing_packages("scheduler", search.scheduler, engine_class.schedulers)
    if wrong:
        raise RequestError(wrong + missing)
    if missing:
        raise MissingPackageError(missing)
    return search


def list_engines() -> list[EngineInfo]:
    """All engines, mltune's own first; a broken plugin is listed with what is wrong with it."""
    plugins = sorted(_plugins(), key=lambda entry: entry.name)
    names = [*_OWN, *dict.fromkeys(entry.name for entry in plugins if entry.name not in _OWN)]
    shadowed = [_shadowed(entry) for entry in plugins if entry.name in _OWN]
    return [_describe(name, [entry for entry in plugins if entry.name == name]) for name in names] + shadowed


def _plugins() -> list[EntryPoint]:
    """The entry points of the group; a distribution that is found twice counts once."""
    return list({(e.name, e.value, _provider(e)): e for e in entry_points(group=_GROUP)}.values())


def _provider(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value


def _two_providers(name: str, found: list[EntryPoint]) -> str:
    providers = " and ".join(sorted(f"{_provider(entry)} ({entry.value})" for entry in found))
    return f"engine '{name}' must have one provider, but has {providers}: uninstall all but one"


def _load(target: str) -> object:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _import(name: str, provider: str, load: Callable[[], object]) -> type[Engine]:
    """Load an engine; whatever goes wrong in foreign code becomes one sentence."""
    try:
        engine_class = load()
    except Exception as error:
        package = (getattr(error, "name", None) or "").partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and not _importable(package):
            raise MissingPackageError(f"engine '{name}' needs {package}: {_pip(package)}") from error
        raise RequestError(
            f"engine '{name}' of {provider} cannot be loaded: {type(error).__name__}: {error}; mend or uninstall it"
        ) from error
    if not (isinstance(engine_class, type) and issubclass(engine_class, Engine)):
        raise RequestError(f"engine '{name}' of {provider} must be a subclass of Engine, but it is {engine_class!r}")
    missing = [package for package in engine_class.packages if not _importable(package)]
    if missing:
        raise MissingPackageError([f"engine '{name}' needs {package}: {_pip(package)}" for package in missing])
    return engine_class


def _importable(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _pip(package: str) -> str:
    return f"pip install {_REQUIREMENTS.get(package, package)}"


def _describe(name: str, found: list[EntryPoint]) -> EngineInfo:
    provider = "mltune" if name in _OWN else " and ".join(sorted({_provider(entry) for entry in found}))
    try:
        engine_class = get_engine(name)
    except RequestError as error:
        return EngineInfo(name=name, provider=provider, installed=False, remedy="; ".join(error.faults))
    missing = [
        fault
        for kind, offered in (("algorithm", engine_class.algorithms), ("scheduler", engine_class.schedulers))
        for method in offered
        for fault in _missing_packages(kind, Spec(method), offered)
    ]
    return EngineInfo(
        name=name,
        provider=provider,
        installed=True,
        remedy="; ".join(missing),
        algorithms=tuple(sorted(engine_class.algorithms)),
        schedulers=tuple(sorted(engine_class.schedulers)),
    )


def _shadowed(entry: EntryPoint) -> EngineInfo:
    remedy = f"'{entry.name}' is the name of an engine of mltune's own: give the plugin's entry point another name"
    return EngineInfo(name=entry.name, provider=_provider(entry), installed=False, remedy=remedy)


def _resolve_auto(engine_class: type[Engine], search: Search, n_trials: int | None) -> tuple[Search, list[str]]:
    if search.algorithm.name != "auto":
        return search, []
    options = search.algorithm.options
    faults = [f"algorithm auto takes no options, but got '{key}': name the algorithm" for key in options]
    return replace(search, algorithm=Spec(engine_class.auto(search, n_trials))), faults


def _method_faults(engine: str, kind: str, spec: Spec, offered: Mapping[str, Method]) -> list[str]:
    if spec.name not in offered:
        known = [*offered, *(["auto"] if kind == "algorithm" else [])]
        near = nearest(spec.name, known)
        also = "" if near.startswith("known") else f" It has: {', '.join(sorted(known))}"
        return [f"engine {engine} has no {kind} '{spec.name}'; {near}{also}"]
    options, faults = offered[spec.name].options, []
    for key, value in spec.options.items():
        if key not in options:
            faults.append(f"{kind} {spec.name} has no option '{key}'; {nearest(key, options)}")
        elif not options[key].accepts(value):
            faults.append(f"{kind} {spec.name}: `{key}` must be {options[key]}, but got {value!r}")
    return faults


def _missing_packages(kind: str, spec: Spec, offered: Mapping[str, Method]) -> list[str]:
    packages = offered[spec.name].packages if spec.name in offered else ()
    return [f"{kind} {spec.name} needs {package}: {_pip(package)}" for package in packages if not _importable(package)]


def _enumeration_faults(search: Search) -> list[str]:
    if search.algorithm.name == "manual" and not search.initial:
        return ["algorithm manual runs the `initial` points, but there are none: give some"]
    if search.algorithm.name == "grid":
        try:
            search.space.grid()
        except SpaceError as error:
            return list(error.faults)
    return []


def _read_initial(search: Search) -> tuple[Search, list[str]]:
    """The search with its ``initial`` points as the space reads them, and all that is wrong with them."""
    points: list[Params] = []
    faults: list[str] = []
    for i, given in enumerate(search.initial):
        if not isinstance(given, Mapping):
            faults.append(f"initial[{i}] must map names to values, but got {given!r}")
            continue
        point = search.space.coerce(given)
        faults += [f"initial[{i}]: {fault}" for fault in search.space.faults(point)]
        faults += [f"initial[{i}] must differ from the points before it, but is {point}"] * _holds(points, point)
        points.append(point)
    return replace(search, initial=tuple(points)), faults


def _holds(points: list[Params], point: Params) -> bool:
    return any(p.keys() == point.keys() and all(same(p[name], point[name]) for name in point) for p in points)
