"""What a study asks of an engine, and what an engine offers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mltune.goal import Goal
    from mltune.space import Params, SearchSpace
    from mltune.trial import Direction

FINITE = frozenset({"grid", "manual"})
"""The algorithms with a fixed number of points."""


@dataclass(frozen=True)
class Spec:
    """An algorithm or a scheduler by name, with its options."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        given = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.name}({given})" if given else self.name


@dataclass(frozen=True)
class Option:
    """An option of an algorithm or a scheduler.

    Attributes:
        type: ``bool``, ``int``, ``float`` (whole numbers too) or ``str``.
        default: The value if the option is not given.
        low: The smallest accepted number, or None for no limit.
    """

    type: type[bool] | type[int] | type[float] | type[str]
    default: Any
    low: float | None = None

    def accepts(self, value: object) -> bool:
        """Return whether the option accepts a value.

        >>> Option(int, 10, low=1).accepts(0)
        False
        """
        if isinstance(value, bool) and self.type is not bool:
            return False
        types = (int, float) if self.type is float else (self.type,)
        return isinstance(value, types) and (self.low is None or value >= self.low)  # type: ignore[operator]

    def __str__(self) -> str:
        least = "" if self.low is None else f" of at least {self.low}"
        return f"{'an' if self.type is int else 'a'} {self.type.__name__}{least}"


@dataclass(frozen=True)
class AlgorithmInfo:
    """An algorithm or a scheduler that an engine offers.

    Attributes:
        options: The options that it takes, by name.
        packages: Packages that must be importable.
        note: A note for the user, shown when a study with conditional parameters starts.
    """

    options: Mapping[str, Option] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    note: str = ""

    def complete(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the given options, with defaults for all others."""
        return {name: option.default for name, option in self.options.items()} | dict(options)


@dataclass(frozen=True, kw_only=True)
class SearchProblem:
    """What an engine needs to know about a study."""

    space: SearchSpace
    goal: Goal
    seed: int
    algorithm: Spec
    scheduler: Spec = field(default_factory=lambda: Spec("none"))
    initial_points: tuple[Params, ...] = ()

    @property
    def direction(self) -> Direction:
        """Whether smaller or larger values are better; ``goal.better`` compares two."""
        return self.goal.direction

    @property
    def initial(self) -> tuple[Params, ...]:
        """Return :attr:`initial_points`; their name in the first release, which plugins use."""
        return self.initial_points


@dataclass(frozen=True)
class Observation:
    """A point that was evaluated elsewhere, such as in another study, and the value that it had."""

    params: Params
    value: float


def ask_seed(seed: int, number: int) -> int:
    """Return the seed of one trial's proposal, below 2**32; independent of :func:`trial_seed`.

    It is spawned from NumPy's ``SeedSequence``, so that neighbouring seeds and numbers give unrelated results.
    """
    return _spawn(seed, number, 0)


def trial_seed(seed: int, number: int) -> int:
    """Return the seed of one trial's objective, below 2**31.

    It differs from the proposal's seed: with a shared seed, the first random number of the user's code would equal the
    one that chose the first parameter.
    """
    return _spawn(seed, number, 1) >> 1


def _spawn(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
