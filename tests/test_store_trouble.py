"""The tracking store in trouble: the record is whole in the end, or the study stops and can go on."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from sklearn.dummy import DummyRegressor

import mltune
from mltune._util.timing import Timing
from mltune.cli import main
from mltune.errors import StudyFailedError
from mltune.tracking.lease import Lease
from tests.drivers import Drivers, has_begun, wait_for
from tests.proxy import Answer, Fault, Forward, Proxy, answers, drops, loses_answer, pool, proxy_before, slow, well
from tests.servers import Server, tracking_server
from tests.shared import copy_store
from tests.store import forget_tracking_uri, model_ids

SPACE = {"x": mltune.Float(0.0, 1.0)}

TRACKING = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")

# what the driver asks of the server once it has found it; workers use others
DRIVERS_ONCE = ("set-experiment-tag", "study.yaml")
DRIVERS = ("runs/create", "runs/log-batch", "runs/update", "runs/get", *DRIVERS_ONCE)


pytestmark = pytest.mark.processes


@pytest.fixture
def use(chdir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sets the address of the store."""
    for name in TRACKING:
        monkeypatch.delenv(name, raising=False)
    yield mlflow.set_tracking_uri
    forget_tracking_uri()


@pytest.fixture
def proxy(server: tuple[str, Server], use: Callable[[str], None]) -> Iterator[Proxy]:
    """The server behind a proxy, whose address is set in MLflow."""
    with proxy_before(server[0]) as proxy:
        use(proxy.address)
        yield proxy


def objective(trial: mltune.Trial) -> dict[str, float]:
    """Reports ten times in half a second; trials after the first two go on until there is a file `go`."""
    began, last, gap, step = time.time(), time.monotonic(), 0.0, 0
    while step < 10 or (trial.number >= 2 and not Path("go").exists()):
        trial.report({"value": trial.params["x"] + step, "step": float(step)}, step=step)
        gap, last = max(gap, time.monotonic() - last), time.monotonic()
        step += 1
        time.sleep(0.05)
    return {"value": trial.params["x"], "steps": float(step), "began": began, "gap": gap}


ARGUMENTS: dict[str, Any] = {"direction": "minimize", "algorithm": "random", "n_trials": 3, "seed": 1}


class Study(threading.Thread):
    """A study in a thread of its own."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(daemon=True)
        self._arguments = ARGUMENTS | arguments
        self._result: mltune.StudyResult | BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = mltune.tune(objective, SPACE, **self._arguments)
        except BaseException as error:
            self._result = error

    def wait_for(self, condition: Callable[[], Any]) -> None:
        """Until a condition holds, or the study has ended before."""

        def holds() -> bool:
            is_alive = self.is_alive()
            found = bool(condition())
            assert found or is_alive, repr(self._result)
            return found

        wait_for(holds)

    def result(self) -> mltune.StudyResult:
        self.join(400)
        assert isinstance(self._result, mltune.StudyResult), repr(self._result)
        return self._result

    def failure(self) -> StudyFailedError:
        self.join(400)
        assert isinstance(self._result, StudyFailedError), repr(self._result)
        assert "\n" not in str(self._result)
        return self._result


Begin = Callable[..., Study]


@pytest.fixture
def begin(request: pytest.FixtureRequest, chdir: Path) -> Iterator[Begin]:
    """Begins studies in an experiment of the test's own; the test leaves none behind."""
    studies: list[Study] = []

    def begin(**arguments: Any) -> Study:
        studies.append(Study(**{"experiment_name": request.node.name} | arguments))
        return studies[-1]

    yield begin
    (chdir / "go").touch()
    if "proxy" in request.fixturenames:
        request.getfixturevalue("proxy").be_well()
    for study in studies:
        study.join(120)
        assert not study.is_alive()


@pytest.fixture
def experiment(server: tuple[str, Server], request: pytest.FixtureRequest) -> str:
    """The test's own experiment, whose artifacts the server has."""
    return str(MlflowClient(server[0]).create_experiment(request.node.name))


def runs_of(client: MlflowClient, study: str, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
    experiments = [each.experiment_id for each in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.`mltune.study` = '{study}'", run_view_type=view))


def check_record(client: MlflowClient, study: str, n_trials: int = 3) -> list[Run]:
    """Nothing is missing and nothing there twice; the runs of the trials' last attempts, by number."""
    parent, runs = client.get_run(study), runs_of(client, study)
    assert (parent.info.status, parent.data.tags["mltune.state"]) == ("FINISHED", "COMPLETE")
    uids = Counter(run.data.tags["mltune.uid"] for run in runs)
    assert set(uids.values()) == {1}
    complete: list[Run] = []
    rest: list[Run] = []
    for run in sorted(runs, key=lambda run: int(run.data.tags["mltune.number"])):
        tags = run.data.tags
        assert run.data.params == {name: str(value) for name, value in json.loads(tags["mltune.params"]).items()}
        (complete if tags["mltune.state"] == "COMPLETE" else rest).append(run)
    assert [int(run.data.tags["mltune.number"]) for run in complete] == list(range(n_trials))
    assert {(run.data.tags["mltune.state"], run.info.status) for run in rest} <= {("INTERRUPTED", "KILLED")}
    for run in complete:
        check_trial(client, run)
    best = min(complete, key=lambda run: float(run.data.tags["mltune.value"]))
    assert parent.data.tags["mltune.best_run_id"] == best.info.run_id
    assert parent.data.metrics["value"] == float(best.data.tags["mltune.value"])
    steps = [metric.step for metric in client.get_metric_history(study, "value")]
    assert sorted(set(steps)) == sorted(steps)
    return complete


def check_trial(client: MlflowClient, run: Run) -> None:
    """Each report is there once, and what was returned."""
    assert run.info.status == "FINISHED"
    x, steps = float(run.data.params["x"]), int(run.data.metrics["steps"])
    for name, value, returned in (("value", x, [x]), ("step", 0.0, [])):
        history = client.get_metric_history(run.info.run_id, name)
        reported = [(step, value + step) for step in range(steps)]
        assert sorted((m.step, m.value) for m in history) == sorted(reported + [(steps - 1, each) for each in returned])
    assert run.data.metrics["value"] == x == float(run.data.tags["mltune.value"])
    assert len(client.get_metric_history(run.info.run_id, "duration_s")) == 1


def test_a_server_that_is_killed_for_half_a_minute(
    empty_store: Path, use: Callable[[str], None], begin: Begin, chdir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copy_store(empty_store, chdir)
    Path("go").touch()
    with tracking_server(chdir, chdir / "mlflow.db") as (address, process):
        use(address)
        client = MlflowClient(address)
        study = begin(n_trials=60, n_jobs=4, experiment_name=None)
        study.wait_for(lambda: len(client.search_runs(["0"])) >= 10)
        process.kill()
        killed = time.time()
        time.sleep(30)
        process.start()
        back = time.time()
        result = study.result()
        complete = check_record(client, result.run_id, 60)
        assert len(runs_of(client, result.run_id)) == 60
    assert [trial.attempt for trial in result.trials] == [1] * 60
    began = [run.data.metrics["began"] for run in complete]
    ended = [began + run.data.metrics["duration_s"] for began, run in zip(began, complete, strict=True)]
    assert not [each for each in began if killed + 3 < each < back - 10]
    assert [each for each in began if each > back - 10]
    assert [each for each in ended if each > killed]
    assert max(run.data.metrics["gap"] for run in complete) < 10
    out, err = capfd.readouterr()
    assert out.count("the tracking store does not answer") == out.count("the tracking store answers again") == 1
    assert err == ""


WAYS: list[Fault] = [loses_answer(503), answers(500), drops, answers(502), pool, loses_answer(None), slow(0.3)]


class InTurns:
    """A fault that is another one each time."""

    def __init__(self, turns: Iterable[Fault]) -> None:
        self.seen: list[Fault] = []
        self._turns = iter(turns)

    def __call__(self, forward: Forward) -> Answer | None:
        fault = next(self._turns)
        self.seen.append(fault)
        return fault(forward)


def test_every_call_goes_wrong_in_every_way(
    proxy: Proxy, server: tuple[str, Server], experiment: str, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mltune.tracking.writer.delays", lambda: itertools.repeat(0.02))
    monkeypatch.setattr("mltune._util.timing.TIMING", Timing(renew_every=0.2))  # which gets the run
    Path("go").touch()
    client = MlflowClient(server[0])
    often = [each for way in WAYS for each in (way, well)]
    faults = {path: InTurns(itertools.cycle(often)) for path in DRIVERS}
    faults |= {path: InTurns(itertools.chain(WAYS, itertools.repeat(well))) for path in DRIVERS_ONCE}
    for path, fault in faults.items():
        proxy.go_wrong(fault, path)
    result = begin(n_trials=8, n_jobs=2).result()
    proxy.be_well()
    check_record(client, result.run_id, 8)
    assert {run.info.run_id for run in client.search_runs([experiment])} == {
        result.run_id,
        *(trial.run_id for trial in result.trials),
    }
    assert {path for path in DRIVERS if not {*WAYS} <= {*faults[path].seen}} == set()
    assert proxy.count("runs/create") > 10


def test_a_run_that_was_made_unheard_is_made_once(proxy: Proxy, server: tuple[str, Server], begin: Begin) -> None:
    Path("go").touch()
    proxy.go_wrong(loses_answer(), "runs/create", times=2)
    result = begin(n_trials=2).result()
    client = MlflowClient(server[0])
    check_record(client, result.run_id, 2)
    assert len(runs_of(client, result.run_id, ViewType.ALL)) == 2
    assert proxy.count("runs/create") == 3


@pytest.mark.alone
def test_a_run_that_appears_late_is_deleted(
    proxy: Proxy, server: tuple[str, Server], begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server makes a run that the driver has given up and asked for again."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    Path("go").touch()

    def late(forward: Forward) -> Answer:
        time.sleep(2.5)
        return forward()

    proxy.go_wrong(well, "runs/create", times=1)  # the study's
    proxy.go_wrong(late, "runs/create", times=1)
    result = begin(n_trials=2).result()
    client = MlflowClient(server[0])
    check_record(client, result.run_id, 2)
    assert len(runs_of(client, result.run_id)) == 2
    assert len(runs_of(client, result.run_id, ViewType.ALL)) == 3


@pytest.mark.alone
def test_a_server_that_is_slow(proxy: Proxy, server: tuple[str, Server], begin: Begin) -> None:
    Path("go").touch()
    proxy.go_wrong(slow(4.0), "runs/log-batch", times=3)
    result = begin(n_trials=2).result()
    complete = check_record(MlflowClient(server[0]), result.run_id, 2)
    assert max(run.data.metrics["gap"] for run in complete) < 3.5


def is_down(proxy: Proxy, study: str) -> None:
    proxy.go_wrong(answers(503))


def is_up(proxy: Proxy, study: str) -> None:
    proxy.be_well()


def refuses(proxy: Proxy, study: str) -> None:
    proxy.go_wrong(answers(401, "You are not authenticated."))


def delete_parent(proxy: Proxy, study: str) -> None:
    mlflow.MlflowClient().delete_run(study)


def restore_parent(proxy: Proxy, study: str) -> None:
    mlflow.MlflowClient().restore_run(study)


def delete_trial(proxy: Proxy, study: str) -> None:
    client = MlflowClient()
    running = [run for run in runs_of(client, study) if run.data.tags["mltune.number"] == "2"]
    client.delete_run(running[0].info.run_id)


def nothing(proxy: Proxy, study: str) -> None:
    pass


def delete_experiment(proxy: Proxy, study: str) -> None:
    client = MlflowClient()
    client.delete_experiment(client.get_run(study).info.experiment_id)


def restore_experiment(proxy: Proxy, study: str) -> None:
    client = MlflowClient()
    client.restore_experiment(client.get_run(study).info.experiment_id)


Act = Callable[[Proxy, str], None]


@pytest.mark.parametrize(
    ("breaks", "mends", "says"),
    [
        (is_down, is_up, "did not come back within `store_timeout`"),
        (refuses, is_up, "You are not authenticated"),
        (delete_parent, restore_parent, "deleted"),
        (delete_trial, nothing, "deleted"),
        (delete_experiment, restore_experiment, "deleted"),
    ],
    ids=["down", "refuses", "no-parent", "no-trial", "no-experiment"],
)
def test_a_study_that_cannot_be_written_stops_and_goes_on_later(
    proxy: Proxy,
    server: tuple[str, Server],
    experiment: str,
    begin: Begin,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    breaks: Act,
    mends: Act,
    says: str,
) -> None:
    monkeypatch.setattr("mltune._util.timing.TIMING", Timing(renew_every=1.0))
    client = MlflowClient(server[0])
    study = begin(store_timeout=2)
    closed = "tags.`mltune.kind` = 'trial' AND attributes.status = 'FINISHED'"
    study.wait_for(lambda: len(client.search_runs([experiment], closed)) == 2)
    parent = client.search_runs([experiment], "tags.`mltune.kind` = 'study'")[0].info.run_id
    study.wait_for(lambda: has_begun(client, 2, experiment))
    breaks(proxy, parent)
    error = study.failure()
    assert says in str(error)
    assert f'mltune.resume("{parent}", objective)' in str(error)
    assert error.run_id == parent
    mends(proxy, parent)
    Path("go").touch()
    result = mltune.resume(parent, objective)
    assert [trial.number for trial in result.trials] == [0, 1, 2]
    check_record(client, parent)
    assert capfd.readouterr().err == ""


def test_a_study_goes_on_through_trouble(proxy: Proxy, server: tuple[str, Server], begin: Begin) -> None:
    Path("go").touch()
    result = begin(n_trials=1).result()
    paths = (*DRIVERS, "runs/search", "metrics/get-history")

    def trouble(forward: Forward) -> Answer:
        for way, path in zip(itertools.cycle(WAYS), paths):
            proxy.go_wrong(way, path, times=1)
        return forward()

    proxy.served.clear()
    proxy.go_wrong(trouble, "runs/log-batch", times=1)  # once the study is found
    mltune.resume(result.run_id, objective, n_trials=3)
    proxy.be_well()
    check_record(MlflowClient(server[0]), result.run_id)
    assert proxy.count("get-history") > 1


def test_models_are_logged_through_trouble(
    proxy: Proxy, server: tuple[str, Server], experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(trial: mltune.Trial) -> float:
        for path in ("logged-models", "MLmodel", "runs/outputs"):
            for way in WAYS[trial.number :: 3]:
                proxy.go_wrong(way, path, times=1)
        trial.log_model(DummyRegressor().fit([[0.0]], [trial.params["x"]]))
        return float(trial.params["x"])

    monkeypatch.setenv(RETRIES, "0")  # MLflow's own would hide some of the trouble, for four minutes
    client = MlflowClient(server[0])
    name = client.get_experiment(experiment).name
    result = mltune.tune(train, SPACE, **ARGUMENTS, experiment_name=name, executor="inline")
    proxy.be_well()
    assert [trial.state for trial in result.trials] == ["COMPLETE"] * 3
    for trial in result.trials:
        assert client.get_logged_model(str(trial.model_id)).status == "READY"
        model = mlflow.pyfunc.load_model(f"models:/{trial.model_id}")
        assert list(model.predict([[0.0]])) == [trial.value]
    logged = [model_ids(client.get_run(str(trial.run_id))) for trial in result.trials]
    assert logged == [[trial.model_id] for trial in result.trials]
    assert {run.info.status for run in client.search_runs([experiment])} == {"FINISHED"}


DRIVER = """
import mltune

def objective(trial):
    import mlflow
    import time
    for step in range(20):
        mlflow.log_metric("mine", trial.params["x"] + step, step=step)
        trial.report(trial.params["x"], step=step)
    return trial.params["x"]

mltune.tune(objective, {"x": mltune.Float(0.0, 1.0)}, direction="minimize", algorithm="random", n_trials=12,
            n_jobs=4, seed=SEED, name="study-SEED", quiet=True)
"""


def test_two_studies_of_four_workers_on_one_sqlite_file(client: MlflowClient, drivers: Drivers) -> None:
    running = [drivers.start(DRIVER.replace("SEED", seed)) for seed in "12"]
    assert [drivers.wait(driver) for driver in running] == [0, 0], drivers.log.read_text()
    assert drivers.log.read_text() == ""
    studies = client.search_runs(["0"], "tags.`mltune.kind` = 'study'")
    assert [run.data.tags["mltune.state"] for run in studies] == ["COMPLETE"] * 2
    for study in studies:
        runs = runs_of(client, study.info.run_id)
        assert sorted(int(run.data.tags["mltune.number"]) for run in runs) == list(range(12))
        for run in runs:
            assert (run.data.tags["mltune.state"], run.info.status) == ("COMPLETE", "FINISHED")
            mine = client.get_metric_history(run.info.run_id, "mine")
            x = float(run.data.params["x"])
            assert sorted((m.step, m.value) for m in mine) == [(step, x + step) for step in range(20)]


STUDY = """
name: full
objective: train:train
direction: minimize
algorithm: random
space: {x: {type: float, low: 0.0, high: 1.0}}
n_trials: 6
seed: 0
"""

TRAIN = """
from pathlib import Path

def train(trial):
    if trial.number >= 2 and not Path("go").exists():
        for step in range(10**6):
            trial.report({f"much-{k}": 1.0 for k in range(200)}, step=step)
    return trial.params["x"]
"""


FULL = """
import os, resource, sys
from pathlib import Path
from mltune.cli import main

size = Path("mlflow.db").stat().st_size + 400_000
resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
os.dup2(os.open("stderr", os.O_CREAT | os.O_WRONLY), 2)
main(["run", "study.yaml"])
"""


def test_a_full_disk(client: MlflowClient, drivers: Drivers, chdir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """For the driver only: no file may grow any more, which SQLite takes for a disk in trouble."""
    Path("study.yaml").write_text(STUDY)
    Path("train.py").write_text(TRAIN)
    code = drivers.run(FULL)
    said = Path("stderr").read_text()
    assert code == 1, said
    parent = client.search_runs(["0"], "tags.`mltune.kind` = 'study'")[0].info.run_id
    assert said.startswith("mltune: the tracking store failed: ")
    assert said.count("\n") == 1
    assert f"mltune resume {parent}" in said
    Path("go").touch()
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["resume", parent])
    assert capfd.readouterr().err == ""
    runs = [run for run in runs_of(client, parent) if run.data.tags["mltune.state"] == "COMPLETE"]
    assert sorted(int(run.data.tags["mltune.number"]) for run in runs) == list(range(6))
    assert not [run for run in client.search_runs(["0"]) if run.info.status == "RUNNING"]


RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"


@pytest.mark.parametrize("retries", [None, "4"])
def test_mlflows_retries_are_turned_down_for_the_driver_only(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, retries: str | None
) -> None:
    monkeypatch.delenv(RETRIES, raising=False)
    monkeypatch.delenv(TIMEOUT, raising=False)
    if retries is not None:
        monkeypatch.setenv(RETRIES, retries)

    def look(trial: mltune.Trial) -> dict[str, float]:
        return {"value": 1.0, "retries": float(os.environ.get(RETRIES, -1)), "timeout": float(TIMEOUT in os.environ)}

    result = mltune.tune(look, SPACE, **ARGUMENTS | {"n_trials": 1}, quiet=True)
    assert result.best_trial.metrics == {"value": 1.0, "retries": float(retries or -1), "timeout": 0.0}
    assert (os.environ.get(RETRIES), TIMEOUT in os.environ) == (retries, False)


@pytest.mark.alone
def test_a_study_that_was_taken_over_is_left_alone(
    client: MlflowClient, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mltune._util.timing.TIMING", Timing(renew_every=0.5))
    study = begin(quiet=True, experiment_name=None)
    study.wait_for(lambda: has_begun(client, 2))
    parent = client.search_runs(["0"], "tags.`mltune.kind` = 'study'")[0].info.run_id
    thief = replace(Lease.mine(), boot="another machine", host="elsewhere", pid=7)
    client.set_tag(parent, "mltune.lease", str(thief))
    error = study.failure()
    assert str(error) == "the study was taken over by process 7 on elsewhere"
    after = client.get_run(parent)
    assert (after.info.status, after.data.tags["mltune.state"]) == ("RUNNING", "RUNNING")
    assert Lease.parse(after.data.tags["mltune.lease"]) == thief
    states = sorted((run.data.tags["mltune.number"], run.data.tags["mltune.state"]) for run in runs_of(client, parent))
    assert states == [("0", "COMPLETE"), ("1", "COMPLETE"), ("2", "RUNNING")]
