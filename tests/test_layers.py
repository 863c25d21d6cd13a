"""Imports go down only; each foreign library has its one place."""

from __future__ import annotations

import sys
from graphlib import TopologicalSorter

import pytest

from tests.import_graph import FILES, FLOORS, PAGE, SIBLINGS, import_graph, imports, longest_chain, room, with_figure

LONGEST = 11
"""Modules in the longest chain of imports."""

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
ORDER = [room for floor in sorted(FLOORS) for room in FLOORS[floor]]
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}


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
    TopologicalSorter(import_graph(annotations=True)).prepare()


def test_no_chain_of_imports_is_longer_than_today() -> None:
    chain = longest_chain(import_graph(annotations=False))
    assert len(chain) <= LONGEST, " -> ".join(chain)


def test_the_figure_in_contributing_is_up_to_date() -> None:
    page = PAGE.read_text()
    assert page == with_figure(page), "run `make graph`"


@pytest.mark.parametrize("library", sorted(FOREIGN))
def test_a_foreign_library_stays_in_its_place(library: str) -> None:
    users = {file for file in FILES if any(name.split(".")[0] == library for name in imports(file))}
    assert users
    assert {file for file in users if not file.startswith(FOREIGN[library])} == set()


def test_what_import_mltune_loads_needs_the_standard_library_only() -> None:
    for file in FILES:
        if file in ("errors.py", "params.py", "trial.py") or file.startswith("space/"):
            assert {name.split(".")[0] for name in imports(file)} <= {*sys.stdlib_module_names, "mltune"}
