"""Engine optuna: propose with TPE, GP and CMA-ES, and stop trials with ASHA, Hyperband and the median rule.

Optuna's study is an in-memory mirror, never the record. A trial has the same number in it as in mltune's study. Every
proposal comes from a new sampler with its own seed, and schedulers see only reports, so that the state of both can be
rebuilt from a study's trials.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, TPESampler
from optuna.storages import InMemoryStorage

from mltune._util.scoped import one_torch_thread, quiet
from mltune.engines._base import AskTellEngine
from mltune.engines._points import ENUMERATED
from mltune.errors import RequestError
from mltune.plugins import importable
from mltune.search import AlgorithmInfo, Option, SearchProblem, ask_seed
from mltune.space import Categorical, Float, Int, Parameter, Params, Value
from mltune.trial import FrozenTrial, TrialState, is_finite

if TYPE_CHECKING:
    from mltune.goal import Goal

_STUDY = "mltune"  # Hyperband derives a trial's bracket from this name and the trial's number
_ROUNDING = 1e-12
_WORST = 1e300  # replaces a report that is not finite, since the pruners' percentiles need finite numbers
_GP_TRIALS = 200  # with this many trials, a proposal of GP takes a quarter of a second


class OptunaEngine(AskTellEngine):
    """Engine on top of Optuna's samplers and pruners."""

    packages: ClassVar[tuple[str, ...]] = ("optuna",)
    algorithms: ClassVar[Mapping[str, AlgorithmInfo]] = MappingProxyType(
        {
            **ENUMERATED,
            "cmaes": AlgorithmInfo(
                options={"n_startup_trials": Option(int, 1, low=1), "popsize": Option(int, None, low=2)},
                packages=("cmaes",),
                note="cmaes draws categorical and conditional parameters at random, independently of the others",
            ),
            "gp": AlgorithmInfo(
                options={"n_startup_trials": Option(int, 10, low=1)},
                packages=("torch", "scipy"),
                note="gp draws conditional parameters at random, independently of the others",
            ),
            "tpe": AlgorithmInfo(
                options={
                    "n_startup_trials": Option(int, 10, low=1),
                    "n_ei_candidates": Option(int, 24, low=1),
                    "multivariate": Option(bool, True),
                },
            ),
        }
    )
    schedulers: ClassVar[Mapping[str, AlgorithmInfo]] = MappingProxyType(
        {
            "none": AlgorithmInfo(),
            "asha": AlgorithmInfo(
                options={
                    "min_resource": Option(int, 1, low=1),
                    "reduction_factor": Option(int, 4, low=2),
                    "min_early_stopping_rate": Option(int, 0, low=0),
                    "bootstrap_count": Option(int, 0, low=0),
                },
            ),
            "hyperband": AlgorithmInfo(
                options={
                    "min_resource": Option(int, 1, low=1),
                    "max_resource": Option(int, 27, low=1),
                    "reduction_factor": Option(int, 3, low=2),
                },
            ),
            "median": AlgorithmInfo(
                options={
                    "n_startup_trials": Option(int, 5, low=0),
                    "n_warmup_steps": Option(int, 0, low=0),
                    "interval_steps": Option(int, 1, low=1),
                    "n_min_trials": Option(int, 1, low=1),
                },
            ),
        }
    )

    def __init__(self, search: SearchProblem) -> None:
        super().__init__(search)
        self._sampler = None if search.algorithm.name in ENUMERATED else _SamplerMirror(search, self._make_sampler)
        self._pruner = None if search.scheduler.name == "none" else _PrunerMirror(search.goal, self._make_pruner())

    def _make_sampler(self, seed: int) -> BaseSampler:
        spec = self.search.algorithm
        options = self.algorithms[spec.name].complete(spec.options)
        match spec.name:
            case "cmaes":
                return CmaEsSampler(seed=seed, warn_independent_sampling=False, **options)
            case "gp":
                return GPSampler(seed=seed, warn_independent_sampling=False, **options)
        group = bool(self.search.space.conditional) and options["multivariate"]
        return TPESampler(seed=seed, group=group, **options)

    def _make_pruner(self) -> BasePruner:
        spec = self.search.scheduler
        options = self.schedulers[spec.name].complete(spec.options)
        match spec.name:
            case "asha":
                return SuccessiveHalvingPruner(**options)
            case "median":
                return MedianPruner(**options)
        if options["max_resource"] < options["min_resource"]:
            raise RequestError(
                f"scheduler hyperband: `min_resource <= max_resource` must hold, but got {options['min_resource']} "
                f"and {options['max_resource']}: set `max_resource` to the last step that a trial reports"
            )
        return HyperbandPruner(**options)

    @classmethod
    def auto(cls, search: SearchProblem, n_trials: int | None) -> str:
        """Return ``grid`` if all points fit into ``n_trials``, ``gp`` for few trials, else ``tpe``.

        A Gaussian process does better with few trials. But it needs torch, learns nothing about conditional parameters
        and little from trials that a scheduler stops, and takes longer per proposal the more trials there are.
        """
        if n_trials is None:
            return "tpe"
        sizes = [parameter.n_values for parameter in search.space.values()]
        counts = [n_trials + 1 if size is None else size for size in sizes]
        if math.prod(counts) <= n_trials:
            return "grid"
        simple = not search.space.conditional and search.scheduler.name == "none"
        installed = all(map(importable, cls.algorithms["gp"].packages))
        return "gp" if simple and installed and n_trials <= _GP_TRIALS else "tpe"

    def propose(self, number: int) -> Params:
        params = super().propose(number)
        if self._sampler is not None and (number < len(self.search.initial_points) or number in self._begun):
            self._sampler.adopt(number, params)
        return params

    def ask(self, number: int, seed: int) -> dict[str, Value]:
        if self._sampler is None:
            return super().ask(number, seed)
        return self._sampler.ask(number, seed)

    def tell(self, trial: FrozenTrial) -> None:
        for mirror in (self._sampler, self._pruner):
            if mirror is not None:
                mirror.tell(trial)

    def should_prune(self, trial: FrozenTrial, step: int) -> bool:
        return self._pruner is not None and self._pruner.should_prune(trial, step)


class _Mirror:
    """An in-memory Optuna study with mltune's trial numbers; trials not known yet are empty and running."""

    def __init__(self, goal: Goal) -> None:
        self._goal = goal
        self._storage = InMemoryStorage()
        with quiet("optuna"):
            self._study = optuna.create_study(study_name=_STUDY, storage=self._storage, direction=goal.direction.value)
        self._study_id = self._storage.get_study_id_from_name(_STUDY)

    def _trial_id(self, number: int) -> int:
        while self._storage.get_n_trials(self._study_id) <= number:
            self._storage.create_new_trial(self._study_id)
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)


class _SamplerMirror(_Mirror):
    """What a sampler knows: all points, including those of running trials, and their results.

    Only TPE sees pruned trials as pruned. GP and CMA-ES would ignore them and propose similar points again, so they see
    them as complete, but never as better than the best.
    """

    def __init__(self, search: SearchProblem, make_sampler: Callable[[int], BaseSampler]) -> None:
        super().__init__(search.goal)
        self._search = search
        self._make_sampler = make_sampler
        self._tpe = search.algorithm.name == "tpe"
        self._cmaes = search.algorithm.name == "cmaes"
        self._modelled = [name for name, parameter in search.space.items() if self._tpe or not parameter.when]
        self._distributions = {name: to_distribution(search.space[name]) for name in self._modelled}
        self._threads: Callable[[], AbstractContextManager[None]] = (
            one_torch_thread if search.algorithm.name == "gp" else nullcontext
        )
        self._known: set[int] = set()
        self._best: float | None = None
        if self._cmaes and not self._has_numbers():
            raise RequestError(
                "algorithm cmaes needs a Float or Int without `when`, but the space has none: choose tpe instead"
            )

    def _has_numbers(self) -> bool:
        varying = [name for name in self._modelled if not self._distributions[name].single()]
        return not varying or any(not isinstance(self._search.space[name], Categorical) for name in varying)

    def ask(self, number: int, seed: int) -> dict[str, Value]:
        self._known.add(number)
        space, rng = self._search.space, random.Random(seed)
        point: dict[str, Value] = {}
        with quiet("optuna"), self._threads():
            trial = self._open(number, seed)
            for name, parameter in space.items():
                if not space.active(name, point):
                    continue
                if name in self._distributions:
                    point[name] = from_optuna(parameter, _suggest(trial, name, self._distributions[name]))
                else:
                    point[name] = parameter.from_unit(rng.random())
        return point

    def _open(self, number: int, seed: int) -> optuna.Trial:
        """Return the trial of that number, with a new sampler that reads the whole study again."""
        sampler = self._make_sampler(seed)
        study = optuna.load_study(study_name=_STUDY, storage=self._storage, sampler=sampler)
        return optuna.Trial(study, self._trial_id(number))

    def adopt(self, number: int, params: Params) -> None:
        """Add a point that does not come from :meth:`ask`.

        CMA-ES keeps its state in the trials that it proposed, so it is asked anyway.
        """
        if self._cmaes:
            self.ask(number, ask_seed(self._search.seed, number))
        self._known.add(number)
        trial_id = self._trial_id(number)
        for name, distribution in self._distributions.items():
            if name in params:
                internal = distribution.to_internal_repr(to_optuna(self._search.space[name], params[name]))
                self._storage.set_trial_param(trial_id, name, internal, distribution)

    def tell(self, trial: FrozenTrial) -> None:
        if trial.number not in self._known:
            if trial.state is TrialState.INTERRUPTED:
                return
            self.adopt(trial.number, trial.params)
        if trial.state is TrialState.INTERRUPTED:
            self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        elif (value := _completed(trial)) is not None:
            self._best = value if self._goal.better(value, self._best) else self._best
            self._study.tell(trial.number, value)
        elif self._tpe:
            self._tell_pruned(trial)
        else:
            self._study.tell(trial.number, self._stand_in(trial))

    def _tell_pruned(self, trial: FrozenTrial) -> None:
        """Add a pruned or failed trial for TPE, which ranks it by its last step and value, below all complete trials.

        A failed trial is added without a step, which ranks it last.
        """
        if trial.state is TrialState.PRUNED and trial.reports:
            step, value = max(trial.reports.items())
            self._storage.set_trial_intermediate_value(self._trial_id(trial.number), step, value)
        self._study.tell(trial.number, state=optuna.trial.TrialState.PRUNED)

    def _stand_in(self, trial: FrozenTrial) -> float:
        """Return a value for a trial without one; for each proposal, GP clips infinity to the worst finite value."""
        if trial.state is not TrialState.PRUNED or not trial.reports or self._best is None:
            return self._goal.worst
        _, value = max(trial.reports.items())
        if not is_finite(value):
            return self._goal.worst
        return self._best if self._goal.better(value, self._best) else value


class _PrunerMirror(_Mirror):
    """What a scheduler knows: the reports of all trials, and which of them completed."""

    def __init__(self, goal: Goal, pruner: BasePruner) -> None:
        super().__init__(goal)
        self._pruner = pruner
        self._judged: set[int] = set()

    def should_prune(self, trial: FrozenTrial, step: int) -> bool:
        self._judged.add(trial.number)
        frozen = copy.copy(self._storage.get_trial(self._trial_id(trial.number)))
        frozen.intermediate_values = {s: self._number(v) for s, v in trial.reports.items() if s <= step}
        return bool(self._pruner.prune(self._study, frozen))

    def tell(self, trial: FrozenTrial) -> None:
        if trial.state is TrialState.INTERRUPTED:
            return
        if trial.number not in self._judged:
            for step in sorted(trial.reports):  # ASHA and Hyperband record each rung when the trial passes it
                self.should_prune(trial, step)
        trial_id = self._trial_id(trial.number)
        for step, value in trial.reports.items():
            self._storage.set_trial_intermediate_value(trial_id, step, self._number(value))
        if (result := _completed(trial)) is not None:
            self._study.tell(trial.number, result)
        else:
            self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    def _number(self, value: float) -> float:
        return value if is_finite(value) else math.copysign(_WORST, self._goal.worst)


def _completed(trial: FrozenTrial) -> float | None:
    """Return the value of a COMPLETE trial, or None for any other trial."""
    return trial.value if trial.state is TrialState.COMPLETE and is_finite(trial.value) else None


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


def _suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    match distribution:
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(name, choices)
        case IntDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_int(name, low, high, log=log, step=step)
        case FloatDistribution(low=low, high=high, log=log):
            return trial.suggest_float(name, low, high, log=log)
    raise TypeError(distribution)
