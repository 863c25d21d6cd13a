"""The charts of a report show what the trials say."""

from __future__ import annotations

import itertools

import pytest

from mltune import Float, FrozenTrial, SearchSpace, TrialState
from mltune.report._charts import charts
from mltune.report.view import View
from mltune.tracking.reader import StudyRecord


def view(values: list[float], direction: str, names: str = "x") -> View:
    """A study whose trials have these values; they take turns in which parameter they have."""
    trials = [
        FrozenTrial(
            number=number, params={name: 0.5}, seed=0, state=TrialState.COMPLETE, value=value, run_id=f"{number}"
        )
        for number, (value, name) in enumerate(zip(values, itertools.cycle(names), strict=False))
    ]
    record = StudyRecord(
        run_id="study",
        experiment_id="0",
        name="drawn",
        tags={"metric": "value", "direction": direction, "state": "COMPLETE"},
        attempts={trial.number: [trial] for trial in trials},
        steps={},
        created={"r": 1.0},
        ended={},
    )
    return View(record=record, trials=trials, space=SearchSpace({name: Float(0, 1) for name in names}))


@pytest.mark.parametrize(
    ("direction", "numbers", "best"),
    [("minimize", [0, 1, 3, 4], [3.0, 1.0, 0.5, 0.5]), ("maximize", [0, 4], [3.0, 3.0])],
)
def test_the_history_shows_the_best_value_so_far(direction: str, numbers: list[int], best: list[float]) -> None:
    history = charts(view([3.0, 1.0, 2.0, 0.5, 0.75], direction))[0]
    assert history.figure is not None
    line = history.figure.data[1]
    assert (list(line.x), list(line.y)) == (numbers, best)


def test_trials_without_a_common_parameter_have_no_parallel_coordinates() -> None:
    titles = [chart.title for chart in charts(view([3.0, 1.0, 2.0], "minimize", "xy"))]
    assert "Slices" in titles
    assert "Parallel coordinates" not in titles
