"""A study as Optuna's analyses take it, and which parameters matter."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from mltune._util.scoped import quiet
from mltune.space import SearchSpace, Value
from mltune.space.parameters import Categorical, Float, Int, Parameter
from mltune.trial import Direction, FrozenTrial, TrialState, is_finite

_STATES = {
    TrialState.COMPLETE: optuna.trial.TrialState.COMPLETE,
    TrialState.PRUNED: optuna.trial.TrialState.PRUNED,
    TrialState.FAILED: optuna.trial.TrialState.FAIL,
}


def as_optuna(trials: Sequence[FrozenTrial], space: SearchSpace, direction: Direction) -> optuna.Study:
    """A study in memory, with values as people read them; trials without a final state are left out."""
    with quiet("optuna"):
        study = optuna.create_study(direction=direction.value, storage=optuna.storages.InMemoryStorage())
    distributions = {name: _distribution(parameter) for name, parameter in space.items()}
    study.add_trials([_trial(trial, space, distributions) for trial in trials if trial.state in _STATES])
    return study


def importances(trials: Sequence[FrozenTrial], space: SearchSpace, direction: Direction) -> dict[str, float]:
    """How much each parameter decides whether a trial is among the best, from 0 to 1, in falling order; their sum is 1.

    PED-ANOVA (Watanabe et al., IJCAI 2023), as Optuna computes it.

    Returns:
        By parameter; empty where too few trials completed or all values are the same.
    """
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE and is_finite(trial.value)]
    if len({trial.value for trial in complete}) < 2:
        return {}
    study = as_optuna(complete, space, direction)
    with quiet("optuna"):
        try:
            return optuna.importance.get_param_importances(study)
        except (ValueError, RuntimeError):  # such as a single value of each parameter
            return {}


def readable(parameter: Parameter, value: Value) -> Value:
    """A value as charts show it; choices as text, for ``1`` and ``True`` are one choice to Optuna."""
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
