"""Measure, and write ``results.md`` or ``results-scale.md``: ``python -m benchmarks [--scale] [WORD …]``."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

from benchmarks.rows import ROWS, Figure, Row, thousands

HERE = Path(__file__).parent
_PACKAGES = ("mlflow", "optuna", "ray", "scikit-learn")


@dataclass(frozen=True)
class Result:
    """What came of a row: the figures of each side, in the order of the runs."""

    row: Row
    ours: list[float]
    theirs: list[float]

    @property
    def ratio(self) -> float | None:
        """Ours to theirs, by their medians."""
        return median(self.ours) / median(self.theirs) if self.theirs else None

    @property
    def reached(self) -> str:
        """Whether the target is."""
        if self.row.target is None:
            return ""
        figure = median(self.ours) if self.ratio is None else self.ratio
        return "yes" if (figure >= self.row.target if self.row.at_least else figure <= self.row.target) else "**no**"

    def line(self) -> str:
        """The line of the table."""
        target = f"{'≥' if self.row.at_least else '≤'} {self.row.target:.3g}" if self.row.target is not None else ""
        ratio = f"{self.ratio:.3g}" if self.ratio is not None else ""
        cells = [self.row.measure, _spell(self.ours, self.row.unit), self.row.peer, _spell(self.theirs, self.row.unit)]
        return " | ".join(["", *cells, ratio, target, self.reached, ""]).strip()


def take(row: Row) -> Result:
    """Measure a row, the sides in turn; what is bare is taken off round by round, for machines that others share."""
    sides: dict[str, Figure | None] = {"bare": row.bare, "ours": row.ours, "theirs": row.theirs}
    figures: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(row.repeats):
        for name in list(sides)[:: 1 if i % 2 == 0 else -1]:
            if (side := sides[name]) is not None:
                figures[name].append(side())
    bare = figures["bare"] or [0.0] * row.repeats
    return Result(row, *([a - b for a, b in zip(figures[name], bare, strict=False)] for name in ("ours", "theirs")))


def _spell(figures: list[float], unit: str) -> str:
    if not figures:
        return ""
    low, middle, high = (f"{figure:.3g}" for figure in (min(figures), median(figures), max(figures)))
    return f"{middle} {unit}" if len(figures) == 1 else f"{middle} {unit} ({low} to {high})"


def write(results: list[Result], path: Path) -> None:
    """The table, with what it was measured on."""
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    command = path.stem.replace("results", "make bench")
    lines = [
        "# Measured",
        "",
        f"By `{command}`: {os.cpu_count()} cores, Python {platform.python_version()}, {packages}.",
        "Medians, with the least and the most; each measurement in a fresh process and on a fresh SQLite database, the",
        "sides in turn. *Added* is the time from the beginning of one trial to that of the next, less the same of bare",
        "fits just before or after; *CPU added* is the same of the CPU time of all processes. A ratio is ours to the",
        "peer's. Both sides run Optuna's default algorithm, TPE; here display, report and lint are on.",
        "",
        "| measure | mltune | peer | peer's figure | ratio | target | reached |",
        "|---|---|---|---|---|---|---|",
        *(result.line() for result in results),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Measure the rows that hold one of the words, or all."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--scale", action="store_true", help="the rows that take many minutes, in place of the others")
    parser.add_argument("words", nargs="*", help="only rows that hold one of them; nothing is written then")
    options = parser.parse_args()
    results = []
    for row in [*ROWS, *thousands()]:
        wanted = any(word in row.measure for word in options.words) or not options.words
        if wanted and row.scale is options.scale:
            results.append(take(row))
            print(results[-1].line(), file=sys.stderr, flush=True)
    if not options.words:
        write(results, HERE / ("results-scale.md" if options.scale else "results.md"))


if __name__ == "__main__":
    main()
