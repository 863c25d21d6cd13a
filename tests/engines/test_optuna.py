"""The Optuna engine beyond the contract: its conversions, its mirrors, what it leaves alone in the process."""

from __future__ import annotations

import logging
import math
import random
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler

from mltune.engines import create_engine
from mltune.engines._optuna_space import from_optuna, to_distribution, to_optuna
from mltune.engines.optuna import OptunaEngine
from mltune.errors import RequestError
from mltune.goal import Goal
from mltune.search import Observation, SearchProblem, Spec, ask_seed
from mltune.space import Categorical, Float, Int, Parameter, Params, SearchSpace, identical
from mltune.testing import MemoryDriver, Outcome
from mltune.testing._examples import bowl, plain_space
from mltune.trial import Direction, FrozenTrial, Reason, TrialState
from tests.strategies import fractions, free_floats, ints, log_floats, log_ints, parameters, stepped_floats

OWN = ["cmaes", "gp", "tpe"]


def make(
    algorithm: str = "tpe",
    scheduler: str = "none",
    *,
    space: Mapping[str, Any] | None = None,
    direction: Direction = Direction.MINIMIZE,
    initial_points: tuple[Params, ...] = (),
    options: Mapping[str, Any] | None = None,
    scheduler_options: Mapping[str, Any] | None = None,
) -> OptunaEngine:
    engine = create_engine(
        "optuna",
        SearchProblem(
            space=SearchSpace(space or {"x": Float(0, 1), "n": Int(1, 8)}),
            goal=Goal("value", direction),
            seed=0,
            algorithm=Spec(algorithm, options or {}),
            scheduler=Spec(scheduler, scheduler_options or {}),
            initial_points=initial_points,
        ),
        30,
    )
    assert isinstance(engine, OptunaEngine)
    return engine


def ended(number: int, value: float | None, *, reports: tuple[float, ...] = (), **fields: Any) -> FrozenTrial:
    params = fields.pop("params", {"x": 0.1 * (number % 10), "n": 1 + number % 8})
    state = fields.pop("state", TrialState.FAILED if value is None else TrialState.COMPLETE)
    steps = dict(enumerate(reports, start=1))
    return FrozenTrial(number=number, params=params, seed=0, state=state, value=value, reports=steps, **fields)


# Conversions


@given(parameters, fractions)
def test_values_go_there_and_back(parameter: Parameter, u: float) -> None:
    value = parameter.from_unit(u)
    distribution = to_distribution(parameter)
    internal = distribution.to_internal_repr(to_optuna(parameter, value))
    assert distribution._contains(internal)
    back = from_optuna(parameter, distribution.to_external_repr(internal))
    if isinstance(parameter, Float) and parameter.step is None:
        assert type(back) is float
        assert math.isclose(back, float(str(value)), rel_tol=1e-12, abs_tol=1e-12 * (parameter.high - parameter.low))
    else:
        assert identical(back, value)


@given(parameters, st.integers(0, 2**32 - 1))
def test_what_optuna_draws_is_inside(parameter: Parameter, seed: int) -> None:
    study = optuna.create_study(sampler=RandomSampler(seed=seed))
    drawn = study.ask({"p": to_distribution(parameter)}).params["p"]
    assert parameter.contains(from_optuna(parameter, drawn))


@given(st.one_of(free_floats(), log_floats()))
def test_the_ends_of_a_float_are_reached_from_what_optuna_can_draw(parameter: Float) -> None:
    distribution = to_distribution(parameter)
    assert isinstance(distribution, FloatDistribution)
    assert from_optuna(parameter, distribution.low) == parameter.low
    assume(not math.isclose(parameter.low, parameter.high, rel_tol=1e-12))  # each value is both ends, but for rounding
    last = math.nextafter(distribution.high, -math.inf)  # Optuna draws no float above it
    assert from_optuna(parameter, last) == parameter.high


@given(st.one_of(stepped_floats(), ints(), log_ints()))
def test_the_ends_of_what_has_steps_are_reached(parameter: Float | Int) -> None:
    distribution = to_distribution(parameter)
    assert isinstance(distribution, IntDistribution)
    assert identical(from_optuna(parameter, distribution.low), parameter.low)
    assert identical(from_optuna(parameter, distribution.high), parameter.high)


@given(stepped_floats())
def test_stepped_floats_map_onto_their_grid(parameter: Float) -> None:
    distribution = to_distribution(parameter)
    assert isinstance(distribution, IntDistribution)
    assert [from_optuna(parameter, i) for i in range(distribution.low, distribution.high + 1)] == parameter.grid()


def test_choices_travel_as_indices_because_optuna_confuses_equal_ones() -> None:
    choices = (1, 1.0, True, "1", None)
    assert CategoricalDistribution(choices).to_internal_repr(True) == 0  # why: this is the index of 1
    parameter = Categorical(choices)
    assert to_distribution(parameter) == CategoricalDistribution(range(5))
    assert [to_optuna(parameter, choice) for choice in choices] == [0, 1, 2, 3, 4]


# Proposals


@pytest.mark.parametrize("algorithm", OWN)
def test_conditional_spaces_are_searched_without_a_word(algorithm: str, capfd: pytest.CaptureFixture[str]) -> None:
    space = {
        "x": Float(0, 1),
        "solver": Categorical(["adam", "sgd"]),
        "momentum": Float(0, 0.9, when={"solver": ["sgd"]}),
    }
    engine = make(algorithm, space=space)
    for number in range(14):
        point = engine.propose(number)
        assert engine.search.space.faults(point) == []
        engine.tell(ended(number, float(str(point["x"])), params=point))
    assert capfd.readouterr() == ("", "")


def test_hand_picked_points_teach_the_sampler() -> None:
    initial_points = tuple({"x": 0.05 * i, "n": 4} for i in range(12))
    engine = make(initial_points=initial_points)
    driver = MemoryDriver(lambda params: Outcome(float(str(params["x"]))), n_trials=16)
    driver.run(engine)
    assert all(float(str(driver.started[number]["x"])) < 0.4 for number in range(12, 16))


@pytest.mark.parametrize("algorithm", OWN)
def test_a_running_trial_counts_before_it_ends(algorithm: str) -> None:
    engine = make(algorithm, initial_points=({"x": 0.5, "n": 4},))
    points = [engine.propose(number) for number in range(3)]
    for number in (2, 0, 1):
        engine.tell(ended(number, 1.0, params=points[number]))
    assert engine.search.space.faults(engine.propose(3)) == []


def test_cmaes_is_rebuilt_by_asking_again() -> None:
    engine, rebuilt = make("cmaes"), make("cmaes")
    trials = []
    for number in range(30):
        point = engine.propose(number)
        trials.append(ended(number, (float(str(point["x"])) - 0.3) ** 2, params=point))
        engine.tell(trials[-1])
    for trial in trials:
        rebuilt.tell(trial)
    assert rebuilt.propose(30) == engine.propose(30)


def test_an_end_of_a_range_is_remembered_as_the_end() -> None:
    """Optuna draws the float below it, here in trial 6; an engine that is rebuilt knows only what was recorded."""
    engine, rebuilt = (make("gp", options={"n_startup_trials": 2}, space=plain_space()) for _ in range(2))
    driver = MemoryDriver(bowl, n_trials=8)
    driver.run(engine)
    for trial in driver.trials:
        rebuilt.tell(trial)
    assert engine._sampler is not None
    assert rebuilt._sampler is not None
    stored, restored = (each._study.trials for each in (engine._sampler, rebuilt._sampler))
    assert [trial.params for trial in restored] == [trial.params for trial in stored]


@pytest.mark.parametrize("n", [1, 9, 10, 30])
@pytest.mark.parametrize("algorithm", OWN)
def test_any_number_of_points_is_learned(algorithm: str, n: int) -> None:
    space = {"x": Float(0, 1), "n": Int(1, 8), "kind": Categorical(["a", "b"]), "fixed": Int(3, 3)}
    engine = make(algorithm, space=space | {"child": Float(0, 1, when={"kind": ["a"]})}, scheduler="median")
    rng = random.Random(0)
    points = [engine.search.space.sample(rng) for _ in range(n)]
    engine.learn([Observation(point, float(str(point["x"]))) for point in points])
    for number in range(3):
        point = engine.propose(number)
        assert engine.search.space.faults(point) == []
        engine.tell(ended(number, float(str(point["x"])), params=point))


@pytest.mark.parametrize("algorithm", ["cmaes", "tpe"])
def test_a_missing_number_does_not_shift_the_others(algorithm: str) -> None:
    """The interrupted trial 6 is not told; numbers enter the proposals of CMA-ES."""
    engine, rebuilt = make(algorithm), make(algorithm)
    told = []
    for number in range(14):
        point = engine.propose(number)
        if number != 6:
            told.append(ended(number, float(str(point["x"])), params=point))
            engine.tell(told[-1])
    engine.tell(ended(6, None, state=TrialState.INTERRUPTED))
    for trial in told:
        rebuilt.tell(trial)
    assert rebuilt.propose(14) == engine.propose(14)


def test_adopting_is_cheap_for_tpe(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make()
    monkeypatch.setattr(optuna.samplers.TPESampler, "__init__", lambda *args, **kwargs: pytest.fail("sampled"))
    for number in range(50):
        engine.tell(ended(number, float(number)))
    assert engine._sampler is not None
    assert len(engine._sampler._study.trials) == 50


@pytest.mark.parametrize("algorithm", ["cmaes", "gp"])
def test_failed_and_pruned_trials_stand_behind_the_best(algorithm: str) -> None:
    engine = make(algorithm, direction=Direction.MAXIMIZE)
    engine.tell(ended(0, None, reason=Reason.EXCEPTION))
    engine.tell(ended(1, 5.0))
    engine.tell(ended(2, 9.0, reports=(1.0, 9.0), state=TrialState.PRUNED))
    engine.tell(ended(3, 2.0, reports=(1.0, 2.0), state=TrialState.PRUNED))
    engine.tell(ended(4, None, reports=(math.nan,), state=TrialState.PRUNED))
    assert engine._sampler is not None
    assert [trial.value for trial in engine._sampler._study.trials] == [-math.inf, 5.0, 5.0, 2.0, -math.inf]


def test_tpe_ranks_failed_trials_below_pruned_ones() -> None:
    engine = make()
    engine.tell(ended(0, None, reports=(0.0,), reason=Reason.EXCEPTION))
    engine.tell(ended(1, 3.0, reports=(4.0, 3.0), state=TrialState.PRUNED))
    assert engine._sampler is not None
    failed, pruned = engine._sampler._study.trials
    assert (failed.state, failed.intermediate_values) == (optuna.trial.TrialState.PRUNED, {})
    assert (pruned.state, pruned.intermediate_values) == (optuna.trial.TrialState.PRUNED, {2: 3.0})


def test_cmaes_refuses_a_space_in_which_it_could_only_guess() -> None:
    space = {"solver": Categorical(["a", "b"]), "n": Int(1, 3, when={"solver": ["a"]})}
    with pytest.raises(RequestError, match="cmaes needs a Float or Int without `when`"):
        make("cmaes", space=space)


def test_options_reach_optuna() -> None:
    engine = make("tpe", "asha", options={"n_startup_trials": 3}, scheduler_options={"reduction_factor": 2})
    assert engine._make_sampler(0, ())._n_startup_trials == 3  # type: ignore[attr-defined]
    assert engine._make_pruner()._reduction_factor == 2  # type: ignore[attr-defined]


# Early stopping


def test_a_trial_that_is_run_again_is_judged_by_its_new_reports() -> None:
    engine = make("random", "median", scheduler_options={"n_startup_trials": 1})
    engine.tell(ended(0, 1.0, reports=(1.0, 1.0, 1.0)))
    assert engine.should_prune(ended(1, None, reports=(5.0, 5.0)), 2)
    assert not engine.should_prune(ended(1, None, reports=(0.5,)), 1)


def test_reports_are_filed_under_our_numbers_whatever_comes_first() -> None:
    """Hyperband chooses a trial's bracket by its number."""
    engine = make("random", "hyperband")
    for number in (7, 2, 9):
        engine.tell(ended(number, 1.0, reports=(float(number),)))
    assert engine._pruner is not None
    filed = {trial.number: trial.intermediate_values for trial in engine._pruner._study.trials}
    assert {number: values for number, values in filed.items() if values} == {2: {1: 2.0}, 7: {1: 7.0}, 9: {1: 9.0}}


def test_samplers_learn_from_every_bracket_of_hyperband() -> None:
    """Optuna's own studies show a sampler the trials of one bracket only."""
    alone, with_hyperband = make("tpe"), make("tpe", "hyperband")
    for engine in (alone, with_hyperband):
        for number in range(15):
            engine.tell(ended(number, float(number)))
    assert alone.propose(15) == with_hyperband.propose(15)


def test_hyperband_refuses_ends_in_the_wrong_order() -> None:
    with pytest.raises(RequestError, match="`min_resource <= max_resource` must hold, but got 9 and 3"):
        make("random", "hyperband", scheduler_options={"min_resource": 9, "max_resource": 3})


# The choice of auto


@pytest.mark.parametrize(
    ("space", "scheduler", "n_trials", "algorithm"),
    [
        ({"x": Float(0, 1)}, "none", 30, "gp"),
        ({"x": Float(0, 1)}, "none", 201, "tpe"),
        ({"x": Float(0, 1)}, "none", None, "tpe"),
        ({"x": Float(0, 1)}, "asha", 30, "tpe"),
        ({"s": Categorical(["a", "b"]), "x": Float(0, 1, when={"s": ["a"]})}, "none", 30, "tpe"),
        ({"n": Int(1, 5), "m": Int(1, 6)}, "none", 30, "grid"),
        ({"n": Int(1, 5), "m": Int(1, 6)}, "none", 29, "gp"),
    ],
)
def test_auto(space: dict[str, Parameter], scheduler: str, n_trials: int | None, algorithm: str) -> None:
    search = SearchProblem(
        space=SearchSpace(space),
        goal=Goal("value", Direction.MINIMIZE),
        seed=0,
        algorithm=Spec("auto"),
        scheduler=Spec(scheduler),
    )
    assert create_engine("optuna", search, n_trials).search.algorithm == Spec(algorithm)


def test_auto_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    search = SearchProblem(
        space=SearchSpace({"x": Float(0, 1)}), goal=Goal("value", Direction.MINIMIZE), seed=0, algorithm=Spec("auto")
    )
    assert OptunaEngine.auto(search, 30) == "tpe"


# The user's process


@pytest.mark.parametrize("level", [logging.DEBUG, logging.NOTSET])
def test_the_users_logging_warnings_and_threads_are_left_alone(level: int, capfd: pytest.CaptureFixture[str]) -> None:
    import torch

    logger = logging.getLogger("optuna")
    before = logger.level
    logger.setLevel(level)
    try:
        threads, filters = torch.get_num_threads(), list(warnings.filters)
        engine = make("gp", options={"n_startup_trials": 2})
        for number in range(4):
            engine.tell(ended(number, None if number == 1 else 1.0 * number, params=engine.propose(number)))
        assert (logger.level, torch.get_num_threads(), warnings.filters) == (level, threads, filters)
    finally:
        logger.setLevel(before)
    assert capfd.readouterr() == ("", "")


def test_seeds_of_asks_differ_and_fit_optuna() -> None:
    seeds = {ask_seed(seed, number) for seed in (0, 1, 2**63 - 1) for number in range(100)}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**32 for seed in seeds)
