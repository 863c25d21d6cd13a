"""Engine optuna: propose with TPE, GP and CMA-ES, and stop trials with ASHA, Hyperband and the median rule.

Optuna's study is an in-memory mirror, never the record. Every proposal comes from a new sampler with its own seed, and
schedulers see only reports, so that the state of both can be rebuilt from a study's trials.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, TPESampler

from mltune.engines._base import Engine
from mltune.engines._optuna_mirror import PrunerMirror, SamplerMirror
from mltune.engines._points import ENUMERATED
from mltune.errors import RequestError
from mltune.plugins import importable
from mltune.search import AlgorithmInfo, Observation, Option, SearchProblem

if TYPE_CHECKING:
    from mltune.space import Params, Value
    from mltune.trial import FrozenTrial

_GP_TRIALS = 200  # with this many trials, a proposal of GP takes a quarter of a second
_WARM_START = 10  # observations from which CMA-ES can start: it takes the best tenth of them


class OptunaEngine(Engine):
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
        self._options = self.algorithms[search.algorithm.name].complete(search.algorithm.options)
        self._sampler: SamplerMirror | None = None
        if search.algorithm.name not in ENUMERATED:
            self._sampler = SamplerMirror(search, self._make_sampler, self._options["n_startup_trials"])
        self._pruner = None if search.scheduler.name == "none" else PrunerMirror(search.goal, self._make_pruner())

    def _make_sampler(self, seed: int, learned: Sequence[optuna.trial.FrozenTrial]) -> BaseSampler:
        options = self._options
        match self.search.algorithm.name:
            case "cmaes":
                source = list(learned) if len(learned) >= _WARM_START else None
                return CmaEsSampler(seed=seed, warn_independent_sampling=False, source_trials=source, **options)
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

    def learn(self, observations: Sequence[Observation]) -> None:
        if self._sampler is not None:
            self._sampler.learn(observations)

    def should_prune(self, trial: FrozenTrial, step: int) -> bool:
        return self._pruner is not None and self._pruner.should_prune(trial, step)
