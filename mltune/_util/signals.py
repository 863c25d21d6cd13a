"""SIGINT, SIGTERM and SIGHUP during a study: noted at once, heeded only where nothing is half-written."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
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

    Attributes:
        received: The first signal that came, None before it.
        insisted: Whether a second one came: the study is to stop at once.
        wake: Called when a signal comes, from its handler.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.insisted = False
        self.wake: Callable[[], None] = lambda: None
        self._at_once = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            heeded = [signum for signum in _HANDLED if signal.getsignal(signum) is not signal.SIG_IGN]  # nohup
            self._before = {signum: signal.signal(signum, self._note) for signum in heeded}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)  # None: it was not Python's

    def check(self) -> None:
        """Raise if a signal came.

        Raises:
            Stop: A signal came.
        """
        if self.received is not None:
            raise Stop(self.received)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within the block a signal is raised wherever the program stands."""
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
