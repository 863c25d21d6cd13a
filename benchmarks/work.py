"""What the trials of the benchmarks compute, the same for mltune and its peers."""

from __future__ import annotations

import os
import time
from functools import cache
from typing import Any

from sklearn.datasets import make_classification
from sklearn.linear_model import SGDClassifier

SPACE = {"alpha": (1e-6, 1e-1), "eta0": (1e-3, 1e-1)}
"""Bounds, searched logarithmically."""

EPOCHS = {5: 30, 100: 1_300}
"""How often a fit sees its data, by how many milliseconds that takes, about."""

STAMPS = "BENCHMARK_STAMPS"
"""The variable that names the file where trials say when they began."""


@cache
def _data() -> tuple[Any, Any]:
    features, target = make_classification(1_000, 20, n_informative=10, random_state=0)
    return features, target


def example() -> Any:
    """Five rows."""
    return _data()[0][:5]


def fit(params: dict[str, Any], milliseconds: int) -> tuple[Any, float]:
    """A fitted classifier and its accuracy."""
    stamp()
    features, target = _data()
    model = SGDClassifier(
        alpha=params["alpha"],
        eta0=params["eta0"],
        learning_rate="constant",
        max_iter=EPOCHS[milliseconds],
        tol=None,
        random_state=0,
    )
    model.fit(features, target)
    return model, float(model.score(features, target))


def spin(seconds: float) -> float:
    """Use a core for so many seconds of CPU time."""
    stamp()
    until = time.thread_time() + seconds
    total = 0.0
    while time.thread_time() < until:
        for i in range(1_000):
            total += i * 1e-9
    return total


def stamp() -> None:
    """Say that a trial begins now."""
    with open(os.environ[STAMPS], "a") as file:
        file.write(f"{time.monotonic()}\n")


def stamps() -> list[float]:
    """When the trials so far began, in seconds."""
    with open(os.environ[STAMPS]) as file:
        return sorted(map(float, file))
