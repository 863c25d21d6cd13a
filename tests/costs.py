"""A pytest plugin: the seconds that a run of the suite spends in fixtures, and on each kind of preparation.

They are those of the tests' own threads, each counted once: under the kind of preparation that is under way, else under
the fixture that is being set up. The processes of a parallel run are added up.
"""

from __future__ import annotations

import functools
import importlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

import psutil
import pytest

_KINDS = {
    "starting workers": ("mltune.execution.local:LocalExecutor.start", "mltune.execution.local:LocalExecutor.warm_up"),
    "ending workers": ("mltune.execution.local:LocalExecutor.close",),
    "starting Ray": ("mltune.execution.ray.cluster:_init", "mltune.execution.ray.executor:RayExecutor._await_ready"),
    "ending Ray": ("mltune.execution.ray.executor:RayExecutor.close",),
    "starting servers": ("tests.servers:Server.start",),
    "ending servers": ("tests.servers:Server.end",),
    "migrating a store": ("mlflow.store.db.utils:_initialize_tables", "mlflow.store.db.utils:_upgrade_db"),
    "recording studies": ("tests.recorded:record",),
    "verifying models": ("mltune.driver.champion:verify_model",),
    "logging models": ("mltune.worker.models:log_model",),
    "waiting for drivers": ("tests.drivers:Drivers.wait",),
    "waiting for commands": ("subprocess:run", "subprocess:Popen.wait", "subprocess:Popen.communicate"),
    "waiting for conditions": ("time:sleep",),
}


class Costs:
    """Seconds by kind."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inner: list[float] = []
        self._is_preparing = False

    @contextmanager
    def spend(self, kind: str) -> Iterator[None]:
        """Count the time of a block under a kind, without what is counted within it."""
        began = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            taken = time.perf_counter() - began
            self.seconds[kind] += taken - self._inner.pop()
            if self._inner:
                self._inner[-1] += taken

    def watch(self, place: str, kind: str) -> None:
        """Count the calls of a function under a kind, in the main thread."""
        module, _, path = place.partition(":")
        *parents, name = path.split(".")
        owner = functools.reduce(getattr, parents, importlib.import_module(module))
        function: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            if self._is_preparing or threading.current_thread() is not threading.main_thread():
                return function(*args, **kwargs)
            self._is_preparing = True
            try:
                with self.spend(kind):
                    return function(*args, **kwargs)
            finally:
                self._is_preparing = False

        setattr(owner, name, counted)


_costs = Costs()


def pytest_configure() -> None:
    for kind, places in _KINDS.items():
        for place in places:
            _costs.watch(place, kind)


def pytest_collection_finish(session: pytest.Session) -> None:
    _costs.seconds["importing and collecting"] += time.time() - psutil.Process().create_time()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
    with _costs.spend(f"fixture {fixturedef.argname}"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[None]:
    with _costs.spend("all else"):
        return (yield)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["costs"] = dict(_costs.seconds)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    for kind, seconds in getattr(node, "workeroutput", {}).get("costs", {}).items():
        _costs.seconds[kind] += seconds


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("seconds by kind")
    for kind, seconds in sorted(_costs.seconds.items(), key=itemgetter(1), reverse=True):
        if seconds >= 0.1:
            terminalreporter.line(f"{seconds:8.1f}  {kind}")
