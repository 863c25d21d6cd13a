"""Load a registered model as those who serve it will: in a fresh process, in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from mltune._util.redaction import redact

_LOOK_AROUND = 0.05  # seconds
_PATIENCE = 600.0  # seconds for a model to load and predict

_CODE = """
import sys
import mlflow.pyfunc
try:
    model = mlflow.pyfunc.load_model(sys.argv[1])
    if model.input_example is not None:
        model.predict(model.input_example)
except BaseException as error:
    print(f"{type(error).__name__}: {error}".partition(chr(10))[0])
    sys.exit(1)
"""


def verify_model(uri: str, environment: Mapping[str, str | None], check: Callable[[], None]) -> str | None:
    """Why a model cannot be used; None where it loads, and predicts on its input example if it has one.

    Args:
        uri: The model's address, such as ``models:/NAME/3``.
        environment: What the process needs to reach the store; None takes a variable away.
        check: Called now and then; may end the wait by raising.
    """
    with TemporaryDirectory(prefix="mltune-") as folder:
        said = Path(folder, "said")
        empty = Path(folder, "empty")
        empty.mkdir()
        variables = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
        with said.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", _CODE, uri],
                cwd=empty,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a signal to the driver's group says nothing about the model
            )
            deadline = time.monotonic() + _PATIENCE
            try:
                while process.poll() is None:
                    check()
                    if time.monotonic() > deadline:
                        return f"that took longer than {_PATIENCE:g} s"
                    time.sleep(_LOOK_AROUND)
            finally:
                process.kill()
                process.wait()
        lines = said.read_text(errors="replace").splitlines() or [f"the process ended with code {process.returncode}"]
        return None if process.returncode == 0 else redact(lines[-1])[:500]
