"""The laws of engines: tests that every engine passes, run for each algorithm and scheduler that it offers."""

from __future__ import annotations

import math
import random
import statistics
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mltune.engines import ENUMERATED, Engine, count_points
from mltune.errors import RequestError
from mltune.search import Spec
from mltune.space import Categorical, Float, Int, Params, SearchSpace, Value
from mltune.testing._driver import MemoryDriver, Outcome
from mltune.testing._engine_suite import N_TRIALS, EngineSuite
from mltune.testing._examples import (
    INITIAL,
    RICH_POINT,
    STEPS,
    bowl,
    by_x,
    curve,
    distance,
    good_then_bad,
    grid_space,
    negate,
    negated,
    number,
    observations,
    one_by_one,
    plain_space,
    random_curves,
    rich_space,
    sometimes_bad,
)
from mltune.trial import Direction, TrialState

_MANY = 24  # trials if each value of a small range must occur: a random draw misses one of five with odds of 1 : 40
_BIG_SEED = 2**63 - 1


class EngineContract(EngineSuite):
    """The contract of engines, as tests: subclass it in a test module and set ``engine`` or ``engine_class``.

    Attributes:
        engine: The engine's name in the registry.
        engine_class: The engine's class, if it is not in the registry.
        options: Options of algorithms and schedulers by name, if their defaults do not suit these tests, such as a
            slow model or a scheduler that starts late: ``{"gp": {"n_startup_trials": 12}}``.
        gaps: The tests that the engine does not pass, with the reason: ``{"test_law": "why"}``, or
            ``{"test_law[tpe]": "why"}`` for one algorithm or scheduler. They fail if that test passes.
    """

    # Proposals

    def test_points_are_complete_plain_and_inside(self, algorithm: str) -> None:
        """A point has exactly the active parameters, with values inside the space and of plain Python types."""
        space = rich_space()
        driver = self._run(space, algorithm, lambda params: Outcome(distance(params["x"])))
        assert [space.faults(point) for point in driver.started.values()] == [[]] * N_TRIALS

    def test_every_value_of_a_small_range_is_reached(self, algorithm: str) -> None:
        """Every value of a small range is proposed, both ends included, with integers, steps and logarithms."""
        space = SearchSpace({"n": Int(1, 2), "log": Int(1, 2, log=True), "step": Float(0.1, 0.3, step=0.1)})
        driver = self._run(space, algorithm, lambda params: Outcome(0.0), n_trials=_MANY)
        seen = {name: {point[name] for point in driver.started.values()} for name in space}
        assert seen == {"n": {1, 2}, "log": {1, 2}, "step": {0.1, 0.2, 0.3}}

    def test_choices_of_equal_value_are_kept_apart_by_type(self, algorithm: str) -> None:
        """``1``, ``1.0``, ``True`` and ``"1"`` are four choices, also in the condition of another parameter."""
        choices: list[Value] = [1, 1.0, True, "1", None]
        space = SearchSpace(
            {"x": Float(0, 1), "choice": Categorical(choices), "child": Int(1, 9, when={"choice": [True]})}
        )
        driver = self._run(space, algorithm, lambda params: Outcome(distance(params["x"])), n_trials=_MANY)
        assert [space.faults(point) for point in driver.started.values()] == [[]] * _MANY
        assert {repr(point["choice"]) for point in driver.started.values()} == set(map(repr, choices))

    def test_one_point_space(self, algorithm: str) -> None:
        """If the space has one point only, every trial gets it."""
        space = SearchSpace({"x": Float(2, 2), "log": Float(3, 3, log=True), "n": Int(4, 4), "c": Categorical(["a"])})
        driver = self._run(space, algorithm, lambda params: Outcome(0.0))
        assert list(driver.started.values()) == [{"x": 2.0, "log": 3.0, "n": 4, "c": "a"}] * N_TRIALS

    def test_points_in_flight_differ(self, algorithm: str) -> None:
        """Trials that run at the same time do not all get the same point."""
        driver = self._run(plain_space(), algorithm, bowl, n_jobs=4)
        assert len({repr(point) for point in driver.started.values()}) > N_TRIALS // 2

    def test_initial_points_come_first(self, algorithm: str) -> None:
        """The ``initial_points`` are proposed before all others, unchanged."""
        driver = self._run(plain_space(), algorithm, bowl, initial_points=INITIAL)
        assert [driver.started[0], driver.started[1]] == list(INITIAL)

    # Seeds

    @pytest.mark.parametrize("seed", [0, _BIG_SEED])
    def test_a_seed_repeats_the_list(self, algorithm: str, seed: int) -> None:
        """The same seed gives the same points, seed 0 included."""
        first, second = (self._run(rich_space(), algorithm, by_x, seed=seed) for _ in range(2))
        assert repr(first.started) == repr(second.started)

    def test_another_seed_gives_another_list(self, algorithm: str) -> None:
        """Another seed gives other points; seed 0 is not special."""
        first, second = (self._run(plain_space(), algorithm, bowl, seed=seed) for seed in (0, 1))
        assert repr(first.started) != repr(second.started)

    def test_global_random_numbers_are_left_alone(self, algorithm: str) -> None:
        """The engine does not change the global state of ``random`` and ``numpy.random``."""
        before = random.getstate(), repr(np.random.get_state())
        self._run(plain_space(), algorithm, bowl)
        assert (random.getstate(), repr(np.random.get_state())) == before

    def test_maximizing_mirrors_minimizing(self, algorithm: str) -> None:
        """Maximizing ``-f`` gives the same points as minimizing ``f``."""
        least = self._run(plain_space(), algorithm, bowl)
        most = self._run(plain_space(), algorithm, negated(bowl), direction=Direction.MAXIMIZE)
        assert repr(least.started) == repr(most.started)

    # The outcomes of trials

    @pytest.mark.parametrize("n_jobs", [1, 3])
    def test_exactly_n_trials(self, algorithm: str, n_jobs: int) -> None:
        """Each trial number is used once, in whatever order the trials end."""
        driver = self._run(plain_space(), algorithm, bowl, n_jobs=n_jobs, initial_points=INITIAL)
        assert list(driver.started) == sorted(trial.number for trial in driver.trials) == list(range(N_TRIALS))

    @pytest.mark.parametrize("value", [None, math.nan, -math.inf], ids=str)
    def test_failures_do_not_end_the_study(self, algorithm: str, value: float | None) -> None:
        """The engine continues to propose if all trials fail."""
        driver = self._run(plain_space(), algorithm, lambda params: Outcome(value))
        assert len(driver.trials) == N_TRIALS

    @pytest.mark.parametrize(
        "bad",
        [Outcome(None), Outcome(math.nan), Outcome(None, (-1e6,)), Outcome(None, (-1e6,), pruned=True)],
        ids=["exception", "nan", "failed-after-a-good-report", "pruned-after-a-good-report"],
    )
    def test_failed_and_pruned_trials_never_win(self, algorithm: str, bad: Outcome) -> None:
        """A region in which trials fail or are pruned does not attract the search.

        Random search puts three of ten points there on average; the odds of eight or more are 1 : 600.
        """
        driver = self._run(
            plain_space(),
            algorithm,
            lambda params: bad if number(params["x"]) < 0.3 else bowl(params),
            n_trials=_MANY,
        )
        last = [number(driver.started[i]["x"]) for i in range(_MANY - 10, _MANY)]
        assert sum(x < 0.3 for x in last) < 8

    def test_a_rebuilt_study_goes_on_as_the_uninterrupted_one(self, algorithm: str) -> None:
        """A new engine that has learned from the trials so far proposes the same points as the uninterrupted one."""
        objective = sometimes_bad(by_x)
        whole = self._run(rich_space(), algorithm, objective, initial_points=(RICH_POINT,))
        for done in (3, 13):
            search = self._search(rich_space(), algorithm, initial_points=(RICH_POINT,))
            rebuilt = self._rebuild(whole.trials[:done], search)
            resumed = self._go_on(rebuilt, objective, first=done)
            assert repr(resumed.started) == repr({n: p for n, p in whole.started.items() if n >= done})

    def test_interrupted_trials_leave_no_trace(self, algorithm: str) -> None:
        """A study that is rebuilt with an INTERRUPTED trial continues as one without it."""
        search = self._search(plain_space(), algorithm)
        trials = self._run(plain_space(), algorithm, bowl).trials[:13]
        interrupted = replace(trials[12], state=TrialState.INTERRUPTED, value=None)
        without, with_it = (
            self._go_on(self._rebuild(past, search), bowl, first=13)
            for past in (trials[:12], [*trials[:12], interrupted])
        )
        assert repr(without.started) == repr(with_it.started)

    # Points from elsewhere

    def test_learned_points_change_nothing_that_is_enumerated(self, algorithm: str) -> None:
        """What mltune enumerates is the same with and without points from elsewhere."""
        if algorithm not in ENUMERATED:
            pytest.skip("the engine's own algorithm")
        without, with_them = (
            self._run(plain_space(), algorithm, bowl, learned=learned) for learned in ((), observations())
        )
        assert repr(with_them.started) == repr(without.started)

    def test_learned_points_are_no_trials(self, algorithm: str) -> None:
        """After learning, numbers begin at 0 with ``initial_points``, and a rebuilt study goes on as it would have."""
        options: dict[str, Any] = {"initial_points": INITIAL, "learned": observations()}
        whole = self._run(plain_space(), algorithm, bowl, **options)
        assert list(whole.started) == list(range(N_TRIALS))
        assert [whole.started[0], whole.started[1]] == list(INITIAL)
        search = self._search(plain_space(), algorithm, initial_points=INITIAL)
        resumed = self._go_on(self._rebuild(whole.trials[:9], search, observations()), bowl, first=9)
        assert repr(resumed.started) == repr({n: p for n, p in whole.started.items() if n >= 9})

    def test_learned_points_lead_to_better_ones(self, algorithm: str) -> None:
        """With points and values from elsewhere the first proposals are better, unless the engine ignores them."""
        if algorithm in ENUMERATED or self._class().learn is Engine.learn:
            pytest.skip("it learns nothing from elsewhere")
        without, with_them = (
            statistics.median(
                float(trial.value or 0)
                for seed in range(2)
                for trial in self._run(plain_space(), algorithm, bowl, n_trials=10, seed=seed, learned=learned).trials
            )
            for learned in ((), observations())
        )
        assert with_them < without

    # Points that mltune enumerates

    @pytest.mark.parametrize("n_jobs", [1, 3])
    def test_the_whole_grid_once(self, n_jobs: int) -> None:
        """Every point of the grid is proposed exactly once, the one of ``initial_points`` first."""
        if "grid" not in self._class().algorithms:
            pytest.skip("the engine does not offer grid")
        space = grid_space()
        initial_points: tuple[Params, ...] = ({"kind": "b", "n": 2, "step": 0.3},)
        n_trials = count_points(self._search(space, "grid", initial_points=initial_points))
        driver = self._run(
            space, "grid", lambda params: Outcome(0.0), n_trials=n_trials, n_jobs=n_jobs, initial_points=initial_points
        )
        assert driver.started[0] == initial_points[0]
        assert sorted(map(_format_point, driver.started.values())) == sorted(map(_format_point, space.grid()))

    def test_manual_runs_the_initial_points(self) -> None:
        """With ``manual`` the study consists of the ``initial_points`` only."""
        if "manual" not in self._class().algorithms:
            pytest.skip("the engine does not offer manual")
        driver = self._run(plain_space(), "manual", bowl, n_trials=2, initial_points=INITIAL)
        assert list(driver.started.values()) == list(INITIAL)

    # Early stopping

    def test_no_scheduler_stops_nothing(self) -> None:
        """With ``none`` every trial runs to its end."""
        assert _stopped(self._run_curves(None, good_then_bad())) == []

    def test_equal_curves_are_not_stopped(self, scheduler: str) -> None:
        """A trial that is not worse than the others is not stopped."""
        assert _stopped(self._run_curves(scheduler, [Outcome(1.0, (1.0,) * STEPS)] * 20)) == []

    def test_bad_curves_are_stopped_and_the_best_is_not(self, scheduler: str) -> None:
        """Some of nine bad trials that follow twelve good ones are stopped; the best trial of all is not."""
        curves = [*good_then_bad(), curve(-1.0)]
        stopped = _stopped(self._run_curves(scheduler, curves))
        assert set(stopped) & set(range(12, 21))
        assert len(curves) - 1 not in stopped

    def test_stopping_is_mirrored_when_maximizing(self, scheduler: str) -> None:
        """With all values negated and the direction reversed, the same trials are stopped at the same steps."""
        least = self._run_curves(scheduler, random_curves())
        most = self._run_curves(scheduler, [negate(curve) for curve in random_curves()], Direction.MAXIMIZE)
        assert _reported(least) == _reported(most)

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
    def test_reports_that_are_not_finite_never_win(self, scheduler: str, value: float) -> None:
        """Reports that are not finite raise no error and do not cause a better trial to be stopped."""
        broken = [Outcome(None, (value,) * STEPS)] * 12
        stopped = _stopped(self._run_curves(scheduler, [curve(0.0), *broken, curve(0.0)]))
        assert not set(stopped) & {0, 13}

    def test_a_rebuilt_scheduler_stops_the_same(self, scheduler: str) -> None:
        """A new engine that has learned from the trials so far stops the others at the same steps."""
        curves = random_curves()
        whole = self._run_curves(scheduler, curves)
        for done in (5, 15):
            search = self._search(plain_space(), self._some_algorithm(), scheduler=scheduler)
            rebuilt = self._rebuild(whole.trials[:done], search)
            resumed = self._go_on(rebuilt, one_by_one(curves[done:]), first=done, n_trials=len(curves))
            assert _reported(resumed) == {n: steps for n, steps in _reported(whole).items() if n >= done}

    # The request

    def test_unknown_options_are_refused(self) -> None:
        """An unknown option is never ignored: it raises an error that names the option."""
        engine_class = self._class()
        for algorithm in engine_class.algorithms:
            with pytest.raises(RequestError, match="no_such_option"):
                self._create(self._search(grid_space(), Spec(algorithm, {"no_such_option": 1})))
        for scheduler in engine_class.schedulers:
            with pytest.raises(RequestError, match="no_such_option"):
                self._create(self._search(grid_space(), "auto", scheduler=Spec(scheduler, {"no_such_option": 1})))

    def test_auto_is_an_algorithm_that_the_engine_offers(self) -> None:
        """For any space and any number of trials, ``auto`` is an algorithm that the engine offers."""
        engine_class = self._class()
        for space in (plain_space(), rich_space(), grid_space()):
            for n_trials in (1, 50, 10_000, None):
                assert engine_class.auto(self._search(space, "auto"), n_trials) in engine_class.algorithms

    def test_importing_mltune_does_not_load_the_engine(self) -> None:
        """``import mltune`` loads neither the engine's module nor the packages that it needs."""
        engine_class = self._class()
        heavy = [engine_class.__module__, *engine_class.packages]
        code = f"import sys, mltune, mltune.engines; print([name for name in {heavy} if name in sys.modules])"
        completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert completed.stdout.strip() == "[]"

    def test_gaps_are_laws(self) -> None:
        """Each declared gap names a law that exists."""
        assert [name for name in self.gaps if not hasattr(self, name.partition("[")[0])] == []


def _stopped(driver: MemoryDriver) -> list[int]:
    return [trial.number for trial in driver.trials if trial.state is TrialState.PRUNED]


def _reported(driver: MemoryDriver) -> dict[int, int]:
    return {trial.number: len(trial.reports) for trial in driver.trials}


def _format_point(point: Params) -> str:
    return repr(sorted((name, repr(value)) for name, value in point.items()))
