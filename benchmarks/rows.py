"""The table: what is measured, against whom, and what is aimed at."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.cases import measure

Figure = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        measure: What.
        peer: Against whom; empty where there is a limit only.
        unit: Of the figures.
        ours: Takes our figure.
        theirs: Takes the peer's figure; None where there is a limit only.
        bare: What is taken off both figures.
        target: For the ratio of ours to theirs, or for our figure if there is no peer; None if nothing is aimed at.
        at_least: Whether more is better.
        repeats: How often each side is measured.
        scale: Whether it takes many minutes.
    """

    measure: str
    unit: str
    ours: Figure
    target: float | None
    peer: str = ""
    theirs: Figure | None = None
    bare: Figure | None = None
    at_least: bool = False
    repeats: int = 3
    scale: bool = False


def _figure(name: str, figure: str, *arguments: Any) -> Figure:
    return lambda: measure(name, *arguments)[figure]


def _added(measure: str, milliseconds: int, target: float, peer: _Peer, n: int = 150) -> list[Row]:
    """Milliseconds that a trial takes over its fit, and what the CPUs do meanwhile, in the same measurements."""
    tutorial = peer.theirs == "tutorial"
    ours = _Pair("trials", "ours", peer.ours, n, milliseconds)
    theirs = _Pair("trials", "peers", peer.theirs, 3 if tutorial else n, milliseconds)
    bare = _Pair("trials", "peers", "untracked", n, milliseconds)
    row = Row(
        measure=f"{measure}, {milliseconds} ms fit: added to a trial",
        peer=peer.name,
        unit="ms",
        ours=ours.wall,
        theirs=theirs.wall,
        bare=bare.wall,
        target=target,
        repeats=1 if tutorial else 5,
    )
    if tutorial:  # too few trials for a look at the CPU time
        return [row]
    cpu = f"{measure}, {milliseconds} ms fit: CPU added to a trial"
    return [row, replace(row, measure=cpu, ours=ours.cpu, theirs=theirs.cpu, bare=bare.cpu, target=None)]


@dataclass(frozen=True)
class _Peer:
    """Our case, the peer's, and what the peer does."""

    ours: str
    theirs: str
    name: str


class _Pair:
    """Measures two figures at once: `cpu` returns those of earlier calls of `wall`, in their order."""

    def __init__(self, name: str, *arguments: Any) -> None:
        self._case = (name, *arguments)
        self._cpu: deque[float] = deque()

    def wall(self) -> float:
        figures = measure(*self._case)
        self._cpu.append(figures["cpu_ms"])
        return figures["ms"]

    def cpu(self) -> float:
        return self._cpu.popleft() if self._cpu else measure(*self._case)["cpu_ms"]


_LOOP = "loop with explicit requirements and example"
_MODEL = _Peer("with_model", "hand_written", _LOOP)
_TUTORIAL = _Peer("with_model", "tutorial", "loop with default `log_model`")
_PLAIN = _Peer("without_model", "without_model", "nested runs")
_AUTO = _Peer("with_default_algorithm", "with_gp", "nested runs, Optuna's GPSampler")


_IMPORTS = "import os, mltune.api, mltune.engines.optuna, mlflow.store.tracking.sqlalchemy_store; os._exit(0)"


def _calls(measure: str, name: str, at: int, target: float, *, scale: bool = False) -> Row:
    ns = [1, 10] if at == 10 else [10, at]
    return Row(
        measure=f"{measure}: calls a trial to a server's tracking API, {'1 to 10' if at == 10 else f'10 to {at:,}'}",
        unit="calls",
        ours=_figure("calls", str(at), "ours", name, ns, 5),
        target=target,
        peer="MlflowStorage" if at == 10 else "",
        theirs=_figure("calls", "10", "peers", "mlflow_storage", ns, 0) if at == 10 else None,
        repeats=1,
        scale=scale,
    )


def _speedup(measured: str, case: str, figure: str, n: int) -> Row:
    """How much two workers gain."""

    def gain() -> float:
        one, two = (measure(case, "ours", "spins", n, 1.0, jobs)[figure] for jobs in (1, 2))
        return one / two

    return Row(
        measure=f"two workers, {measured}: times one worker",
        unit="times",
        ours=gain,
        target=1.9,
        at_least=True,
        repeats=1,
    )


def _command(measure: str, target: float, *words: str) -> Row:
    """Seconds for a Python command; 0.4 s and 0.15 s are aimed at where ``import mlflow`` takes 1.4 s."""
    return Row(
        measure=measure,
        peer="`import mlflow`",
        unit="s",
        ours=_figure("command", "s", *words),
        theirs=_figure("command", "s", "-c", "import mlflow"),
        target=target,
    )


ROWS = [
    *_added("model", 5, 0.5, _MODEL),
    *_added("model", 5, 0.01, _TUTORIAL),
    *_added("no model", 5, 0.8, _PLAIN),
    *_added("no model, algorithm auto (gp)", 5, 0.8, _AUTO, n=60),
    *_added("model", 100, 0.4, _MODEL, n=60),
    *_added("no model", 100, 0.2, _PLAIN, n=60),
    Row(
        measure="no model, on Ray: a trial",
        peer="MLflowLoggerCallback",
        unit="ms",
        ours=_figure("trials", "ms", "ours", "on_ray", 60, 5),
        theirs=_figure("trials", "ms", "peers", "ray_callback", 60, 5),
        target=1.0,
        repeats=2,
    ),
    _calls("no model", "without_model", 10, 4),
    _calls("no model", "without_model", 1_000, 4),
    _calls("model", "with_model", 10, 12),
    _calls("model", "with_model", 1_000, 12, scale=True),
    Row(
        measure="model: files a trial uploads to a server",
        peer=_LOOP,
        unit="files",
        ours=_figure("calls", "files at 10", "ours", "with_model", [1, 10], 5),
        theirs=_figure("calls", "files at 10", "peers", "hand_written", [1, 10], 5),
        target=1.0,
        repeats=1,
    ),
    _speedup("trials of 1 s: trials a second", "trials", "ms", 41),  # odd: two workers begin their trials in pairs
    _speedup("40 trials of 1 s, start and end included", "whole", "s", 40),
    Row(
        measure="`mltune run`: first trial begins, after what the command imports",
        unit="s",
        ours=_figure("first_trial", "s"),
        bare=_figure("command", "s", "-c", _IMPORTS),
        target=0.4,
        repeats=5,
    ),
    Row(
        measure="a worker that replaces a dead one: next attempt begins",
        unit="s",
        ours=_figure("replacement", "s"),
        target=0.1,
    ),
    Row(
        measure="two workers, 400 trials of 20 ms of Python: trials a second",
        peer="Optuna `n_jobs=2`, untracked",
        unit="1/s",
        ours=lambda: 1000 / measure("trials", "ours", "spins", 400, 0.02, 2)["ms"],
        theirs=lambda: 1000 / measure("trials", "peers", "untracked_spins", 400, 0.02, 2)["ms"],
        target=0.6,
        at_least=True,
    ),
    Row(
        measure="100 metrics at 1,000 steps: a metric",
        peer="`mlflow.log_metric` (of 20 steps)",
        unit="µs",
        ours=_figure("many_metrics", "us", "ours", 100, 1_000),
        theirs=_figure("many_metrics", "us", "peers", 100, 20),
        target=0.05,
        repeats=1,
    ),
    _command("`mltune --help`", 0.4 / 1.4, "-m", "mltune", "--help"),
    _command("`import mltune`", 0.15 / 1.4, "-c", "import mltune"),
]


def thousands() -> list[Row]:
    """What one study of 10,000 trials tells."""
    figures: dict[str, float] = {}

    def take(name: str) -> Figure:
        def figure() -> float:
            if not figures:
                figures.update(measure("thousands", 10_000))
            return figures[name]

        return figure

    def row(measure: str, unit: str, name: str, target: float) -> Row:
        return Row(
            measure=f"10,000 trials: {measure}", unit=unit, ours=take(name), target=target, repeats=1, scale=True
        )

    return [
        Row(
            measure="10,000 trials: a trial, at the end",
            peer="the first hundred",
            unit="ms",
            ours=take("last_ms"),
            theirs=take("first_ms"),
            target=1.2,
            repeats=1,
            scale=True,
        ),
        row("read for resume", "s", "read_s", 8.0),
        row("the best trial", "s", "best_s", 0.05),
        row("the driver's memory above start", "MB", "memory_mb", 150.0),
    ]
