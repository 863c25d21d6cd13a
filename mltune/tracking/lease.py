"""The lease on a study: a tag of the parent run that names the driver's process and the time of its last heartbeat."""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

DEAD_AFTER = 60.0  # seconds without a heartbeat

HELD: set[str] = set()
"""The studies that this process drives; its lease on any other study is stale, see :meth:`Lease.is_held`."""

_SAME_START = 2.0  # seconds of tolerance; the clock that a start time is computed from may have been set since


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The process of a driver, as stored in the tag ``mltune.lease``.

    Attributes:
        host: Name of the host, for people to read.
        boot: Id of the machine's boot and of the container; process ids are comparable only if it is the same.
        started: Time at which the process started, in seconds since 1970.
        renewed: Time of the driver's last heartbeat, in seconds since 1970.
    """

    host: str
    boot: str
    pid: int
    started: float
    renewed: float

    @classmethod
    def mine(cls) -> Lease:
        """Return the lease of this process, renewed now."""
        started = psutil.Process().create_time()
        return cls(host=socket.gethostname(), boot=_boot(), pid=os.getpid(), started=started, renewed=time.time())

    @classmethod
    def parse(cls, text: str | None) -> Lease | None:
        """Return the lease in a tag, or None if the tag is missing or cannot be parsed."""
        try:
            return cls(**json.loads(text or ""))
        except (ValueError, TypeError):
            return None

    def __str__(self) -> str:
        return json.dumps(vars(self))

    def same_driver(self, other: Lease) -> bool:
        """Return whether both leases name the same process."""
        return self.boot == other.boot and self.pid == other.pid and abs(self.started - other.started) < _SAME_START

    def is_held(self, study: str) -> bool:
        """Return whether the driver may still be working on a study; for this process, :data:`HELD` decides."""
        return study in HELD if self.same_driver(Lease.mine()) else self.is_alive()

    def is_alive(self) -> bool:
        """Return whether the driver may still be running: by its process on this system, else by its last heartbeat."""
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
