"""The driver in memory keeps what it promises to engines."""

from __future__ import annotations

import math

from mltune.engines import Engine
from mltune.goal import Goal
from mltune.search import SearchProblem, Spec
from mltune.space import Float, Params, SearchSpace
from mltune.testing import MemoryDriver, Outcome
from mltune.trial import Direction, FrozenTrial, Reason, TrialState


class StopsAt(Engine):
    """Random points; stops trials at one step, and notes how many are in flight."""

    def __init__(self, stop_at: int | None = None) -> None:
        space = SearchSpace({"x": Float(0.0, 1.0)})
        super().__init__(
            SearchProblem(space=space, goal=Goal("value", Direction.MINIMIZE), seed=0, algorithm=Spec("random"))
        )
        self.most = self.in_flight = 0
        self._stop_at = stop_at

    def propose(self, number: int) -> Params:
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        return super().propose(number)

    def tell(self, trial: FrozenTrial) -> None:
        self.in_flight -= 1

    def should_prune(self, trial: FrozenTrial, step: int) -> bool:
        return step == self._stop_at


def drive(outcome: Outcome, stop_at: int | None = None) -> FrozenTrial:
    driver = MemoryDriver(lambda params: outcome, n_trials=1)
    driver.run(StopsAt(stop_at))
    (trial,) = driver.trials
    return trial


def test_the_four_ends_of_a_trial() -> None:
    complete = drive(Outcome(3.0, (5.0, 4.0)))
    assert (complete.state, complete.value, complete.reports) == (TrialState.COMPLETE, 3.0, {1: 5.0, 2: 4.0})
    stopped = drive(Outcome(3.0, (5.0, 4.0, 3.5)), stop_at=2)
    assert (stopped.state, stopped.value, stopped.reports) == (TrialState.PRUNED, 4.0, {1: 5.0, 2: 4.0})
    assert drive(Outcome(pruned=True)).state is TrialState.PRUNED
    assert (drive(Outcome(None)).reason, drive(Outcome(math.nan)).reason) == (Reason.EXCEPTION, Reason.NAN)


def test_at_most_n_jobs_run_at_once_and_they_end_in_any_order() -> None:
    driver, engine = MemoryDriver(lambda params: Outcome(0.0, (1.0, 1.0)), n_trials=30, n_jobs=3), StopsAt()
    driver.run(engine)
    assert (engine.most, engine.in_flight) == (3, 0)
    numbers = [trial.number for trial in driver.trials]
    assert numbers != sorted(numbers) == list(range(30))
