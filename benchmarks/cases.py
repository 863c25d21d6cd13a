"""Single measurements, each in a process and a folder of its own: ``python -m benchmarks.cases NAME ARGUMENTS``."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import work
from benchmarks.server import counting_server

_STARTS = """
import os, time

def train(trial):
    with open(os.environ["BENCHMARK_STAMPS"], "a") as file:
        file.write(f"{time.monotonic()}\\n")
    return trial.params["x"]
"""
_STUDY = {
    "name": "starts",
    "objective": "starts:train",
    "direction": "minimize",
    "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
    "n_trials": 1,
}
ROOT = Path(__file__).parents[1]
_WARM = 10  # trials that are not looked at
_SAMPLE = 0.3  # seconds between looks at the CPU time


def measure(name: str, *arguments: Any) -> dict[str, float]:
    """Run a case in a fresh process and an empty folder.

    Args:
        name: A function of this module.
        arguments: What it takes.

    Returns:
        Its figures.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        environment = dict(os.environ) | {
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "ignore",
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            work.STAMPS: f"{folder}/stamps",
        }
        command = [sys.executable, "-m", "benchmarks.cases", name, json.dumps(arguments)]
        ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if ended.returncode != 0:
        raise RuntimeError(f"{name}{arguments} failed:\n{ended.stdout}\n{ended.stderr}")
    figures: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return figures


def trials(side: str, name: str, n: int, *arguments: Any) -> dict[str, float]:
    """Milliseconds from the beginning of one trial to that of the next in the middle of a study, and of CPU."""
    with _watched_cpu() as cpu_at:
        _run(side, name, n, *arguments)
    began = work.stamps()
    warm = min(_WARM, n // 3)
    count = len(began) - 1 - warm
    return {
        "ms": 1000 * (began[-1] - began[warm]) / count,
        "cpu_ms": 1000 * (cpu_at(began[-1]) - cpu_at(began[warm])) / count,
    }


def whole(side: str, name: str, n: int, *arguments: Any) -> dict[str, float]:
    """Seconds for all, from the call to its return; imports and the creation of the database are done before."""
    import mlflow

    import_module("mltune.api")
    mlflow.MlflowClient().search_experiments()
    return {"s": _run(side, name, n, *arguments)}


def first_trial() -> dict[str, float]:
    """Seconds from the start of ``mltune run`` to that of its first trial, in a database that is there."""
    import mlflow

    mlflow.MlflowClient().search_experiments()
    Path("starts.py").write_text(_STARTS)
    Path("study.yaml").write_text(json.dumps(_STUDY))
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "mltune", "run", "study.yaml"], check=True, capture_output=True)
    return {"s": work.stamps()[0] - began}


def replacement() -> dict[str, float]:
    """Seconds from the death of a worker to the beginning of the next attempt, in another worker."""
    import mltune

    def dies_once(trial: Any) -> float:
        first = not os.path.exists("stamps")
        with open("stamps", "a") as file:
            file.write(f"{time.monotonic()}\n")
        if first:
            os._exit(1)
        return 1.0

    mltune.tune(dies_once, {"x": {"type": "float", "low": 0.0, "high": 1.0}}, direction="minimize", n_trials=1)
    first, second = work.stamps()
    return {"s": second - first}


def many_metrics(side: str, metrics: int, steps: int) -> dict[str, float]:
    """Microseconds for a metric, and how many are there afterwards."""
    import mlflow

    name = {"ours": "many_metrics", "peers": "metric_by_metric"}[side]
    seconds = _run(side, name, metrics, steps)
    client = mlflow.MlflowClient()
    runs = [run for run in client.search_runs(["0"]) if "m0" in run.data.metrics and "value" not in run.data.tags]
    points = max(len(client.get_metric_history(run.info.run_id, f"m{metrics - 1}")) for run in runs)
    return {"us": 1e6 * seconds / (metrics * steps), "points": metrics * points}


def calls(side: str, name: str, ns: list[int], *arguments: Any) -> dict[str, float]:
    """Calls to the tracking API that arrive at a server for one more trial, and uploads of files.

    Args:
        side: Who is measured.
        name: What it runs.
        ns: Trials of studies; the figures are differences between each and the one before.
        arguments: What else it takes.
    """
    import mlflow

    calls, files = [0], [0]
    with _server() as server:
        mlflow.set_tracking_uri(server.uri)
        for n in ns:
            _run(side, name, n, *arguments)
            calls.append(len(server.calls()) - sum(calls))
            files.append(len(server.uploads()) - sum(files))
    figures = {}
    for (m, n), (fewer, more), (fewer_files, more_files) in zip(
        pairwise(ns), pairwise(calls[1:]), pairwise(files[1:]), strict=True
    ):
        figures[f"{n}"] = (more - fewer) / (n - m)
        figures[f"files at {n}"] = (more_files - fewer_files) / (n - m)
    return figures


def thousands(n: int) -> dict[str, float]:
    """A study of very many trials: what the first hundred and the last hundred took, memory, and reading it back."""
    import mlflow
    from mlflow import MlflowClient

    from benchmarks import ours
    from mltune.tracking.reader import read_study

    memory: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            memory.append(psutil.Process().memory_info().rss)

    ours.without_model(20, 5)  # imports and the like
    Path(os.environ[work.STAMPS]).unlink()
    before = psutil.Process().memory_info().rss
    threading.Thread(target=watch, daemon=True).start()
    run_id = ours.without_model(n, 5).run_id
    done.set()
    began = work.stamps()
    client, figures = MlflowClient(mlflow.get_tracking_uri()), {}
    figures["first_ms"] = 1000 * (began[100] - began[0]) / 100
    figures["last_ms"] = 1000 * (began[-1] - began[-101]) / 100
    figures["memory_mb"] = (max(memory) - before) / 1e6
    with _timed(figures, "read_s"):
        assert len(read_study(client, run_id).trials) == n
    with _timed(figures, "best_s"):
        client.get_run(client.get_run(run_id).data.tags["mltune.best_run_id"])
    with _timed(figures, "search_s"):
        client.search_runs(
            ["0"], f"tags.`mlflow.parentRunId` = '{run_id}'", order_by=["metrics.accuracy DESC"], max_results=1
        )
    return figures


def command(*words: str) -> dict[str, float]:
    """Seconds for a Python command."""
    began = time.monotonic()
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    return {"s": time.monotonic() - began}


def _run(side: str, name: str, *arguments: Any) -> float:
    from benchmarks import ours, peers

    function: Callable[..., Any] = getattr({"ours": ours, "peers": peers}[side], name)
    began = time.monotonic()
    function(*arguments)
    return time.monotonic() - began


@contextlib.contextmanager
def _watched_cpu() -> Iterator[Callable[[float], float]]:
    """Yield a function that returns how many seconds of CPU this process and its descendants had used at a time."""
    samples: list[tuple[float, float]] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_SAMPLE):
            samples.append((time.monotonic(), _cpu_seconds()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda at: float(np.interp(at, [when for when, _ in samples], [used for _, used in samples]))
    finally:
        done.set()
        watcher.join()


def _cpu_seconds() -> float:
    here = psutil.Process()
    total = 0.0
    for process in (here, *here.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            total += sum(process.cpu_times()[:4])  # its own, and that of its children that have ended
    return total


@contextlib.contextmanager
def _server() -> Iterator[Any]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with counting_server(Path.cwd(), port) as server:
        yield server


@contextlib.contextmanager
def _timed(figures: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    figures[name] = time.monotonic() - began


def main() -> None:
    """Run one case, and print its figures as JSON."""
    warnings.simplefilter("ignore")
    name, arguments = sys.argv[1:]
    print(json.dumps(globals()[name](*json.loads(arguments))))


if __name__ == "__main__":
    main()
