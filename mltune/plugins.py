"""A registry of classes by name: mltune's own, and those of plugins in an entry-point group.

A class is imported only when it is requested. Plugins are looked up only for a name that is not mltune's own, and to
list the names.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import ClassVar, Generic, Protocol, TypeVar

from mltune.errors import MissingPackageError, RequestError, nearest

EXTRAS: Mapping[str, str] = MappingProxyType(
    {
        "cmaes": "optuna",
        "matplotlib": "report",
        "plotly": "report",
        "ray": "ray",
        "skops": "sklearn",
        "torch": "torch",
    }
)
"""Packages that mltune uses but does not need, with the extra of mltune's that installs each."""

_REQUIREMENTS: Mapping[str, str] = MappingProxyType(
    {
        **{package: f"'mlflow-mltune[{extra}]'" for package, extra in EXTRAS.items()},
        "fsspec": "'mlflow-mltune[ray]'",  # ray[tune] has it, ray has not
        "sklearn": "scikit-learn",
    }
)


class HasPackages(Protocol):
    """A class that declares which packages must be importable for it."""

    packages: ClassVar[tuple[str, ...]]


T = TypeVar("T", bound=HasPackages)


class Registry(Generic[T]):
    """All classes of one kind, by name.

    Args:
        kind: The kind in one word, such as ``engine``; ``mltune.<kind>s`` is the entry-point group.
        base: The class that all of them must inherit from.
        own: mltune's own classes by name, as ``module:class``.
    """

    def __init__(self, kind: str, base: type[T], own: Mapping[str, str]) -> None:
        self.kind = kind
        self.own = own
        self._base = base

    def get(self, name: str) -> type[T]:
        """Import and return the class of that name.

        Raises:
            MissingPackageError: The class needs a package that is not installed.
            RequestError: The name is unknown, has more than one provider, or its class is broken.
        """
        if name in self.own:
            return self._import(name, "mltune", lambda: _load(self.own[name]))
        entries = [entry for entry in self.plugins() if entry.name == name]
        if not entries:
            names = [*self.own, *(entry.name for entry in self.plugins())]
            raise RequestError(f"unknown {self.kind} '{name}'; {nearest(name, names)}")
        if len(entries) > 1:
            raise RequestError(self._two_providers(name, entries))
        return self._import(name, provider(entries[0]), entries[0].load)

    def plugins(self) -> list[EntryPoint]:
        """Return the entry points of the group, sorted by name; a distribution that is found twice counts once."""
        entries = {(e.name, e.value, provider(e)): e for e in entry_points(group=f"mltune.{self.kind}s")}
        return sorted(entries.values(), key=lambda entry: entry.name)

    def _import(self, name: str, provided_by: str, load: Callable[[], object]) -> type[T]:
        """Load a class; turn any error in third-party code into one sentence."""
        what = f"{self.kind} '{name}'"
        try:
            found = load()
        except Exception as error:
            package = _not_found(error)
            if package is not None and not importable(package):
                raise MissingPackageError(missing_packages(what, [package])) from error
            raise RequestError(
                f"{what} of {provided_by} cannot be loaded: {type(error).__name__}: {error}; mend or uninstall it"
            ) from error
        if not (isinstance(found, type) and issubclass(found, self._base)):
            raise RequestError(
                f"{what} of {provided_by} must be a subclass of {self._base.__name__}, but it is {found!r}"
            )
        if missing := missing_packages(what, found.packages):
            raise MissingPackageError(missing)
        return found

    def _two_providers(self, name: str, found: list[EntryPoint]) -> str:
        providers = " and ".join(sorted(f"{provider(entry)} ({entry.value})" for entry in found))
        return f"{self.kind} '{name}' must have one provider, but has {providers}: uninstall all but one"


def provider(entry: EntryPoint) -> str:
    """Return the distribution that provides a plugin, or the entry point's target if that is unknown."""
    return entry.dist.name if entry.dist is not None else entry.value


def importable(package: str) -> bool:
    """Return whether a top-level package is installed."""
    return importlib.util.find_spec(package) is not None


def missing_packages(what: str, packages: Iterable[str]) -> list[str]:
    """Return one sentence with the pip command for the packages that are not installed, or none.

    >>> missing_packages("algorithm magic", ["json", "no_such_package"])
    ['algorithm magic needs no_such_package: pip install no_such_package']
    """
    missing = [package for package in packages if not importable(package)]
    requirements = dict.fromkeys(_REQUIREMENTS.get(package, package) for package in missing)
    return [f"{what} needs {' and '.join(missing)}: pip install {' '.join(requirements)}"] if missing else []


def _not_found(error: BaseException | None) -> str | None:
    """Return the top-level package that an import did not find, directly or in its cause, or None."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return error.name.partition(".")[0]
    return _not_found(error.__cause__) if isinstance(error, ImportError) else None


def _load(target: str) -> object:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)
