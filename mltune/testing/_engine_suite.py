"""The basis of the engines' contract: the engine under test, searches for it, and runs of it in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from mltune.engines import FINITE, Engine, check_search, get_engine
from mltune.goal import Goal
from mltune.search import Observation, SearchProblem, Spec
from mltune.testing._driver import MemoryDriver, Outcome
from mltune.testing._examples import Objective, one_by_one, plain_space
from mltune.testing._gaps import Gaps
from mltune.trial import Direction, FrozenTrial

if TYPE_CHECKING:
    from mltune.space import Params, SearchSpace

N_TRIALS = 16  # more than the start-up trials of most algorithms


class EngineSuite(Gaps):
    """The helpers of :class:`mltune.testing.EngineContract`, which documents the attributes."""

    engine: ClassVar[str] = ""
    engine_class: ClassVar[type[Engine] | None] = None
    options: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        engine_class = self._class()
        proposing = [name for name in engine_class.algorithms if name not in FINITE]
        stopping = [name for name in engine_class.schedulers if name != "none"]
        for argument, names in (("algorithm", proposing), ("scheduler", stopping)):
            if argument in metafunc.fixturenames:
                metafunc.parametrize(argument, sorted(names))

    def _class(self) -> type[Engine]:
        return self.engine_class or get_engine(self.engine)

    def _some_algorithm(self) -> str:
        return (
            "random"
            if "random" in self._class().algorithms
            else self._class().auto(self._search(plain_space(), "auto"), None)
        )

    def _create(self, search: SearchProblem, learned: Sequence[Observation] = ()) -> Engine:
        engine_class = self._class()
        engine = engine_class(check_search(self.engine or engine_class.__name__, engine_class, search, N_TRIALS))
        if learned:
            engine.learn(learned)
        return engine

    def _search(
        self,
        space: SearchSpace,
        algorithm: str | Spec,
        *,
        seed: int = 0,
        scheduler: str | Spec = "none",
        direction: Direction = Direction.MINIMIZE,
        initial_points: tuple[Params, ...] = (),
    ) -> SearchProblem:
        return SearchProblem(
            space=space,
            goal=Goal("value", direction),
            seed=seed,
            algorithm=self._spec(algorithm),
            scheduler=self._spec(scheduler),
            initial_points=initial_points,
        )

    def _spec(self, given: str | Spec) -> Spec:
        return given if isinstance(given, Spec) else Spec(given, self.options.get(given, {}))

    def _run(
        self,
        space: SearchSpace,
        algorithm: str,
        objective: Objective,
        *,
        n_trials: int | None = None,
        n_jobs: int = 1,
        learned: Sequence[Observation] = (),
        **search: Any,
    ) -> MemoryDriver:
        driver = MemoryDriver(objective, n_trials=n_trials or N_TRIALS, n_jobs=n_jobs)
        driver.run(self._create(self._search(space, algorithm, **search), learned))
        return driver

    def _run_curves(
        self, scheduler: str | None, curves: Sequence[Outcome], direction: Direction = Direction.MINIMIZE
    ) -> MemoryDriver:
        driver = MemoryDriver(one_by_one(curves), n_trials=len(curves))
        search = self._search(plain_space(), self._some_algorithm(), scheduler=scheduler or "none", direction=direction)
        driver.run(self._create(search))
        return driver

    def _rebuild(
        self, trials: Sequence[FrozenTrial], search: SearchProblem, learned: Sequence[Observation] = ()
    ) -> Engine:
        engine = self._create(search, learned)
        for trial in trials:
            engine.tell(trial)
        return engine

    def _go_on(self, engine: Engine, objective: Objective, *, first: int, n_trials: int = N_TRIALS) -> MemoryDriver:
        driver = MemoryDriver(objective, n_trials=n_trials, first=first)
        driver.run(engine)
        return driver
