"""Find what a model needs to load elsewhere: the user's own modules, and packages with exact versions.

MLflow infers requirements by loading the model in a subprocess, which takes over 4 s. Here they are derived from
what the model's pickle refers to and from the imports of the user's own modules. A module is *own* if it is neither
in the standard library nor installed, such as a module next to the objective or an editable install.
"""

from __future__ import annotations

import ast
import contextlib
import dis
import importlib.metadata
import importlib.util
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import cloudpickle
import numpy as np

_MAINS = ("__main__", "__mp_main__")  # what they define is pickled by value
_INSTALLED = {"site-packages", "dist-packages"}


@dataclass(frozen=True)
class Dependencies:
    """The dependencies of a model, saved with it.

    Attributes:
        code_paths: The user's own modules, as top-level files and folders.
        requirements: Pip requirements with exact versions.
    """

    code_paths: tuple[str, ...]
    requirements: tuple[str, ...]


def references(model: Any) -> frozenset[str]:
    """Return what a model's pickle refers to: classes and functions as ``module:name``, modules as ``module:``.

    Raises:
        pickle.PicklingError: The model cannot be pickled.
    """
    finder = _Finder()
    finder.dump(model)
    return frozenset(finder.found)


@cache
def find_dependencies(references: frozenset[str], packages: frozenset[str]) -> Dependencies:
    """Return the dependencies of a model, cached for models with the same references.

    Args:
        references: What the model refers to, from :func:`references`.
        packages: Import names of packages that are needed in any case.
    """
    modules = {reference.partition(":")[0] for reference in references}
    own, foreign = _closure(modules)
    _warn_of_mltune(modules, own)
    roots = {str(_root(name.partition(".")[0])) for name in own}
    requirements = {pin for top in foreign | packages for pin in _pins(top)}
    return Dependencies(tuple(sorted(roots)), tuple(sorted(requirements)))


class _Nowhere:
    def write(self, data: bytes) -> int:
        return len(data)


class _Finder(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickler that collects references and skips the data of arrays and tensors, so that large models are cheap too."""

    def __init__(self) -> None:
        super().__init__(_Nowhere())
        self.found: set[str] = set()

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, ModuleType):
            self.found.add(f"{obj.__name__}:")
        elif isinstance(obj, (type, FunctionType, BuiltinFunctionType, np.ufunc)):
            module = getattr(obj, "__module__", None) or "builtins"
            self.found.add(f"{module}:{obj.__name__}")
            if isinstance(obj, FunctionType) and module in _MAINS:
                self.found.update(_imports_within(obj))
        elif _is_numbers(obj):
            self.found.add(f"{type(obj).__module__}:{type(obj).__name__}")
            return (int, ())
        return super().reducer_override(obj)


def _imports_within(function: FunctionType) -> Iterator[str]:
    return (f"{step.argval}:" for step in dis.get_instructions(function) if step.opname == "IMPORT_NAME")


def _is_numbers(obj: Any) -> bool:
    if isinstance(obj, np.ndarray):
        return not obj.dtype.hasobject
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(obj, torch.Tensor)


def _closure(modules: Iterable[str]) -> tuple[dict[str, _Imports], set[str]]:
    """Follow imports from these modules; return the own modules, and the top-level names of all others."""
    own: dict[str, _Imports] = {}
    foreign: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        top, _, below = name.partition(".")
        if not _is_own(top):
            foreign.add(top)
        elif name not in own and (spec := _spec(name)) is not None:
            own[name] = _Imports(spec)
            waiting += own[name].names
            waiting += [name.rpartition(".")[0]] if below else []
    return own, foreign


@cache
def _is_own(top: str) -> bool:
    if top in sys.stdlib_module_names or top in _MAINS or top == "mltune":
        return False
    root = _root(top)
    return root is not None and root.exists() and not _INSTALLED.intersection(root.parts)


def _root(top: str) -> Path | None:
    """Return the file or folder of a top-level module, or None if there is no such module."""
    spec = _spec(top)
    if spec is None:
        return None
    locations = list(spec.submodule_search_locations or ()) or [spec.origin or ""]
    return Path(locations[0]).resolve()


@cache
def _spec(name: str) -> ModuleSpec | None:
    """Return a module's spec without importing anything, or None if there is no such module."""
    module = sys.modules.get(name)
    if module is not None:
        return module.__spec__
    parent, _, _ = name.rpartition(".")
    if not parent:
        return importlib.util.find_spec(name)
    within = _spec(parent)
    return PathFinder.find_spec(name, within.submodule_search_locations or []) if within is not None else None


class _Imports(ast.NodeVisitor):
    """The imports of a module, read from its source.

    Attributes:
        names: All imported names; each may be a module or only an attribute of one.
        needs_mltune: Whether loading the module imports mltune.
    """

    def __init__(self, spec: ModuleSpec) -> None:
        self.names: set[str] = set()
        self.needs_mltune = False
        self._package = spec.parent or ""
        self._in_function = 0
        if spec.origin is not None and spec.origin.endswith(".py"):
            with contextlib.suppress(OSError, SyntaxError, ImportError):  # the module could not be imported anyway
                self.visit(ast.parse(Path(spec.origin).read_bytes()))

    def visit_Import(self, node: ast.Import) -> None:
        self._add(alias.name for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = importlib.util.resolve_name("." * node.level + (node.module or ""), self._package)
        self._add([module, *(f"{module}.{alias.name}" for alias in node.names)])

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING", "__name__ == '__main__'"):
            node.body = []
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.AST) -> None:
        self._in_function += 1
        self.generic_visit(node)
        self._in_function -= 1

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def _add(self, names: Iterable[str]) -> None:
        imported = set(names)
        self.names |= imported
        self.needs_mltune |= not self._in_function and any(name.partition(".")[0] == "mltune" for name in imported)


def _warn_of_mltune(modules: Iterable[str], own: dict[str, _Imports]) -> None:
    guilty = sorted(name for name, imports in own.items() if imports.needs_mltune)
    if guilty:
        problem = f"needs module '{guilty[0]}', which imports mltune"
    elif any(name.partition(".")[0] == "mltune" for name in modules):
        problem = "holds an object of mltune's"
    else:
        return
    warnings.warn(
        f"the model will not load where mltune is not installed, for it {problem}: "
        f"move the model's class into a file of its own, without mltune",
        stacklevel=2,
    )


def _pins(top: str) -> list[str]:
    """Return exact requirements for a top-level module, one per distribution, without local versions (``+cpu``)."""
    names = set(_distributions().get(top, ())) if top != "mltune" else set()
    names = {name for name in names if name.lower() == top} or names  # mlflow without mlflow-skinny
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in names]


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(importlib.metadata.packages_distributions())
