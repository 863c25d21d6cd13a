"""Study lint: warnings about a study's set-up, drawn from its trials, each with a remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mltune.report._influence import without_influence
from mltune.space.categorical import Categorical
from mltune.space.ranges import Float, Int
from mltune.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from mltune.goal import Goal
    from mltune.space import Params, SearchSpace

_FAILED = 0.2  # share of failed trials; above it there is a warning
_FEW = 5  # trials; what fewer of them show may be chance
_SETTLED = 10  # finished trials; from here on the first one should be beaten
_TOP = 10  # the best trials are one in ten
_AT_END = 0.02  # of a range; the best value within this distance of an end is on it
_NEAR_END = 0.1  # of a range; a value within this distance of an end is near it
_FEW_VALUES = 10  # of a parameter; if it has fewer, many of them lie near an end
_DECADES = 100.0  # ratio of two ends; from here on a range spans decades


@dataclass(frozen=True)
class _Study:
    """The input of the rules.

    Attributes:
        ranked: The COMPLETE trials, the best first.
        n_initial: The number of hand-picked points.
        planned: The total number of trials, including those still to run.
    """

    space: SearchSpace
    trials: Sequence[FrozenTrial]
    ranked: Sequence[FrozenTrial]
    n_initial: int
    planned: int

    def top(self, name: str) -> list[float]:
        """Return a parameter's values in the best trials that have it, the best trial first."""
        having = [float(trial.params[name] or 0.0) for trial in self.ranked if name in trial.params]
        return having[: max(_FEW, len(self.ranked) // _TOP)]


def lint(
    trials: Sequence[FrozenTrial],
    space: SearchSpace,
    goal: Goal,
    *,
    initial_points: Sequence[Params] = (),
    finite: bool = False,
    planned: int = 0,
) -> tuple[str, ...]:
    """Return one sentence with a remedy for each problem in a study's set-up.

    Args:
        trials: All trials of the study.
        space: The search space.
        goal: The metric, and whether smaller or larger values are better.
        initial_points: The hand-picked points.
        finite: Whether the number of points is fixed, as in a grid.
        planned: The total number of trials if some are still to run, else 0.
    """
    finished = [trial for trial in trials if trial.finished]
    complete = [trial for trial in goal.ranked(finished) if trial.state is TrialState.COMPLETE]
    study = _Study(space, finished, complete, len(initial_points), max(planned, len(finished)))
    if len(complete) >= _FEW and complete[0].value == complete[-1].value:
        return (*_failures(study), *_constant(study))
    rules: list[Callable[[_Study], Iterator[str]]] = [_failures]
    if not finite:
        rules += [_too_few, _first_is_best, _linear, _on_bound, _no_influence]
    return tuple(warning for rule in rules for warning in rule(study))


def _failures(study: _Study) -> Iterator[str]:
    failed = [trial for trial in study.trials if trial.state is TrialState.FAILED]
    if len(study.trials) >= _FEW and len(failed) > _FAILED * len(study.trials):
        reasons = ", ".join(sorted({str(trial.reason) for trial in failed}))
        yield (
            f"{len(failed)} of {len(study.trials)} trials failed ({reasons}): "
            f"read traceback.txt of trial {failed[-1].number}, and mend the objective or leave out what it cannot do"
        )


def _constant(study: _Study) -> Iterator[str]:
    yield (
        f"the metric was {study.ranked[0].value:g} in all {len(study.ranked)} complete trials: "
        f"make sure that the objective uses trial.params, and that the metric can tell models apart"
    )


def _too_few(study: _Study) -> Iterator[str]:
    dimensions = sum(parameter.n_values != 1 for parameter in study.space.values())
    if study.ranked and study.planned < 2 * dimensions:
        yield (
            f"{study.planned} trials are few for {dimensions} parameters: "
            f"give at least {2 * dimensions} (a larger n_trials extends the study), or fix some parameters"
        )


def _first_is_best(study: _Study) -> Iterator[str]:
    if len(study.trials) < _SETTLED or not study.ranked:
        return
    best = study.ranked[0]
    if study.ranked[1:] and study.ranked[1].value == best.value:
        return
    if best.number < study.n_initial:
        yield (
            f"the hand-picked point of trial {best.number} is still the best of {len(study.trials)} trials: "
            f"search closer around it, give more trials, or keep it"
        )
    elif best.number == 0:
        yield (
            f"the first trial is still the best of {len(study.trials)}: "
            f"give more trials, narrow the space, or check that the metric follows the parameters"
        )


def _linear(study: _Study) -> Iterator[str]:
    for name in study.space:
        if (decades := _good_decades(study, name)) is not None:
            low, high = decades
            yield (
                f"good values of '{name}' lie between {low:g} and {high:g}, but it was searched linearly: "
                f"give it `log: true`" + ("" if study.space[name].low > 0 else " and a `low` above 0")  # type: ignore[attr-defined]
            )


def _good_decades(study: _Study, name: str) -> tuple[float, float] | None:
    """Return the smallest and largest good value if a logarithmic search would suit the parameter better, else None.

    That is so if the parameter is searched linearly, its range spans decades, and most good values lie in the lowest
    tenth of it. The other nine tenths get most points of a linear search, so decades do not matter there.
    """
    parameter = study.space[name]
    if not isinstance(parameter, Float | Int) or parameter.log or parameter.step or parameter.low < 0:
        return None
    values = sorted(study.top(name))
    if len(study.ranked) < 2 * _FEW or len(values) < _FEW or values[0] <= 0:
        return None
    ratio = parameter.high / parameter.low if parameter.low > 0 else values[-1] / values[0]
    low_down = parameter.to_unit(values[len(values) // 2]) <= _NEAR_END
    return (values[0], values[-1]) if low_down and ratio >= _DECADES else None


def _on_bound(study: _Study) -> Iterator[str]:
    if len(study.ranked) < 2 * _FEW:
        return
    for name, parameter in study.space.items():
        best = study.ranked[0].params.get(name)
        few = parameter.n_values is not None and parameter.n_values < _FEW_VALUES
        if best is None or few or isinstance(parameter, Categorical) or _good_decades(study, name) is not None:
            continue
        places = [parameter.to_unit(value) for value in study.top(name)]
        for end, bound in ((0.0, "low"), (1.0, "high")):
            near = sum(abs(place - end) <= _NEAR_END for place in places)
            if abs(parameter.to_unit(best) - end) <= _AT_END and 2 * near > len(places):
                yield (
                    f"the best value of '{name}', {best:g}, is on the `{bound}` end of its range, "
                    f"and so are most good ones: move `{bound}` further out, if that makes sense"
                )


def _no_influence(study: _Study) -> Iterator[str]:
    for name in without_influence(study.ranked, study.space):
        yield f"'{name}' had no influence on the metric that {len(study.ranked)} trials would show: fix it, or widen it"
