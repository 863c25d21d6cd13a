"""Imports go down only; each foreign library has its one place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "mltune"

FLOORS: dict[str, int] = {
    "environment": 0,
    "errors": 0,
    "secrets": 0,
    "parameters": 1,
    "space": 1,
    "trial": 1,
    "tracking": 2,
    "execution": 2,
    "engines": 2,
    "attempts": 3,
    "config": 3,
    "display": 3,
    "driver": 3,
    "plan": 3,
    "progress": 3,
    "reasons": 3,
    "report": 3,
    "result": 3,
    "resumption": 3,
    "session": 3,
    "signals": 3,
    "study": 3,
    "study_page": 3,
    "tables": 4,
    "__init__": 5,
    "__main__": 5,
    "cli": 5,
    "testing": 5,
}
SAME_FLOOR = {"engines": {"execution"}, "execution": {"tracking"}, "tracking": set[str]()}
OWNERS = {
    "mlflow": ("tracking/", "report/", "result.py", "session.py"),
    "optuna": ("engines/optuna.py", "engines/_optuna", "report/"),
    "plotly": ("report/",),
    "matplotlib": ("report/",),
    "ray": ("engines/ray.py", "engines/_ray"),
    "pytest": ("testing/",),
}
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))


def imports(file: str) -> Iterator[str]:
    """The modules that a file imports, those in functions and under TYPE_CHECKING included."""
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


@pytest.mark.parametrize("file", FILES)
def test_imports_go_down_only(file: str) -> None:
    here = room(file)
    for name in imports(file):
        if not name.startswith("mltune."):
            continue
        there = name.split(".")[1]
        there = there if there in FLOORS else "__init__"
        if here == there or (here in ("display", "tables") and there in ("study", "config")):  # types only
            continue
        low_enough = FLOORS[there] < FLOORS[here] or (FLOORS[there] == FLOORS[here] != 2)
        assert low_enough or there in SAME_FLOOR.get(here, ()), f"{file} imports {name}"


@pytest.mark.parametrize("library", sorted(OWNERS))
def test_a_foreign_library_stays_in_its_place(library: str) -> None:
    users = {file for file in FILES if any(name.split(".")[0] == library for name in imports(file))}
    assert users
    assert {file for file in users if not file.startswith(OWNERS[library])} == set()


def test_floor_one_needs_the_standard_library_only() -> None:
    import sys

    for file in ("environment.py", "errors.py", "parameters.py", "space.py", "trial.py"):
        assert {name.split(".")[0] for name in imports(file)} <= {*sys.stdlib_module_names, "mltune"}
