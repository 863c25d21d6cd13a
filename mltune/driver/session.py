"""The context of one session of a study: what a process has open for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from mltune.messages import StoreDown, StoreUp

if TYPE_CHECKING:
    from mltune._util.signals import Signals
    from mltune._util.timing import Timing
    from mltune.driver.events import Callback
    from mltune.driver.loop import Loop
    from mltune.driver.page import StudyPage
    from mltune.driver.request import StudyRequest
    from mltune.driver.state import StudyState
    from mltune.execution import Executor
    from mltune.tracking.connection import Store
    from mltune.tracking.runs import Tracker

T = TypeVar("T")


@dataclass(kw_only=True)
class Session:
    """What one process has open for a study.

    Attributes:
        request: The study.
        store: Where its record is.
        settings: MLflow's settings that workers must have and the driver has not.
        tracker: Writes the record.
        executor: Runs the trials; it has started.
        callback: Told of what happens.
        signals: Those that came.
        timing: Periods and grace times.
        notes: What the user should know when the study starts.
        study: The opened study, or None before its parent run is open.
    """

    request: StudyRequest
    store: Store
    settings: Mapping[str, str | None]
    tracker: Tracker
    executor: Executor
    callback: Callback
    signals: Signals
    timing: Timing
    notes: list[str] = field(default_factory=list)
    study: OpenStudy | None = None

    @property
    def run_id(self) -> str:
        """The parent run, as far as it is known, else ""."""
        past = self.request.past
        return self.tracker.run_id or (past.run_id if past is not None else "")

    def do(self, call: Callable[[], T]) -> T:
        """Return what a call to the store returns; it is repeated while the store does not answer."""
        return self.tracker.do(call, self.check)

    def flush(self) -> None:
        """Wait until all that was to be written is written."""
        self.do(lambda: None)
        self.handle_events()

    def check(self) -> None:
        """Handle the tracker's events, and raise if a signal came."""
        self.handle_events()
        self.signals.check()

    def handle_events(self) -> None:
        """Handle what has happened in the store."""
        for event in self.tracker.events():
            if self.study is not None:
                self.study.loop.handle(event)
            elif isinstance(event, StoreDown | StoreUp):
                self.callback.on_note(str(event))


@dataclass(frozen=True)
class OpenStudy:
    """A study whose parent run is open.

    Attributes:
        state: What is known of it.
        loop: Drives its trials.
        page: Keeps its description and report fresh.
    """

    state: StudyState
    loop: Loop
    page: StudyPage
