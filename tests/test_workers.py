"""A study whose workers die in every way there is: only their own trials fail, and no process is left."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

import mltune
from mltune import Categorical, Int, TrialState
from tests.execution.helpers import alive

pytestmark = pytest.mark.alone

SECONDS = 0.3
LIMIT = 6.0

DEATHS = {
    "exit": "worker-died",
    "segfault": "worker-died",
    "memory": "worker-died",
    "loop": "timeout",
    "deaf": "timeout",
}


def objective(trial: mltune.Trial) -> float:
    import ctypes
    import os
    import signal
    import subprocess

    started = subprocess.Popen(["sleep", "600"], start_new_session=True)
    Path(f"process-{trial.number}-{trial.params['what']}").write_text(f"{os.getpid()} {started.pid}")
    match trial.params["what"]:
        case "exit":
            os._exit(1)
        case "segfault":
            ctypes.string_at(0)
        case "memory":
            held = b"x" * 2**30
            time.sleep(600 + len(held))
        case "loop":
            while True:
                pass
        case "deaf":
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            ctypes.PyDLL(None).sleep(600)  # holds the GIL
    time.sleep(SECONDS)
    return float(trial.params["x"])


def points() -> list[dict[str, Any]]:
    """20 points, five of them deadly; the two that wait for their limit do so at the same time."""
    deadly = {2: "loop", 4: "deaf", 7: "exit", 10: "segfault", 13: "memory"}
    return [{"what": deadly.get(x, "fine"), "x": x} for x in range(20)]


def run(points: list[dict[str, Any]]) -> mltune.StudyResult:
    """A study of the points, each tried once."""
    return mltune.tune(
        objective,
        {"what": Categorical(["fine", *DEATHS]), "x": Int(0, len(points) - 1)},
        direction="minimize",
        algorithm="manual",
        initial_points=points,
        n_jobs=2,
        trial_timeout=LIMIT,
        trial_memory="800MiB",
        retries={"worker-died": 0},
        quiet=True,
    )


def test_five_deaths_in_twenty_trials(client: MlflowClient, chdir: Path) -> None:
    """On Ray the same deaths have the same outcomes: test_ray_faults.py, test_ray_contract.py."""
    result = run(points())
    runs = client.search_runs(["0"], f"tags.`mltune.study` = '{result.run_id}'")
    assert Counter(run.info.status for run in runs) == {"FINISHED": 15, "FAILED": 5}
    failed = {run.data.params["what"]: run for run in runs if run.info.status == "FAILED"}
    assert {what: run.data.tags["mltune.reason"] for what, run in failed.items()} == DEATHS
    said = {what: read_traceback(client, run.info.run_id) for what, run in failed.items()}
    assert "exited with status 1" in said["exit"]
    assert "killed by SIGSEGV" in said["segfault"]
    assert "string_at" in said["segfault"]
    assert "more than trial_memory 800 MiB" in said["memory"]
    assert "in objective" in said["loop"]
    assert "in objective" in said["deaf"]
    check_nothing_left(chdir, len(runs))


@pytest.mark.chaos
@pytest.mark.parametrize("round_", range(5))
def test_chaos_of_deaths(round_: int, client: MlflowClient, chdir: Path) -> None:
    rng = random.Random(f"{os.environ.get('SEED', '0')}-{round_}")
    drawn = ["fine", *rng.choices(["fine", *DEATHS], k=39)]
    began = time.monotonic()
    result = run([{"what": what, "x": x} for x, what in enumerate(drawn)])
    print(f"{Counter(drawn)} in {time.monotonic() - began:.0f} s")
    assert [trial.reason for trial in result.trials] == [DEATHS.get(what) for what in drawn]
    check_nothing_left(chdir, len(drawn))


def check_nothing_left(folder: Path, n_trials: int) -> None:
    """Neither a worker nor what a trial started lives."""
    left = [int(pid) for path in folder.glob("process-*") for pid in path.read_text().split()]
    assert len(left) == 2 * n_trials
    assert [pid for pid in left if alive(pid)] == []


def test_a_trial_that_died_is_tried_again(client: MlflowClient, chdir: Path) -> None:
    def dies_once(trial: mltune.Trial) -> float:
        import os

        mark = Path(f"{trial.number}-died")
        if trial.number == 1 and not mark.exists():
            mark.touch()
            os._exit(1)
        return float(trial.params["x"])

    result = mltune.tune(dies_once, {"x": Int(0, 9)}, direction="minimize", algorithm="random", n_trials=3, quiet=True)
    assert [trial.state for trial in result.trials] == [TrialState.COMPLETE] * 3
    runs = client.search_runs(["0"], f"tags.`mltune.study` = '{result.run_id}' AND tags.`mltune.number` = '1'")
    first, second = sorted(runs, key=lambda run: int(run.data.tags["mltune.attempt"]))
    assert (first.info.status, first.data.tags["mltune.reason"]) == ("FAILED", "worker-died")
    assert (second.info.status, second.data.tags["mltune.first_attempt"]) == ("FINISHED", first.info.run_id)
    assert first.data.params == second.data.params
    assert second.info.run_name.startswith("0001.2-")


def read_traceback(client: MlflowClient, run_id: str) -> str:
    return Path(client.download_artifacts(run_id, "traceback.txt")).read_text()
