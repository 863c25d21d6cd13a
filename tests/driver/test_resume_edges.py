"""Resuming where records, drivers or spaces are at their edges."""

from __future__ import annotations

import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

import mltune
from mltune import Categorical, Float
from mltune.api import resume_study
from mltune.config import draft_study, validate
from mltune.driver.problems import Problems
from mltune.driver.resume import _changed, place
from mltune.tracking.lease import Lease
from mltune.tracking.reconcile import take_over
from tests.drivers import Drivers, has_begun, kill, wait_for

SPACE = {"x": Float(0.0, 1.0)}


def tune(objective: Any, space: Any = SPACE, **arguments: Any) -> mltune.StudyResult:
    defaults: dict[str, Any] = {"direction": "minimize", "algorithm": "random", "n_trials": 4, "seed": 1}
    return mltune.tune(objective, space, **defaults | {"executor": "inline", "quiet": True} | arguments)


def trials(client: MlflowClient, study: str, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
    return client.search_runs(["0"], f"tags.`mltune.study` = '{study}'", view)


LATE = """
import glob, os, time

def wait_for(condition):
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)

if os.path.exists("together"):
    open(f"importing-{os.getpid()}", "w").close()
    wait_for(lambda: len(glob.glob("importing-*")) == 2)

def train(trial):
    if trial.number >= 2:
        wait_for(lambda: os.path.exists("go"))
    return trial.params["x"]
"""

BEGIN = """
import mltune
from mltune._util import timing
timing.TIMING = timing.Timing(renew_every=0.3)  # the tracking store hears of it often
mltune.tune("late:train", {"x": mltune.Float(0, 1)}, direction="minimize", algorithm="random", n_trials=9, seed=1,
            executor="inline")
"""


def killed_study(drivers: Drivers, client: MlflowClient) -> Run:
    """The parent run of a study of nine trials, killed in the third; from there on they wait for the file `go`."""
    (drivers.folder / "late.py").write_text(LATE)
    pid = drivers.start(BEGIN)
    wait_for(lambda: has_begun(client, 2))
    kill(pid)
    assert drivers.wait(pid) == -signal.SIGKILL
    (parent,) = client.search_runs(["0"], "tags.`mltune.kind` = 'study'")
    return parent


@pytest.mark.alone
def test_of_two_that_resume_one_study_one_gives_way(drivers: Drivers, client: MlflowClient) -> None:
    parent = killed_study(drivers, client)
    study = parent.info.run_id
    (drivers.folder / "together").touch()
    resume = f"import sys; from mltune.cli import main; main(['resume', '{study}'])"
    first = drivers.start(resume)
    second = drivers.start(resume)
    wait_for(lambda: "leave it to that one" in drivers.log.read_text())
    (drivers.folder / "go").touch()
    assert sorted([drivers.wait(first), drivers.wait(second)]) == [0, 2], drivers.log.read_text()
    assert len(list(drivers.folder.glob("importing-*"))) == 2
    complete = [run for run in trials(client, study) if run.data.tags["mltune.state"] == "COMPLETE"]
    assert Counter(int(run.data.tags["mltune.number"]) for run in complete) == Counter(range(9))


@pytest.mark.alone
def test_a_run_made_twice_and_one_never_used_are_deleted(drivers: Drivers, client: MlflowClient) -> None:
    parent = killed_study(drivers, client)
    study = parent.info.run_id
    running = [run for run in trials(client, study) if run.data.tags["mltune.state"] == "RUNNING"]
    (flying,) = [run for run in running if "mltune.params" in run.data.tags]
    made_ahead = {run.info.run_id for run in running if run is not flying}
    number = int(flying.data.tags["mltune.number"])
    twin = client.create_run("0", tags=flying.data.tags)
    reserved = {
        "mltune.kind": "trial", "mltune.study": study, "mltune.number": str(number + 1),
        "mltune.uid": f"{study}-{number + 1}-1", "mltune.state": "RUNNING",
    }  # fmt: skip
    unused = client.create_run("0", tags=reserved)
    parents_twin = client.create_run("0", tags={"mltune.uid": parent.data.tags["mltune.uid"]})
    (drivers.folder / "go").touch()
    assert drivers.run(f"import mltune; mltune.resume('{study}')") == 0, drivers.log.read_text()
    deleted = {run.info.run_id for run in client.search_runs(["0"], "", ViewType.DELETED_ONLY)}
    assert deleted == {twin.info.run_id, unused.info.run_id, parents_twin.info.run_id} | made_ahead
    assert client.get_run(flying.info.run_id).data.tags["mltune.state"] == "INTERRUPTED"
    assert client.search_runs(["0"], "attributes.status = 'RUNNING'") == []
    complete = [run for run in trials(client, study) if run.data.tags["mltune.state"] == "COMPLETE"]
    assert Counter(int(run.data.tags["mltune.number"]) for run in complete) == Counter(range(9))


def test_a_resumed_study_that_only_fails_can_be_resumed_again(client: MlflowClient) -> None:
    def broken(trial: mltune.Trial) -> float:
        raise ValueError("no data")

    study = tune(lambda trial: trial.params["x"]).run_id
    with pytest.raises(mltune.StudyFailedError, match=r"since the study was resumed all failed; .* no data"):
        mltune.resume(study, broken, n_trials=12, quiet=True)
    result = mltune.resume(study, lambda trial: trial.params["x"], quiet=True)
    assert [str(trial.state) for trial in result.trials] == ["COMPLETE"] * 4 + ["FAILED"] * 5 + ["COMPLETE"] * 3


def test_runs_that_the_old_driver_made_after_a_steal_are_deleted(client: MlflowClient) -> None:
    def objective(trial: mltune.Trial) -> float:
        if trial.number == 4:
            tags = {"uid": f"{study}-5-1", "number": "5", "attempt": "1", "state": "RUNNING", "study": study}
            made = client.create_run("0", tags={f"mltune.{name}": value for name, value in tags.items()})
            strays.append(made.info.run_id)
        return 1.0

    strays: list[str] = []
    study = tune(lambda trial: 1.0).run_id
    mltune.resume(study, objective, n_trials=6, steal=True, quiet=True)
    assert [client.get_run(stray).info.lifecycle_stage for stray in strays] == ["deleted"]
    numbers = [int(run.data.tags["mltune.number"]) for run in trials(client, study)]
    assert sorted(numbers) == list(range(6))


def test_choices_stay_text(client: MlflowClient) -> None:
    def objective(trial: mltune.Trial) -> float:
        assert isinstance(trial.params["rate"], str)
        return float(trial.params["rate"])

    space = {"rate": Categorical(["1e-3", "1e3", ".5", "7", "inf"])}
    points = [{"rate": choice} for choice in ("1e-3", "1e3", ".5", "7")]
    study = tune(objective, space, algorithm="tpe", initial_points=points).run_id
    result = mltune.resume(study, objective, n_trials=8, quiet=True)
    assert [trial.params for trial in result.trials[:4]] == points
    assert all(isinstance(trial.params["rate"], str) for trial in result.trials)


def test_a_thousand_metrics_of_one_trial(client: MlflowClient) -> None:
    def objective(trial: mltune.Trial) -> dict[str, float]:
        for step in range(60):
            trial.report({"value": step} | {f"m{i}": step for i in range(20)}, step=step)
        return {"value": 0.25, "final": 7.0}

    (trial,) = tune(objective, n_trials=1).trials
    run = client.get_run(str(trial.run_id))
    assert (run.data.metrics["value"], run.data.metrics["final"], run.data.metrics["m19"]) == (0.25, 7.0, 59.0)
    assert "duration_s" in run.data.metrics
    for name in ("m0", "m19"):
        assert [metric.value for metric in client.get_metric_history(run.info.run_id, name)] == list(range(60))


def test_artifacts_that_cannot_be_written(client: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    client.create_experiment("nowhere", artifact_location=str(tmp_path / "file" / "artifacts"))
    with pytest.raises(mltune.StudyFailedError, match=r"^the tracking store failed: .*Not a directory"):
        tune(lambda trial: 1.0, experiment_name="nowhere")


def test_time_that_was_used_stays_used(client: MlflowClient) -> None:
    study = tune(lambda trial: trial.params["x"]).run_id
    client.set_tag(study, "mltune.elapsed_s", "1000.0")
    mltune.resume(study, lambda trial: trial.params["x"], n_trials=5, quiet=True)
    assert float(client.get_run(study).data.tags["mltune.elapsed_s"]) >= 1000.0


def test_a_renewal_that_was_under_way_does_not_undo_a_steal(client: MlflowClient) -> None:
    study = client.create_run("0").info.run_id
    theirs = str(replace(Lease.mine(), boot="another machine"))
    client.set_tag(study, "mltune.lease", theirs)
    under_way = [theirs]

    class Stealing(MlflowClient):
        """A store that hears of the renewal just after the steal."""

        def log_batch(self, *arguments: Any, **options: Any) -> None:
            super().log_batch(*arguments, **options)
            if under_way:
                self.set_tag(study, "mltune.lease", under_way.pop())

    take_over(Stealing(client.tracking_uri), study, steal=True)
    assert under_way == []
    lease = Lease.parse(client.get_run(study).data.tags["mltune.lease"])
    assert lease is not None
    assert lease.same_driver(Lease.mine())


def test_the_executor_stays_where_another_engine_does_not_bring_its_own(client: MlflowClient) -> None:
    def objective(trial: mltune.Trial) -> float:
        return float(trial.params["x"])

    study = tune(objective).run_id
    mltune.resume(study, objective, engine="ray", n_trials=5, quiet=True)
    tags = client.get_run(study).data.tags
    assert (tags["mltune.engine"], tags["mltune.executor"]) == ("ray", "inline")


@pytest.mark.parametrize(
    ("before", "changes", "after"),
    [
        ({}, {"engine": "ray"}, (None, False)),
        ({"executor": "local"}, {"engine": "ray"}, (None, False)),
        ({"executor": "ray"}, {"engine": "ray"}, ("ray", True)),
        ({"engine": "ray", "executor": "ray"}, {"engine": "optuna"}, (None, False)),
        ({"engine": "ray", "executor": "inline"}, {"engine": "optuna"}, ("inline", True)),
        ({"isolation": "none"}, {"engine": "ray"}, ("inline", True)),
        ({"isolation": "none"}, {"executor": "local"}, ("local", False)),
        ({"engine": "unknown"}, {"engine": "optuna"}, (None, False)),
        ({}, {"n_jobs": 2}, (None, True)),
    ],
)
def test_where_a_resumed_study_runs(before: Any, changes: Any, after: tuple[str | None, bool]) -> None:
    given = {"name": "moved", "direction": "minimize", "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}}}
    assert place(validate(given | before), changes) == after


def test_resources_for_another_executor_are_dropped_with_a_word() -> None:
    given = {"name": "n", "direction": "minimize", "space": SPACE, "engine": "ray", "resources": {"cpu": 1}}
    before = validate(given)
    problems = Problems()
    draft, notes = _changed(given, before, {"engine": "optuna"}, None, problems)
    assert draft.config.resources == {}
    assert notes == ["`resources` is dropped: it was meant for the executor that the study had"]


def test_a_study_whose_time_is_over_is_left_as_it_is(client: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    def slow(trial: mltune.Trial) -> float:
        time.sleep(0.2)
        return 1.0

    study = tune(slow, n_trials=None, timeout=0.1)
    again = mltune.resume(study.run_id, slow)
    assert len(again.trials) == len(study.trials)
    said = capsys.readouterr().out
    assert "finished and was left as it is: its 0.1 s are over; a larger --timeout extends it" in said


def test_all_that_is_wrong_with_a_resume_is_told_at_once(client: MlflowClient) -> None:
    study, objective = tune(lambda trial: 1.0), cast("Any", 3)
    with pytest.raises(mltune.RequestError) as caught:
        mltune.resume(study.run_id, objective, {"x": Float(2.0, 3.0)}, n_trials=9, n_jobs=0, executor="lokal")
    assert [fault.partition(",")[0] for fault in caught.value.faults] == [
        "`n_jobs` must be greater than or equal to 1",
        *["the space must hold all finished trials"] * 3,
        "unknown executor 'lokal'; did you mean 'local'?",
        "the objective must be a function of one trial",
    ]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"space": {"x": {"type": "float", "low": 2, "high": 1}}}, ["space.x: `low <= high` must hold"]),
        ({"space": {"x": Float(2.0, 3.0)}}, ["the space must hold all finished trials"] * 3),
        ({"n_jobs": 0, "callbacks": [3]}, ["`callbacks` must hold instances", "`n_jobs` must be greater"]),
    ],
)
def test_what_only_follows_is_not_told(client: MlflowClient, changes: dict[str, Any], told: list[str]) -> None:
    study = tune(lambda trial: trial.params["x"], initial_points=[{"x": 0.5}])
    with pytest.raises(mltune.RequestError) as caught:
        mltune.resume(study.run_id, lambda trial: 1.0, **changes)
    found = caught.value.faults
    assert [fault.startswith(start) for fault, start in zip(found, told, strict=True)] == [True] * len(told), found


def test_a_wrong_study_file_of_a_study_begun_with_a_function(client: MlflowClient) -> None:
    study = tune(lambda trial: trial.params["x"])
    keys = {"name": "n", "space": SPACE, "metric": "loss", "direction": "maximize", "objective": "nocolon"}
    with pytest.raises(mltune.RequestError) as caught:
        resume_study(study.run_id, {"n_trials": 9}, mltune.Callback(), file=draft_study(keys))
    assert [fault.partition(",")[0] for fault in caught.value.faults] == [
        "`objective` must be module:function",
        "`metric` must stay as the study has it",
        "`direction` must stay as the study has it",
    ]


def test_a_study_without_time_for_a_trial_fails_with_that_reason(client: MlflowClient) -> None:
    with pytest.raises(mltune.StudyFailedError, match="no trial was started before the timeout"):
        tune(lambda trial: 1.0, timeout=1e-9)
