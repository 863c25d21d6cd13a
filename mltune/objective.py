"""The user's objective: by name or as a function, how it travels to a worker, and how it is loaded there."""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mltune._util.tracebacks import one_line
from mltune.errors import ObjectiveError
from mltune.trial import Trial

Objective = Callable[[Trial], "float | Mapping[str, float]"]


@dataclass(frozen=True)
class ObjectiveRef:
    """An objective by name: ``module:function``, importable from ``folder``."""

    module: str
    function: str
    folder: str

    @classmethod
    def parse(cls, name: str, folder: str | Path) -> ObjectiveRef:
        """Read ``module:function``; the folder is made absolute."""
        module, _, function = name.partition(":")
        return cls(module, function, str(Path(folder).absolute()))

    def __str__(self) -> str:
        return f"{self.module}:{self.function}"


def pack(objective: Objective | str, *, in_process: bool, folder: str | Path = ".") -> ObjectiveRef | bytes | Objective:
    """Bring the objective into the form that travels to where it runs.

    Args:
        objective: A function of one trial, or ``module:function``.
        in_process: Whether it stays in this process, so that it need not be pickled.
        folder: Where the module of one by name is.

    Raises:
        ObjectiveError: It is no function, or holds something that cannot travel.
    """
    if isinstance(objective, str):
        return ObjectiveRef.parse(objective, folder)
    if not callable(objective):
        raise ObjectiveError(f"the objective must be a function of one trial, but got {objective!r}")
    if in_process:
        return objective
    try:
        import cloudpickle

        return cloudpickle.dumps(objective)  # type: ignore[no-any-return]
    except Exception as error:
        raise ObjectiveError(
            f"the objective must be picklable to travel to a worker, but: {error}; "
            f"make what it refers to inside the function, or keep it in an importable module"
        ) from error


def load(source: ObjectiveRef | bytes | Objective) -> Objective:
    """Import the objective by name, or unpickle it.

    Raises:
        ObjectiveError: It cannot be had, or is no function; one sentence.
    """
    if isinstance(source, bytes):
        try:
            return pickle.loads(source)  # type: ignore[no-any-return]
        except Exception as error:
            raise ObjectiveError(f"the objective must load in a worker, but there {one_line(error)}") from error
    if not isinstance(source, ObjectiveRef):
        return source
    _put_first(source.folder)
    try:
        found = getattr(importlib.import_module(source.module), source.function, None)
    except BaseException as error:
        raise ObjectiveError(
            f"`objective` must be importable from {source.folder}, but importing '{source.module}' "
            f"failed: {one_line(error)}"
        ) from error
    if not callable(found):
        raise ObjectiveError(
            f"`objective` must name a function in module '{source.module}' "
            f"({getattr(sys.modules[source.module], '__file__', source.folder)}), but it has no '{source.function}'"
        )
    return found  # type: ignore[no-any-return]


def _put_first(folder: str) -> None:
    if folder in sys.path:
        sys.path.remove(folder)
    sys.path.insert(0, folder)
