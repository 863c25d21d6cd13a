"""What a study tells is logged, whatever is printed: by standard logging, at fitting levels, without credentials."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from mlflow import MlflowClient

import mltune
from mltune import Callback, Study, StudyFailedError, StudyState
from mltune.driver.lines import Log
from mltune.messages import StoreDown, StoreUp
from mltune.tracking.registration import Registration

Caplog = pytest.LogCaptureFixture


@pytest.fixture
def log(caplog: Caplog) -> Caplog:
    """What is logged under ``mltune``, from INFO up."""
    caplog.set_level(logging.INFO, logger="mltune")
    return caplog


def lines(log: Caplog, level: int | None = None) -> list[str]:
    records = [record for record in log.records if record.name == "mltune" and level in (None, record.levelno)]
    return [record.getMessage() for record in records]


def tune(objective: Any, **keys: Any) -> Study:
    defaults: dict[str, Any] = {"direction": "minimize", "n_trials": 3, "seed": 1, "executor": "inline", "name": "told"}
    return mltune.tune(objective, {"x": mltune.Float(0, 1)}, quiet=True, **defaults | keys)


def test_a_quiet_study_is_logged(client: MlflowClient, log: Caplog, capfd: pytest.CaptureFixture[str]) -> None:
    def objective(trial: mltune.Trial) -> float:
        if trial.number == 1:
            raise ValueError("no")
        return 1.0 + trial.number

    study = tune(objective)
    told = lines(log)
    assert told[0].startswith("study told: 3 trials, engine optuna, algorithm ")
    assert told[0].endswith(f", run {study.run_id}")
    assert "study told is COMPLETE" in told
    assert any(line.startswith("best: trial 0 with value = 1 (x=") for line in told)
    assert [line.split(" in ")[0] for line in told if line.startswith("trial ")] == [
        "trial 0 COMPLETE 1",
        "trial 1 FAILED (exception)",
        "trial 2 COMPLETE 3",
    ]
    assert [line.split(" in ")[0] for line in lines(log, logging.WARNING)] == ["trial 1 FAILED (exception)"]
    assert capfd.readouterr().out == ""


def test_a_choice_is_a_note_and_a_retry_a_warning(client: MlflowClient, log: Caplog) -> None:
    failed: list[int] = []

    def objective(trial: mltune.Trial) -> float:
        if not failed:
            failed.append(trial.number)
            raise ValueError("once")
        return 1.0

    tune(objective, retries={"exception": 1}, algorithm="auto")
    assert any(line.startswith("algorithm auto is ") for line in lines(log, logging.INFO))
    assert "trial 0 FAILED (exception) and is tried again" in lines(log, logging.WARNING)


def test_outages_and_the_faults_of_models_are_warnings(client: MlflowClient, log: Caplog) -> None:
    class Keeps(Callback):
        def on_study_end(self, study: StudyState, result: Study | None) -> None:
            ends.append(study)

    ends: list[StudyState] = []
    study = tune(lambda trial: trial.params["x"], callbacks=[Keeps()])
    log.clear()
    for event in (StoreDown("refused"), StoreUp()):
        Log().on_note(str(event))
    faulty = Registration("named", "1", fault="it does not load")
    Log().on_study_end(ends[0], replace(study, registration=faulty, warnings=("few trials: give more",)))
    assert lines(log, logging.WARNING) == [
        "the tracking store does not answer, results wait in memory: refused",
        "the tracking store answers again",
        "few trials: give more",
        str(faulty),
    ]


def test_a_study_that_fails_and_one_that_is_finished(client: MlflowClient, log: Caplog) -> None:
    def fails(trial: mltune.Trial) -> float:
        raise ValueError("no")

    with pytest.raises(StudyFailedError):
        tune(fails)
    assert "study told ended early: 3 of 3 trials: 3 failed" in lines(log, logging.WARNING)
    study = tune(lambda trial: 1.0)
    log.clear()
    mltune.resume(study.run_id, lambda trial: 1.0, quiet=True)
    (line,) = lines(log)
    assert line.startswith(f"study {study.run_id} is finished and was left as it is: it has 3 trials")


def test_a_resumed_study_says_how_far_it_was(client: MlflowClient, log: Caplog) -> None:
    study = tune(lambda trial: 1.0)
    log.clear()
    mltune.resume(study.run_id, lambda trial: 1.0, n_trials=4, quiet=True)
    assert "resumed: 3 trials are finished" in lines(log, logging.INFO)


def test_credentials_are_not_logged(client: MlflowClient, log: Caplog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAREHOUSE_TOKEN", "gr4nite-and-b4salt")

    class Told(Callback):
        def on_study_start(self, study: StudyState, notes: Sequence[str]) -> None:
            Log().on_note("postgres://me:s3cret@host/db refused gr4nite-and-b4salt")

    tune(lambda trial: 1.0, callbacks=[Told()])
    assert "postgres://host/db refused ***" in lines(log, logging.WARNING)


def test_without_a_handler_of_the_program_nothing_is_written() -> None:
    code = "import logging, mltune; logging.getLogger('mltune').warning('to nobody')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
