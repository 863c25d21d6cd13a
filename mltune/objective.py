"""The user's objective, by name or as a function: pack it for a worker, and load it there."""

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
    """An objective by name, ``module:function``, importable from ``folder``."""

    module: str
    function: str
    folder: str

    @classmethod
    def parse(cls, name: str, folder: str | Path) -> ObjectiveRef:
        """Parse ``module:function``, and make the folder absolute."""
        module, _, function = name.partition(":")
        return cls(module, function, str(Path(folder).absolute()))

    def __str__(self) -> str:
        return f"{self.module}:{self.function}"


def pack(objective: Objective | str, *, in_process: bool, folder: str | Path = ".") -> ObjectiveRef | bytes | Objective:
    """Convert the objective to the form in which it is sent to a worker.

    Args:
        objective: A function of one trial, or ``module:function``.
        in_process: Whether the objective runs in this process, so that it need not be pickled.
        folder: The folder of the module, for an objective by name.

    Raises:
        ObjectiveError: The objective is not callable, or cannot be pickled.
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
    """Import the objective by name, or unpickle it, and return it.

    Raises:
        ObjectiveError: The objective cannot be loaded, or is not callable; the message is one sentence.
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
        function = getattr(importlib.import_module(source.module), source.function, None)
    except BaseException as error:
        raise ObjectiveError(
            f"`objective` must be importable from {source.folder}, but importing '{source.module}' "
            f"failed: {one_line(error)}"
        ) from error
    if not callable(function):
        raise ObjectiveError(
            f"`objective` must name a function in module '{source.module}' "
            f"({getattr(sys.modules[source.module], '__file__', source.folder)}), but it has no '{source.function}'"
        )
    return function  # type: ignore[no-any-return]


def _put_first(folder: str) -> None:
    if folder in sys.path:
        sys.path.remove(folder)
    sys.path.insert(0, folder)
