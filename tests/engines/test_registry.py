"""Engines by name, and everything that can be wrong with a request, told at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from mltune.engines import AskTellEngine, create_engine, get_engine, list_engines
from mltune.engines._registry import ENGINES
from mltune.errors import MissingPackageError, RequestError
from mltune.goal import Goal
from mltune.search import SearchProblem, Spec
from mltune.space import Categorical, Float, Int, Params, SearchSpace
from mltune.trial import Direction

PLUGIN = Path(__file__).parents[2] / "plugins" / "mltune-template"


def search(
    algorithm: str = "random",
    scheduler: str = "none",
    *,
    options: Mapping[str, Any] | None = None,
    scheduler_options: Mapping[str, Any] | None = None,
    initial_points: tuple[Params, ...] = (),
    space: Mapping[str, Any] | None = None,
) -> SearchProblem:
    return SearchProblem(
        space=SearchSpace(space or {"x": Float(0, 1), "n": Int(1, 3)}),
        goal=Goal("value", Direction.MINIMIZE),
        seed=0,
        algorithm=Spec(algorithm, options or {}),
        scheduler=Spec(scheduler, scheduler_options or {}),
        initial_points=initial_points,
    )


def faults(engine: str, request: SearchProblem) -> list[str]:
    with pytest.raises(RequestError) as error:
        create_engine(engine, request, 20)
    return list(error.value.faults)


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """Entry points that stand for installed plugins; empty at first."""
    found: list[EntryPoint] = []
    monkeypatch.setattr("mltune.plugins.entry_points", lambda group: found)
    return found


def plugin(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, "mltune.engines")


class Good(AskTellEngine):
    """An engine that offers what mltune enumerates."""


class Hungry(AskTellEngine):
    packages = ("no_such_package",)


HERE = __name__


# Names


def test_own_engines_are_found_without_a_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mltune.plugins.entry_points", lambda group: pytest.fail("scanned"))
    assert get_engine("optuna").__name__ == "OptunaEngine"


def test_an_unknown_engine_is_answered_with_the_nearest_name(plugins: list[EntryPoint]) -> None:
    plugins.append(plugin("hyperopt", "x:Y"))
    assert faults("optnua", search()) == ["unknown engine 'optnua'; did you mean 'optuna'?"]
    assert faults("zzz", search()) == ["unknown engine 'zzz'; known: hyperopt, optuna, ray"]


def test_a_plugin_is_found_by_its_entry_point(plugins: list[EntryPoint]) -> None:
    plugins += [plugin("good", f"{HERE}:Good")] * 2  # a distribution that is found twice
    assert get_engine("good") is Good
    assert create_engine("good", search("auto"), 5).search.algorithm == Spec("random")


def test_two_providers_of_a_name_are_refused(plugins: list[EntryPoint]) -> None:
    plugins += [plugin("good", f"{HERE}:Good"), plugin("good", "zzz:Good")]
    sentence = f"engine 'good' must have one provider, but has {HERE}:Good ({HERE}:Good) and zzz:Good (zzz:Good)"
    assert faults("good", search()) == [f"{sentence}: uninstall all but one"]


# What is missing or broken


def test_a_missing_engine_package_comes_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(ENGINES, "own", {"ray": "ray:Engine"})
    with pytest.raises(MissingPackageError, match=r"^engine 'ray' needs ray: pip install 'mlflow-mltune\[ray\]'$"):
        create_engine("ray", search(), 5)


def test_a_missing_algorithm_package_comes_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mltune.plugins.importable", lambda package: package != "torch")
    with pytest.raises(MissingPackageError, match=r"^algorithm gp needs torch: pip install 'mlflow-mltune\[torch\]'$"):
        create_engine("optuna", search("gp"), 5)
    assert faults("optuna", search("gp", "aha"))[1:] == ["algorithm gp needs torch: pip install 'mlflow-mltune[torch]'"]


def test_a_plugin_that_needs_a_package(plugins: list[EntryPoint]) -> None:
    plugins += [plugin("hungry", f"{HERE}:Hungry"), plugin("lost", "no_such_module:Engine")]
    assert faults("hungry", search()) == ["engine 'hungry' needs no_such_package: pip install no_such_package"]
    assert faults("lost", search()) == ["engine 'lost' needs no_such_module: pip install no_such_module"]


def test_a_plugin_that_explains_why_it_cannot_be_imported(
    plugins: list[EntryPoint], tmp_path: Path, monkeypatch: Any
) -> None:
    code = "try:\n    import no_such_module.part\nexcept ImportError as error:\n    raise ImportError('oh') from error"
    (tmp_path / "explaining_plugin.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    plugins.append(plugin("explaining", "explaining_plugin:Engine"))
    assert faults("explaining", search()) == ["engine 'explaining' needs no_such_module: pip install no_such_module"]


def test_a_broken_plugin_is_one_sentence(plugins: list[EntryPoint], tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "broken_plugin.py").write_text("raise ZeroDivisionError('oh')")
    monkeypatch.syspath_prepend(tmp_path)
    plugins += [plugin("broken", "broken_plugin:Engine"), plugin("wrong", f"{HERE}:PLUGIN")]
    assert faults("broken", search()) == [
        "engine 'broken' of broken_plugin:Engine cannot be loaded: ZeroDivisionError: oh; mend or uninstall it"
    ]
    assert "must be a subclass of Engine" in faults("wrong", search())[0]


def test_no_sentence_tells_to_install_the_strangers_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENGINES, "own", {"optuna": "mltune.engines.not_there:Engine"})
    assert "pip install" not in faults("optuna", search())[0]


class Looping(AskTellEngine):
    """An engine of the first release, with a loop of its own."""

    def run(self, driver: Any) -> None:
        """Never called."""

    def executor(self, *arguments: Any) -> Any:  # type: ignore[override]
        """Was who runs the trials."""


def test_an_engine_of_an_earlier_contract_is_refused(plugins: list[EntryPoint]) -> None:
    plugins.append(plugin("looping", f"{HERE}:Looping"))
    assert faults("looping", search()) == [
        "engine 'looping' must keep today's contract, but it has a loop of its own and an executor() that is no name: "
        "see mltune.engines.Engine"
    ]


# All faults at once


def test_every_fault_of_a_request_is_told() -> None:
    request = search(
        "tpe",
        "asha",
        options={"n_startup": 5, "n_ei_candidates": 0, "multivariate": "yes"},
        scheduler_options={"reduction_factor": 2.5, "min_resource": True},
        initial_points=(
            {"x": 0.5, "n": 9},
            {"x": 0.5},
            {"x": 1, "n": 1},
            {"x": 1.0, "n": 1.0},
            {"x": 0.5, "n": 1, "m": 1},
        ),
    )
    assert faults("optuna", request) == [
        "algorithm tpe has no option 'n_startup'; did you mean 'n_startup_trials'?",
        "algorithm tpe: `n_ei_candidates` must be an int of at least 1, but got 0",
        "algorithm tpe: `multivariate` must be a bool, but got 'yes'",
        "scheduler asha: `reduction_factor` must be an int of at least 2, but got 2.5",
        "scheduler asha: `min_resource` must be an int of at least 1, but got True",
        "initial_points[0]: 'n' must be an int from 1 to 3, but got 9",
        "initial_points[1]: 'n' is missing; it must be an int from 1 to 3",
        "initial_points[3] must differ from the points before it, but is {'x': 1.0, 'n': 1}",
        "initial_points[4]: 'm' is not in the space; known: n, x",
    ]


def test_an_algorithm_or_scheduler_that_the_engine_lacks() -> None:
    assert faults("optuna", search("tpee", "sha")) == [
        "engine optuna has no algorithm 'tpee'; did you mean 'tpe'? "
        "It has: auto, cmaes, gp, grid, manual, qmc, random, tpe",
        "engine optuna has no scheduler 'sha'; did you mean 'asha'? It has: asha, hyperband, median, none",
    ]
    assert faults("optuna", search("zzz"))[0].endswith("; known: auto, cmaes, gp, grid, manual, qmc, random, tpe")


def test_an_unknown_engine_does_not_hide_faulty_points() -> None:
    assert len(faults("zzz", search(initial_points=({"x": 2.0, "n": 1},)))) == 2


def test_requests_that_cannot_be_enumerated() -> None:
    assert faults("optuna", search("manual")) == [
        "algorithm manual runs the `initial_points`, but there are none: give some"
    ]
    assert "'x' is a float from 0.0 to 1.0" in faults("optuna", search("grid"))[0]
    assert faults("optuna", search("auto", options={"n": 1})) == [
        "algorithm auto takes no options, but got 'n': name the algorithm"
    ]
    assert "must map names to values" in faults("optuna", search(initial_points=("x",)))[0]  # type: ignore[arg-type]


def test_points_are_read_as_the_space_wants_them() -> None:
    space = {"x": Float(0, 1), "c": Categorical([1, 1.0])}
    engine = create_engine("optuna", search(initial_points=({"c": 1.0, "x": 1}, {"c": 1, "x": 1}), space=space), 5)
    assert repr(engine.search.initial) == "({'x': 1.0, 'c': 1.0}, {'x': 1.0, 'c': 1})"


# The list


def test_the_list_shows_what_is_there_and_what_is_wrong(
    plugins: list[EntryPoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mltune.plugins.importable", lambda package: package != "torch")
    plugins += [
        plugin("good", f"{HERE}:Good"),
        plugin("hungry", "no_such_module:Engine"),
        plugin("optuna", "thief:Engine"),
        plugin("twice", f"{HERE}:Good"),
        plugin("twice", "zzz:Good"),
    ]
    monkeypatch.setattr(ENGINES, "own", {"optuna": ENGINES.own["optuna"]})
    optuna, good, hungry, twice, thief = list_engines()
    assert (optuna.provider, optuna.installed) == ("mltune", True)
    assert optuna.algorithms == ("cmaes", "gp", "grid", "manual", "qmc", "random", "tpe")
    assert optuna.schedulers == ("asha", "hyperband", "median", "none")
    assert optuna.remedy == "algorithm gp needs torch: pip install 'mlflow-mltune[torch]'"
    assert (good.name, good.installed, good.schedulers) == ("good", True, ("none",))
    assert (hungry.name, hungry.installed) == ("hungry", False)
    assert (twice.installed, "must have one provider" in twice.remedy) == (False, True)
    assert (thief.name, thief.installed) == ("optuna", False)
    assert "give the plugin's entry point another name" in thief.remedy


SHOW_TEMPLATE = """
import sys
from mltune.engines import get_engine, list_engines
print(*[engine for engine in list_engines() if engine.name == "template"])
print(sys.modules[get_engine("template").__module__].__file__)
"""


@pytest.mark.processes
def test_the_template_is_installed_and_tested_like_a_strangers_plugin(tmp_path: Path) -> None:
    copy, target, tests = tmp_path / "copy", tmp_path / "site", tmp_path / "tests"
    shutil.copytree(PLUGIN, copy, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    tests.mkdir()
    shutil.move(copy / "test_mltune_template.py", tests)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--disable-pip-version-check", "--target", target, copy], check=True, cwd=tmp_path)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(target), str(PLUGIN.parents[1])])}

    def python(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, env=environment, cwd=tests, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    listed, where = python("-c", SHOW_TEMPLATE).splitlines()
    assert "provider='mltune-template', installed=True, remedy=''" in listed
    assert Path(where).parent == target
    assert " passed" in python("-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", ".")
