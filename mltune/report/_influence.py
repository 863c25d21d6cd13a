"""Find the parameters on which the metric does not depend, as far as the trials show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mltune.space import Params, SearchSpace
    from mltune.trial import FrozenTrial

_PER_DIMENSION = 10  # minimum number of complete trials per parameter
_FEWEST = 30  # minimum number of complete trials
_MOST = 500  # trials in the sample; more add no information
_ROUNDS = 5
_TREES = 50
_SHARE = 0.06  # of the total importance; a parameter with at least this share has influence


def without_influence(complete: Sequence[FrozenTrial], space: SearchSpace) -> list[str]:
    """Return the parameters that are no more important to a forest than shuffled copies of them.

    The idea is Boruta's (Kursa and Rudnicki, Journal of Statistical Software 36(11), 2010): a copy of a parameter with
    its values shuffled among the trials is known to have no influence. The forest sees ranks instead of values.

    Args:
        complete: COMPLETE trials, the best first.
        space: The search space.
    """
    names = [name for name, parameter in space.items() if parameter.n_values != 1]
    if len(names) < 2 or len(complete) < max(_FEWEST, _PER_DIMENSION * len(names)):
        return []
    from scipy.stats import rankdata  # the import takes a second

    rng = np.random.default_rng(0)
    chosen = np.sort(rng.choice(len(complete), min(_MOST, len(complete)), replace=False))
    values = [[_unit_of(space, complete[i].params, name) for name in names] for i in chosen]
    X = rankdata(values, axis=0)  # ranks, because the forest computes in single precision
    real, shuffled = _importances(X, np.arange(len(chosen)), rng)
    share = real / max(real.sum(), 1e-12)
    return [name for i, name in enumerate(names) if real[i] <= shuffled[i] and share[i] < _SHARE]


def _importances(
    X: NDArray[np.float64], ranks: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean importance of each column, and that of its shuffled copies."""
    from sklearn.ensemble import ExtraTreesRegressor

    columns = X.shape[1]
    rounds = []
    for seed in range(_ROUNDS):
        both = np.hstack([X, rng.permuted(X, axis=0)])
        forest = ExtraTreesRegressor(_TREES, min_samples_leaf=3, max_features=None, random_state=seed)
        rounds.append(forest.fit(both, ranks).feature_importances_)
    mean = np.mean(rounds, axis=0)
    return mean[:columns], mean[columns:]


def _unit_of(space: SearchSpace, params: Params, name: str) -> float:
    """Return where in its range a parameter's value is, or -1 if the parameter is inactive."""
    return space[name].to_unit(params[name]) if name in params else -1.0
