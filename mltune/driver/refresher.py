"""Keep the report of a running study fresh, from another process, at a bounded cost."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping

_SHARE = 0.01  # of the study's time
_FIRST = 3.0  # seconds that a report is thought to take before one was made
_NICENESS = 19

SWITCH = "MLTUNE_REPORT"
"""The environment variable that turns reports and lint off where it is ``false``."""


def reports_enabled() -> bool:
    """Return whether studies of this process are linted and reported."""
    return os.environ.get(SWITCH, "true").lower() not in ("false", "0", "no")


class Refresher:
    """Starts ``mltune report`` so seldom that all reports take less than a hundredth of the study's time.

    Args:
        environment: What the process needs to reach the store.
        share: The part of the study's time that reports may take.
    """

    def __init__(self, environment: Mapping[str, str], share: float = _SHARE) -> None:
        self._environment = environment
        self._share = share
        self._process: subprocess.Popen[bytes] | None = None
        self._began = time.monotonic()
        self._next = self._began + _FIRST / share

    @property
    def busy(self) -> bool:
        """Whether a report is being made."""
        return self._process is not None

    def tick(self, run_id: str) -> None:
        """Start a report where one is due; call it now and then."""
        now = time.monotonic()
        if self._process is not None and self._process.poll() is not None:
            self._process = None
            self._next = now + (now - self._began) / self._share
        elif self._process is None and now >= self._next:
            self._began = now
            self._start(run_id, now)

    def _start(self, run_id: str, now: float) -> None:
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mltune", "report", run_id],
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:  # no process to be had: a study does not fail for its report
            self._next = now + _FIRST / self._share
            return
        with contextlib.suppress(OSError):  # it has ended
            os.setpriority(os.PRIO_PROCESS, self._process.pid, _NICENESS)

    def cancel(self) -> None:
        """End a report that is being made."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
