"""Handle SIGINT, SIGTERM and SIGHUP during a study: record at once, act only when nothing is half-written."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop(BaseException):
    """Request by a signal to stop the study."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(signum)


class Signals:
    """Signal handlers for a study that runs in the main thread; the previous handlers are restored after it.

    Attributes:
        received: The first signal that arrived, or None.
        insisted: Whether a second signal arrived, so that the study must stop at once.
        wake: Called from the signal handler when a signal arrives.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.insisted = False
        self.wake: Callable[[], None] = lambda: None
        self._at_once = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            # A signal that is ignored stays ignored, such as SIGHUP under nohup.
            handled = [signum for signum in _HANDLED if signal.getsignal(signum) is not signal.SIG_IGN]
            self._before = {signum: signal.signal(signum, self._note) for signum in handled}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)  # None: not set from Python

    def check(self) -> None:
        """Raise :class:`Stop` if a signal has arrived."""
        if self.received is not None:
            raise Stop(self.received)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise :class:`Stop` as soon as a signal arrives within the block, at any point of the program."""
        self._at_once = True
        try:
            self.check()
            yield
        finally:
            self._at_once = False

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.insisted = self.received is not None
        self.received = self.received or signum
        if self._at_once:
            self.check()
        self.wake()
