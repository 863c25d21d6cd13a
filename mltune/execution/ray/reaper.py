"""A process that outlives the driver, to remove everything that Ray left behind, even if the driver was killed."""

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
"""The environment variable that marks all processes of a private Ray and everything they start."""

_LOOK_AROUND = 0.5  # seconds between checks that the driver is alive
_REAP_GRACE = 20.0  # seconds for the reaper to finish
_ROUNDS = 500  # checks for survivors
_PAUSE = 0.01  # seconds between them
_BOOT = "import sys; sys.path[:] = eval(sys.argv[1]); from mltune.execution.ray.reaper import main; main()"


class Reaper:
    """A process that kills marked processes and removes a folder, on request or when this process is gone.

    Args:
        folder: The folder of the study's files, or, with a private Ray, of all of Ray's files.

    Attributes:
        mark: The value of ``MARK`` in the environment of a private Ray's processes.
    """

    def __init__(self, folder: str) -> None:
        self.mark = uuid.uuid4().hex
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, repr(sys.path), str(os.getpid()), self.mark, folder],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def reap(self) -> None:
        """Request the clean-up now, and wait up to 20 seconds for it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=_REAP_GRACE)


def main() -> None:
    """Wait until the driver requests the clean-up or is gone, then clean up."""
    driver, mark, folder = sys.argv[2:]
    while os.getppid() == int(driver) and not select.select([sys.stdin], [], [], _LOOK_AROUND)[0]:
        pass
    _end(mark, folder)
    shutil.rmtree(folder, ignore_errors=True)


def _end(mark: str, folder: str) -> None:
    for _ in range(_ROUNDS):
        living = [process for process in psutil.process_iter() if _is_left(process, mark, folder)]
        if not living:
            return
        for process in living:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(_PAUSE)


def _is_left(process: psutil.Process, mark: str, folder: str) -> bool:
    """Return whether a process has the mark or is a renamed process of Ray, which loses it but writes to the folder."""
    with contextlib.suppress(psutil.Error):
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if process.environ().get(MARK) == mark:
            return True
        renamed = process.name().startswith("ray::")
        return renamed and any(file.path.startswith(f"{folder}/") for file in process.open_files())
    return False
