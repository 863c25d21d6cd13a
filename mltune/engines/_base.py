"""The contract of engines, which the driver's loop calls.

The order of calls in a study::

    engine_class(search)          checks only what concerns the engine itself; the registry has checked the request
    engine.learn(observations)    once, if there are points from elsewhere
    engine.replay(trials)         once, if the study is resumed; calls
        tell(trial)               for every trial that has ended, ordered by trial number
    engine.propose(number)        for every trial, before it starts; calls
        ask(number, seed)         for every point that mltune does not enumerate itself
    engine.decide(trial, step)    for every report of the study's metric; calls
        should_prune(trial, step)
    engine.tell(trial)            for every trial that ends, in the order in which trials end
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from mltune.engines._points import ENUMERATED, count_all, enumerate_points
from mltune.messages import Decision
from mltune.search import AlgorithmInfo, Observation, SearchProblem, ask_seed

if TYPE_CHECKING:
    from mltune.params import Params, Value
    from mltune.trial import FrozenTrial


class Engine:
    """Base class of engines, which propose trials and decide which to stop.

    Subclasses implement ``ask``, and most of them ``tell``. mltune itself proposes the ``initial_points`` first, and
    enumerates grid, random, qmc and manual, identically for every engine. It calls ``ask`` only for other algorithms.

    Attributes:
        algorithms: The algorithms that the engine can propose with, by name.
        schedulers: The schedulers that it can stop trials with, by name.
        packages: Packages that must be importable for the engine itself.
        executor: The name of the executor that runs the trials if the study does not name one.
    """

    algorithms: ClassVar[Mapping[str, AlgorithmInfo]] = ENUMERATED
    schedulers: ClassVar[Mapping[str, AlgorithmInfo]] = {"none": AlgorithmInfo()}
    packages: ClassVar[tuple[str, ...]] = ()
    executor: ClassVar[str] = "local"

    def __init__(self, search: SearchProblem) -> None:
        self.search = search
        self._points = enumerate_points(search)
        self._begun: dict[int, Params] = {}

    @property
    def n_points(self) -> int | None:
        """The number of points of a grid or a list, including ``initial_points``, or None if it is unlimited."""
        return count_all(self.search, self._points)

    @classmethod
    def auto(cls, search: SearchProblem, n_trials: int | None) -> str:
        """Return the algorithm that ``auto`` stands for; ``n_trials`` is None if only time limits the study."""
        return next((name for name in cls.algorithms if name not in ENUMERATED), "random")

    def ask(self, number: int, seed: int) -> dict[str, Value]:
        """Propose a point.

        Called once per trial before it starts, possibly while others run, with increasing numbers.

        Args:
            number: The trial's number in the study.
            seed: The seed of everything random in the proposal, so that a study can be rebuilt.

        Returns:
            A value for each active parameter of ``self.search.space``, and no inactive ones.
        """
        raise NotImplementedError(f"{type(self).__name__} offers an algorithm but no ask()")

    def tell(self, trial: FrozenTrial) -> None:
        """Learn from a trial that has ended, whatever its state.

        Called once per trial, in any order, including trials with enumerated points. If the study is resumed, called
        for its earlier trials before any ``ask``, ordered by trial number.
        """

    def should_prune(self, trial: FrozenTrial, step: int) -> bool:
        """Return whether a trial should stop at the step that it has just reported; ``trial.reports`` includes it."""
        return False

    def decide(self, trial: FrozenTrial, step: int) -> Decision:
        """Return the answer to a report, by default according to :meth:`should_prune`."""
        return Decision.STOP if self.should_prune(trial, step) else Decision.CONTINUE

    def learn(self, observations: Sequence[Observation]) -> None:
        """Learn from points that were evaluated elsewhere, such as in another study; by default, ignore them.

        Called at most once, before all else; if a study is resumed, with the same observations. They are no trials of
        the study: they have no numbers and use up no budget.

        Args:
            observations: Valid points of ``self.search.space``, each with a finite value.
        """

    def replay(self, trials: Sequence[FrozenTrial]) -> None:
        """Learn from the trials of a resumed study, before anything is proposed.

        Args:
            trials: The trials, ordered by number. Unfinished ones will be started again with the same params.
        """
        for trial in trials:
            if trial.finished:
                self.tell(trial)
            else:
                self._begun[trial.number] = trial.params

    def propose(self, number: int) -> Params:
        """Return a trial's point: that of an unfinished trial, an initial or enumerated one, or that of ``ask``."""
        if number in self._begun:
            return self._begun[number]
        initial_points = self.search.initial_points
        if number < len(initial_points):
            return initial_points[number]
        if self._points is not None:
            return self._points[number - len(initial_points)]
        return self.ask(number, ask_seed(self.search.seed, number))


AskTellEngine = Engine
"""The name of :class:`Engine` in the first release, in which engines could also have their own loop."""
