"""The driver's handle of a worker's supervisor."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from multiprocessing.connection import wait

from mltune._util import timing
from mltune.worker.supervisor import NUMBER

_FORK_GRACE = 0.2  # seconds for the template to end, if that is why there is no supervisor


class Supervisor:
    """The driver's handle of a worker's supervisor; see :mod:`mltune.worker.supervisor`.

    Args:
        link: The driver's side of the link.
        process: The template process, or, if not ``forked``, the supervisor's own.
        forked: Whether it is forked from the template process.

    Attributes:
        pid: Its pid, or None if it has not told it yet.
    """

    def __init__(self, link: socket.socket, process: subprocess.Popen[bytes], *, forked: bool) -> None:
        self.pid: int | None = None
        self._link = link
        self._process = process
        self._forked = forked
        self._pidfd: int | None = None
        self._status: int | None = None

    def has_started(self) -> bool:
        """Return whether it has told its pid."""
        self.has_ended()
        return self.pid is not None

    def has_ended(self, within: float = 0.0) -> bool:
        """Return whether it has ended, or ends in ``within`` seconds."""
        deadline = time.monotonic() + within
        while self._status is None:
            if not wait([self._link], max(0.0, deadline - time.monotonic())):
                return False
            self._receive()
        return True

    def terminate(self) -> None:
        """Ask it to end the worker and all that the worker started."""
        with contextlib.suppress(OSError):  # it is gone
            self._link.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """Kill it, and with it the worker, but not what the worker started."""
        if not self._forked:
            self._process.kill()
        elif self.pid is not None and not (self._pidfd is not None and wait([self._pidfd], 0)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> int:
        """Wait until it has ended; return the worker's exit code, or minus the signal that killed the worker."""
        self.has_ended(timing.TIMING.end_grace)
        self._link.close()
        if self._pidfd is not None:
            wait([self._pidfd], timing.TIMING.end_grace)
            os.close(self._pidfd)
        if not self._forked:
            self._process.wait()
        return -signal.SIGKILL if self._status is None else self._status

    def _receive(self) -> None:
        """Receive the pid or the worker's exit code, or notice that the supervisor was killed."""
        try:
            data, fds, _, _ = socket.recv_fds(self._link, NUMBER.size, 1)
        except ConnectionError:
            data, fds = b"", []
        if not data:
            self._status = -signal.SIGKILL if self.pid is not None else self._status_of_start()
        elif self.pid is None:
            (self.pid,) = NUMBER.unpack(data)
            self._pidfd = fds[0] if fds else None
            if self._pidfd is not None:
                os.set_inheritable(self._pidfd, False)
        else:
            (self._status,) = NUMBER.unpack(data)

    def _status_of_start(self) -> int:
        """Return the status of the process in which it could not start, or 1 if that was a fork of the template."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(_FORK_GRACE if self._forked else timing.TIMING.end_grace)
        return 1
