"""A tracking server on loopback that tells how often it was called."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

_CALL = re.compile(r'"(?:GET|POST|PUT|PATCH|DELETE) (/api/2\.0/mlflow/\S*)')
_UPLOAD = re.compile(r'"PUT (/api/2\.0/mlflow-artifacts/\S*)')


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        uri: Its address.
        log: The file where it writes a line for each call.
    """

    uri: str
    log: Path

    def calls(self) -> list[str]:
        """The paths of all calls to the tracking API so far, without those about experiments."""
        return [path for path in self._find(_CALL) if "/experiments/" not in path]

    def uploads(self) -> list[str]:
        """The paths of all files so far."""
        return self._find(_UPLOAD)

    def _find(self, what: re.Pattern[str]) -> list[str]:
        time.sleep(0.5)  # the log is written a little later
        return what.findall(self.log.read_text())


@contextmanager
def counting_server(folder: Path, port: int) -> Iterator[Server]:
    """Run a server of one worker process, with its database and artifacts in a folder."""
    server = Server(f"http://127.0.0.1:{port}", folder / "server.log")
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    with server.log.open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for(server.uri, process)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _wait_for(uri: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(f"{uri}/health", timeout=5).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.3)
    raise RuntimeError("the tracking server did not start")
