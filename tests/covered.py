"""What `make coverage` needs beside coverage.py: the data of Ray's workers, and the table of the files to look at."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import TypedDict

from coverage import Coverage

LIMIT = 95.0  # per cent
_PAUSE = 0.5  # seconds


def save_often() -> None:
    """Save what this process covers all the time; Ray, which ends its workers without notice, calls this in each."""
    threading.Thread(target=_save, daemon=True).start()


def _save() -> None:
    while (current := Coverage.current()) is not None:
        time.sleep(_PAUSE)
        current.save()


class Summary(TypedDict):
    """How much of a file, or of all, is covered, in per cent."""

    percent_covered: float  # of lines and branches together
    percent_statements_covered: float
    percent_branches_covered: float


class File(TypedDict):
    """One file of a report."""

    summary: Summary


class Report(TypedDict):
    """The part of `coverage json` that the table is made of."""

    files: dict[str, File]
    totals: Summary


def table(report: Report) -> str:
    """The files under the limit, the least covered first, and the total."""
    summaries = {path: file["summary"] for path, file in report["files"].items()}
    low = {path: summary for path, summary in summaries.items() if summary["percent_covered"] < LIMIT}
    order = sorted(low, key=lambda path: low[path]["percent_covered"])
    heads = f"{f'under {LIMIT:.0f} %':40}   lines  branches"
    return "\n".join([heads, *(_row(path, low[path]) for path in order), _row("total", report["totals"])])


def _row(name: str, summary: Summary) -> str:
    return f"{name:40} {summary['percent_statements_covered']:7.2f} {summary['percent_branches_covered']:9.2f}"


def main() -> int:
    """Print the table of the report on stdin; return 1 if all lines and branches, or the branches, miss the limit."""
    report: Report = json.load(sys.stdin)
    print(table(report))
    print("`coverage report -m` names the lines.")
    return int(min(report["totals"]["percent_covered"], report["totals"]["percent_branches_covered"]) < LIMIT)


if __name__ == "__main__":
    sys.exit(main())
