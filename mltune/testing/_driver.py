"""An in-memory driver to test engines with."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mltune.messages import Decision
from mltune.trial import FrozenTrial, Reason, TrialState, is_finite

if TYPE_CHECKING:
    from mltune.engines import Engine
    from mltune.params import Params


@dataclass(frozen=True)
class Outcome:
    """What an objective does in one trial.

    Attributes:
        value: The returned value; if it is None or not finite, the trial is FAILED.
        reports: The reported values, at the steps 1, 2, …
        pruned: Whether the objective itself raises ``TrialPruned`` after its reports.
    """

    value: float | None = None
    reports: tuple[float, ...] = ()
    pruned: bool = False


@dataclass
class _Running:
    trial: FrozenTrial
    outcome: Outcome
    reports: dict[int, float]
    stopped: bool = False


@dataclass
class MemoryDriver:
    """A driver that runs an engine's trials in memory and computes the objective itself.

    Args:
        objective: Returns the outcome of a point.
        n_trials: The number of trials in the study, including those before ``first``.
        n_jobs: The number of trials at once; which of them goes on next is random, with a fixed seed.
        first: The number of the first trial to start, if a study is resumed.

    Attributes:
        trials: The trials that ended, in the order in which they ended.
        started: The points of the trials that were started, by trial number.
    """

    objective: Callable[[Params], Outcome]
    n_trials: int
    n_jobs: int = 1
    first: int = 0
    trials: list[FrozenTrial] = field(default_factory=list)
    started: dict[int, Params] = field(default_factory=dict)
    _running: dict[int, _Running] = field(default_factory=dict)
    _rng: random.Random = field(default_factory=lambda: random.Random(0))

    def run(self, engine: Engine) -> None:
        """Run all trials to their end; the engine proposes them, decides on their reports and learns from them."""
        self._start_trials(engine)
        while self._running:
            running = self._rng.choice(list(self._running.values()))
            step = len(running.reports) + 1
            if running.stopped or step > len(running.outcome.reports):
                self._end(running, engine)
            else:
                running.reports[step] = running.outcome.reports[step - 1]
                decision = engine.decide(running.trial, step)
                assert isinstance(decision, Decision), f"decide must return a Decision, but returned {decision!r}"
                running.stopped = decision is Decision.STOP
            self._start_trials(engine)

    def _start_trials(self, engine: Engine) -> None:
        while (number := self.first + len(self.started)) < self.n_trials and len(self._running) < self.n_jobs:
            params = dict(engine.propose(number))
            reports: dict[int, float] = {}
            trial = FrozenTrial(number=number, params=params, seed=number, reports=reports)
            self.started[number] = params
            self._running[number] = _Running(trial, self.objective(params), reports)

    def _end(self, running: _Running, engine: Engine) -> None:
        trial = _judge(running)
        del self._running[trial.number]
        self.trials.append(trial)
        engine.tell(trial)


def _judge(running: _Running) -> FrozenTrial:
    trial = replace(running.trial, reports=dict(running.reports))
    value = running.outcome.value
    if running.stopped or running.outcome.pruned:
        return replace(trial, state=TrialState.PRUNED, value=next(reversed(running.reports.values()), None))
    if is_finite(value):
        return replace(trial, state=TrialState.COMPLETE, value=value)
    return replace(trial, state=TrialState.FAILED, reason=Reason.EXCEPTION if value is None else Reason.NAN)
