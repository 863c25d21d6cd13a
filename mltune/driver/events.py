"""What a session tells of a study while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from mltune.config import StudyConfig
from mltune.driver.progress import Progress
from mltune.study import StudyResult
from mltune.trial import FrozenTrial


class Callback(Protocol):
    """Told of all that happens in a study."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    def study_started(self, config: StudyConfig, run_id: str, notes: Sequence[str], progress: Progress) -> None:
        """The parent run is open; ``progress`` counts the trials of earlier sessions, and those to come."""

    def trial_changed(self, trial: FrozenTrial) -> None:
        """A trial was given to a worker, or its end is written; it is counted."""

    def note(self, text: str) -> None:
        """Something that the user should know."""

    def study_completed(self, result: StudyResult) -> None:
        """The study is COMPLETE and its parent run closed."""

    def study_ended(self, run_id: str, tracking_uri: str, experiment_id: str) -> None:
        """The parent run is closed, whatever came of the study."""
