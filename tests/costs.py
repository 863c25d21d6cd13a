"""A pytest plugin: the seconds that a run of the suite spends in fixtures, and in each kind of preparation.

What is measured is the time of the tests' own threads, without what is counted under another kind within it; the
processes of a parallel run are added up.
"""

from __future__ import annotations

import functools
import importlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

_KINDS = {
    "starting workers": (
        ("mltune.execution.local", "LocalExecutor.start"),
        ("mltune.execution.local", "LocalExecutor.warm_up"),
    ),
    "ending workers": (("mltune.execution.local", "LocalExecutor.close"),),
    "starting Ray": (("mltune.engines._ray_cluster", "_init"),),
    "ending Ray": (("mltune.engines._ray_cluster", "within"), ("mltune.engines._ray_undertaker", "Undertaker.bury")),
    "starting servers": (("tests.servers", "Server.start"),),
    "ending servers": (("tests.servers", "Server.end"),),
    "proving models": (("mltune.tracking.proof", "fault"),),
    "drivers": (("tests.drivers", "Drivers.wait"),),
    "commands": (("subprocess", "run"), ("subprocess", "Popen.wait"), ("subprocess", "Popen.communicate")),
    "waiting": (("time", "sleep"),),
    "saving models": (("mltune.tracking.models", "log_model"),),
    "report": (("mltune.report.write", "write"),),
}


class Costs:
    """Seconds by kind, of the main thread."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._inner: list[float] = []

    @contextmanager
    def spend(self, kind: str) -> Iterator[None]:
        """Count the time of a block under a kind, without what is counted within it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        began = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            taken = time.perf_counter() - began
            self.seconds[kind] += taken - self._inner.pop()
            if self._inner:
                self._inner[-1] += taken

    def watch(self, module: str, name: str, kind: str) -> None:
        """Count the calls of a function under a kind."""
        *parents, name = name.split(".")
        owner = functools.reduce(getattr, parents, importlib.import_module(module))
        function: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.spend(kind):
                return function(*args, **kwargs)

        setattr(owner, name, counted)


_costs = Costs()


def pytest_configure(config: pytest.Config) -> None:
    for kind, functions in _KINDS.items():
        for module, name in functions:
            try:
                _costs.watch(module, name, kind)
            except (ImportError, AttributeError) as error:
                print("no", module, name, error)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
    with _costs.spend(f"fixture {fixturedef.argname}"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    with _costs.spend("tests' own"):
        return (yield)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["costs"] = dict(_costs.seconds)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    _costs.seconds.update(getattr(node, "workeroutput", {}).get("costs", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("seconds by kind")
    for kind, seconds in _costs.seconds.most_common(60):
        terminalreporter.line(f"{seconds:8.1f}  {kind}")
