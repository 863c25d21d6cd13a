"""The exception hierarchy.

MltuneError
├── RequestError (ValueError)              the request is wrong; nothing was created    exit code 2
│   ├── SpaceError                         the search space or a point in it is invalid
│   ├── ObjectiveError                     the objective cannot be imported or sent to a worker
│   ├── MissingPackageError (ImportError)  an engine, executor or algorithm needs a package
│   └── StoreUnavailableError              the tracking server does not answer
├── StudyFailedError (RuntimeError)        the study ran and failed                     exit code 1
└── TrialPruned                            raised inside an objective by ``trial.report``

KeyboardInterrupt
└── StudyInterrupted                       a signal ended the study                     exit code 130, 143
"""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable, Sequence
from typing import Any

from mltune._util.redaction import redact


class MltuneError(Exception):
    """Base class of the exceptions that mltune raises on purpose."""


class RequestError(MltuneError, ValueError):
    """Error for an invalid request; it says what must hold, what was given, and what to do.

    Args:
        faults: One sentence, or a sequence with one sentence per fault.
    """

    def __init__(self, faults: str | Sequence[str]) -> None:
        self.faults: tuple[str, ...] = tuple(map(redact, (faults,) if isinstance(faults, str) else faults))
        super().__init__("\n".join(self.faults))

    def __reduce__(self) -> tuple[type[RequestError], tuple[tuple[str, ...]]]:
        return (type(self), (self.faults,))


class SpaceError(RequestError):
    """Error for an invalid search space, or an invalid point in one."""


class ObjectiveError(RequestError):
    """Error for an objective that cannot be imported or sent to a worker."""


class MissingPackageError(RequestError, ImportError):
    """Error for a package that the request needs and that is not installed."""


class StoreUnavailableError(RequestError):
    """Error for a tracking store that cannot be used."""


class StudyFailedError(MltuneError, RuntimeError):
    """Error for a study that ran and failed; ``run_id`` is the id of its parent run.

    Attributes:
        study: The :class:`mltune.Study` with its trials so far, or None if its parent run was not opened.
    """

    def __init__(self, reason: str, run_id: str) -> None:
        self.reason = redact(reason)
        self.run_id = run_id
        self.study: Any = None
        super().__init__(self.reason, run_id)

    def __str__(self) -> str:
        return self.reason


class StudyInterrupted(KeyboardInterrupt):
    """Interruption of a study by a signal; its runs are closed.

    ``run_id`` is the id of the parent run, or None if it did not exist yet.
    """

    def __init__(self, signum: int, run_id: str | None, remedy: str | None = None) -> None:
        self.signum = signum
        self.run_id = run_id
        self.remedy = remedy
        super().__init__(signum, run_id, remedy)

    def __str__(self) -> str:
        study = f"study {self.run_id}" if self.run_id else "the study, which had not begun,"
        go_on = f"; resume with: {self.remedy}" if self.remedy else ""
        return f"{study} was interrupted by {signal.Signals(self.signum).name}{go_on}"


class TrialPruned(MltuneError):  # noqa: N818 - not an error
    """Exception that ends a trial when the scheduler stops it; let it propagate out of the objective."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or an empty string if it has none."""
    return str(error).strip().partition("\n")[0]


def closest(name: object, known: Iterable[str]) -> str | None:
    """Return the known name that was probably meant, or None if none is near.

    >>> closest("n_trails", ["n_jobs", "n_trials"])
    'n_trials'
    """
    return next(iter(difflib.get_close_matches(str(name), sorted(known), n=1)), None)


def nearest(name: object, known: Iterable[str]) -> str:
    """Return the end of an error message that suggests the nearest known name, or all of them if none is near."""
    names = sorted(known)
    if (close := closest(name, names)) is not None:
        return f"did you mean '{close}'?"
    return f"known: {', '.join(names)}" if names else "none are known"
