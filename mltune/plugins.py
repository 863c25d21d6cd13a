"""Classes by name: mltune's own, and those of plugins in an entry-point group.

A class is imported when it is asked for, never before. Plugins are looked up only for a name that is not mltune's own,
and to list the names.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import ClassVar, Generic, Protocol, TypeVar

from mltune.errors import MissingPackageError, RequestError, nearest

_REQUIREMENTS: Mapping[str, str] = MappingProxyType(
    {"ray": '"ray[tune]"', "skopt": "scikit-optimize", "sklearn": "scikit-learn"}
)


class HasPackages(Protocol):
    """A class that says what must be importable for it."""

    packages: ClassVar[tuple[str, ...]]


T = TypeVar("T", bound=HasPackages)


class Registry(Generic[T]):
    """All classes of one kind, by name.

    Args:
        kind: The word for one of them; ``mltune.<kind>s`` is the entry-point group.
        base: What all of them must be subclasses of.
        own: mltune's own, as ``module:class``.
    """

    def __init__(self, kind: str, base: type[T], own: Mapping[str, str]) -> None:
        self.kind = kind
        self.own = own
        self._base = base

    def get(self, name: str) -> type[T]:
        """Import the class of that name.

        Raises:
            MissingPackageError: It needs a package that is not installed.
            RequestError: There is none, there are two, or it is broken.
        """
        if name in self.own:
            return self._import(name, "mltune", lambda: _load(self.own[name]))
        found = [entry for entry in self.plugins() if entry.name == name]
        if not found:
            known = [*self.own, *(entry.name for entry in self.plugins())]
            raise RequestError(f"unknown {self.kind} '{name}'; {nearest(name, known)}")
        if len(found) > 1:
            raise RequestError(self._two_providers(name, found))
        return self._import(name, provider(found[0]), found[0].load)

    def plugins(self) -> list[EntryPoint]:
        """The entry points of the group, by name; a distribution that is found twice counts once."""
        found = {(e.name, e.value, provider(e)): e for e in entry_points(group=f"mltune.{self.kind}s")}
        return sorted(found.values(), key=lambda entry: entry.name)

    def _import(self, name: str, provided_by: str, load: Callable[[], object]) -> type[T]:
        """Load a class; whatever goes wrong in foreign code becomes one sentence."""
        what = f"{self.kind} '{name}'"
        try:
            found = load()
        except Exception as error:
            package = (getattr(error, "name", None) or "").partition(".")[0]
            if isinstance(error, ModuleNotFoundError) and not importable(package):
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
    """The distribution that brings a plugin; where that is not known, the entry point's target."""
    return entry.dist.name if entry.dist is not None else entry.value


def importable(package: str) -> bool:
    """Whether a top-level package is installed."""
    return importlib.util.find_spec(package) is not None


def missing_packages(what: str, packages: Iterable[str]) -> list[str]:
    """A sentence with the pip line for each package that is not installed.

    >>> missing_packages("algorithm magic", ["json", "no_such_package"])
    ['algorithm magic needs no_such_package: pip install no_such_package']
    """
    return [
        f"{what} needs {package}: pip install {_REQUIREMENTS.get(package, package)}"
        for package in packages
        if not importable(package)
    ]


def _load(target: str) -> object:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)
