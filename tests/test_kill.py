"""kill -9 of the driver, at random moments and in every window between two writes; then resume until done."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from tests.drivers import Drivers

pytestmark = pytest.mark.alone

OBJECTIVE = """
import time

def train(trial):
    x = trial.params["x"]
    for step in (1, 2, 3):
        trial.report({"value": x + 1 / step, "extra": step}, step=step)
        time.sleep(0.03)
    return {"value": x, "final": x}

def train_model(trial):
    from mlflow.pyfunc import PythonModel

    class Model(PythonModel):
        def predict(self, context, model_input, params=None):
            return [0] * len(model_input)

    trial.log_model(Model(), pip_requirements=["mlflow"])
    time.sleep(0.25)  # so that its params are written ahead of the rest
    return train(trial)
"""

BEGIN = """
import mltune
mltune.tune("sweep:{objective}", {{"x": mltune.Float(0, 1)}}, direction="minimize", algorithm="random",
            n_trials={n_trials}, seed=7, registered_model_name={register!r}, **{where})
"""

RESUME = """
import mltune
mltune.resume("{study}")
"""

KILL_LATER = """
import os, signal, threading
from mltune.driver.loop import Loop
first = Loop.run
def armed(self):
    Loop.run = first
    threading.Timer({delay}, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return first(self)
Loop.run = armed
"""

KILL_SOON = """
import os, signal, threading
threading.Timer({delay}, os.kill, (os.getpid(), signal.SIGKILL)).start()
"""

KILL_AT = """
import os, signal
from mlflow import MlflowClient
original = MlflowClient.{method}
calls = 0
def armed(self, *args, **kwargs):
    global calls
    calls += {condition}
    if calls == {nth} and {before}:
        os.kill(os.getpid(), signal.SIGKILL)
    result = original(self, *args, **kwargs)
    if calls == {nth}:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
MlflowClient.{method} = armed
"""


@pytest.fixture
def sweeps(drivers: Drivers) -> Drivers:
    """Starts drivers in a folder with the objective."""
    (drivers.folder / "sweep.py").write_text(OBJECTIVE)
    return drivers


WORKERS = {"n_jobs": 2}
INLINE = {"executor": "inline"}
RAY = {"n_jobs": 2, "engine": "ray"}


def begin(n_trials: int, where: dict[str, Any], objective: str = "train", register: str | None = None) -> str:
    return BEGIN.format(n_trials=n_trials, objective=objective, register=register, where=where)


def study_of(client: MlflowClient) -> str:
    """The only study of the store."""
    (parent,) = client.search_runs(["0"], "tags.`mltune.kind` = 'study'")
    return str(parent.info.run_id)


def trials_of(client: MlflowClient, study: str) -> list[Run]:
    return client.search_runs(["0"], f"tags.`mltune.study` = '{study}'")


def snapshot(client: MlflowClient, study: str) -> dict[str, Any]:
    """All that the store holds of the trials that are finished."""
    finished = [run for run in trials_of(client, study) if run.data.tags["mltune.state"] in ("COMPLETE", "PRUNED")]
    return {
        run.info.run_id: (
            dict(run.data.tags),
            dict(run.data.params),
            {name: history(client, run, name) for name in ("value", "extra", "final", "duration_s")},
        )
        for run in finished
    }


def history(client: MlflowClient, run: Run, name: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]


def check_done(client: MlflowClient, study: str, n_trials: int, snapshots: list[dict[str, Any]]) -> None:
    """Each number is complete once, nothing is open, and nothing of a finished trial was lost or changed."""
    runs = trials_of(client, study)
    complete = [run for run in runs if run.data.tags["mltune.state"] == "COMPLETE"]
    assert Counter(int(run.data.tags["mltune.number"]) for run in complete) == Counter(range(n_trials))
    assert {run.data.tags["mltune.state"] for run in runs} <= {"COMPLETE", "INTERRUPTED"}
    assert client.search_runs(["0"], "attributes.status = 'RUNNING'", ViewType.ACTIVE_ONLY) == []
    for run in complete:
        x = json.loads(run.data.tags["mltune.params"])["x"]
        assert run.data.params == {"x": str(x)}
        assert history(client, run, "value") == [(1, x + 1), (2, x + 1 / 2), (3, x + 1 / 3), (3, x)]
        assert history(client, run, "extra") == [(1, 1), (2, 2), (3, 3)]
        assert history(client, run, "final") == [(3, x)]
    last = snapshot(client, study)
    for earlier in snapshots:
        assert {run_id: last.get(run_id) for run_id in earlier} == earlier
    parent = client.get_run(study)
    assert (parent.data.tags["mltune.state"], parent.info.status) == ("COMPLETE", "FINISHED")
    best = min(complete, key=lambda run: run.data.metrics["value"])
    assert parent.data.tags["mltune.best_run_id"] == best.info.run_id


def sweep(
    drivers: Drivers, client: MlflowClient, where: dict[str, Any], *, n_trials: int, kills: int, rng: random.Random
) -> int:
    """Kill a study's drivers at random moments, so many times or until it is done; how many were killed.

    Every third of those that resume may be killed while it reads the study and puts it right.
    """
    killed, snapshots, code = 0, [], begin(n_trials, where)
    while killed < kills:
        soon = KILL_SOON.format(delay=rng.uniform(0.0, 1.2)) if killed % 3 == 2 else None
        ended = drivers.run((soon or KILL_LATER.format(delay=rng.uniform(0.0, 0.4))) + code)
        if ended == 0:
            break
        assert ended == -9, drivers.log.read_text()
        killed += 1
        study = study_of(client)
        snapshots.append(snapshot(client, study))
        code = RESUME.format(study=study)
    assert drivers.run(code) == 0, drivers.log.read_text()
    check_done(client, study_of(client), n_trials, snapshots)
    return killed


@pytest.mark.parametrize(("where", "seed"), [(WORKERS, 0), (INLINE, 2)], ids=["workers", "inline"])
def test_killed_at_random_moments(where: dict[str, Any], seed: int, sweeps: Drivers, client: MlflowClient) -> None:
    assert sweep(sweeps, client, where, n_trials=40, kills=10, rng=random.Random(seed)) == 10


def test_killed_on_ray(sweeps: Drivers, client: MlflowClient) -> None:
    assert sweep(sweeps, client, RAY, n_trials=20, kills=3, rng=random.Random(0)) == 3


@pytest.mark.chaos
@pytest.mark.parametrize("round_", range(10))
@pytest.mark.parametrize("where", [WORKERS, INLINE], ids=["workers", "inline"])
def test_chaos_of_kills(where: dict[str, Any], round_: int, sweeps: Drivers, client: MlflowClient) -> None:
    rng = random.Random(f"{os.environ.get('SEED', '0')}-{round_}")
    killed = sweep(sweeps, client, where, n_trials=100, kills=40, rng=rng)
    print(f"killed {killed} times")
    assert killed > 0


IS_PARAMS = "bool(kwargs.get('params')) and 'mltune.state' not in str(kwargs.get('tags'))"
IS_FINISHED = "'FINISHED' in args"

WINDOWS = {
    "run created but its params late": ("create_run", "1", 4, False),
    "run made ahead and never used": ("create_run", "1", 5, False),
    "params written but no more": ("log_batch", IS_PARAMS, 3, False),
    "state not yet written": ("log_batch", "'COMPLETE' in str(kwargs.get('tags'))", 2, True),
    "state written but the run not closed": ("set_terminated", IS_FINISHED, 3, True),
    "closed but the best not yet told": ("log_batch", "'best_value' in str(kwargs.get('tags'))", 1, True),
    "all done but the model not registered": ("create_model_version", "1", 1, True),
    "registered but the alias not set": ("set_registered_model_alias", "1", 1, True),
    "alias set but the study not closed": ("set_registered_model_alias", "1", 1, False),
    "the run closed but the study not COMPLETE": ("set_terminated", IS_FINISHED, 1, False),
}
"""In an order in which one study can be killed in all of them, session by session."""


@pytest.mark.parametrize("where", [INLINE, pytest.param(WORKERS, marks=pytest.mark.chaos)], ids=["inline", "workers"])
def test_killed_in_every_window(where: dict[str, Any], sweeps: Drivers, client: MlflowClient) -> None:
    snapshots, code = [], begin(24, where, "train_model", "swept")
    for window, (method, condition, nth, before) in WINDOWS.items():
        arm = KILL_AT.format(method=method, condition=condition, nth=nth, before=before)
        assert sweeps.run(arm + code) == -9, f"{window}: {sweeps.log.read_text()}"
        study = study_of(client)
        snapshots.append(snapshot(client, study))
        code = RESUME.format(study=study)
    assert sweeps.run(code) == 0, sweeps.log.read_text()
    check_done(client, study, 24, snapshots)
    (version,) = client.search_model_versions("name = 'swept'")
    assert client.get_registered_model("swept").aliases == {"champion": version.version}
    assert version.tags["mltune.trial"] == client.get_run(study).data.tags["mltune.best_run_id"]
