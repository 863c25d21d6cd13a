"""What a study prints: a live panel on a terminal and in a notebook, plain lines elsewhere, and where to look at it."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from mlflow import MlflowClient
from rich.console import Console

import mltune
from mltune import Float
from mltune.api import run_study
from mltune.config import Draft, draft_study
from mltune.driver.lines import locate
from mltune.terminal.display import _Panel
from tests.drivers import wait_for

SPACE = {"x": Float(0, 1)}
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def study(**keys: object) -> Draft:
    given = {"name": "shown", "space": SPACE, "direction": "minimize", "algorithm": "random", "seed": 1, "n_trials": 8}
    return draft_study(given | {"executor": "inline"} | keys)


def objective(trial: mltune.Trial) -> float:
    time.sleep(0.1)
    if trial.number == 2:
        raise ValueError("no")
    return float(trial.params["x"])


def test_a_terminal_shows_what_runs_and_how_long_it_takes(client: MlflowClient) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, highlight=False, soft_wrap=True)
    display = _Panel(console)
    last = ""

    def only_the_last_runs() -> bool:
        nonlocal last
        with console.capture() as capture:
            console.print(display.panel())
        last = ESCAPES.sub("", capture.get())
        return "running 7 " in last

    def watched(trial: mltune.Trial) -> float:
        value = objective(trial)
        if trial.number == 7:
            wait_for(only_the_last_runs)  # the end of the one before is written meanwhile
        return value

    result = run_study(study(), watched, display)
    assert re.search(r"shown .*7 of 8 trials: 6 complete, 1 failed", last)
    assert re.search(r"running 7 · \d+\.\d trials/s · .* so far · about .* left", last)
    assert re.search(r"best 0\.\d+ \(trial \d: x=0\.\d+\)", last)
    lines = ESCAPES.sub("", screen.getvalue())
    assert "trial 2 FAILED (exception)" in lines
    assert "trial 3 COMPLETE" not in lines
    assert f"best: trial {result.best_trial.number} with value = " in lines


def test_a_study_without_number_of_trials_is_measured_by_its_timeout(client: MlflowClient) -> None:
    screen = io.StringIO()
    display = _Panel(Console(file=screen, force_terminal=True, width=120))
    run_study(study(n_trials=None, timeout=1.0), objective, display)
    assert "trials until the timeout" in screen.getvalue()


def test_lines_name_the_warnings(
    client: MlflowClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLTUNE_REPORT", "true")
    result = mltune.tune(lambda trial: 0.5, SPACE, direction="minimize", n_trials=6, executor="inline")
    assert len(result.warnings) == 1
    assert f"warning: {result.warnings[0]}" in capsys.readouterr().out


def test_names_with_colons_are_no_emoji(client: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    mltune.tune(lambda trial: 1.0, {"lr:key:1": Float(0, 1)}, direction="minimize", n_trials=1, executor="inline")
    assert "lr:key:1=0." in capsys.readouterr().out


def test_where_a_server_runs_links_are_printed() -> None:
    look, compare = locate(
        "abc", "http://bob:s3cret@host:5000/", "7", study(direction="maximize", metric="val acc").config
    )
    assert look == "view: http://host:5000/#/experiments/7/runs/abc"
    address = compare.removeprefix("compare its trials: ")
    assert address.startswith("http://host:5000/#/experiments/7/runs?")
    query = parse_qs(urlsplit(address.replace("/#/", "/")).query)
    assert query == {
        "searchFilter": ["tags.`mltune.study` = 'abc'"],
        "orderByKey": ["metrics.`val acc`"],
        "orderByAsc": ["false"],
    }
    _, of_an_old_study = locate("abc", "http://host:5000", "7", None)
    assert "orderByKey" not in of_an_old_study


def test_where_none_runs_the_command_and_the_filter_are_printed(tmp_path: Path) -> None:
    assert locate("abc", "sqlite:////a/mlflow.db", "7", None) == [
        "view: mlflow ui --backend-store-uri sqlite:////a/mlflow.db   (experiment 7, run abc)",
        "compare its trials: search the runs for tags.`mltune.study` = 'abc'",
    ]
