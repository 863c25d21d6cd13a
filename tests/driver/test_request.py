"""A request is resolved, or all that is wrong with it is told at once, across keys."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import pytest
import yaml

from mltune import Trial
from mltune.config import draft_study
from mltune.driver.request import Resolved, prepare
from mltune.engines import Engine
from mltune.engines._registry import ENGINES
from mltune.errors import MissingPackageError, RequestError
from mltune.execution.inline import InlineExecutor
from mltune.execution.local import LocalExecutor


def objective(trial: Trial) -> float:
    return 0.0


def ask(objective: Any = objective, **keys: Any) -> Resolved:
    given = {"name": "asked", "direction": "minimize", "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}}}
    return prepare(draft_study(given | {"n_trials": 3} | keys), objective).study


def errors(objective: Any = objective, **keys: Any) -> list[str]:
    with pytest.raises(RequestError) as caught:
        ask(objective, **keys)
    return list(caught.value.faults)


def test_all_that_contradicts_is_told_at_once() -> None:
    assert errors(
        executor="inline",
        n_jobs=2,
        resources={"cpu": 1},
        trial_timeout=5,
        trial_memory="2GiB",
        keep_models="none",
        registered_model_name="best",
        n_trials=None,
        algorithm={"name": "tpe", "n_startup": 3},
        scheduler="asah",
        initial_points=[{"x": 2.0}],
    ) == [
        "algorithm tpe has no option 'n_startup'; did you mean 'n_startup_trials'?",
        "engine optuna has no scheduler 'asah'; did you mean 'asha'? It has: asha, hyperband, median, none",
        "initial_points[0]: 'x' must be a float from 0.0 to 1.0, but got 2.0",
        "executor inline runs 1 trial at a time, but got n_jobs=2: set it to 1, or use executor local",
        "`resources` needs an executor that places trials, but executor inline does not, and got {'cpu': 1.0}: "
        "use executor ray, or drop it",
        "`trial_timeout` needs an executor that can end a trial, but executor inline cannot: drop one of them",
        "`trial_memory` needs an executor that can end a trial, but executor inline cannot: drop one of them",
        "`registered_model_name` needs the best trial's model, but got `keep_models: none`: use all or best",
    ]


def test_what_is_wrong_by_itself_is_told_beside_what_contradicts() -> None:
    """A key that is wrong contradicts nothing: there is no word of `n_trials` or of points in the space."""
    assert errors(
        3,
        name="",
        direction="up",
        metric="duration_s",
        space={"x": {"type": "float", "low": 1.0, "high": 0.0}},
        initial_points=[{"y": 2.0}],
        n_trials=0,
        n_jobs=2,
        executor="inline",
        scheduler="asah",
        algorithm={"name": "grid", "n_startup": 3},
    ) == [
        "`name` must have at least 1 character, but got ''",
        "`metric` must not be 'duration_s', under which mltune records how long a trial took, but got 'duration_s'",
        "`direction` must be 'minimize' or 'maximize', but got 'up'",
        "space.x: `low <= high` must hold, but got (low=1.0, high=0.0)",
        "`n_trials` must be greater than or equal to 1, but got 0",
        "algorithm grid has no option 'n_startup'; none are known",
        "engine optuna has no scheduler 'asah'; did you mean 'asha'? It has: asha, hyperband, median, none",
        "executor inline runs 1 trial at a time, but got n_jobs=2: set it to 1, or use executor local",
        "the objective must be a function of one trial, but got 3",
    ]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"n_trial": 30, "n_trials": None}, ["unknown key 'n_trial'"]),
        ({"engin": "ray", "scheduler": "pbt", "resources": {"cpu": 1}}, ["unknown key 'engin'"]),
        ({"engine": ["ray"], "scheduler": "pbt", "resources": {"cpu": 1}}, ["`engine` must be a valid string"]),
        ({"engine": ["ray"], "executor": "inline", "n_jobs": 2}, ["`engine` must be", "executor inline runs 1 trial"]),
        ({"exector": "ray", "resources": {"cpu": 1}}, ["unknown key 'exector'"]),
        ({"executor": 3, "resources": {"cpu": 1}}, ["`executor` must be a valid string"]),
        ({"algorithm": {"nme": "grid"}, "n_trials": None}, ["`algorithm` must be a name, or a mapping"]),
        ({"algorithm": "manual", "initial_point": [{"x": 0.5}]}, ["unknown key 'initial_point'"]),
        ({"algorithm": "manual", "initial_points": [3]}, ["`initial_points.0` must be a valid dictionary"]),
        ({"algorithm": "grid", "space": {"x": {"type": "float"}}, "n_trials": None}, ["space.x: "] * 2),
        ({"algorithm": "manual", "space": {"x": {"type": "float"}}, "initial_points": [{"x": 1}]}, ["space.x: "] * 2),
        ({"n_jobs": 0, "n_job": 2}, ["`n_jobs` must be", "unknown key 'n_job'"]),
    ],
)
def test_what_only_follows_from_a_wrong_key_is_not_told(keys: dict[str, Any], told: list[str]) -> None:
    found = errors(**keys)
    assert [fault.startswith(start) for fault, start in zip(found, told, strict=True)] == [True] * len(told), found


def test_an_objective_that_cannot_travel_is_told_beside_the_rest() -> None:
    import threading

    lock = threading.Lock()
    found = errors(lambda trial: float(lock.locked()), keep_models="none", registered_model_name="best")
    assert [each.partition(",")[0] for each in found] == [
        "`registered_model_name` needs the best trial's model",
        "the objective must be picklable to travel to a worker",
    ]


def test_a_study_without_an_end_is_told_beside_the_rest() -> None:
    assert errors(n_trials=None, keep_models="none", registered_model_name="best") == [
        "`registered_model_name` needs the best trial's model, but got `keep_models: none`: use all or best",
        "`n_trials` or `timeout` must be given if the algorithm is tpe",
    ]


@pytest.mark.parametrize(
    ("keys", "executor", "name"),
    [
        ({}, LocalExecutor, "local"),
        ({"executor": "inline"}, InlineExecutor, "inline"),
        ({"isolation": "none"}, InlineExecutor, "inline"),
        ({"isolation": "process"}, LocalExecutor, "local"),
        ({"engine": "ray", "executor": "inline"}, InlineExecutor, "inline"),
    ],
)
def test_the_executor_is_named_or_implied(keys: dict[str, Any], executor: type, name: str) -> None:
    study = ask(**keys)
    assert study.executor is executor
    assert study.config.executor == name
    recorded = yaml.safe_load(study.config.to_yaml())
    assert (recorded["executor"], "isolation" in recorded) == (name, False)


def test_engine_ray_implies_executor_ray() -> None:
    assert ask(engine="ray").config.executor == ask(executor="ray").config.executor == "ray"


def test_the_engine_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    get = ENGINES.get

    def counted(name: str) -> type[Engine]:
        names.append(name)
        return get(name)

    monkeypatch.setattr(ENGINES, "get", counted)
    ask()
    assert names == ["optuna"]


def test_a_grid_has_as_many_trials_as_points() -> None:
    grid: dict[str, Any] = {"algorithm": "grid", "space": {"n": {"type": "int", "low": 1, "high": 4}}}
    assert ask(**grid, n_trials=None).config.n_trials == 4
    assert ask(**grid, n_trials=2).config.n_trials == 2
    study = ask(**grid, n_trials=9, initial_points=[{"n": 3}])
    assert (study.config.n_trials, study.engine.n_points) == (4, 4)
    assert study.notes == ("algorithm grid has 4 points, so n_trials is 4, not 9",)


def test_an_unknown_executor_is_answered_with_the_nearest_name() -> None:
    assert errors(executor="inlin", engine="optnua") == [
        "unknown engine 'optnua'; did you mean 'optuna'?",
        "unknown executor 'inlin'; did you mean 'inline'?",
    ]


def test_an_executor_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("mine", f"{__name__}:Mine", "mltune.executors")
    monkeypatch.setattr("mltune.plugins.entry_points", lambda group: [entry] if group == entry.group else [])
    assert ask(executor="mine").executor is Mine


def test_where_packages_are_all_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mltune.plugins.importable", lambda package: package not in ("ray", "torch"))
    with pytest.raises(MissingPackageError) as caught:
        ask(executor="ray", algorithm="gp")
    assert caught.value.faults == (
        "algorithm gp needs torch: pip install 'mlflow-mltune[torch]'",
        "executor 'ray' needs ray: pip install 'mlflow-mltune[ray]'",
    )
    assert not isinstance(
        _raised(engine="ray", n_jobs=1, keep_models="none", registered_model_name="best"), MissingPackageError
    )


class Mine(InlineExecutor):
    """An executor of somebody else's."""


def _raised(**keys: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        ask(**keys)
    return caught.value
