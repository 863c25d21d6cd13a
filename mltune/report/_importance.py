"""Convert a study to Optuna's format, and compute the importance of its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from mltune._util.scoped import quiet
from mltune.space.categorical import Categorical
from mltune.space.ranges import Float, Int
from mltune.trial import FrozenTrial, TrialState, is_finite

if TYPE_CHECKING:
    from mltune.goal import Goal
    from mltune.space import SearchSpace, Value
    from mltune.space.parameter import Parameter

_STATES = {
    TrialState.COMPLETE: optuna.trial.TrialState.COMPLETE,
    TrialState.PRUNED: optuna.trial.TrialState.PRUNED,
    TrialState.FAILED: optuna.trial.TrialState.FAIL,
}


def as_optuna(trials: Sequence[FrozenTrial], space: SearchSpace, goal: Goal) -> optuna.Study:
    """Return an in-memory Optuna study of the finished trials; categorical values become strings."""
    with quiet("optuna"):
        study = optuna.create_study(direction=goal.direction.value, storage=optuna.storages.InMemoryStorage())
    distributions = {name: _distribution(parameter) for name, parameter in space.items()}
    study.add_trials([_trial(trial, space, distributions) for trial in trials if trial.state in _STATES])
    return study


def importances(trials: Sequence[FrozenTrial], space: SearchSpace, goal: Goal) -> dict[str, float]:
    """Return how much each parameter decides whether a trial is among the best.

    The method is PED-ANOVA (Watanabe et al., IJCAI 2023), as Optuna computes it.

    Returns:
        Importances from 0 to 1 by parameter, in descending order, with a sum of 1; empty if too few trials completed
        or all values are the same.
    """
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE and is_finite(trial.value)]
    if len({trial.value for trial in complete}) < 2:
        return {}
    study = as_optuna(complete, space, goal)
    with quiet("optuna"):
        try:
            return optuna.importance.get_param_importances(study)
        except (ValueError, RuntimeError):  # for example, each parameter has a single value
            return {}


def readable(parameter: Parameter, value: Value) -> Value:
    """Return a value as charts show it: choices as strings, because Optuna treats ``1`` and ``True`` as one choice."""
    return str(value) if isinstance(parameter, Categorical) else value


def _distribution(parameter: Parameter) -> BaseDistribution:
    match parameter:
        case Categorical(choices=choices):
            return CategoricalDistribution(list(dict.fromkeys(map(str, choices))))
        case Int(low=low, high=high, log=log):
            return IntDistribution(low, high, log=log)
        case Float(low=low, high=high, log=log):
            return FloatDistribution(low, high, log=log)
    raise TypeError(parameter)


def _trial(
    trial: FrozenTrial, space: SearchSpace, distributions: dict[str, BaseDistribution]
) -> optuna.trial.FrozenTrial:
    names = [name for name in trial.params if name in space]
    return optuna.trial.create_trial(
        state=_STATES[trial.state],
        value=trial.value if trial.state is TrialState.COMPLETE else None,
        params={name: readable(space[name], trial.params[name]) for name in names},
        distributions={name: distributions[name] for name in names},
    )
