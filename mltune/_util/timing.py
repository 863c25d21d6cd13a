"""Time: the one clock of a study, and all periods and grace times in one place."""

from __future__ import annotations

import time
from dataclasses import dataclass


class Stopwatch:
    """Measures how long a study has been running, earlier sessions included.

    Args:
        before: Seconds that earlier sessions took.
    """

    def __init__(self, before: float = 0.0) -> None:
        self.before = before
        self.start()

    def start(self) -> None:
        """Start this session's time, or start it anew."""
        self._began = time.monotonic()

    @property
    def session(self) -> float:
        """Seconds since this session began."""
        return time.monotonic() - self._began

    @property
    def elapsed(self) -> float:
        """Seconds in all sessions."""
        return self.before + self.session


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Periods and grace times of the driver and its tracker, in seconds.

    Attributes:
        poll: How often the loop looks at the clock and at signals while nothing happens.
        signal_grace: How long running trials may go on after a signal, at most: who sends SIGTERM often sends SIGKILL
            ten seconds later.
        close_grace: How long the last writes of a study may take that ends early.
        short_trial: Trials that take less have their run created ahead: the store takes less than a hundredth of it.
        describe_every: How often the description of a running study is made anew; it is written with the lease.
        renew_every: How often the lease is renewed.
        flush_every: How often the reports of one trial are written.
        one_call: A trial that ends sooner is written in one call, params and all.
    """

    poll: float = 0.25
    signal_grace: float = 5.0
    close_grace: float = 10.0
    short_trial: float = 2.0
    describe_every: float = 5.0
    renew_every: float = 20.0
    flush_every: float = 1.0
    one_call: float = 0.2


TIMING = Timing()
"""What sessions use; tests replace it."""
