"""Use a registered model as a server would: in a process that has run no user code, in an empty folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mltune._util.env import set_variables
from mltune.errors import first_line

if TYPE_CHECKING:
    from mltune.messages import Verification


def verify(asked: Verification, sys_path: Sequence[str]) -> str | None:
    """Return why a model cannot be used, or None if it loads and predicts on its input example (if it has one).

    It changes this process for good, which must not have run user code.

    Args:
        asked: The model.
        sys_path: The path by which Python imports modules where nobody has added to it.
    """
    sys.path[:] = sys_path
    os.chdir(asked.folder)
    set_variables(asked.environment)
    _discard_output()
    try:
        import mlflow.pyfunc

        model = mlflow.pyfunc.load_model(asked.uri)
        if model.input_example is not None:
            model.predict(model.input_example)
    except BaseException as error:
        return f"{type(error).__name__}: {first_line(error)}"
    return None


def _discard_output() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)
