"""The import graph of mltune, and its floors; ``python -m tests.import_graph`` draws it in ``CONTRIBUTING.md``."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1] / "mltune"
PAGE = ROOT.parent / "CONTRIBUTING.md"
BEGIN, END = "<!-- drawn by `make graph` -->\n", "<!-- end -->\n"

FLOORS: Mapping[int, tuple[str, ...]] = {
    7: ("cli", "__main__", "__init__"),
    6: ("terminal", "api", "testing"),
    5: ("driver",),
    4: ("study", "studies", "report"),
    3: ("worker", "execution", "engines", "tracking"),
    2: (
        *("params", "space", "trial", "goal", "objective", "messages"),
        *("search", "former", "config", "text", "retry", "plugins"),
    ),
    1: ("_util", "errors"),
}
"""The rooms by floor; within a floor, each may import only those before it, and on floor 3 only as below."""

SIBLINGS = {"execution": {"worker"}}
"""Who imports whom on floor 3."""

FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))
MODULES = {file.removesuffix(".py").removesuffix("/__init__").replace("/", "."): file for file in FILES}

Graph = dict[str, set[str]]


def imports(file: str, *, annotations: bool = True) -> Iterator[str]:
    """Yield the names that a file imports, also in functions; those under TYPE_CHECKING only with ``annotations``."""
    for node in _nodes(ast.parse((ROOT / file).read_text()), annotations):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _nodes(node: ast.AST, annotations: bool) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if annotations or not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from _nodes(child, annotations)


def room(module: str) -> str:
    """Return the room of a module or file: the first part of its name."""
    return module.replace("/", ".").removesuffix(".py").split(".")[0]


def import_graph(*, annotations: bool) -> Graph:
    """Return which modules each module imports; the package's own ``__init__`` is left out, for it loads names late."""
    return {
        module: {found for name in imports(file, annotations=annotations) if (found := _module_of(name)) is not None}
        - {module}
        for module, file in MODULES.items()
        if module != "__init__"
    }


def _module_of(name: str) -> str | None:
    package, *parts = name.split(".")
    names = [".".join(parts[:n]) for n in range(len(parts), 0, -1)] if package == "mltune" else []
    return next((each for each in names if each in MODULES), None)


def longest_chain(graph: Graph) -> list[str]:
    """Return the longest chain of imports, of equal ones the first by name."""
    longest: dict[str, list[str]] = {}
    for module in TopologicalSorter(graph).static_order():
        below = (longest[each] for each in sorted(graph[module]))
        longest[module] = [module, *max(below, key=len, default=[])]
    return max((longest[module] for module in sorted(longest)), key=len)


def room_graph(graph: Graph) -> Graph:
    """Return which rooms each room imports, without the arrows that follow from others."""
    rooms: Graph = {room(module): set() for module in graph}
    for module, others in graph.items():
        rooms[room(module)] |= {room(other) for other in others} - {room(module)}

    @cache
    def below(start: str) -> frozenset[str]:
        return frozenset(rooms[start]).union(*(below(each) for each in rooms[start]))

    return {
        start: {end for end in ends if not any(end in below(each) for each in ends)} for start, ends in rooms.items()
    }


def figure() -> str:
    """Return the graph as markdown: a sentence, and a Mermaid flowchart of the rooms by floor."""
    graph = import_graph(annotations=False)
    chain = longest_chain(graph)
    arrows = sum(map(len, graph.values()))
    sentence = (
        f"{len(graph)} modules and {arrows} arrows, not counting imports for annotations alone. The longest chain has "
        f"{len(chain)} modules: {' → '.join(f'`{module}`' for module in chain)}. Between rooms, an arrow that follows "
        f"from others is not drawn."
    )
    lines = ["```mermaid", "flowchart TB"]
    rooms = room_graph(graph)
    for floor, names in FLOORS.items():
        lines.append(f'    subgraph floor{floor}["{floor}"]')
        lines += [f'        {_node(name)}["{name}"]' for name in names if name in rooms]
        lines.append("    end")
    for start in (name for names in FLOORS.values() for name in names if name in rooms):
        if rooms[start]:
            lines.append(f"    {_node(start)} --> {' & '.join(map(_node, sorted(rooms[start])))}")
    return "\n".join([*textwrap.wrap(sentence, 120), "", *lines, "```", ""])


def _node(name: str) -> str:
    return name.strip("_")


def with_figure(page: str) -> str:
    """Return a page with the figure between its marks."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}{figure()}{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(with_figure(PAGE.read_text()))
