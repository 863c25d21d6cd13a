"""What mltune needs and what it can do without: its dependencies, its extras, and a process that has no extra."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from mltune.plugins import EXTRAS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DISTRIBUTIONS = {"sklearn": "scikit-learn", "yaml": "pyyaml"}
FOR_AUTHORS = {"pytest"}  # of plugins, who test them with mltune.testing


def names(requirements: Iterable[str]) -> set[str]:
    return {re.split(r"[\[<>=!~]", requirement)[0] for requirement in requirements}


def extra(name: str) -> list[str]:
    return list(PROJECT["optional-dependencies"][name])


OPTIONAL = [requirement for name in {*EXTRAS.values()} for requirement in extra(name)]


# What is declared


def test_each_extra_installs_the_packages_that_name_it() -> None:
    for package, named in EXTRAS.items():
        assert package in names(extra(named))
        assert package not in names(PROJECT["dependencies"])


def test_all_is_every_extra_for_users() -> None:
    (all_of_them,) = extra("all")
    assert all_of_them == f"mlflow-mltune[{','.join(sorted(set(EXTRAS.values())))}]"
    assert "mlflow-mltune[all]" in extra("dev")


def test_no_extra_pins_a_version() -> None:
    assert [requirement for requirement in (*PROJECT["dependencies"], *OPTIONAL) if "==" in requirement] == []


def imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_what_mltune_imports_is_declared() -> None:
    found = {name.partition(".")[0] for file in (ROOT / "mltune").rglob("*.py") for name in imported(file)}
    foreign = found - {*sys.stdlib_module_names, "mltune"} - FOR_AUTHORS
    core = names(PROJECT["dependencies"])
    assert {name for name in foreign if DISTRIBUTIONS.get(name, name) not in core} == {*EXTRAS} - {"cmaes"}


def test_mlflow_run_installs_all_of_it() -> None:
    *_, pip = yaml.safe_load((ROOT / "conda.yaml").read_text())["dependencies"]
    assert names(pip["pip"]) == names([*PROJECT["dependencies"], *OPTIONAL, "pytest"])
    lock = (ROOT / "requirements" / "lock.txt").read_text().lower().splitlines()
    assert {pin.replace("ray[tune]", "ray") for pin in pip["pip"]} <= {*lock}


# A process in which no extra is installed

HIDE = """
import sys
from importlib.machinery import PathFinder

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {hidden} else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
"""
TRAIN = """
import builtins, json, os, sys
import mltune
from sklearn.linear_model import LogisticRegression

def train(trial):
    trial.log_model(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), input_example=[[0.5]])
    return trial.params["x"]

def tune(**keys):
    return mltune.tune(train, {"x": mltune.Float(0, 1)}, direction="minimize", n_trials=2, **keys)
"""

Python = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def without(tmp_path: Path) -> Python:
    """Run Python where it, and the processes that it starts, find none of these packages."""

    def run(hidden: set[str], *arguments: str) -> subprocess.CompletedProcess[str]:
        site = tmp_path / "site"
        site.mkdir(exist_ok=True)
        (site / "sitecustomize.py").write_text(HIDE.format(hidden=hidden))
        folders = [str(site), str(ROOT), os.environ.get("PYTHONPATH", "")]
        variables = os.environ | {"PYTHONPATH": os.pathsep.join(folders).rstrip(os.pathsep), "MLTUNE_REPORT": "true"}
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=300)

    return run


REQUESTS: list[dict[str, Any]] = [
    {"algorithm": "cmaes"},
    {"algorithm": "gp"},
    {"algorithm": "qmc"},
    {"engine": "ray"},
    {"executor": "ray"},
    {"executor": "ray", "algorithm": "gp"},
    {"engine": "optnua", "executor": "ray"},
]
ASK = f"""{TRAIN}
for keys in json.loads(sys.argv[1]):
    try:
        tune(**keys)
    except mltune.RequestError as error:
        print(json.dumps([type(error).__name__, *error.faults]))
"""


def test_what_a_request_lacks_is_told_before_anything_is_created(without: Python, tmp_path: Path) -> None:
    done = without({*EXTRAS, "scipy"}, "-c", ASK.replace("from sklearn", "# from sklearn"), json.dumps(REQUESTS))
    assert done.returncode == 0, done.stderr
    gp = "algorithm gp needs torch and scipy: pip install 'mlflow-mltune[torch]' scipy"
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        ["MissingPackageError", "algorithm cmaes needs cmaes: pip install 'mlflow-mltune[optuna]'"],
        ["MissingPackageError", gp],
        ["MissingPackageError", "algorithm qmc needs scipy: pip install scipy"],
        ["MissingPackageError", "engine 'ray' needs ray: pip install 'mlflow-mltune[ray]'"],
        ["MissingPackageError", "executor 'ray' needs ray: pip install 'mlflow-mltune[ray]'"],
        ["MissingPackageError", gp, "executor 'ray' needs ray: pip install 'mlflow-mltune[ray]'"],
        [
            "RequestError",
            "unknown engine 'optnua'; did you mean 'optuna'?",
            "executor 'ray' needs ray: pip install 'mlflow-mltune[ray]'",
        ],
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


STUDY = f"""{TRAIN}
import_, imported = builtins.__import__, set()

def record(name, globals=None, locals=None, fromlist=(), level=0):
    if level == 0 and (globals or {{}}).get("__name__", "").startswith("mltune."):
        imported.add(name.partition(".")[0])
    return import_(name, globals, locals, fromlist, level)

builtins.__import__ = record
study = tune(executor="inline", algorithm="random", register="best")
print(json.dumps([study.run_id, sorted(imported - {{*sys.stdlib_module_names}} - {{"mltune"}})]))
print(tune(quiet=True).best_trial.model_id)
"""
CORE = ["cloudpickle", "mlflow", "numpy", "optuna", "pandas", "psutil", "pydantic", "requests", "rich", "yaml"]
NO_REPORT = "the report needs matplotlib and plotly: pip install 'mlflow-mltune[report]'"
NO_SKOPS = "saving a scikit-learn model without pickle needs skops: pip install 'mlflow-mltune[sklearn]'"


@pytest.mark.processes
def test_a_study_runs_without_any_extra(without: Python, client: MlflowClient) -> None:
    done = without({*EXTRAS}, "-c", STUDY)
    assert done.returncode == 0, done.stderr
    *said, result, model_id = done.stdout.splitlines()
    run_id, imported = json.loads(result)
    assert imported == CORE
    assert f"note: {NO_REPORT}; then make it with: mltune report {run_id}" in said
    assert NO_SKOPS in done.stderr
    parent = client.get_run(run_id)
    assert parent.info.status == "FINISHED"
    assert "Best" in parent.data.tags["mlflow.note.content"]
    assert [file.path for file in client.list_artifacts(run_id) if file.path == "report"] == []
    path = client.get_logged_model(model_id).artifact_location
    flavors = yaml.safe_load(Path(path.removeprefix("file://"), "MLmodel").read_text())["flavors"]
    assert flavors["sklearn"]["serialization_format"] == "cloudpickle"


@pytest.mark.processes
@pytest.mark.recorded("finished")
def test_the_report_command_says_what_it_needs(without: Python, recorded_study: str) -> None:
    done = without({*EXTRAS}, "-m", "mltune", "report", recorded_study)
    assert (done.returncode, done.stderr) == (2, f"mltune: {NO_REPORT}\n")
    assert without({"torch"}, "-m", "mltune", "report", recorded_study).returncode == 0
