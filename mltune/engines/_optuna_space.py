"""Convert parameters and their values to Optuna's distributions and values, and back."""

from __future__ import annotations

import math
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from mltune.space import Categorical, Float, Int, Parameter, Value

_ROUNDING = 1e-12


def to_distribution(parameter: Parameter) -> BaseDistribution:
    """Return the distribution that Optuna samples for a parameter.

    Choices and stepped floats are sampled by index: Optuna treats ``1``, ``1.0`` and ``True`` as the same choice,
    and moves the end of a stepped range if its steps are not exact in binary.

    >>> to_distribution(Float(0.1, 0.3, step=0.1))
    IntDistribution(high=2, log=False, low=0, step=1)
    """
    match parameter:
        case Categorical(choices=choices):
            return CategoricalDistribution(range(len(choices)))
        case Float(step=None):
            return FloatDistribution(parameter.low, parameter.high, log=parameter.log)
        case Int():
            return IntDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step or 1)
    assert parameter.n_values is not None
    return IntDistribution(0, parameter.n_values - 1)


def to_optuna(parameter: Parameter, value: Any) -> Any:
    """Convert a parameter's value to Optuna's value.

    >>> to_optuna(Float(0.1, 0.3, step=0.1), 0.3)
    2
    """
    match parameter:
        case Categorical():
            return parameter.index(value)
        case Float(step=float(step)):
            return round((value - parameter.low) / step)
    return value


def from_optuna(parameter: Parameter, drawn: Any) -> Value:
    """Convert a value that Optuna drew to the parameter's value.

    Optuna draws floats up to the last one below ``high``, and a logarithm and its inverse are not exact. So a value
    within rounding error of an end becomes the end itself.

    >>> from_optuna(Float(0.1, 0.3, step=0.1), 2)
    0.3
    """
    match parameter:
        case Categorical(choices=choices):
            return choices[int(drawn)]
        case Float(step=float(step)):
            return parameter.snap(parameter.low + int(drawn) * step)
        case Float(low=low, high=high):
            margin = 0.0 if parameter.log else _ROUNDING * (high - low)
            ends = [end for end in (low, high) if math.isclose(drawn, end, rel_tol=_ROUNDING, abs_tol=margin)]
            return ends[0] if ends else parameter.snap(float(drawn))
    return int(drawn)


def suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    match distribution:
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(name, choices)
        case IntDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_int(name, low, high, log=log, step=step)
        case FloatDistribution(low=low, high=high, log=log):
            return trial.suggest_float(name, low, high, log=log)
    raise TypeError(distribution)
