"""Who drives a study: a mark on the parent run that says which process it is, and since when it was silent."""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

DEAD_AFTER = 60.0  # seconds

HELD: set[str] = set()
"""The studies that this process drives: of others its own lease is left over, see :meth:`Lease.is_held`."""

_SAME_START = 2.0  # seconds; the clock that a process start is computed from may have been set since


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A driver's process, as the tag ``mltune.lease`` names it.

    Attributes:
        host: For people to read.
        boot: Which boot of which machine, and in which container: where process ids are comparable.
        started: When the process started, in seconds since 1970.
        renewed: When the driver last said that it lives, in seconds since 1970.
    """

    host: str
    boot: str
    pid: int
    started: float
    renewed: float

    @classmethod
    def mine(cls) -> Lease:
        """This process's lease, renewed now."""
        started = psutil.Process().create_time()
        return cls(host=socket.gethostname(), boot=_boot(), pid=os.getpid(), started=started, renewed=time.time())

    @classmethod
    def parse(cls, text: str | None) -> Lease | None:
        """A lease from its tag; None where there is none that we understand."""
        try:
            return cls(**json.loads(text or ""))
        except (ValueError, TypeError):
            return None

    def __str__(self) -> str:
        return json.dumps(vars(self))

    def same_driver(self, other: Lease) -> bool:
        """Whether both name one process."""
        return self.boot == other.boot and self.pid == other.pid and abs(self.started - other.started) < _SAME_START

    def is_held(self, study: str) -> bool:
        """Whether the driver may still be at work on a study; of this very process we know."""
        return study in HELD if self.same_driver(Lease.mine()) else self.is_alive()

    def is_alive(self) -> bool:
        """Whether the driver may still run: on this very system its process says so, elsewhere its silence."""
        if self.boot != _boot():
            return time.time() - self.renewed < DEAD_AFTER
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return bool(abs(process.create_time() - self.started) < _SAME_START)
        except psutil.Error:
            return False


@cache
def _boot() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # not Linux
        return f"{socket.gethostname()} {psutil.boot_time():.0f}"
