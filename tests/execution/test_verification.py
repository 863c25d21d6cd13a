"""A fresh process, forked from the template or started as a program, loads a model and predicts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import mlflow
import numpy as np
import psutil
import pytest

from mltune._util.timing import Timing
from mltune.execution.template import Start, Template
from mltune.execution.verification import verify_model

pytestmark = pytest.mark.processes

MODEL = """
import os, subprocess, sys, time
import mlflow

class Model(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        {load}

    def predict(self, context, model_input, params=None):
        {predict}
        return model_input

mlflow.models.set_model(Model())
"""

FOLDER = Path(__file__).parent


def save(model: Path, load: str, predict: str) -> None:
    """Save a model that runs these lines when it is loaded, and when it predicts on its input example."""
    if not model.exists():
        code = model.with_name("code.py")
        code.write_text(MODEL.format(load="pass", predict="pass"))
        example = np.ones((1, 2))
        mlflow.pyfunc.save_model(model, python_model=str(code), input_example=example, pip_requirements=[])
    (model / "code.py").write_text(MODEL.format(load=load, predict=predict))


Verify = Callable[..., "str | None"]


@pytest.fixture(scope="module", params=["forked", "program"])
def start(request: pytest.FixtureRequest) -> Iterator[Start | None]:
    """Starts processes in one of the two ways; the driver finds modules in this folder, too."""
    if request.param == "forked" and sys.platform != "linux":
        pytest.skip("processes are forked from a template on Linux only")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(FOLDER), FOLDER])
        if request.param == "program":
            yield None
            return
        template = Template(os.environ)
        yield template.start
        template.close()


@pytest.fixture
def verify(start: Start | None, tmp_path: Path) -> Verify:
    """Verify a model that runs these lines when it is loaded, and when it predicts on its input example."""

    def verify(
        load: str = "pass",
        predict: str = "pass",
        environment: dict[str, str | None] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> str | None:
        model = tmp_path / "model"
        save(model, load, predict)
        return verify_model(start, str(model), environment or {}, check)

    return verify


def test_a_model_that_loads_and_predicts(verify: Verify, capfd: pytest.CaptureFixture[str]) -> None:
    """It works in an empty folder, with the variables, and what it prints is dropped."""
    holds = (
        "assert (os.listdir(), os.environ['PLACE'], 'HOME' in os.environ) == ([], 'here', False); os.system('echo hi')"
    )
    assert verify(holds, holds, {"PLACE": "here", "HOME": None}) is None
    assert "hi" not in "".join(capfd.readouterr())


def test_a_model_that_fails(verify: Verify) -> None:
    assert verify(predict="raise ValueError('no, password=hunter22\\n')") == "ValueError: no, password=***"


def test_a_model_whose_module_only_the_driver_finds(verify: Verify) -> None:
    """The helpers of these tests are on the driver's path, and not on a server's."""
    assert verify("import helpers") == "ModuleNotFoundError: No module named 'helpers'"


def test_a_model_that_ends_its_process(verify: Verify) -> None:
    assert verify("os._exit(3)") == "the process exited with status 3"
    assert verify("os.kill(os.getpid(), 9)") == "the process was killed by SIGKILL"


def test_a_model_that_takes_too_long_or_whose_wait_is_interrupted(
    verify: Verify, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that it started lives on."""
    pid = tmp_path / "pid"
    hangs = f"open({str(pid)!r}, 'w').write(str(subprocess.Popen(['sleep', '600']).pid)); time.sleep(600)"

    def interrupt() -> None:
        if pid.exists() and pid.read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(hangs, check=interrupt)
    assert not psutil.pid_exists(int(pid.read_text()))
    monkeypatch.setattr("mltune._util.timing.TIMING", Timing(verification=0.2))
    assert verify("time.sleep(600)") == "that took longer than 0.2 s"


def test_variables_are_the_drivers_of_now_without_its_run(verify: Verify, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "fresh")
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    assert verify("assert (os.environ['TOKEN'], 'MLFLOW_RUN_ID' in os.environ) == ('fresh', False)") is None


def test_a_path_that_is_relative_to_the_drivers_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`PYTHONPATH=.` leads nowhere in the folder of a server."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([".", os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))
    monkeypatch.chdir(FOLDER)
    template = Template(os.environ)
    with closing(template):
        save(tmp_path / "model", "import helpers", "pass")
        fault = verify_model(template.start, str(tmp_path / "model"), {}, lambda: None)
    assert fault == "ModuleNotFoundError: No module named 'helpers'"


def test_a_template_that_cannot_fork_is_no_fault_of_the_model(tmp_path: Path) -> None:
    def start_none(mark: str, fds: Sequence[int]) -> tuple[subprocess.Popen[bytes], bool]:
        return template, True

    save(tmp_path / "model", "pass", "pass")
    with subprocess.Popen(["sleep", "600"]) as template:
        assert verify_model(start_none, str(tmp_path / "model"), {}, lambda: None) is None
        template.kill()
