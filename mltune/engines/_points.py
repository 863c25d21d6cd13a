"""Points that mltune enumerates itself, identically for every engine: grid, random, qmc and manual."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from mltune.search import FINITE, AlgorithmInfo, SearchProblem, ask_seed

if TYPE_CHECKING:
    from mltune.params import Params

ENUMERATED: Mapping[str, AlgorithmInfo] = MappingProxyType(
    {
        "grid": AlgorithmInfo(),
        "manual": AlgorithmInfo(),
        "qmc": AlgorithmInfo(
            packages=("scipy",), note="qmc draws each conditional parameter independently of the others"
        ),
        "random": AlgorithmInfo(),
    }
)


class Points(Protocol):
    """A fixed sequence of points; the same index always gives the same point."""

    def __getitem__(self, index: int, /) -> Params: ...


class _Random:
    def __init__(self, search: SearchProblem) -> None:
        self._search = search

    def __getitem__(self, index: int) -> Params:
        return self._search.space.sample(random.Random(ask_seed(self._search.seed, index)))


class _Sobol:
    """Scrambled Sobol' points (Owen 1998, as in SciPy), with one dimension per parameter."""

    _BLOCK = 256

    def __init__(self, search: SearchProblem) -> None:
        from scipy.stats.qmc import Sobol

        self._space = search.space
        self._sobol = Sobol(len(search.space), scramble=True, rng=search.seed)
        self._drawn: list[Sequence[float]] = []

    def __getitem__(self, index: int) -> Params:
        while index >= len(self._drawn):
            self._drawn.extend(self._sobol.random(self._BLOCK).tolist())
        return self._space.from_unit(self._drawn[index])


def enumerate_points(search: SearchProblem) -> Points | None:
    """Return the points of an enumerated algorithm after the ``initial_points``, or None for the engine's algorithms.

    Raises:
        SpaceError: The algorithm is grid, and a parameter's values cannot be listed or the points are too many.
    """
    match search.algorithm.name:
        case "grid":
            return _grid_without_initial(search)
        case "manual":
            return []
        case "qmc":
            return _Sobol(search)
        case "random":
            return _Random(search)
    return None


def count_points(search: SearchProblem) -> int | None:
    """Return the number of points, including ``initial_points``, or None if it is unlimited."""
    return count_all(search, enumerate_points(search) if search.algorithm.name in FINITE else None)


def count_all(search: SearchProblem, points: Points | None) -> int | None:
    """Return the number of ``points`` and ``initial_points`` together, or None if it is unlimited."""
    return len(search.initial_points) + len(points) if isinstance(points, list) else None


def _grid_without_initial(search: SearchProblem) -> list[Params]:
    if not search.initial_points:
        return list(search.space.grid())
    taken = {_key(point) for point in search.initial_points}
    return [point for point in search.space.grid() if _key(point) not in taken]


def _key(point: Params) -> frozenset[tuple[str, type, object]]:
    return frozenset((name, type(value), value) for name, value in point.items())
