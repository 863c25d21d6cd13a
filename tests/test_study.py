"""The record of a study: the parent run, its trials, and what user code logs, on a real store."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

import mltune
from mltune import Categorical, Float, Int, TrialState
from mltune.errors import ObjectiveError, RequestError
from tests.shared import copy_store
from tests.store import experiment_named, forget_tracking_uri, model_ids

SPACE = {"x": Float(0.0, 1.0), "kind": Categorical(["a", "b"])}

HERE = {"engine": "optuna", "n_jobs": 1, "executor": "inline"}
ONE_WORKER = {"engine": "optuna", "n_jobs": 1, "executor": "local"}
TWO_WORKERS = {"engine": "optuna", "n_jobs": 2, "executor": "local"}
RAY = {"engine": "ray", "n_jobs": 2}

STATES = {
    "curve": ("COMPLETE", "FINISHED", None),
    "leave a thread": ("COMPLETE", "FINISHED", None),
    "wait until it speaks": ("COMPLETE", "FINISHED", None),
    "fine": ("COMPLETE", "FINISHED", None),
    "raise": ("FAILED", "FAILED", "exception"),
    "nan": ("FAILED", "FAILED", "nan"),
    "inf": ("FAILED", "FAILED", "nan"),
    "missing": ("FAILED", "FAILED", "missing-metric"),
    "nothing": ("FAILED", "FAILED", "missing-metric"),
    "far": ("FAILED", "FAILED", "exception"),
    "text": ("FAILED", "FAILED", "exception"),
    "name": ("FAILED", "FAILED", "exception"),
    "prune": ("PRUNED", "KILLED", None),
    "timeout": ("FAILED", "FAILED", "timeout"),
    "exit": ("FAILED", "FAILED", "worker-died"),
}
"""What an objective may do, and what becomes of its trial: state, status and reason."""


def tune(objective: Any, space: Any = SPACE, **arguments: Any) -> mltune.StudyResult:
    """Run a study, in this process unless it is told otherwise."""
    defaults: dict[str, Any] = {"direction": "minimize", "algorithm": "random", "n_trials": 3, "seed": 1, "quiet": True}
    executor = "local" if arguments.get("n_jobs", 1) > 1 else "inline"
    return mltune.tune(objective, space, **defaults | {"executor": executor} | arguments)


@dataclass(frozen=True)
class Study:
    """A study that several tests look at.

    Attributes:
        result: Its result.
        client: A client of its store.
        runs: Those of its trials, by number and attempt.
        before: What of this process must not change, as it was before.
        after: The same, afterwards.
    """

    result: mltune.StudyResult
    client: MlflowClient
    runs: list[Run]
    before: object
    after: object

    def doing(self, *what: str) -> list[Run]:
        """The runs whose objective did that."""
        return [run for run in self.runs if run.data.params["what"] in what]


def of_this_process() -> object:
    handlers = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    return dict(os.environ), mlflow.get_tracking_uri(), handlers


@contextmanager
def store_of_its_own(request: pytest.FixtureRequest) -> Iterator[MlflowClient]:
    """A fresh store for the studies of a fixture that lives longer than a test; the current folder is its folder."""
    folder = request.getfixturevalue("tmp_path_factory").mktemp("store")
    uri = copy_store(request.getfixturevalue("empty_store"), folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        yield MlflowClient(uri)
    forget_tracking_uri()


def run_study(request: pytest.FixtureRequest, client: MlflowClient, objective: Any, **arguments: Any) -> Study:
    """A study of given points, on the engine that is the fixture's parameter."""
    where: dict[str, Any] = request.param
    points = arguments.pop("initial_points")
    space = {"what": Categorical(list(dict.fromkeys(point["what"] for point in points))), "x": Float(0.0, 1.0)}
    with request.getfixturevalue("join_ray")() if where["engine"] == "ray" else nullcontext():
        before = of_this_process()
        result = tune(objective, space, algorithm="manual", initial_points=points, n_trials=None, **where | arguments)
        after = of_this_process()
    return Study(result, client, children(client, result.run_id), before, after)


COLUMNS = [
    pytest.param(ONE_WORKER, id="optuna-1", marks=pytest.mark.processes),
    pytest.param(TWO_WORKERS, id="optuna-2", marks=pytest.mark.processes),
    pytest.param(RAY, id="ray-2", marks=pytest.mark.alone),
]


@pytest.fixture(scope="module", params=COLUMNS)
def eventful(request: pytest.FixtureRequest) -> Study:
    """A study in which an objective does all that it may do; three trials have curves."""

    def objective(trial: mltune.Trial) -> Any:
        def speak_late() -> None:
            wait_for(ask)
            speaks.touch()
            trial.report(9.0, step=99)  # nothing answers it

        def wait_for(path: Path) -> None:
            while not path.exists():
                time.sleep(0.01)

        what = trial.params["what"]
        left = [thread for thread in threading.enumerate() if thread.name == "left behind"]
        if left and not spoken.exists():
            ask.touch()
            wait_for(speaks)
            left[0].join(0.2)
            spoken.touch()
            for step in range(3):
                trial.report(1.0, step=step)
            return {"value": 1.0, "disturbed": 1.0}
        match what:
            case "curve":
                for step in (1, 4):
                    trial.report({"value": 10.0 / step, "aside": float(step)}, step=step)
                return {"value": trial.params["x"], "final": 7.0}
            case "leave a thread":
                threading.Thread(target=speak_late, name="left behind", daemon=True).start()
            case "wait until it speaks":
                wait_for(spoken)  # so that the worker with the thread has a next trial
            case "raise":
                raise ValueError("a bad day")
            case "nan":
                return float("nan")
            case "inf":
                return float("inf")
            case "missing":
                return {"other": 1.0}
            case "nothing":
                return None
            case "far":
                trial.report(1.0, step=10**20)
            case "text":
                return "no number"
            case "name":
                return {"value": 1.0, "a[0]": 1.0}
            case "prune":
                trial.report(5.0, step=2)
                raise mltune.TrialPruned
            case "timeout":
                time.sleep(600)
            case "exit":
                os._exit(3)
        return 1.0

    with store_of_its_own(request) as client:
        ask, speaks, spoken = (Path(name).absolute() for name in ("ask", "speaks", "spoken"))
        return run_study(
            request,
            client,
            objective,
            name="demo",
            initial_points=[{"what": what, "x": n / 20} for n, what in enumerate(["curve", "curve", *STATES])],
            trial_timeout=10.0,
            retries={"worker-died": 1},
        )


@pytest.fixture(scope="module", params=COLUMNS)
def logging_study(request: pytest.FixtureRequest) -> Study:
    """A study whose objective logs by itself, moves MLflow elsewhere, or draws a curve of nine steps for ASHA."""

    def objective(trial: mltune.Trial) -> float:
        import mlflow.sklearn
        import sklearn.linear_model

        mlflow.log_metric("by_hand", trial.number)
        match trial.params["what"]:
            case "move":
                mlflow.set_tracking_uri(elsewhere)
            case "log":
                mlflow.sklearn.autolog(log_models=False, silent=True)
                mlflow.log_param("mine", trial.number)
                mlflow.log_text("hello", "note.txt")
                model = sklearn.linear_model.LogisticRegression(max_iter=50).fit([[0.0], [1.0], [2.0]], [0, 1, 1])
                mlflow.sklearn.log_model(model, name="flavor", pip_requirements=["scikit-learn"])
                with mlflow.start_run(nested=True, run_name="inner"):
                    mlflow.log_metric("deep", 1.0)
                try:
                    mlflow.start_run()
                except Exception as error:
                    mlflow.set_tag("refusal", str(error))
            case "curve":
                for step in range(1, 10):
                    trial.report(trial.params["x"], step=step)
        return float(trial.params["x"])

    again = (1.0, 0.99) if request.param["n_jobs"] == 1 else (1.0,)  # in the same process
    with store_of_its_own(request) as client:
        elsewhere = f"sqlite:///{Path.cwd()}/other.db"
        return run_study(
            request,
            client,
            objective,
            initial_points=[{"what": what, "x": x} for x in again for what in ("move", "log")]
            + [{"what": "curve", "x": x / 10} for x in range(1, 10)],
            scheduler={"name": "asha", "min_resource": 1, "reduction_factor": 3},
            experiment_name="here",
        )


def children(client: MlflowClient, parent: str) -> list[Run]:
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.`mlflow.parentRunId` = '{parent}'")
    place = ("mltune.number", "mltune.attempt")
    return sorted(runs, key=lambda run: [int(run.data.tags.get(name, -1)) for name in place])


def outcome(run: Run) -> tuple[str, str, str | None]:
    tags = run.data.tags
    return tags["mltune.state"], run.info.status, tags.get("mltune.reason")


def test_the_parent_run(client: MlflowClient) -> None:
    result = tune(lambda trial: {"value": trial.params["x"], "other": 2.0}, name="demo")
    parent = client.get_run(result.run_id)
    tags = {k.removeprefix("mltune."): v for k, v in parent.data.tags.items() if k.startswith("mltune.")}
    best = min(result.trials, key=lambda trial: trial.value or 0.0)
    assert tags.pop("study_digest")
    assert tags.pop("uid")
    assert json.loads(tags.pop("lease"))["pid"] == os.getpid()
    assert float(tags.pop("elapsed_s")) >= 0
    assert float(tags.pop("tracking_ms_per_trial")) > 0
    study_yaml = Path(client.download_artifacts(result.run_id, "study.yaml"))
    assert int(tags.pop("tracking_bytes")) == study_yaml.stat().st_size == result.cost.size
    assert json.loads(tags.pop("best_params")) == dict(best.params)
    assert float(tags.pop("best_value")) == best.value
    assert tags == {
        "kind": "study",
        "engine": "optuna",
        "executor": "inline",
        "algorithm": "random",
        "scheduler": "none",
        "metric": "value",
        "direction": "minimize",
        "seed": "1",
        "state": "COMPLETE",
        "best_run_id": best.run_id,
    }
    assert (parent.info.status, parent.info.run_name) == ("FINISHED", "demo")
    assert parent.data.metrics == {"value": best.value, "other": 2.0}
    assert client.get_experiment("0").tags["mlflow.experiment.primaryMetric.name"] == "value"
    study = yaml.safe_load(study_yaml.read_text())
    assert (study["n_trials"], study["seed"], study["space"]["x"]["high"]) == (3, 1, 1.0)


@pytest.mark.processes
def test_the_parent_shows_the_best_though_a_later_trial_ended_before(client: MlflowClient) -> None:
    def objective(trial: mltune.Trial) -> float:
        client = MlflowClient()
        study = client.get_run(str(trial.run_id)).data.tags["mltune.study"]
        while trial.number == 0 and len(client.get_metric_history(study, "value")) < 2:
            time.sleep(0.01)
        return {0: 0.0, 1: 2.0, 2: 1.0}[trial.number]

    result = tune(objective, n_trials=3, n_jobs=2)
    history = sorted(client.get_metric_history(result.run_id, "value"), key=lambda metric: metric.step)
    assert [(metric.step, metric.value) for metric in history] == [(0, 2.0), (1, 1.0), (2, 0.0)]
    assert client.get_run(result.run_id).data.metrics == {"value": 0.0}


def test_a_trial_run(eventful: Study) -> None:
    result, client, runs = eventful.result, eventful.client, eventful.doing("curve")
    assert [run.info.run_name for run in runs] == ["0000-demo", "0001-demo", "0002-demo"]
    for run, trial in zip(runs, result.trials[:3], strict=True):
        tags = {k.removeprefix("mltune."): v for k, v in run.data.tags.items() if k.startswith("mltune.")}
        assert tags.pop("uid")
        assert json.loads(tags.pop("params")) == dict(trial.params)
        assert float(tags.pop("value")) == trial.value == trial.params["x"]
        assert tags == {
            "kind": "trial",
            "study": result.run_id,
            "number": str(trial.number),
            "seed": str(trial.seed),
            "state": "COMPLETE",
            "attempt": "1",
            "steps": "[1, 4]",
        }
        assert run.info.status == "FINISHED"
        assert run.data.params == {name: str(value) for name, value in trial.params.items()}
        assert run.data.metrics["value"] == trial.value
        assert (run.data.metrics["final"], run.data.metrics["aside"]) == (7.0, 4.0)
        assert run.data.metrics["duration_s"] == pytest.approx(trial.duration)
        history = client.get_metric_history(run.info.run_id, "value")
        assert [(m.step, m.value) for m in history] == [(1, 10.0), (4, 2.5), (4, trial.value)]
        assert history[-1].timestamp > history[-2].timestamp


def test_states_statuses_and_reasons(eventful: Study) -> None:
    result, client = eventful.result, eventful.client
    runs = {run.data.params["what"]: run for run in eventful.runs}
    assert {what: outcome(run) for what, run in runs.items()} == STATES
    assert outcome(client.get_run(result.run_id)) == ("COMPLETE", "FINISHED", None)
    assert result.best_trial.params == {"what": "curve", "x": 0.0}
    assert float(runs["prune"].data.tags["mltune.value"]) == 5.0
    traceback = Path(client.download_artifacts(runs["raise"].info.run_id, "traceback.txt")).read_text()
    assert traceback.startswith("Traceback")
    assert traceback.rstrip().endswith("ValueError: a bad day")
    assert "runner.py" not in traceback
    missing = Path(client.download_artifacts(runs["missing"].info.run_id, "traceback.txt")).read_text()
    assert missing == "the objective must return the metric 'value', but it returned other\n"


def test_only_a_trial_whose_worker_died_is_tried_again(eventful: Study) -> None:
    assert [outcome(run) for run in eventful.doing("exit")] == [STATES["exit"]] * 2
    attempts = {run.data.tags["mltune.attempt"] for run in eventful.runs if run.data.params["what"] != "exit"}
    assert attempts == {"1"}


def test_a_thread_left_behind_disturbs_no_later_trial(eventful: Study) -> None:
    (disturbed,) = (run for run in eventful.runs if "disturbed" in run.data.metrics)
    assert disturbed.data.tags["mltune.steps"] == "[0, 1, 2]"
    (left,) = eventful.doing("leave a thread")
    assert "mltune.steps" not in left.data.tags


def test_nothing_of_the_process_is_changed(eventful: Study) -> None:
    assert eventful.after == eventful.before


def test_asha_prunes_at_that_very_step(logging_study: Study) -> None:
    pruned = [trial for trial in logging_study.result.trials if trial.state is TrialState.PRUNED]
    assert len(pruned) >= 5
    for trial in pruned:
        steps = [m.step for m in logging_study.client.get_metric_history(str(trial.run_id), "value")]
        assert steps == list(range(1, len(steps) + 1))
        assert len(steps) < 9
        assert list(trial.reports) == steps
    assert logging_study.result.best_trial.params == {"what": "curve", "x": 0.1}


def test_what_user_code_logs_lands_in_its_trial(logging_study: Study) -> None:
    client, runs = logging_study.client, logging_study.doing("log")
    for run in runs:
        number = run.data.tags["mltune.number"]
        assert (run.data.metrics["by_hand"], run.data.params["mine"]) == (float(number), number)
        assert run.data.params["max_iter"] == "50"
        assert "note.txt" in {file.path for file in client.list_artifacts(run.info.run_id)}
        assert "already active" in run.data.tags["refusal"]
        assert [child.info.run_name for child in children(client, run.info.run_id)] == ["inner"]
        model_id = model_ids(run)[0]
        assert client.get_logged_model(model_id).experiment_id == run.info.experiment_id
    assert len(runs) == sum(trial.params["what"] == "log" for trial in logging_study.result.trials) > 0
    assert len(logging_study.runs) == len(logging_study.result.trials)


def test_an_objective_that_moves_mlflow_elsewhere_disturbs_no_later_trial(logging_study: Study) -> None:
    client, runs = logging_study.client, logging_study.runs
    assert [run.data.metrics["by_hand"] for run in runs] == list(range(len(runs)))
    assert {run.info.experiment_id for run in runs} == {experiment_named(client, "here").experiment_id}
    assert logging_study.after == logging_study.before


def test_five_failures_at_the_start_end_the_study(client: MlflowClient) -> None:
    def objective(trial: mltune.Trial) -> float:
        raise RuntimeError("no data")

    with pytest.raises(mltune.StudyFailedError) as caught:
        tune(objective, n_trials=20)
    assert str(caught.value).startswith(
        "the first 5 of 5 trials failed and none completed; the last one: RuntimeError: no data"
    )
    parent = client.get_run(caught.value.run_id)
    assert outcome(parent)[:2] == ("FAILED", "FAILED")
    assert len(children(client, caught.value.run_id)) == 5


def test_a_timeout_stops_asking(client: MlflowClient) -> None:
    def objective(trial: mltune.Trial) -> float:
        time.sleep(0.2)
        return 1.0

    result = tune(objective, n_trials=None, timeout=1.0)
    assert 1 <= len(result.trials) <= 6
    assert all(trial.state is TrialState.COMPLETE for trial in result.trials)


@pytest.mark.processes
def test_trials_cut_off_by_the_timeout_are_why_the_study_failed(client: MlflowClient) -> None:
    def objective(trial: mltune.Trial) -> float:
        time.sleep(600)
        return 1.0

    with pytest.raises(mltune.StudyFailedError, match="none of 1 trials completed before the timeout and its grace"):
        tune(objective, n_trials=1, timeout=3.0, grace_period=0, executor="local")


@pytest.mark.alone
def test_a_seed_repeats_the_list_on_ray_too(client: MlflowClient, joined_ray: None) -> None:
    results = [
        tune(lambda trial: trial.params["x"], algorithm="tpe", n_trials=13, **where)
        for where in (HERE, ONE_WORKER, RAY | {"n_jobs": 1})
    ]
    first, second, third = ([trial.params for trial in result.trials] for result in results)
    assert first == second == third


def test_initial_points_come_first(client: MlflowClient) -> None:
    result = tune(lambda trial: trial.params["x"], initial_points=[{"x": 1, "kind": "b"}])
    assert result.trials[0].params == {"x": 1.0, "kind": "b"}
    assert len(result.trials) == 3


@pytest.mark.parametrize("n_jobs", [1, pytest.param(2, marks=pytest.mark.processes)])
def test_a_grid_has_each_point_once(n_jobs: int, client: MlflowClient) -> None:
    space = {"a": Int(1, 3), "b": Categorical([1, "1", True])}
    result = tune(lambda trial: trial.params["a"], space, algorithm="grid", n_trials=50, n_jobs=n_jobs)
    points = [(trial.params["a"], type(trial.params["b"])) for trial in result.trials]
    assert sorted(points, key=str) == sorted([(a, t) for a in (1, 2, 3) for t in (int, str, bool)], key=str)


def test_the_active_run_becomes_the_studys_parent_and_stays_open(client: MlflowClient) -> None:
    with mlflow.start_run() as outer:
        result = tune(lambda trial: 1.0, n_trials=1)
        assert mlflow.active_run() is not None
        assert client.get_run(outer.info.run_id).info.status == "RUNNING"
    assert [run.info.run_id for run in children(client, outer.info.run_id)] == [result.run_id]


def test_the_run_of_mlflow_run_is_the_first_study(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    outer = client.create_run(client.create_experiment("projects")).info
    monkeypatch.setenv("MLFLOW_RUN_ID", outer.run_id)
    with pytest.raises(RequestError, match="give --experiment-name to `mlflow run` itself"):
        tune(lambda trial: 1.0, n_trials=1, experiment_name="other")
    first = tune(lambda trial: 1.0, n_trials=1)
    assert first.run_id == outer.run_id
    assert {client.get_run(str(trial.run_id)).info.experiment_id for trial in first.trials} == {outer.experiment_id}
    second = tune(lambda trial: 1.0, n_trials=1)
    assert second.run_id != outer.run_id
    assert "MLFLOW_RUN_ID" not in os.environ


def test_the_inline_executor_runs_in_this_process(client: MlflowClient) -> None:
    seen: list[int] = []

    def objective(trial: mltune.Trial) -> float:
        seen.append(os.getpid())
        mlflow.log_metric("inside", 1.0)
        trial.report(0.5, step=0)
        return 1.0

    before = of_this_process()
    result = tune(objective, executor="inline")
    assert seen == [os.getpid()] * 3
    assert all(run.data.metrics["inside"] == 1.0 for run in children(client, result.run_id))
    assert of_this_process() == before
    with pytest.raises(RequestError, match="executor inline runs 1 trial at a time, but got n_jobs=2"):
        tune(objective, executor="inline", n_jobs=2)


def test_a_dataframe_of_the_trials(client: MlflowClient) -> None:
    frame = tune(lambda trial: trial.params["x"]).to_dataframe()
    assert list(frame.columns) == [
        "number", "state", "value", "params.x", "params.kind", "metrics.value", "duration", "run_id",
    ]  # fmt: skip
    assert list(frame["number"]) == [0, 1, 2]


@pytest.mark.processes
def test_the_best_model_is_loaded_and_registered(client: MlflowClient) -> None:
    def objective(trial: mltune.Trial) -> float:
        from sklearn.linear_model import Ridge

        model = Ridge(alpha=trial.params["x"]).fit([[0.0], [1.0]], [0.0, 1.0])
        trial.log_model(model, input_example=[[0.5]])
        return float(trial.params["x"])

    result = tune(objective, registered_model_name="ridge")
    assert result.registration is not None
    assert result.registration.uri == "models:/ridge@champion"
    version = client.get_model_version_by_alias("ridge", "champion")
    assert version.run_id == result.best_trial.run_id
    rows = np.array([[0.5], [0.25]])
    served = mlflow.pyfunc.load_model("models:/ridge@champion").predict(rows)
    assert served == pytest.approx(result.load_best_model().predict(rows))


def test_a_study_without_a_model_to_register_fails_and_says_so(client: MlflowClient) -> None:
    with pytest.raises(mltune.StudyFailedError, match=r"call trial\.log_model in it"):
        tune(lambda trial: 1.0, registered_model_name="nothing")
    assert client.search_registered_models() == []


@pytest.mark.processes
def test_a_run_that_is_deleted_meanwhile_leaves_no_other_run_open(client: MlflowClient, chdir: Path) -> None:
    def objective(trial: mltune.Trial) -> float:
        other = Path("the other one runs")
        if trial.number == 1:
            other.touch()
            time.sleep(600)
        while not other.exists():
            time.sleep(0.01)
        MlflowClient().delete_run(str(trial.run_id))
        return 1.0

    with pytest.raises(mltune.StudyFailedError, match="the tracking store failed") as caught:
        tune(objective, n_trials=2, n_jobs=2)
    assert outcome(client.get_run(caught.value.run_id))[:2] == ("FAILED", "FAILED")
    assert [outcome(run)[:2] for run in children(client, caught.value.run_id)] == [("INTERRUPTED", "KILLED")]


@pytest.mark.processes
def test_failures_at_the_start_are_forgiven_by_a_success(client: MlflowClient) -> None:
    def objective(trial: mltune.Trial) -> float:
        def failed() -> int:
            return len(MlflowClient().search_runs(["0"], "tags.`mltune.state` = 'FAILED'"))

        while trial.number == 0 and failed() < 5:
            time.sleep(0.05)
        if 1 <= trial.number <= 5:
            raise ValueError("not yet")
        return 1.0

    result = tune(objective, n_trials=8, n_jobs=2)
    assert [trial.state for trial in result.trials[:6]] == [TrialState.COMPLETE] + [TrialState.FAILED] * 5
    assert len(result.trials) == 8


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"engine": "optun"}, "did you mean 'optuna'?"),
        ({"algorithm": "tpee"}, "did you mean 'tpe'?"),
        ({"scheduler": "ashaa"}, "did you mean 'asha'?"),
        ({"algorithm": {"name": "tpe", "n_startup": 3}}, "did you mean 'n_startup_trials'?"),
        ({"algorithm": "grid"}, "'x' is a float from 0.0 to 1.0"),
        ({"algorithm": "manual", "n_trials": None}, "initial"),
        ({"initial_points": [{"x": 2.0, "kind": "a"}]}, "'x' must be a float from 0.0 to 1.0, but got 2.0"),
        ({"n_trials": None}, "`n_trials` or `timeout` must be given"),
        ({"resources": {"cpu": 1}}, "use executor ray"),
        ({"registered_model_name": "a:b"}, "`registered_model_name`"),
        ({"metric": "../x"}, "`metric` must be at most 250 letters"),
        ({"space": {"x": Categorical(["a" * 5000, "b"]), "y": Categorical(["c" * 3000])}}, "the longest has 8,"),
    ],
)
def test_a_wrong_request_leaves_nothing_behind(arguments: dict[str, Any], sentence: str, client: MlflowClient) -> None:
    with pytest.raises(RequestError) as caught:
        tune(lambda trial: 1.0, **{"experiment_name": "untouched"} | arguments)
    assert sentence in str(caught.value)
    assert client.get_experiment_by_name("untouched") is None
    assert client.search_runs(["0"]) == []


def test_an_objective_that_cannot_travel_is_refused(client: MlflowClient) -> None:
    lock = threading.Lock()
    with pytest.raises(ObjectiveError, match="must be picklable"):
        tune(lambda trial: float(lock.locked()), experiment_name="untouched", executor="local")
    with pytest.raises(ObjectiveError, match="must be a function of one trial, but got 3"):
        tune(3, experiment_name="untouched")
    assert client.get_experiment_by_name("untouched") is None


def test_choices_made_for_the_user_are_said(client: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    space = {"kind": Categorical(["a", "b"]), "x": Float(0.0, 1.0, when={"kind": ["a"]}), "y": Float(0.0, 1.0)}
    tune(lambda trial: 1.0, space, algorithm="cmaes", n_trials=1, quiet=False)
    tune(lambda trial: 1.0, {"n": Int(1, 3)}, algorithm="auto", n_trials=5, quiet=False)
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert len(notes) == 3
    assert "cmaes" in notes[0]
    assert "independent" in notes[0]
    assert notes[1] == "note: algorithm auto is grid here"
    assert notes[2] == "note: algorithm grid has 3 points, so n_trials is 3, not 5"
