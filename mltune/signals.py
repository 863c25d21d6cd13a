"""SIGINT, SIGTERM and SIGHUP during a study: noted at once, raised only where nothing is half-written."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop(BaseException):
    """A signal asks the study to stop."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(signum)


class Signals:
    """Takes the signals over while a study runs in the main thread, and gives them back after it.

    The first signal raises :class:`Stop` inside :meth:`waiting` or at the next :meth:`check`; later ones are
    ignored, for the study is already closing.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._raised = False
        self._waiting = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            heeded = [signum for signum in _HANDLED if signal.getsignal(signum) is not signal.SIG_IGN]  # nohup
            self._before = {signum: signal.signal(signum, self._note) for signum in heeded}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def check(self) -> None:
        """Raise if a signal came.

        Raises:
            Stop: A signal came, and it was not raised before.
        """
        if self._received is not None and not self._raised:
            self._raised = True
            raise Stop(self._received)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """While the driver only waits, a signal is raised at once."""
        self._waiting = True
        try:
            self.check()
            yield
        finally:
            self._waiting = False

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self._received is None:
            self._received = signum
        if self._waiting:
            self.check()
