"""Imports go down only; each foreign library has its one place."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "mltune"

FLOORS: dict[int, tuple[str, ...]] = {
    7: ("cli", "__main__", "__init__"),
    6: ("terminal", "api", "testing"),
    5: ("driver",),
    4: ("study", "studies", "report"),
    3: ("worker", "execution", "engines", "tracking"),
    2: (
        "params",
        "space",
        "trial",
        "goal",
        "objective",
        "messages",
        "search",
        "former",
        "config",
        "text",
        "retry",
        "plugins",
    ),
    1: ("_util", "errors"),
}
"""The rooms by floor; within a floor, each may import only those before it, and on floor 3 only as below."""

SIBLINGS = {"execution": {"worker"}}
"""Who imports whom on floor 3."""

FOREIGN = {
    "mlflow": ("tracking/", "worker/", "driver/", "report/", "study.py", "studies.py", "retry.py"),
    "optuna": ("engines/optuna.py", "engines/_optuna", "report/"),
    "plotly": ("report/",),
    "matplotlib": ("report/",),
    "ray": ("execution/ray/",),
    "pytest": ("testing/",),
    "rich": ("terminal/", "cli.py"),
    "typer": ("cli.py",),
}
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))
ORDER = [room for floor in sorted(FLOORS) for room in FLOORS[floor]]
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}


def imports(file: str) -> Iterator[str]:
    """The modules that a file imports, those in functions and under TYPE_CHECKING included."""
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def may_import(here: str, there: str) -> bool:
    if here == there:
        return True
    if FLOOR_OF[here] == FLOOR_OF[there] == 3:
        return there in SIBLINGS.get(here, ())
    return ORDER.index(there) < ORDER.index(here)


def test_every_room_is_on_a_floor() -> None:
    assert {room(file) for file in FILES} == set(ORDER)


@pytest.mark.parametrize("file", FILES)
def test_imports_go_down_only(file: str) -> None:
    here = room(file)
    rooms = {name: name.split(".")[1] for name in imports(file) if name.startswith("mltune.")}
    wrong = [name for name, there in rooms.items() if not may_import(here, there if there in FLOOR_OF else "__init__")]
    assert wrong == []


@pytest.mark.parametrize("file", FILES)
def test_private_modules_and_names_stay_in_their_room(file: str) -> None:
    here = room(file)
    for name in imports(file):
        there, *rest = name.split(".")[1:] if name.startswith("mltune.") else [here]
        assert there == here or not any(part.startswith("_") for part in rest), f"{file} imports {name}"


def test_no_circles() -> None:
    modules = {file.removesuffix(".py").removesuffix("/__init__").replace("/", "."): file for file in FILES}

    def module_of(name: str) -> str | None:
        parts = name.split(".")[1:]
        return next((key for n in range(len(parts), 0, -1) if (key := ".".join(parts[:n])) in modules), None)

    graph = {
        module: {found for name in imports(file) if name.startswith("mltune.") and (found := module_of(name)) != module}
        for module, file in modules.items()
        if module != "__init__"
    }
    TopologicalSorter({module: {str(each) for each in others} for module, others in graph.items()}).prepare()


@pytest.mark.parametrize("library", sorted(FOREIGN))
def test_a_foreign_library_stays_in_its_place(library: str) -> None:
    users = {file for file in FILES if any(name.split(".")[0] == library for name in imports(file))}
    assert users
    assert {file for file in users if not file.startswith(FOREIGN[library])} == set()


def test_what_import_mltune_loads_needs_the_standard_library_only() -> None:
    for file in FILES:
        if file in ("errors.py", "params.py", "trial.py") or file.startswith("space/"):
            assert {name.split(".")[0] for name in imports(file)} <= {*sys.stdlib_module_names, "mltune"}
