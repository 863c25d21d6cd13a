"""How worker processes are started: forked from the study's template process, or as programs of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

from mltune._util.env import QUIET_ARROW
from mltune._util.processes import MARK, open_pidfd

Start = Callable[[str, Sequence[int]], tuple["subprocess.Popen[bytes]", bool]]
"""Starts a worker and its supervisor, given the worker's mark and the file descriptors for ``worker.main.serve``.

The mark is the value of ``MARK`` in the environment of the worker and its descendants, 32 characters. The result is the
template process and True if they are forked from it, else the supervisor's own process and False.
"""

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

    Attributes:
        process: The template process, or None if there is none.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._environment = environment
        self._folder = os.getcwd()
        self._sys_path = list(sys.path)
        if (pidfd := open_pidfd(os.getpid())) is None:
            return
        os.close(pidfd)
        self._control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with control:
            variables = {**environment, MARK: _NO_MARK}
            variables.setdefault(*QUIET_ARROW)
            self.process = _start("template", [control.fileno()], variables, self._folder, self._sys_path)

    def start(self, mark: str, fds: Sequence[int]) -> tuple[subprocess.Popen[bytes], bool]:
        """Start a worker and its supervisor; see :data:`Start`."""
        if self.process is not None:
            try:
                socket.send_fds(self._control, [mark.encode()], fds)
                return self.process, True
            except ConnectionError:  # the template died
                self.close()
            except OSError:  # too many file descriptors are under way
                pass
        return _start("main", fds, {**self._environment, MARK: mark}, self._folder, self._sys_path), False

    def close(self) -> None:
        """End the template; workers that were forked from it live on."""
        if self.process is not None:
            self._control.close()
            self.process.kill()
            self.process.wait()
            self.process = None


def start_program(mark: str, fds: Sequence[int], folder: str) -> tuple[subprocess.Popen[bytes], bool]:
    """Start a worker as a new program that prints nothing; see :data:`Start`.

    Args:
        mark: The mark.
        fds: The file descriptors.
        folder: The program's working folder.
    """
    return _start("main", fds, {**os.environ, MARK: mark}, folder, sys.path, output=subprocess.DEVNULL), False


def _start(
    module: str,
    fds: Sequence[int],
    environment: Mapping[str, str],
    folder: str,
    sys_path: Sequence[str],
    output: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a module of the worker as a new program in a session of its own, with this process as its driver."""
    path = repr([entry for entry in sys_path if isinstance(entry, str)])  # Python ignores other entries
    return subprocess.Popen(
        [sys.executable, "-c", _BOOT.format(module), path, *map(str, (os.getpid(), *fds))],
        pass_fds=fds,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        env=environment,
        cwd=folder,
    )
