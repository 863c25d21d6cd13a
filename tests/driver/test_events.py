"""Callbacks are told what happens, in its order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

import mltune
from mltune import Callback, FrozenTrial, RequestError, Study, StudyFailedError, StudyState, TrialState

SPACE = {"x": mltune.Float(0.0, 1.0)}


class Notes(Callback):
    """Notes all that it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def on_study_start(self, study: StudyState, notes: Sequence[str]) -> None:
        self.heard.append(("study starts", study.done))

    def on_trial_start(self, study: StudyState, trial: FrozenTrial) -> None:
        self.heard.append(("starts", trial.number))

    def on_trial_end(self, study: StudyState, trial: FrozenTrial) -> None:
        self.heard.append(("ends", trial.number, trial.state))

    def on_new_best(self, study: StudyState, trial: FrozenTrial) -> None:
        assert study.best is trial
        self.heard.append(("best", trial.number))

    def on_study_end(self, study: StudyState, result: Study | None) -> None:
        self.heard.append(("study ends", study.run_id, result))


def tune(objective: Any, *callbacks: Callback, **arguments: Any) -> Study:
    defaults = {"direction": "minimize", "algorithm": "random", "n_trials": 3, "seed": 1, "executor": "inline"}
    return mltune.tune(objective, SPACE, **defaults | arguments, callbacks=callbacks, quiet=True)  # type: ignore[arg-type]


def test_trials_new_bests_and_the_end(client: MlflowClient) -> None:
    values = [2.0, 3.0, 1.0]
    one, other = Notes(), Notes()
    result = tune(lambda trial: values[trial.number], one, other)
    assert one.heard == other.heard
    kinds = {kind: [event[1] for event in one.heard if event[0] == kind] for kind in ("starts", "ends", "best")}
    assert kinds == {"starts": [0, 1, 2], "ends": [0, 1, 2], "best": [0, 2]}
    assert one.heard[0] == ("study starts", 0)
    assert one.heard[-1] == ("study ends", result.run_id, result)
    for number in range(3):
        assert one.heard.index(("starts", number)) < one.heard.index(("ends", number, TrialState.COMPLETE))


def test_a_trial_that_ended_is_stored(client: MlflowClient) -> None:
    class Looks(Callback):
        seen: list[tuple[str, str]]

        def on_trial_end(self, study: StudyState, trial: FrozenTrial) -> None:
            run = client.get_run(str(trial.run_id))
            self.seen.append((run.data.tags["mltune.state"], run.info.status))

    looks = Looks()
    looks.seen = []
    tune(lambda trial: trial.params["x"], looks)
    assert looks.seen == [("COMPLETE", "FINISHED")] * 3


def test_a_study_that_fails_has_an_end_without_result(client: MlflowClient) -> None:
    def fails(trial: mltune.Trial) -> float:
        raise ValueError("no")

    notes = Notes()
    with pytest.raises(StudyFailedError) as caught:
        tune(fails, notes)
    assert notes.heard[-1] == ("study ends", caught.value.run_id, None)
    assert ("ends", 2, TrialState.FAILED) in notes.heard


def test_what_a_callback_raises_ends_the_study_with_its_runs_closed(client: MlflowClient) -> None:
    class Breaks(Callback):
        def on_trial_end(self, study: StudyState, trial: FrozenTrial) -> None:
            raise LookupError("a callback's own fault")

    with pytest.raises(LookupError):
        tune(lambda trial: 1.0, Breaks())
    (parent,) = client.search_runs(["0"], "tags.`mltune.kind` = 'study'")
    assert parent.data.tags["mltune.reason"] == "LookupError: a callback's own fault"
    assert client.search_runs(["0"], "attributes.status = 'RUNNING'") == []


def test_what_is_no_callback_is_refused(client: MlflowClient) -> None:
    with pytest.raises(RequestError, match=r"`callbacks` must hold instances of mltune\.Callback, but got <"):
        tune(lambda trial: 1.0, lambda study, trial: None)  # type: ignore[arg-type]


def test_a_resumed_study_tells_what_is_finished(client: MlflowClient) -> None:
    study = tune(lambda trial: trial.params["x"]).run_id
    notes = Notes()
    mltune.resume(study, lambda trial: trial.params["x"], n_trials=4, callbacks=[notes], quiet=True)
    assert notes.heard[:2] == [("study starts", 3), ("starts", 3)]


def test_an_error_of_mlflows_in_a_callback_is_not_the_stores(client: MlflowClient) -> None:
    class Breaks(Callback):
        def on_new_best(self, study: StudyState, trial: FrozenTrial) -> None:
            raise MlflowException("a callback's own call")

    with pytest.raises(MlflowException, match="a callback's own call"):
        tune(lambda trial: 1.0, Breaks())


def test_each_callback_hears_the_end_whatever_another_one_raises(client: MlflowClient) -> None:
    class Breaks(Callback):
        def on_study_end(self, study: StudyState, result: Study | None) -> None:
            raise LookupError("at the end")

    notes = Notes()
    with pytest.raises(LookupError, match="at the end"):
        tune(lambda trial: 1.0, Breaks(), notes)
    assert notes.heard[-1][0] == "study ends"

    def fails(trial: mltune.Trial) -> float:
        raise ValueError("no")

    with pytest.raises(StudyFailedError):
        tune(fails, Breaks(), notes)
    assert (notes.heard[-1][0], notes.heard[-1][2]) == ("study ends", None)
