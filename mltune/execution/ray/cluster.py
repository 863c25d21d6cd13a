"""Connect to the Ray that runs the trials: the user's own, a cluster, or a private one."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import ray
from ray._private.services import canonicalize_bootstrap_address
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from mltune._util import timing
from mltune._util.env import environment
from mltune.errors import RequestError, first_line
from mltune.execution.ray.reaper import MARK, Reaper
from mltune.objective import ObjectiveRef

if TYPE_CHECKING:
    from mltune.messages import WorkerConfig

_OBJECT_STORE = 100 * 2**20  # bytes; only tasks and reports pass through it
_STARTS = 2  # attempts: Ray gives a new node 30 seconds to start, which a busy machine may exceed
_LONGEST_PARENT = 24  # characters of the folder's parent: paths of Ray's sockets are limited to 107 bytes


@contextlib.contextmanager
def connected(n_jobs: int, resources: Mapping[str, float], setup: WorkerConfig) -> Iterator[str]:
    """Connect to Ray for the block, and yield a folder that exists as long as the block runs.

    An existing Ray is used and left running. If there is none, start a private Ray, which only holders of its token can
    join.

    Raises:
        RequestError: ``RAY_ADDRESS`` names no usable cluster.
    """
    with contextlib.ExitStack() as closing:
        folder = _make_folder()
        reaper = Reaper(folder)
        closing.callback(reaper.reap)
        if not ray.is_initialized():
            address = _address()
            if address is not None:
                closing.enter_context(_joined(address, setup))
            else:
                cpus = max(os.cpu_count() or 1, math.ceil(n_jobs * resources["cpu"]))
                closing.enter_context(_private(reaper.mark, folder, cpus))
        yield folder


def check_room(resources: Mapping[str, float]) -> None:
    """Raise if no node can hold a trial, because the trial would wait forever.

    Raises:
        RequestError: No node is large enough.
    """
    names = {"cpu": "CPU", "gpu": "GPU", "memory": "memory"}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(node.get(names[name], 0.0) >= value for name, value in resources.items()) for node in nodes):
        there = {name: max((node.get(key, 0.0) for node in nodes), default=0.0) for name, key in names.items()}
        raise RequestError(
            f"`resources` must fit on one node of the Ray cluster, but got {dict(resources)} where the most is {there}"
        )


def within(seconds: float, call: Callable[[], Any]) -> None:
    """Call a function of Ray; stop waiting for it after some seconds, because a cluster may have stopped answering."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)


def python_path() -> str:
    """Return the ``PYTHONPATH`` with which other processes on this machine find this process's modules."""
    return os.pathsep.join(folder or os.getcwd() for folder in sys.path)


def _make_folder() -> str:
    short = len(tempfile.gettempdir()) <= _LONGEST_PARENT
    return tempfile.mkdtemp(prefix="mltune-", dir=None if short else "/tmp")


def _address() -> str | None:
    """Return the address of the cluster that ``RAY_ADDRESS`` names, or None for a private Ray.

    Raises:
        RequestError: The cluster cannot be used.
    """
    given = os.environ.get("RAY_ADDRESS")
    if given in (None, "", "local"):
        return None
    if "://" in given:
        raise RequestError(
            f"`RAY_ADDRESS` must be HOST:PORT or auto, but got '{given}': run mltune on a node of the cluster, or "
            "submit it there as a Ray job"
        )
    try:
        address = str(canonicalize_bootstrap_address(given))
        host, _, port = address.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timing.TIMING.probe).close()
    except (OSError, ValueError) as error:
        raise RequestError(
            f"`RAY_ADDRESS` must name a running Ray cluster, but at '{given}' there is none ({first_line(error)}): "
            "start one or unset the variable"
        ) from None
    return address


@contextlib.contextmanager
def _joined(address: str, setup: WorkerConfig) -> Iterator[None]:
    """Connect to a cluster for the block; send it the objective's folder, without files that are never code.

    Raises:
        RequestError: The cluster refuses the connection.
    """
    runtime_env: dict[str, Any] = {"env_vars": {"PYTHONPATH": python_path()}}
    if isinstance(setup.objective, ObjectiveRef):
        runtime_env["working_dir"] = setup.objective.folder
        runtime_env["excludes"] = [".git", ".venv", "mlruns", "mlartifacts", "*.db"]
    with contextlib.ExitStack() as closing:
        try:
            closing.enter_context(_ray(address=address, runtime_env=runtime_env))
        except Exception as error:
            raise RequestError(
                f"the Ray cluster at {address} must let mltune in, but it does not ({first_line(error)}): check "
                "`RAY_ADDRESS`, `RAY_AUTH_TOKEN` and its version of Ray"
            ) from error
        yield


@contextlib.contextmanager
def _private(mark: str, folder: str, cpus: int) -> Iterator[None]:
    """Run a private Ray for the block, with a new token."""
    variables = {
        MARK: mark,
        "PYTHONPATH": python_path(),
        "RAY_AUTH_MODE": None,  # if unset, Ray requires a token
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    options = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": _OBJECT_STORE, "_temp_dir": folder}
    try:
        with environment(variables):
            _forget_token()
            with _ray(tries=_STARTS, address="local", **options):
                yield
    finally:
        _forget_token()


def _forget_token() -> None:
    """Make Ray read its settings again now, and its token when it next needs it."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextlib.contextmanager
def _ray(*, tries: int = 1, **arguments: Any) -> Iterator[None]:
    """Call ``ray.init``, quietly and without its SIGTERM handler, before the block, and ``ray.shutdown`` after it."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        try:
            _init(tries, arguments)
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)
        yield
    finally:
        within(timing.TIMING.ray_shutdown, ray.shutdown)


def _init(tries: int, arguments: Mapping[str, Any]) -> None:
    for left in reversed(range(tries)):
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **arguments)
        except Exception:
            if left == 0:
                raise
            within(timing.TIMING.ray_shutdown, ray.shutdown)
        else:
            return
