"""Collect what is wrong with a request, to tell it all at once."""

from __future__ import annotations

from mltune.errors import MissingPackageError, RequestError


class Problems:
    """Collects what is wrong with a request: ``with problems:`` adds a RequestError that the block raises.

    >>> problems = Problems()
    >>> problems.add("`n_jobs` must be at least 1, but got 0")
    >>> with problems:
    ...     raise RequestError("the objective must be a function of one trial, but got 3")
    >>> problems.check()
    Traceback (most recent call last):
    mltune.errors.RequestError: `n_jobs` must be at least 1, but got 0
    the objective must be a function of one trial, but got 3
    """

    def __init__(self) -> None:
        self._problems: list[RequestError] = []

    def __enter__(self) -> None:
        """Begin a block that may raise."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if not isinstance(error, RequestError):
            return False
        self._problems.append(error)
        return True

    def add(self, *sentences: str) -> None:
        """Add problems."""
        if sentences:
            self._problems.append(RequestError(sentences))

    def check(self) -> None:
        """Raise if there was a problem: re-raise a single error unchanged.

        Raises:
            MissingPackageError: Packages are all that is missing.
            RequestError: Something else is wrong.
        """
        if not self._problems:
            return
        if len(self._problems) == 1:
            raise self._problems[0]
        only_packages = all(isinstance(problem, MissingPackageError) for problem in self._problems)
        sentences = dict.fromkeys(fault for problem in self._problems for fault in problem.faults)
        raise (MissingPackageError if only_packages else RequestError)(list(sentences))
