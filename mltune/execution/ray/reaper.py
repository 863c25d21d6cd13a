"""A process that outlives the driver: it removes whatever Ray left behind, also when the driver was killed."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import sys
import time
import uuid

import psutil

MARK = "MLTUNE_RAY"
"""The variable that names a private Ray to all its processes and to whatever they start."""

_LOOK_AROUND = 0.5  # seconds between looks at whether the driver lives
_REAP_GRACE = 20.0  # seconds
_ROUNDS = 500  # looks for survivors
_PAUSE = 0.01  # seconds between them
_BOOT = "import sys; sys.path[:] = eval(sys.argv[1]); from mltune.execution.ray.reaper import main; main()"


class Reaper:
    """Ends marked processes and removes a folder, when told to or when this process is gone.

    Args:
        folder: Where Ray keeps the files of the study; with a private Ray, all files.

    Attributes:
        mark: What a private Ray's processes carry in their environment, as the value of ``MARK``.
    """

    def __init__(self, folder: str) -> None:
        self.mark = uuid.uuid4().hex
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, repr(sys.path), str(os.getpid()), self.mark, folder],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def reap(self) -> None:
        """Have it done now, and wait for it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=_REAP_GRACE)


def main() -> None:
    """Wait for the driver's word or end, then do the work."""
    driver, mark, folder = sys.argv[2:]
    while os.getppid() == int(driver) and not select.select([sys.stdin], [], [], _LOOK_AROUND)[0]:
        pass
    _end(mark, folder)
    shutil.rmtree(folder, ignore_errors=True)


def _end(mark: str, folder: str) -> None:
    for _ in range(_ROUNDS):
        living = [each for each in psutil.process_iter() if _is_left(each, mark, folder)]
        if not living:
            return
        for process in living:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(_PAUSE)


def _is_left(process: psutil.Process, mark: str, folder: str) -> bool:
    """Whether it has the mark; those of Ray's processes that rename themselves lose it, but write to the folder."""
    with contextlib.suppress(psutil.Error):
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if process.environ().get(MARK) == mark:
            return True
        renamed = process.name().startswith("ray::")
        return renamed and any(file.path.startswith(f"{folder}/") for file in process.open_files())
    return False
