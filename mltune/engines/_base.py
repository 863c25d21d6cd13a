"""The engine contract, and the one ask/tell loop.

The order of calls in a study's life::

    engine_class(search)          checks nothing outside of itself; the registry has checked the request
    engine.rebuild(trials)        once, where a study goes on; AskTellEngine writes it as
        tell(trial)               for every trial that ended, in the order of the numbers
    engine.run(driver)            once; AskTellEngine writes it as
        ask(number, seed)         for every point that mltune does not enumerate itself
        should_prune(trial, step) for every report
        tell(trial)               for every trial that ended, in the order of the ends
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from mltune.engines._points import ENUMERATED, enumerate_points
from mltune.errors import RequestError
from mltune.search import Method, Search, ask_seed
from mltune.space import Params, Value
from mltune.trial import FrozenTrial


@dataclass(frozen=True)
class Report:
    """A running trial reported the study's metric; ``trial.reports`` already holds it."""

    trial: FrozenTrial
    step: int


class Driver(Protocol):
    """What an engine sees of the driver."""

    def next_number(self) -> int | None:
        """The number of the trial to start now; None while no worker is free or no trial is wanted."""

    def start(self, number: int, params: Params) -> None:
        """Open the trial's run and give the point to a worker."""

    def wait(self) -> Report | FrozenTrial | None:
        """The next report or finished trial; None when nothing runs and nothing will be started."""

    def answer(self, report: Report, *, stop: bool) -> None:
        """Let the reporting trial go on, or stop it."""


class Engine(ABC):
    """Proposes trials and sees that they run.

    Attributes:
        algorithms: What the engine can propose with.
        schedulers: What it can stop trials with.
        packages: What must be importable for the engine itself.
        executor: Who runs the trials of a study that does not say it.
    """

    algorithms: ClassVar[Mapping[str, Method]]
    schedulers: ClassVar[Mapping[str, Method]] = {"none": Method()}
    packages: ClassVar[tuple[str, ...]] = ()
    executor: ClassVar[str] = "local"

    def __init__(self, search: Search) -> None:
        self.search = search

    @classmethod
    @abstractmethod
    def auto(cls, search: Search, n_trials: int | None) -> str:
        """The algorithm that ``auto`` stands for; ``n_trials`` is None where only time limits the study."""

    @abstractmethod
    def run(self, driver: Driver) -> None:
        """Start trials until the driver wants no more and all have ended."""

    def rebuild(self, trials: Sequence[FrozenTrial]) -> None:
        """Know what a study that goes on knew, before :meth:`run`.

        Args:
            trials: In the order of their numbers. Those that are not finished are to be started again, with the
                params that they have.

        Raises:
            RequestError: The engine cannot.
        """
        raise RequestError(f"engine {type(self).__name__} cannot resume a study: use engine optuna")


class AskTellEngine(Engine):
    """An engine that can be stepped: subclasses write ``ask``, most of them ``tell``.

    mltune itself takes the ``initial`` points first and enumerates grid, random, qmc and manual, identically
    for every engine; ``ask`` is called for the other algorithms only.
    """

    algorithms: ClassVar[Mapping[str, Method]] = ENUMERATED

    def __init__(self, search: Search) -> None:
        super().__init__(search)
        self._points = enumerate_points(search)
        self._again: dict[int, Params] = {}

    @classmethod
    def auto(cls, search: Search, n_trials: int | None) -> str:
        return next((name for name in cls.algorithms if name not in ENUMERATED), "random")

    def ask(self, number: int, seed: int) -> dict[str, Value]:
        """A point to try.

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
        their numbers, for the trials of a study that is rebuilt from its runs.
        """

    def should_prune(self, trial: FrozenTrial, step: int) -> bool:
        """Whether a trial should stop at a step that it has just reported; ``trial.reports`` holds it."""
        return False

    def rebuild(self, trials: Sequence[FrozenTrial]) -> None:
        for trial in trials:
            if trial.finished:
                self.tell(trial)
            else:
                self._again[trial.number] = trial.params

    def propose(self, number: int) -> Params:
        """The point of a trial: one that was begun before, an ``initial`` or enumerated one, or what ``ask`` says."""
        if number in self._again:
            return self._again[number]
        initial = self.search.initial
        if number < len(initial):
            return initial[number]
        if self._points is not None:
            return self._points[number - len(initial)]
        return self.ask(number, ask_seed(self.search.seed, number))

    def run(self, driver: Driver) -> None:
        while True:
            while (number := driver.next_number()) is not None:
                driver.start(number, self.propose(number))
            event = driver.wait()
            if event is None:
                return
            if isinstance(event, Report):
                driver.answer(event, stop=self.should_prune(event.trial, event.step))
            else:
                self.tell(event)
