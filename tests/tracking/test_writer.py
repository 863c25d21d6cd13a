"""The writer: in order, each thing once, through an outage, and no longer than its patience."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from mltune.messages import RunOpened, StoreDown, StoreUp
from mltune.retry import LeaseLostError, StoreError
from mltune.tracking.writer import Writer
from tests.drivers import wait_for

NEVER = 3600.0


class Store:
    """Keeps what is written; out of order for as long as there are errors left."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.tries: list[str] = []
        self.errors: list[Exception] = []
        self.always: Exception | None = None

    def write(self, text: str) -> Callable[[], str]:
        def call() -> str:
            self.tries.append(text)
            if self.always is not None:
                raise self.always
            if self.errors:
                raise self.errors.pop(0)
            self.written.append(text)
            return text.upper()

        return call


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def woken() -> threading.Event:
    return threading.Event()


Make = Callable[..., Writer]


@pytest.fixture
def make(woken: threading.Event) -> Iterator[Make]:
    """Writers that are closed after the test."""
    writers: list[Writer] = []

    def make(patience: float = 60.0, renew_every: float = NEVER) -> Writer:
        writers.append(Writer(patience, renew_every, woken.set))
        return writers[-1]

    yield make
    for writer in writers:
        writer.close(0.0)


def nothing() -> None:
    """A check that lets a wait go on."""


def test_calls_are_made_in_order_and_each_once(make: Make, store: Store) -> None:
    writer = make()
    names = [f"call-{i}" for i in range(200)]
    for name in names:
        writer.put(store.write(name))
    assert writer.do(store.write("last"), nothing) == "LAST"
    assert store.written == [*names, "last"] == store.tries


def test_a_call_that_was_made_is_an_event_once(make: Make, store: Store, woken: threading.Event) -> None:
    writer = make()
    writer.put(store.write("a"), lambda run_id: RunOpened(0, 1, run_id))
    assert woken.wait(120)
    assert list(writer.events()) == [RunOpened(0, 1, "A")]
    assert list(writer.events()) == []


def test_a_call_is_made_again_and_the_others_wait(make: Make, store: Store, woken: threading.Event) -> None:
    writer = make()
    store.always = ConnectionResetError("gone")
    for name in "abc":
        writer.put(store.write(name))
    assert woken.wait(120)
    assert list(writer.events()) == [StoreDown("gone")]
    wait_for(lambda: len(store.tries) >= 3)
    assert set(store.tries) == {"a"}
    woken.clear()
    store.always = None
    assert woken.wait(120)
    assert writer.do(store.write("d"), nothing) == "D"
    assert store.written == list("abcd")
    assert list(writer.events()) == [StoreUp()]


def test_trouble_wakes_the_driver_once_and_its_end_once_more(store: Store) -> None:
    woken: list[float] = []
    writer = Writer(60.0, NEVER, lambda: woken.append(time.monotonic()))
    store.errors = [ConnectionResetError("gone"), TimeoutError("slow"), ConnectionRefusedError("down")]
    writer.do(store.write("a"), nothing)
    assert len(woken) == 2
    assert writer.close(10)


def test_no_call_is_tried_for_longer_than_the_patience(make: Make, store: Store, woken: threading.Event) -> None:
    writer = make(patience=0.5)
    store.always = ConnectionRefusedError("nobody there")
    writer.put(store.write("a"))
    wait_for(lambda: len(store.tries) > 2)
    woken.clear()
    assert woken.wait(120)
    with pytest.raises(StoreError, match=r"did not come back within `store_timeout`: nobody there"):
        list(writer.events())
    tried = len(store.tries)
    for name in "bc":
        writer.put(store.write(name))
    assert not writer.close(10)
    assert store.tries[tried:] == ["b", "c"]
    with pytest.raises(StoreError):
        list(writer.events())


def test_calls_after_a_failure_are_made_if_the_store_takes_them(make: Make, store: Store) -> None:
    writer = make()
    store.errors = [PermissionError("not yours")]
    for name in "abc":
        writer.put(store.write(name))
    assert not writer.close(10)
    assert (store.tries, store.written) == (list("abc"), list("bc"))
    with pytest.raises(StoreError, match=r"^the tracking store failed: not yours$"):
        list(writer.events())


def test_who_waits_for_a_call_hears_of_its_error_and_the_writer_goes_on(make: Make, store: Store) -> None:
    writer = make()
    store.errors = [PermissionError("not yours")]
    with pytest.raises(StoreError, match=r"^the tracking store failed: not yours$"):
        writer.do(store.write("a"), nothing)
    list(writer.events())
    assert writer.do(store.write("b"), nothing) == "B"


def test_a_wait_may_be_ended(make: Make, store: Store) -> None:
    def check() -> None:
        raise KeyboardInterrupt

    writer = make()
    store.always = ConnectionResetError("gone")
    with pytest.raises(KeyboardInterrupt):
        writer.do(store.write("a"), check)


def test_the_lease_is_renewed_in_idle_times(make: Make, store: Store) -> None:
    writer = make(renew_every=0.1)
    writer.keep(lambda: store.written.append("renewed"))
    wait_for(lambda: len(store.written) >= 3)
    assert {*store.written} == {"renewed"}


def test_the_lease_is_renewed_before_a_call_that_is_due(make: Make, store: Store) -> None:
    def slow() -> None:
        queued.wait(120)
        time.sleep(0.4)
        store.written.append("slow")

    queued = threading.Event()
    writer = make(renew_every=0.3)
    writer.keep(store.write("renewed"))
    writer.put(slow)
    writer.put(store.write("a"))
    queued.set()
    wait_for(lambda: "a" in store.written)
    slow_one = store.written.index("slow")
    assert store.written[slow_one : slow_one + 3] == ["slow", "renewed", "a"]


def test_a_renewal_is_tried_again_like_any_call(make: Make, store: Store) -> None:
    writer = make(renew_every=0.2)
    store.always = ConnectionResetError("gone")
    writer.keep(store.write("renewed"))
    wait_for(lambda: len(store.tries) >= 2)
    writer.put(store.write("a"))
    wait_for(lambda: len(store.tries) >= 3)
    store.always = None
    wait_for(lambda: "a" in store.written)
    list(writer.events())
    assert store.written[:2] == ["renewed", "a"]
    assert set(store.tries[: store.tries.index("a")]) == {"renewed"}


@pytest.mark.parametrize("waits", [False, True])
def test_nothing_is_written_once_the_lease_is_lost(make: Make, store: Store, waits: bool) -> None:
    def renew() -> None:
        tried.set()
        raise LeaseLostError("taken over")

    tried = threading.Event()
    writer = make(renew_every=0.05)
    writer.keep(renew)
    assert tried.wait(120)
    if waits:
        with pytest.raises(LeaseLostError):
            writer.do(store.write("a"), nothing)
    for name in "bc":
        writer.put(store.write(name))
    assert not writer.close(10)
    with pytest.raises(LeaseLostError):
        list(writer.events())
    assert store.tries == []


def test_what_is_put_is_written_before_the_writer_closes(make: Make, store: Store) -> None:
    writer = make()
    store.errors = [ConnectionResetError("gone")] * 2
    for name in "abc":
        writer.put(store.write(name))
    assert writer.close(60)
    assert store.written == list("abc")


def test_nothing_is_written_after_the_grace(make: Make, store: Store) -> None:
    writer = make()
    store.always = ConnectionResetError("gone")
    for name in "abc":
        writer.put(store.write(name))
    assert not writer.close(0.5)
    store.always = None
    tried = len(store.tries)
    wait_for(lambda: not any(thread.name == "mltune-writer" for thread in threading.enumerate()))
    assert (store.written, len(store.tries)) == ([], tried)
