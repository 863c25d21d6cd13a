"""What an engine is asked for, and what it says it offers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mltune.space import Params, SearchSpace
from mltune.trial import Direction


@dataclass(frozen=True)
class Spec:
    """An algorithm or a scheduler by name, with its options."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        given = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.name}({given})" if given else self.name


@dataclass(frozen=True)
class Method:
    """What an engine says of an algorithm or a scheduler that it offers.

    Attributes:
        options: Name to the types that are accepted.
        packages: What must be importable.
        note: Said at the start of a study with conditional parameters.
    """

    options: Mapping[str, tuple[type, ...]] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Search:
    """All that an engine needs to know of a study."""

    space: SearchSpace
    direction: Direction
    seed: int
    algorithm: Spec
    scheduler: Spec = field(default_factory=lambda: Spec("none"))
    initial: tuple[Params, ...] = ()


def ask_seed(seed: int, number: int) -> int:
    """The seed of the proposal of one trial, below 2**32; independent of :func:`trial_seed`.

    Spawned from NumPy's ``SeedSequence``, so that neighbouring seeds and numbers are unrelated.
    """
    return _spawn(seed, number, 0)


def trial_seed(seed: int, number: int) -> int:
    """The seed that the objective of one trial gets, below 2**31.

    It differs from the proposal's: with a shared seed the first random number of the user's code would
    equal the one that chose the first parameter.
    """
    return _spawn(seed, number, 1) >> 1


def _spawn(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
