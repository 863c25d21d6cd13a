"""Use a registered model as a server would: in a process that has run no user code, in an empty folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mltune._util.processes import MARK
from mltune.errors import first_line

if TYPE_CHECKING:
    from mltune.messages import Verification


def verify(request: Verification, sys_path: Sequence[str]) -> str | None:
    """Return why a model cannot be used, or None if it loads and predicts on its input example (if it has one).

    Call this only in a process that has run no user code; it changes the process permanently.

    Args:
        request: The model.
        sys_path: ``sys.path`` as it was when Python started.
    """
    relative = _relative_entries()
    sys.path[:] = [entry for entry in sys_path if entry not in relative]
    os.chdir(request.folder)
    _replace_environment(request.environment)
    _discard_output()
    try:
        import mlflow.pyfunc

        model = mlflow.pyfunc.load_model(request.uri)
        if model.input_example is not None:
            model.predict(model.input_example)
    except BaseException as error:
        return f"{type(error).__name__}: {first_line(error)}"
    return None


def _relative_entries() -> set[str]:
    """Return what Python made of relative entries of ``PYTHONPATH``: they would lead elsewhere in another folder."""
    given = os.environ.get("PYTHONPATH")
    entries = given.split(os.pathsep) if given else []
    return {os.path.abspath(entry) for entry in entries if not os.path.isabs(entry)}


def _replace_environment(variables: Mapping[str, str]) -> None:
    for name in os.environ.keys() - variables.keys() - {MARK}:
        del os.environ[name]
    os.environ.update(variables)


def _discard_output() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)
