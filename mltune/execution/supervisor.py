"""The driver's handle of a worker's supervisor."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from multiprocessing.connection import wait

from mltune.worker.supervisor import NUMBER

END_GRACE = 5.0
"""Seconds for a supervisor to end what the worker started."""


class Supervisor:
    """The driver's handle of a worker's supervisor; see :mod:`mltune.worker.supervisor`.

    Args:
        link: The driver's side of the link.
        process: The process in which it was started.
        forked: Whether it was forked in that process, rather than being it.

    Attributes:
        pid: Its pid, or None until it has told it.
    """

    def __init__(self, link: socket.socket, process: subprocess.Popen[bytes], *, forked: bool) -> None:
        self.pid: int | None = None
        self._link = link
        self._process = process
        self._forked = forked
        self._pidfd: int | None = None
        self._status: int | None = None

    def has_ended(self, within: float = 0.0) -> bool:
        """Return whether it has ended, or ends in ``within`` seconds."""
        deadline = time.monotonic() + within
        while self._status is None:
            if not wait([self._link], max(0.0, deadline - time.monotonic())):
                return False
            self._receive()
        return True

    def terminate(self) -> None:
        """Have it end the worker and all that the worker started."""
        with contextlib.suppress(OSError):  # it is gone
            self._link.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """Kill it, and with it the worker, but not what the worker started."""
        with contextlib.suppress(ProcessLookupError):
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            elif self.pid is not None:
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> int:
        """Wait until it has ended; return the worker's exit code, or minus the signal that killed the worker."""
        self.has_ended(END_GRACE)
        self._link.close()
        if self._pidfd is not None:
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
        else:
            (self._status,) = NUMBER.unpack(data)

    def _status_of_start(self) -> int:
        """Return the status of the process that ended before there was a supervisor."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(END_GRACE)
        return -signal.SIGKILL
