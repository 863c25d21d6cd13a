"""The benchmarks at smoke size: what they count is right; how long things take is for `make bench` to say."""

from __future__ import annotations

import re
from pathlib import Path

import mlflow
import numpy as np
import pytest

from benchmarks import ours, work
from benchmarks.__main__ import Result, write
from benchmarks.cases import measure
from benchmarks.rows import ROWS, Row
from mltune import TrialState

ROOT = Path(__file__).parents[1]


@pytest.fixture
def _stamps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(work.STAMPS, str(tmp_path / "stamps"))


@pytest.mark.processes
@pytest.mark.parametrize(("name", "most"), [("without_model", 4), ("with_model", 8)])
def test_calls_a_trial_do_not_grow(name: str, most: int) -> None:
    figures = measure("calls", "ours", name, [1, 5, 13], 5)
    assert max(figures["5"], figures["13"]) < most + 1  # a new best is one call more, a trial over 0.2 s another
    assert figures["files at 5"] == figures["files at 13"] == (7 if name == "with_model" else 0)


@pytest.mark.processes
def test_every_metric_arrives() -> None:
    assert measure("many_metrics", "ours", 7, 300)["points"] == 7 * 300


@pytest.mark.processes
@pytest.mark.usefixtures("_stamps", "tracking_uri")
def test_every_model_of_a_fast_study_loads() -> None:
    result = ours.with_model(6, 5)
    client = mlflow.MlflowClient()
    for trial in result.trials:
        assert trial.state is TrialState.COMPLETE
        run = client.get_run(str(trial.run_id))
        assert run.data.metrics.keys() == {"accuracy", "duration_s"}
        assert {name: float(value) for name, value in run.data.params.items()} == trial.params
        model = mlflow.pyfunc.load_model(f"models:/{trial.model_id}")
        assert np.isin(model.predict(work.example()), [0, 1]).all()
    assert len(work.stamps()) == 6


@pytest.mark.processes
@pytest.mark.parametrize(
    ("name", "arguments"), [("hand_written", [5]), ("without_model", [5]), ("untracked_spins", [0.001, 2])]
)
def test_peers_run(name: str, arguments: list[float]) -> None:
    assert measure("trials", "peers", name, 4, *arguments)["ms"] > 0


def test_a_losing_cell_stays_in(tmp_path: Path) -> None:
    row = Row(measure="a thing", peer="somebody", unit="ms", ours=lambda: 3.0, theirs=lambda: 2.0, target=1.0)
    results = [Result(row, [3.0, 2.0, 4.0], [2.0]), Result(row, [1.0], [2.0])]
    write(results, tmp_path / "results.md")
    lines = (tmp_path / "results.md").read_text().splitlines()
    assert "| a thing | 3 ms (2 to 4) | somebody | 2 ms | 1.5 | ≤ 1 | **no** |" in lines
    assert "| a thing | 1 ms | somebody | 2 ms | 0.5 | ≤ 1 | yes |" in lines


def test_the_table_has_every_row_and_the_readme_quotes_it() -> None:
    table = (ROOT / "benchmarks" / "results.md").read_text()
    short = [row.measure for row in ROWS if not row.scale]
    assert [measure for measure in short if f"| {measure} |" not in table] == []  # else run `make bench`
    readme = (ROOT / "README.md").read_text()
    quoted = re.search(r"<!-- quoted from benchmarks.*?-->\n(.*?)<!-- end of quote -->", readme, re.S)
    assert quoted is not None
    lines = quoted[1].strip().splitlines()
    assert len(lines) > 4
    assert [line for line in lines if line not in table.splitlines()] == []
