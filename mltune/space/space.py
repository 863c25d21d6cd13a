"""The search space: the parameters, their ranges and their conditions.

Every range includes both ends, with every engine.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from graphlib import CycleError, TopologicalSorter
from typing import Any

from mltune.errors import SpaceError, nearest
from mltune.params import NAME_RULE, Params, Value, identical, is_name
from mltune.space.categorical import Categorical
from mltune.space.parameter import Parameter
from mltune.space.ranges import Float, Int

_MAX_GRID = 100_000

_KINDS: Mapping[str, type[Float] | type[Int] | type[Categorical]] = {
    "categorical": Categorical,
    "float": Float,
    "int": Int,
}


class SearchSpace(Mapping[str, Parameter]):
    """A mapping from names to parameters; parents come before the parameters that depend on them.

    Args:
        parameters: By name, a :class:`Float`, :class:`Int` or :class:`Categorical`, or the same as plain data from a
            study file: ``{"type": "int", "low": 1, "high": 8}``.

    Raises:
        SpaceError: The space is invalid; the error lists all faults, each with the parameter's name.

    >>> space = SearchSpace({"solver": Categorical(["adam", "sgd"]),
    ...                      "momentum": Float(0.0, 0.9, when={"solver": ["sgd"]})})
    >>> space.faults({"solver": "adam"})
    []
    """

    def __init__(self, parameters: Mapping[str, Parameter | Mapping[str, Any]]) -> None:
        if not isinstance(parameters, Mapping):
            raise SpaceError(f"the space must map names to parameters, but got {parameters!r}")
        faults: list[str] = [] if parameters else ["the space must hold at least one parameter, but it is empty"]
        built: dict[str, Parameter] = {}
        for name, given in parameters.items():
            faults += [] if is_name(name) else [f"a parameter's name must be {NAME_RULE}, but got {name!r}"]
            try:
                built[str(name)] = given if isinstance(given, Parameter) else _from_dict(given)
            except SpaceError as error:
                faults += [f"space.{name}: {fault}" for fault in error.faults]
        faults += [f for name in built for f in _when_faults(name, built, set(map(str, parameters)))]
        order, cycle = _order(built)
        if faults + cycle:
            raise SpaceError(faults + cycle)
        self._parameters = {name: built[name] for name in order}

    def __getitem__(self, name: str) -> Parameter:
        return self._parameters[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)

    def __repr__(self) -> str:
        return f"SearchSpace({self._parameters!r})"

    @property
    def conditional(self) -> tuple[str, ...]:
        """The names of the conditional parameters."""
        return tuple(name for name, parameter in self.items() if parameter.when)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return plain data that :class:`SearchSpace` accepts."""
        return {name: parameter.to_dict() for name, parameter in self.items()}

    def active(self, name: str, params: Params) -> bool:
        """Return whether the parameter is active, given its parents' values in ``params``."""
        when = self[name].when or {}
        return all(
            parent in params and any(identical(params[parent], value) for value in allowed)
            for parent, allowed in when.items()
        )

    def from_unit(self, fractions: Sequence[float]) -> dict[str, Value]:
        """Return the point at the given fraction of each parameter's range, without inactive parameters.

        Args:
            fractions: One per parameter in the order of the space, each from 0 to 1.
        """
        point: dict[str, Value] = {}
        for (name, parameter), u in zip(self.items(), fractions, strict=True):
            if self.active(name, point):
                point[name] = parameter.from_unit(u)
        return point

    def at(self, fractions: Sequence[float]) -> dict[str, Value]:
        """Return :meth:`from_unit`; its name in the first release, which plugins use."""
        return self.from_unit(fractions)

    def sample(self, rng: random.Random) -> dict[str, Value]:
        """Draw a random point."""
        return self.from_unit([rng.random() for _ in self])

    def coerce(self, point: Params) -> dict[str, Value]:
        """Return the point in the order of the space, with its values coerced, such as ``1`` to ``1.0`` for a Float."""
        coerced = {name: self[name].coerce(point[name]) for name in self if name in point}
        return coerced | {name: value for name, value in point.items() if name not in coerced}

    def faults(self, point: Params) -> list[str]:
        """Return the faults of a point, one sentence each: unknown, missing, inactive and invalid values."""
        faults = [f"'{name}' is not in the space; {nearest(name, self)}" for name in point if name not in self]
        for name, parameter in self.items():
            if not self.active(name, point):
                if name in point:
                    faults.append(f"'{name}' is given, but exists only when {_format_when(parameter)}")
            elif name not in point:
                faults.append(f"'{name}' is missing; it must be {parameter.format()}")
            elif not parameter.contains(point[name]):
                faults.append(f"'{name}' must be {parameter.format()}, but got {point[name]!r}")
        return faults

    def grid(self) -> list[dict[str, Value]]:
        """Return every point once; the last parameter changes fastest.

        Raises:
            SpaceError: A parameter's values cannot be listed, or there are too many points.
        """
        continuous = [name for name, parameter in self.items() if parameter.n_values is None]
        if continuous:
            raise SpaceError(
                [
                    f"`grid` needs a Categorical, Int or Float with `step`, but '{name}' is {self[name].format()}: "
                    f"give it a `step` or choose another algorithm"
                    for name in continuous
                ]
            )
        points: list[dict[str, Value]] = [{}]
        for name, parameter in self.items():
            active = sum(self.active(name, point) for point in points)
            if len(points) + active * ((parameter.n_values or 1) - 1) > _MAX_GRID:
                raise SpaceError(f"the grid must have at most {_MAX_GRID:,} points, but with '{name}' it has more")
            values = parameter.grid() or []
            points = list(itertools.chain.from_iterable(self._extend(point, name, values) for point in points))
        return points

    def _extend(self, point: dict[str, Value], name: str, values: list[Value]) -> list[dict[str, Value]]:
        return [point | {name: value} for value in values] if self.active(name, point) else [point]


def _from_dict(given: Any) -> Parameter:
    if not isinstance(given, Mapping):
        raise SpaceError(f"must be a mapping such as {{type: float, low: 0, high: 1}}, but got {given!r}")
    kind = str(given.get("type"))
    if kind not in _KINDS:
        got = "it is missing" if "type" not in given else f"got {kind!r}; {nearest(kind, _KINDS)}"
        raise SpaceError(f"`type` must be one of {', '.join(_KINDS)}, but {got}")
    cls = _KINDS[kind]
    known = [f.name for f in fields(cls)]
    required = ["choices"] if cls is Categorical else ["low", "high"]
    arguments = {str(key): value for key, value in given.items() if key != "type"}
    faults = [f"unknown key '{key}'; {nearest(key, known)}" for key in arguments if key not in known]
    faults += [f"`{key}` is missing" for key in required if key not in arguments]
    if all(key in arguments for key in required):
        try:
            parameter = cls(**{key: value for key, value in arguments.items() if key in known})
        except SpaceError as error:
            faults += error.faults
    if faults:
        raise SpaceError(faults)
    return parameter


def _when_faults(name: str, parameters: Mapping[str, Parameter], given: set[str]) -> list[str]:
    faults = []
    for parent, allowed in (parameters[name].when or {}).items():
        if parent not in given:
            faults.append(f"space.{name}: `when` names '{parent}', which is not in the space; {nearest(parent, given)}")
        elif parent in parameters:
            impossible = [v for v in allowed if not parameters[parent].contains(v)]
            faults += [
                f"space.{name}: `when.{parent}` must hold values of '{parent}' "
                f"({parameters[parent].format()}), but got {value!r}"
                for value in impossible
            ]
    return faults


def _order(parameters: Mapping[str, Parameter]) -> tuple[list[str], list[str]]:
    """Return the names, parents first and otherwise in the given order, and the fault if there is a cycle."""
    graph = {name: [p for p in parameter.when or {} if p in parameters] for name, parameter in parameters.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [], [f"`when` must not form a cycle, but got {' -> '.join(reversed(error.args[1]))}"]
    order: list[str] = []

    def visit(name: str) -> None:
        if name not in order:
            for parent in graph[name]:
                visit(parent)
            order.append(name)

    for name in parameters:
        visit(name)
    return order, []


def _format_when(parameter: Parameter) -> str:
    return " and ".join(f"{parent} is one of {list(allowed)}" for parent, allowed in (parameter.when or {}).items())
