"""In-memory Optuna studies that mirror what an engine was told."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage

from mltune._util.scoped import one_torch_thread, quiet
from mltune.engines._optuna_space import from_optuna, suggest, to_distribution, to_optuna
from mltune.errors import RequestError
from mltune.search import Observation, SearchProblem, ask_seed
from mltune.space import Categorical, Params, Value
from mltune.trial import FrozenTrial, TrialState, final_value, is_finite

if TYPE_CHECKING:
    from mltune.goal import Goal

MakeSampler = Callable[[int, Sequence[optuna.trial.FrozenTrial]], BaseSampler]
"""Makes a sampler from its seed, and from complete trials of elsewhere with the parameters that CMA-ES proposes."""

_STUDY = "mltune"  # Hyperband derives a trial's bracket from this name and the trial's number
_WORST = 1e300  # replaces a report that is not finite, since the pruners' percentiles need finite numbers


class _Mirror:
    """An in-memory Optuna study of all trials by number; those not known yet are empty and running.

    Attributes:
        first: The number that trial 0 has in Optuna's study.
    """

    first = 0

    def __init__(self, goal: Goal) -> None:
        self._goal = goal
        self._storage = InMemoryStorage()
        with quiet("optuna"):
            self._study = optuna.create_study(study_name=_STUDY, storage=self._storage, direction=goal.direction.value)
        self._study_id = self._storage.get_study_id_from_name(_STUDY)

    def _trial_id(self, number: int) -> int:
        while self._storage.get_n_trials(self._study_id) <= self.first + number:
            self._storage.create_new_trial(self._study_id)
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, self.first + number)

    def _end(self, number: int, value: float | None, state: optuna.trial.TrialState | None = None) -> None:
        self._study.tell(self.first + number, value, state)


class SamplerMirror(_Mirror):
    """What a sampler knows: all points, including those of running trials, and their results.

    Only TPE sees pruned trials as pruned. GP and CMA-ES would ignore them and propose similar points again, so they see
    them as complete, but never as better than the best.

    Args:
        search: The search.
        make_sampler: Makes Optuna's sampler from a seed and the learned trials.
        n_startup: The sampler fits a model once this many trials are complete.
    """

    def __init__(self, search: SearchProblem, make_sampler: MakeSampler, n_startup: int) -> None:
        super().__init__(search.goal)
        self._search = search
        self._n_startup = n_startup
        self._make_sampler = make_sampler
        self._tpe = search.algorithm.name == "tpe"
        self._cmaes = search.algorithm.name == "cmaes"
        self._modelled = [name for name, parameter in search.space.items() if self._tpe or not parameter.when]
        self._distributions = {name: to_distribution(search.space[name]) for name in self._modelled}
        self._known: set[int] = set()
        self._learned: list[optuna.trial.FrozenTrial] = []
        self._best: float | None = None
        if self._cmaes and not self._can_vary():
            raise RequestError(
                "algorithm cmaes needs a Float or Int without `when`, but the space has none: choose tpe instead"
            )

    def _can_vary(self) -> bool:
        return bool(self._numbers()) or all(self._distributions[name].single() for name in self._modelled)

    def _numbers(self) -> list[str]:
        """Return the parameters of which CMA-ES makes proposals."""
        space = self._search.space
        return [
            name
            for name, distribution in self._distributions.items()
            if not distribution.single() and not isinstance(space[name], Categorical)
        ]

    def ask(self, number: int, seed: int) -> dict[str, Value]:
        self._known.add(number)
        space, rng = self._search.space, random.Random(seed)
        point: dict[str, Value] = {}
        with quiet("optuna"), self._torch_limited():
            trial = self._open(number, seed)
            for name, parameter in space.items():
                if not space.active(name, point):
                    continue
                if name in self._distributions:
                    point[name] = from_optuna(parameter, suggest(trial, name, self._distributions[name]))
                else:
                    point[name] = parameter.from_unit(rng.random())
            self._set_params(number, point)  # an end of a range may have been drawn as the float beside it
        return point

    def _torch_limited(self) -> AbstractContextManager[None]:
        """Limit PyTorch's threads once GP fits a model; until then PyTorch, which takes a second, is not imported."""
        if self._search.algorithm.name != "gp":
            return nullcontext()
        complete = self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        return one_torch_thread() if len(complete) >= self._n_startup else nullcontext()

    def _open(self, number: int, seed: int) -> optuna.Trial:
        """Return the trial of that number, with a new sampler that reads the whole study again."""
        sampler = self._make_sampler(seed, self._learned)
        study = optuna.load_study(study_name=_STUDY, storage=self._storage, sampler=sampler)
        return optuna.Trial(study, self._trial_id(number))

    def adopt(self, number: int, params: Params) -> None:
        """Add a point that does not come from :meth:`ask`.

        CMA-ES keeps its state in the trials that it proposed, so it is asked anyway.
        """
        if self._cmaes:
            self.ask(number, ask_seed(self._search.seed, number))
        self._known.add(number)
        self._set_params(number, params)

    def _set_params(self, number: int, params: Params) -> None:
        trial_id = self._trial_id(number)
        for name, distribution in self._distributions.items():
            if name in params:
                internal = distribution.to_internal_repr(to_optuna(self._search.space[name], params[name]))
                self._storage.set_trial_param(trial_id, name, internal, distribution)

    def learn(self, observations: Sequence[Observation]) -> None:
        """Add points from elsewhere as complete trials, before trial 0."""
        for observation in observations:
            self._study.add_trial(self._complete_trial(observation, self._modelled))
            self._best = observation.value if self._goal.better(observation.value, self._best) else self._best
        self._learned += [self._complete_trial(observation, self._numbers()) for observation in observations]
        self.first += len(observations)

    def _complete_trial(self, observation: Observation, names: Sequence[str]) -> optuna.trial.FrozenTrial:
        params = {name: value for name, value in observation.params.items() if name in names}
        return optuna.trial.create_trial(
            value=observation.value,
            params={name: to_optuna(self._search.space[name], value) for name, value in params.items()},
            distributions={name: self._distributions[name] for name in params},
        )

    def tell(self, trial: FrozenTrial) -> None:
        if trial.number not in self._known:
            if trial.state is TrialState.INTERRUPTED:
                return
            self.adopt(trial.number, trial.params)
        if trial.state is TrialState.INTERRUPTED:
            self._end(trial.number, None, optuna.trial.TrialState.FAIL)
        elif (value := final_value(trial)) is not None:
            self._best = value if self._goal.better(value, self._best) else self._best
            self._end(trial.number, value)
        elif self._tpe:
            self._tell_pruned(trial)
        else:
            self._end(trial.number, self._stand_in(trial))

    def _tell_pruned(self, trial: FrozenTrial) -> None:
        """Add a pruned or failed trial for TPE, which ranks it by its last step and value, below all complete trials.

        A failed trial is added without a step, which ranks it last.
        """
        if trial.state is TrialState.PRUNED and trial.reports:
            step, value = max(trial.reports.items())
            self._storage.set_trial_intermediate_value(self._trial_id(trial.number), step, value)
        self._end(trial.number, None, optuna.trial.TrialState.PRUNED)

    def _stand_in(self, trial: FrozenTrial) -> float:
        """Return a value for a trial without one; for each proposal, GP clips infinity to the worst finite value."""
        if trial.state is not TrialState.PRUNED or not trial.reports or self._best is None:
            return self._goal.worst
        _, value = max(trial.reports.items())
        if not is_finite(value):
            return self._goal.worst
        return self._best if self._goal.better(value, self._best) else value


class PrunerMirror(_Mirror):
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
        if (result := final_value(trial)) is not None:
            self._end(trial.number, result)
        else:
            self._end(trial.number, None, optuna.trial.TrialState.FAIL)

    def _number(self, value: float) -> float:
        return value if is_finite(value) else math.copysign(_WORST, self._goal.worst)
