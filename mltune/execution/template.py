"""How worker processes are started: forked from the study's template process, or as programs of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

from mltune._util.env import QUIET_ARROW
from mltune._util.processes import MARK, open_pidfd

_BOOT = (
    "import sys; own = sys.path[:]; sys.path[:] = eval(sys.argv[1]); "
    "from mltune.worker.{0} import main; main(own, *sys.argv[2:])"
)
_NO_MARK = "0" * 32  # replaced in each fork by a mark of the same length


class Template:
    """The driver's handle of a study's template process.

    On systems without pidfds, and after the template has died, each worker is a new program.

    Args:
        environment: The environment of the workers.
        preload: Whether workers are forked from a template, rather than programs of their own.

    Attributes:
        process: The template process, or None if there is none.
    """

    def __init__(self, environment: Mapping[str, str], *, preload: bool = True) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._environment = environment
        self._folder = os.getcwd()
        self._sys_path = repr(sys.path)
        if not preload or (pidfd := open_pidfd(os.getpid())) is None:
            return
        os.close(pidfd)
        self._control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with control:
            variables = {**environment, MARK: _NO_MARK}
            variables.setdefault(*QUIET_ARROW)
            self.process = self._start("template", [control.fileno()], variables)

    def start_worker(self, mark: str, fds: Sequence[int]) -> tuple[subprocess.Popen[bytes], bool]:
        """Start a worker and its supervisor.

        Args:
            mark: The value of ``MARK`` in the environment of the worker and its descendants, 32 characters.
            fds: The file descriptors for :func:`mltune.worker.main.serve`.

        Returns:
            The template process and True if they are forked from it, else the supervisor's own process and False.
        """
        if self.process is not None:
            try:
                socket.send_fds(self._control, [mark.encode()], fds)
                return self.process, True
            except ConnectionError:  # the template died
                self.close()
            except OSError:  # too many file descriptors are under way
                pass
        return self._start("main", fds, {**self._environment, MARK: mark}), False

    def close(self) -> None:
        """End the template; workers that were forked from it live on."""
        if self.process is not None:
            self._control.close()
            self.process.kill()
            self.process.wait()
            self.process = None

    def _start(self, module: str, fds: Sequence[int], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a module of the worker as a new program in a session of its own, with this process as its driver."""
        return subprocess.Popen(
            [sys.executable, "-c", _BOOT.format(module), self._sys_path, *map(str, (os.getpid(), *fds))],
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=environment,
            cwd=self._folder,
        )
