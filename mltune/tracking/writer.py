"""The one thread that writes a study's record: in order, each entry once, and despite outages of the store."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any, TypeVar

from mlflow.exceptions import MlflowException

from mltune.errors import MltuneError
from mltune.messages import Event, StoreDown, StoreUp
from mltune.retry import LeaseLostError, StoreError, delays, is_transient, sentence, store_error

T = TypeVar("T")

_POLL = 0.2  # seconds between checks for signals while the driver's thread waits for a call


@dataclass(frozen=True)
class _Call:
    make: Callable[[], Any]
    event: Callable[[Any], Event] | None = None
    future: Future[Any] | None = None


class Writer:
    """Writer that makes calls to the store one after another, in a thread of its own.

    A call that the store could not serve is retried until it succeeds, and later calls wait; so calls must be
    idempotent. If the retries take longer than ``patience``, or would not help, the writer has failed: it drops the
    call, and makes each later call only once.

    Args:
        patience: Seconds for which a call is retried.
        renew_every: Seconds between renewals, see :meth:`keep`.
        wake: Called from the writer's thread when there are :meth:`events`.

    Attributes:
        busy: Seconds spent on calls that succeeded.
    """

    def __init__(self, patience: float, renew_every: float, wake: Callable[[], None]) -> None:
        self.busy = 0.0
        self._is_down = False
        self._patience = patience
        self._wake = wake
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._failure: StoreError | None = None
        self._hurry = threading.Event()
        self._renew: Callable[[], object] | None = None
        self._every = renew_every
        self._renewed = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="mltune-writer", daemon=True)
        self._thread.start()

    @property
    def failed(self) -> bool:
        """Whether a call was dropped, which means that later calls cannot rely on earlier ones."""
        return self._failure is not None

    def keep(self, renew: Callable[[], object]) -> None:
        """Call ``renew`` every ``renew_every`` seconds from now on, before any other call that is due."""
        self._renew, self._renewed = renew, time.monotonic()

    def put(self, make: Callable[[], T], event: Callable[[T], Event] | None = None) -> None:
        """Queue a call; ``event`` converts its result to an event."""
        self._calls.put(_Call(make, event))

    def do(self, make: Callable[[], T], check: Callable[[], None]) -> T:
        """Queue a call, and return its result or raise its error; ``check`` may raise to end the wait."""
        future: Future[T] = Future()
        self._calls.put(_Call(make, future=future))
        while True:
            with contextlib.suppress(FutureTimeout):
                return future.result(_POLL)
            check()

    def events(self) -> Iterator[Event]:
        """Yield the events since the last call, without waiting.

        Raises:
            StoreError: The writer has failed.
        """
        while not self._events.empty():
            yield self._events.get()
        if self._failure is not None:
            raise self._failure

    def close(self, grace: float) -> bool:
        """Make the queued calls and no others, for at most ``grace`` seconds; return whether all were made."""
        self._calls.put(None)
        self._thread.join(grace)
        self._hurry.set()
        return not self._thread.is_alive() and self._failure is None

    def _work(self) -> None:
        call: _Call | None = _Call(lambda: None)
        while call is not None:
            self._perform(call)
            try:
                call = self._calls.get(timeout=max(0.0, self._renewed + self._every - time.monotonic()))
            except queue.Empty:
                call = _Call(lambda: None)

    def _perform(self, call: _Call) -> None:
        waits, since = delays(), time.monotonic()
        while not self._over():
            try:
                result = self._make(call)
            except Exception as error:
                if not self._may_wait(error, since):
                    return self._give_up(call, error)
                self._note_outage(sentence(error))
                self._hurry.wait(next(waits))
            else:
                self._note_outage(None)
                return self._finish(call, result)
        return self._give_up(call, self._failure or StoreError("the study is over"))

    def _make(self, call: _Call) -> Any:
        self._keep()
        began = time.monotonic()
        result = call.make()
        self.busy += time.monotonic() - began
        return result

    def _over(self) -> bool:
        """Return whether nothing may be written any more."""
        return self._hurry.is_set() or isinstance(self._failure, LeaseLostError)

    def _may_wait(self, error: Exception, since: float) -> bool:
        in_time = time.monotonic() - since < self._patience and not self._hurry.is_set()
        return in_time and self._failure is None and is_transient(error)

    def _keep(self) -> None:
        """Renew if it is due."""
        if time.monotonic() < self._renewed + self._every:
            return
        if self._renew is not None and self._failure is None:
            self._renew()
        self._renewed = time.monotonic()

    def _finish(self, call: _Call, result: Any) -> None:
        if call.future is not None:
            call.future.set_result(result)
        if call.event is not None:
            self._say(call.event(result))

    def _give_up(self, call: _Call, error: Exception) -> None:
        """Pass the error to the waiting caller; fail if there is no caller, or if the lease is lost."""
        if call.future is not None:
            call.future.set_exception(self._for_caller(error))
        if self._failure is None and (call.future is None or isinstance(error, LeaseLostError)):
            self._failure = store_error(error)
            self._wake()

    @staticmethod
    def _for_caller(error: Exception) -> Exception:
        """Return the error if callers handle its type, else convert it."""
        is_handled = isinstance(error, (MltuneError, MlflowException)) and not is_transient(error)
        return error if is_handled else store_error(error)

    def _note_outage(self, reason: str | None) -> None:
        if (reason is not None) != self._is_down:
            self._is_down = reason is not None
            self._say(StoreUp() if reason is None else StoreDown(reason))

    def _say(self, event: Event) -> None:
        self._events.put(event)
        self._wake()
