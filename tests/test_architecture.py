"""`docs/architecture.md` names files and functions that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STOP = re.compile(r"^\d\. `([\w/.]+)`, `([\w.]+)`", re.MULTILINE)
TEXT = (ROOT / "docs" / "architecture.md").read_text()


def names(file: Path) -> set[str]:
    """Functions, classes and methods of a file, methods as ``Class.method``."""
    found: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return found


@pytest.mark.parametrize(("file", "name"), sorted(set(STOP.findall(TEXT))))
def test_each_stop_is_there(file: str, name: str) -> None:
    assert name in names(ROOT / "mltune" / file)


def test_no_walk_has_more_than_eight_stops() -> None:
    walks = TEXT.split("\n## ")[1:]
    assert [len(STOP.findall(walk)) for walk in walks] == [8, 6, 7, 6, 5]
    assert all(len(STOP.findall(walk)) == len(re.findall(r"^\d\. ", walk, re.MULTILINE)) for walk in walks)
