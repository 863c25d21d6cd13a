"""Drivers as processes of their own, that can be killed: forked from one that has imported everything already."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from tests.servers import RAY_VARIABLES

_ZYGOTE = """
import json, os, signal, sys, traceback
import mlflow, mltune.api, mltune.engines.optuna, mltune.execution.local, mltune.worker.runner
import IPython, cmaes, git, optuna._gp.gp, rich.progress, scipy.stats.qmc, sklearn.linear_model  # imported late
import sqlalchemy.dialects.sqlite
import mlflow.store.model_registry.sqlalchemy_store, mlflow.store.tracking.sqlalchemy_store
import mlflow.pyfunc, mltune.execution.ray.executor, mltune.worker.dependencies, skops.io
from ray._raylet import Config
mltune.worker.dependencies._distributions()
mlflow.set_tracking_uri(None)

def run(job):
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    os.chdir(job["folder"])
    sys.path.insert(0, job["folder"])
    os.environ.update(job["environment"])
    Config.initialize("")  # Ray has read its settings when it was imported
    log = os.open(job["log"], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1); os.dup2(log, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1); sys.stderr = os.fdopen(2, "w", buffering=1)
    try:
        exec(compile(job["code"], "<driver>", "exec"), {"__name__": "__main__"})
        return 0
    except SystemExit as error:
        return error.code or 0
    except BaseException:
        traceback.print_exc()
        return 99

for line in sys.stdin:
    job = json.loads(line)
    if "ended" in job:
        ended, status = os.waitpid(job["ended"], os.WNOHANG)
        print(json.dumps(os.waitstatus_to_exitcode(status) if ended else None), flush=True)
        continue
    pid = os.fork()
    if pid == 0:
        code = run(job)
        sys.stdout.flush(); sys.stderr.flush()
        os._exit(code)
    print(pid, flush=True)
"""


Zygote = subprocess.Popen[str]


@dataclass
class Drivers:
    """Starts drivers in one folder, with one tracking store."""

    zygote: Zygote
    folder: Path
    environment: Mapping[str, str]
    running: set[int] = field(default_factory=set)

    def start(self, code: str) -> int:
        """Run code in a process of its own; its id."""
        job = {
            "code": code,
            "folder": str(self.folder),
            "environment": {
                **self.environment,
                **{name: os.environ[name] for name in RAY_VARIABLES if name in os.environ},
            },
            "log": str(self.log),
        }
        pid = self._ask(job)
        assert pid is not None
        self.running.add(pid)
        return pid

    def wait(self, pid: int, seconds: float = 400.0) -> int:
        """The exit code of a driver, negative where a signal ended it."""
        deadline = time.monotonic() + seconds
        while (code := self._ask({"ended": pid})) is None:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)
        self.running.remove(pid)
        return code

    @property
    def client(self) -> MlflowClient:
        """A client of their store."""
        return MlflowClient(self.environment["MLFLOW_TRACKING_URI"])

    def run(self, code: str) -> int:
        """Run code to its end."""
        return self.wait(self.start(code))

    def close(self) -> None:
        """End what still runs."""
        for pid in list(self.running):
            kill(pid)
            self.wait(pid)

    @property
    def log(self) -> Path:
        """What all drivers have printed."""
        return self.folder / "drivers.log"

    def _ask(self, job: object) -> int | None:
        assert self.zygote.stdin is not None
        assert self.zygote.stdout is not None
        print(json.dumps(job), file=self.zygote.stdin, flush=True)
        return json.loads(self.zygote.stdout.readline())  # type: ignore[no-any-return]


@contextmanager
def zygote() -> Iterator[Zygote]:
    """The process that drivers are forked from."""
    inherited = ("MLFLOW_RUN", "MLFLOW_EXPERIMENT")  # what an earlier test of this process may have left
    environment = {name: value for name, value in os.environ.items() if not name.startswith(inherited)}
    process = subprocess.Popen(
        [sys.executable, "-c", _ZYGOTE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    with process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def wait_for(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    """Until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.02)


def trials_begun(client: MlflowClient, study: str) -> list[Run]:
    """The runs of a study's trials, deleted ones too, without those that were made ahead and not used."""
    runs = client.search_runs(["0"], f"tags.`mltune.study` = '{study}'", ViewType.ALL)
    return [run for run in runs if "mltune.params" in run.data.tags]


def has_begun(client: MlflowClient, number: int, experiment_id: str = "0") -> bool:
    """Whether the store knows that a trial runs: a moment after it has begun."""
    runs = client.search_runs([experiment_id], f"tags.`mltune.number` = '{number}' AND tags.`mltune.state` = 'RUNNING'")
    return any("mltune.params" in run.data.tags for run in runs)


def kill(pid: int) -> None:
    """As a power cut does, for one process."""
    os.kill(pid, signal.SIGKILL)
