"""Studies as whole processes: scripts, notebooks, ``mlflow run``, and signals."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import psutil
import pytest
from mlflow import MlflowClient
from nbclient import NotebookClient

from tests.execution.helpers import alive

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[1]

WIDGET = "application/vnd.jupyter.widget-view+json"  # the live panel
SCRIPT = """
import mltune

def train(trial):
    return helper(trial.params["x"])

def helper(x):
    return x * x

result = mltune.tune(train, {{"x": mltune.Float(0, 1)}}, direction="minimize", algorithm="random",
                     n_trials=3, n_jobs=2, seed=0, engine="{engine}")
print("BEST", result.best_trial.value)
"""


@pytest.mark.parametrize("engine", ["optuna", "ray"])
def test_an_unguarded_script(engine: str, client: MlflowClient, chdir: Path, request: pytest.FixtureRequest) -> None:
    if engine == "ray":
        request.getfixturevalue("joined_ray")
    (chdir / "script.py").write_text(SCRIPT.format(engine=engine))
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("BEST") == 1
    assert done.stderr == ""
    assert len(client.search_runs(["0"])) == 4


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_notebook_cell(client: MlflowClient, chdir: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SCRIPT.format(engine="optuna"))])
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(chdir)}}).execute()
    outputs = notebook.cells[0].outputs
    assert "".join(output.get("text", "") for output in outputs).count("BEST") == 1
    assert any(WIDGET in output.get("data", {}) for output in outputs)
    assert len(client.search_runs(["0"])) == 4


SLOW = """
import os, time
def train(trial):
    if trial.number >= 2:
        open(f"training-{trial.number}.new", "w").write(str(os.getpid()))
        os.rename(f"training-{trial.number}.new", f"training-{trial.number}")
        time.sleep(600)
    return 1.0
"""

SLOW_STUDY = """
name: slow
objective: slow:train
direction: minimize
space: {x: {type: float, low: 0.0, high: 1.0}}
algorithm: random
n_trials: 8
n_jobs: 2
seed: 0
"""


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(chdir: Path) -> Iterator[Start]:
    """Starts a command in a session of its own, with the default signal actions; what is left of it is ended."""
    with contextlib.ExitStack() as closing:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(signum) is signal.SIG_IGN:  # nohup; unlike it, a function is not inherited
                closing.callback(signal.signal, signum, signal.signal(signum, lambda *_: None))

        def start(*command: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
            )
            closing.callback(end, process)
            return process

        yield start


def end(process: subprocess.Popen[str]) -> None:
    """Kill a process that still runs; its workers see to themselves."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.fixture
def start_slow_study(start: Start, chdir: Path) -> Start:
    """Starts a study whose trials 2 and 3 hang, and waits until they do."""

    def start_slow_study(*command: str) -> subprocess.Popen[str]:
        (chdir / "slow.py").write_text(SLOW)
        (chdir / "slow.yaml").write_text(SLOW_STUDY)
        process = start(*command)
        wait_for(lambda: (chdir / "training-2").exists() and (chdir / "training-3").exists(), process)
        return process

    return start_slow_study


def check_interrupted(client: MlflowClient, folder: Path) -> None:
    """No run is RUNNING, the study and its trials 2 and 3 are INTERRUPTED, no worker is left."""
    runs = client.search_runs(["0"])
    states = sorted((run.data.tags["mltune.state"], run.info.status) for run in runs)
    finished, interrupted = ("COMPLETE", "FINISHED"), ("INTERRUPTED", "KILLED")
    assert states == [finished, finished, interrupted, interrupted, interrupted]
    workers = [int(path.read_text()) for path in folder.glob("training-*")]
    wait_for(lambda: not any(alive(pid) for pid in workers))


@pytest.mark.parametrize(
    ("engine", "signum", "code"),
    [("optuna", signal.SIGHUP, 129), ("ray", signal.SIGINT, 130)],
    ids=["optuna-HUP", "ray-INT"],
)
def test_a_signal_closes_every_run(
    engine: str, signum: int, code: int, start_slow_study: Start, client: MlflowClient, chdir: Path
) -> None:
    """With a Ray of the study's own. Other signals, and a Ray that is joined: test_states.py."""
    process = start_slow_study(sys.executable, "-m", "mltune", "run", "slow.yaml", "--engine", engine)
    process.send_signal(signum)
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == code
    assert "was interrupted by" in stderr
    assert "Traceback" not in stderr
    check_interrupted(client, chdir)


@pytest.mark.parametrize(
    "engine",
    ["optuna", pytest.param("ray", marks=pytest.mark.chaos)],  # in one of eight runs Ray's C++ part ends the driver
)
def test_a_signal_to_all_processes_closes_every_run(
    engine: str, start_slow_study: Start, client: MlflowClient, chdir: Path
) -> None:
    """As a batch system or a service manager ends a job."""
    process = start_slow_study(sys.executable, "-m", "mltune", "run", "slow.yaml", "--engine", engine)
    driver = psutil.Process(process.pid)
    for each in (driver, *driver.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            each.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == 143
    assert "was interrupted by SIGTERM" in stderr
    assert "Traceback" not in stderr
    check_interrupted(client, chdir)


def test_a_signal_before_the_study_begins_leaves_nothing(start: Start, client: MlflowClient, chdir: Path) -> None:
    (chdir / "slow.py").write_text("import time\nopen('importing', 'w').close()\ntime.sleep(600)\n")
    (chdir / "slow.yaml").write_text(SLOW_STUDY)
    process = start(sys.executable, "-m", "mltune", "run", "slow.yaml")
    wait_for((chdir / "importing").exists, process)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=240)
    assert (process.returncode, stdout) == (130, "")
    assert stderr == "mltune: the study, which had not begun, was interrupted by SIGINT\n"
    assert client.search_runs(["0"]) == []


MLPROJECT = """
name: slow
entry_points:
  main:
    command: "{python} -m mltune run slow.yaml"
"""


def test_ctrl_c_at_mlflow_run_closes_every_run(start_slow_study: Start, client: MlflowClient, chdir: Path) -> None:
    (chdir / "MLproject").write_text(MLPROJECT.format(python=sys.executable))
    mlflow = str(Path(sys.executable).with_name("mlflow"))
    process = start_slow_study(mlflow, "run", ".", "--env-manager", "local")
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=240)
    wait_for(lambda: all(run.info.status != "RUNNING" for run in client.search_runs(["0"])))
    states = sorted(run.data.tags["mltune.state"] for run in client.search_runs(["0"]))
    assert states == ["COMPLETE", "COMPLETE", "INTERRUPTED", "INTERRUPTED", "INTERRUPTED"]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)
