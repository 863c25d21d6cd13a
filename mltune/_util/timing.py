"""The clock of a study, and all intervals and grace periods."""

from __future__ import annotations

import time
from dataclasses import dataclass


class Stopwatch:
    """Clock that measures how long a study has been running, earlier sessions included.

    Args:
        before: Seconds that earlier sessions took.
    """

    def __init__(self, before: float = 0.0) -> None:
        self.before = before
        self.start()

    def start(self) -> None:
        """Start or restart the clock of this session."""
        self._began = time.monotonic()

    @property
    def session(self) -> float:
        """Seconds since this session began."""
        return time.monotonic() - self._began

    @property
    def elapsed(self) -> float:
        """Seconds in all sessions together."""
        return self.before + self.session


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Intervals and grace periods of a driver, in seconds; those of a worker's own process are in ``worker``.

    Attributes:
        poll: Interval at which an idle loop checks the clock and signals.
        signal_grace: Longest time that running trials may continue after a signal; SIGTERM is often followed by
            SIGKILL ten seconds later.
        close_grace: Longest time that the last writes of a study may take if it ends early.
        short_trial: If trials take less, the next run is prefetched; creating one takes less than a hundredth of this.
        describe_every: Interval at which the description of a running study is updated; it is written with the lease.
        renew_every: Interval at which the lease is renewed.
        flush_every: Interval at which the reports of one trial are flushed.
        one_call: A trial that ends sooner is written in one call, its params included.
        hesitate: Time to wait for the lease of another process that resumes the study at the same moment.
        probe: Longest time that a tracking server or a Ray cluster may take to accept a connection.
        look_around: Interval at which an executor checks that its workers are alive.
        look_at_memory: The same if ``trial_memory`` is set.
        exit_grace: Longest time that idle workers may take to exit on their own.
        hang_grace: Longest time after ``trial_timeout`` that a worker may take to report the timeout or to exit.
        end_grace: Longest time that a supervisor may take to end what its worker started.
        verification: Longest time that a registered model may take to load and predict.
        ray_close: Longest time that Ray Tune may take to notice that its actors are gone.
        ray_shutdown: Longest time that ``ray.shutdown`` may take.
    """

    poll: float = 0.25
    signal_grace: float = 5.0
    close_grace: float = 10.0
    short_trial: float = 2.0
    describe_every: float = 5.0
    renew_every: float = 20.0
    flush_every: float = 1.0
    one_call: float = 0.2
    hesitate: float = 0.5
    probe: float = 5.0
    look_around: float = 1.0
    look_at_memory: float = 0.1
    exit_grace: float = 3.0
    hang_grace: float = 5.0
    end_grace: float = 5.0
    verification: float = 600.0
    ray_close: float = 5.0
    ray_shutdown: float = 10.0


TIMING = Timing()
"""The timing that sessions use; tests replace it."""
