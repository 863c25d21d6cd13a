"""The wheel, built from what is committed, runs the README's ten lines where nothing else is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_docs import ROOT, blocks


@pytest.mark.slow
def test_the_wheel_runs_in_an_empty_environment(tmp_path: Path) -> None:
    python, checkout, wheels = tmp_path / "venv" / "bin" / "python", tmp_path / "checkout", tmp_path / "wheels"

    variables = os.environ | {"MLTUNE_REPORT": "true", "PYTHONPATH": ""}

    def run(*command: object) -> str:
        words = [str(word) for word in command]
        done = subprocess.run(words, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("git", "clone", "--quiet", "--depth", "1", f"file://{ROOT}", checkout)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", wheels, checkout)
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    run(python, "-m", "pip", "install", "--quiet", *wheels.iterdir())
    (tmp_path / "ten_lines.py").write_text(blocks("README.md")[0])
    said = run(python, "ten_lines.py")
    assert "registered model 'iris' version 1 as champion" in said
    assert "note: the report needs plotly: pip install 'mlflow-mltune[report]'" in said
    installed = {
        line.partition("==")[0] for line in run(python, "-m", "pip", "list", "--format", "freeze").splitlines()
    }
    assert not {"cmaes", "plotly", "ray", "torch"} & installed
