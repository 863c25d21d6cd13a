"""Real servers on loopback: started, waited for, and ended with all that they started."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A command that serves; it can be killed and started again, with the same arguments."""

    command: Sequence[str]
    probe: str
    folder: Path
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run the command until the probe answers 200."""
        self.process = subprocess.Popen(
            self.command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._await(self.process)

    def end(self, signum: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to all its processes, and wait for their end: one that still serves would answer the probe."""
        if self.process is not None:
            started = psutil.Process(self.process.pid).children(recursive=True)
            os.killpg(self.process.pid, signum)
            self.process.wait(120)
            _, living = psutil.wait_procs(started, 120)
            assert [each for each in living if each.status() != psutil.STATUS_ZOMBIE] == []
        self.process = None

    def kill(self) -> None:
        """As a power cut does."""
        self.end(signal.SIGKILL)

    def _await(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 300
        while True:
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server did not answer"
            try:
                if requests.get(self.probe, timeout=30).status_code == 200:
                    return
            except requests.ConnectionError:
                time.sleep(0.3)


@contextmanager
def mlflow_server(*arguments: str, probe: str, folder: Path, environment: Mapping[str, str]) -> Iterator[Server]:
    """Run `mlflow ARGUMENTS` in a folder from when `probe` answers 200 until the end of the block."""
    server = Server([sys.executable, "-m", "mlflow", *arguments], probe, folder, environment)
    try:
        server.start()
        yield server
    finally:
        server.end()


@contextmanager
def tracking_server(folder: Path, database: Path) -> Iterator[tuple[str, Server]]:
    """A tracking server of one worker that also serves the artifacts, and its address."""
    port = str(free_port())
    address = f"http://127.0.0.1:{port}"
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    with mlflow_server(
        *("server", "--port", port, "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{database}", "--artifacts-destination", str(folder / "artifacts")),
        probe=f"{address}/health",
        folder=folder,
        environment=environment | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
    ) as server:
        yield address, server


RAY_VARIABLES = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN")
"""By which a Ray is joined."""

_RAY = """
import sys, ray
ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


@contextmanager
def ray_cluster() -> Iterator[dict[str, str]]:
    """A Ray of two CPUs, and of one GPU that is only said to be there; the variables by which it is joined."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "MLTUNE_"))}
    command = [sys.executable, "-c", _RAY]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=plain | token, cwd="/"
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, "Ray did not start"
        yield token | {"RAY_ADDRESS": address}
        process.stdin.close()
