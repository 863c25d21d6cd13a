"""The engine contract: an engine is stepped by the driver's loop.

The order of calls in a study's life::

    engine_class(search)          checks nothing outside of itself; the registry has checked the request
    engine.replay(trials)         once, if the study is resumed; calls
        tell(trial)               for every trial that ended, in the order of the numbers
    engine.propose(number)        for every trial, before it starts; calls
        ask(number, seed)         for every point that mltune does not enumerate itself
    engine.decide(trial, step)    for every report of the study's metric; calls
        should_prune(trial, step)
    engine.tell(trial)            for every trial that ended, in the order of the ends
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from mltune.engines._points import ENUMERATED, enumerate_points
from mltune.messages import Decision
from mltune.search import Method, Search, ask_seed
from mltune.space import Params, Value
from mltune.trial import FrozenTrial


class Engine:
    """Proposes trials and decides which stop: subclasses write ``ask``, and most of them ``tell``.

    mltune itself takes the ``initial`` points first and enumerates grid, random, qmc and manual, identically
    for every engine; ``ask`` is called for the other algorithms only.

    Attributes:
        algorithms: What the engine can propose with.
        schedulers: What it can stop trials with.
        packages: What must be importable for the engine itself.
        executor: Who runs the trials of a study that does not say it.
    """

    algorithms: ClassVar[Mapping[str, Method]] = ENUMERATED
    schedulers: ClassVar[Mapping[str, Method]] = {"none": Method()}
    packages: ClassVar[tuple[str, ...]] = ()
    executor: ClassVar[str] = "local"

    def __init__(self, search: Search) -> None:
        self.search = search
        self._points = enumerate_points(search)
        self._begun: dict[int, Params] = {}

    @classmethod
    def auto(cls, search: Search, n_trials: int | None) -> str:
        """Return the algorithm that ``auto`` stands for; ``n_trials`` is None if only time limits the study."""
        return next((name for name in cls.algorithms if name not in ENUMERATED), "random")

    def ask(self, number: int, seed: int) -> dict[str, Value]:
        """Propose a point.

        Called once per trial, before the trial starts and maybe while others run; the numbers grow.

        Args:
            number: The trial's place in the study.
            seed: Everything random in the proposal must come from it, so that a study can be rebuilt.

        Returns:
            A value for each active parameter of ``self.search.space``, none for the inactive ones.
        """
        raise NotImplementedError(f"{type(self).__name__} offers an algorithm but no ask()")

    def tell(self, trial: FrozenTrial) -> None:
        """Learn from a trial that ended, whatever its state.

        Called once per trial, in any order, for enumerated points too; and before any ``ask``, in the order of
        their numbers, for the trials of a study that is resumed.
        """

    def should_prune(self, trial: FrozenTrial, step: int) -> bool:
        """Return whether a trial should stop at a step that it has just reported; ``trial.reports`` holds it."""
        return False

    def decide(self, trial: FrozenTrial, step: int) -> Decision:
        """Answer a report; by default as :meth:`should_prune` says."""
        return Decision.STOP if self.should_prune(trial, step) else Decision.CONTINUE

    def replay(self, trials: Sequence[FrozenTrial]) -> None:
        """Learn what a study knew that is resumed, before anything is proposed.

        Args:
            trials: In the order of their numbers. Those that are not finished will be started again, with the
                params that they have.
        """
        for trial in trials:
            if trial.finished:
                self.tell(trial)
            else:
                self._begun[trial.number] = trial.params

    def propose(self, number: int) -> Params:
        """Return the point of a trial: one begun before, an ``initial`` or enumerated one, or what ``ask`` says."""
        if number in self._begun:
            return self._begun[number]
        initial = self.search.initial
        if number < len(initial):
            return initial[number]
        if self._points is not None:
            return self._points[number - len(initial)]
        return self.ask(number, ask_seed(self.search.seed, number))


AskTellEngine = Engine
"""The name of :class:`Engine` in the first release, where engines could also have a loop of their own."""
