"""Parameters that the metric does not depend on, as far as the trials can tell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mltune.space import SearchSpace, Value
from mltune.space.parameters import Categorical, Parameter
from mltune.trial import FrozenTrial

_PER_DIMENSION = 10  # complete trials for each parameter, below which nothing can be said
_FEWEST = 30
_MOST = 500  # trials looked at; more do not say more
_ROUNDS = 5
_TREES = 50
_SHARE = 0.06  # of the importance


def without_influence(complete: Sequence[FrozenTrial], space: SearchSpace) -> list[str]:
    """The parameters that a forest finds no more use for than for shuffled copies of them.

    The idea is Boruta's (Kursa and Rudnicki, Journal of Statistical Software 36(11), 2010): a copy of a parameter with
    its values shuffled among the trials is known to have no influence. Values count by their rank.

    Args:
        complete: COMPLETE trials, the best first.
        space: What was searched.
    """
    names = [name for name, parameter in space.items() if parameter.count != 1]
    if len(names) < 2 or len(complete) < max(_FEWEST, _PER_DIMENSION * len(names)):
        return []
    from scipy.stats import rankdata  # takes a second to load

    rng = np.random.default_rng(0)
    chosen = np.sort(rng.choice(len(complete), min(_MOST, len(complete)), replace=False))
    values = [[_number(space[name], complete[i].params.get(name)) for name in names] for i in chosen]
    X = rankdata(values, axis=0)  # the forest computes in single precision
    real, shuffled = _importances(X, np.arange(len(chosen)), rng)
    share = real / max(real.sum(), 1e-12)
    return [name for i, name in enumerate(names) if real[i] <= shuffled[i] and share[i] < _SHARE]


def _importances(
    X: NDArray[np.float64], ranks: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean importance of each column, and of its shuffled copies."""
    from sklearn.ensemble import ExtraTreesRegressor

    columns = X.shape[1]
    rounds = []
    for seed in range(_ROUNDS):
        both = np.hstack([X, rng.permuted(X, axis=0)])
        forest = ExtraTreesRegressor(_TREES, min_samples_leaf=3, max_features=None, random_state=seed)
        rounds.append(forest.fit(both, ranks).feature_importances_)
    mean = np.mean(rounds, axis=0)
    return mean[:columns], mean[columns:]


def _number(parameter: Parameter, value: Value | None) -> float:
    """A value as a number; choices by their place, and before them all where the parameter is inactive."""
    if value is None:
        return -1.0
    if isinstance(parameter, Categorical):
        return float(parameter.index(value))
    return float(value)
