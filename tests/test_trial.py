"""A trial by itself, as an objective sees it that is called without a study."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mltune import Trial, TrialPruned
from mltune.trial import as_metrics


class Stopping:
    """The services of a study that stops each trial at its first report."""

    def report(self, step: int, metrics: object) -> bool:
        return True

    def log_model(self, model: Any, name: str, **options: Any) -> str:
        return name


def test_without_a_study_reports_are_ignored_and_models_not_kept() -> None:
    trial = Trial({"x": 0.5}, number=3)
    trial.report(1.0, step=0)
    numpys: Any = np.int64(1)
    trial.report({"value": 1.0, "loss": 2.0}, step=numpys)
    assert trial.log_model(object()) == ""
    assert repr(trial) == "Trial(number=3, params={'x': 0.5})"


@pytest.mark.parametrize(
    ("step", "sentence"),
    [
        (True, "`step` must be an integer, but got True"),
        (0.5, "`step` must be an integer, but got 0.5"),
        (2**63, f"`step` must be below 2**63, but got {2**63}"),
        (1, "`step` must grow from report to report, but 1 came after 1"),
    ],
)
def test_an_invalid_step_is_refused(step: Any, sentence: str) -> None:
    trial = Trial({})
    trial.report(1.0, step=1)
    with pytest.raises(ValueError) as caught:
        trial.report(1.0, step=step)
    assert str(caught.value) == sentence


def test_a_trial_that_was_stopped_stays_stopped() -> None:
    trial = Trial({}, number=3, services=Stopping())
    with pytest.raises(TrialPruned, match="the scheduler stopped trial 3 at step 0"):
        trial.report(1.0, step=0)
    with pytest.raises(TrialPruned, match="trial 3 was already stopped"):
        trial.report(1.0, step=1)


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        ({"a\nb": 1.0}, "a metric's name must be "),
        ({"duration_s": 1.0}, "a metric must not be named 'duration_s'"),
        ({"loss": "low"}, "metric 'loss' must be a number, but got str 'low'"),
        (None, "metric 'value' must be a number, but got NoneType 'None'"),
    ],
)
def test_what_is_no_metric_is_refused(returned: object, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        as_metrics(returned, "value")
    assert sentence in str(caught.value)
