"""The tracker in memory and the one that writes to MLflow promise the loop the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from mlflow import MlflowClient

from mltune._util.timing import TIMING
from mltune.driver.recording import TrialTracker
from mltune.messages import Event, RunClosed, RunOpened
from mltune.testing import MemoryTracker
from mltune.tracking.runs import Tracker
from mltune.tracking.writer import Writer
from mltune.trial import FrozenTrial, Reason, TrialState
from tests.drivers import wait_for


class Recorded:
    """A tracker, and how to look at what it has recorded."""

    def __init__(self, tracker: Any, look: Callable[[str], tuple[str, dict[int, float]]]) -> None:
        self.tracker: TrialTracker = tracker
        self.look = look  # the state of a run and the reports of its metric
        self.events: list[Event] = []

    def wait_for(self, *expected: Event) -> None:
        def came() -> bool:
            self.events += self.tracker.events()
            return len(self.events) >= len(expected)

        wait_for(came)
        assert self.events == list(expected)
        self.events.clear()

    def open(self, trial: FrozenTrial, first: str | None = None) -> FrozenTrial:
        """Start an attempt, and return it with its run."""

        def came() -> bool:
            self.events += self.tracker.events()
            return bool(self.events)

        self.tracker.start_trial(trial, first)
        wait_for(came)
        (event,) = self.events
        assert isinstance(event, RunOpened)
        assert (event.number, event.attempt) == (trial.number, trial.attempt)
        self.events.clear()
        return replace(trial, run_id=event.run_id)


@pytest.fixture(params=["memory", "mlflow"])
def recorded(request: pytest.FixtureRequest) -> Iterator[Recorded]:
    if request.param == "memory":
        memory = MemoryTracker()

        def look_in_memory(run_id: str) -> tuple[str, dict[int, float]]:
            run = memory.runs[run_id]
            return str(run.trial.state), {step: metrics["value"] for step, metrics in run.reports.items()}

        yield Recorded(memory, look_in_memory)
        return
    client: MlflowClient = request.getfixturevalue("client")
    tracker = Tracker(client, "0", Writer(600.0, TIMING.renew_every, lambda: None), name="recorded", metric="value")
    tracker.do(lambda: tracker.start_study({"metric": "value"}, "name: recorded\n"), lambda: None)

    def look(run_id: str) -> tuple[str, dict[int, float]]:
        tracker.do(lambda: None, lambda: None)
        history = client.get_metric_history(run_id, "value")
        return client.get_run(run_id).data.tags["mltune.state"], {metric.step: metric.value for metric in history}

    yield Recorded(tracker, look)
    tracker.close(60)


def trial(number: int, attempt: int = 1) -> FrozenTrial:
    return FrozenTrial(number=number, attempt=attempt, params={"x": 0.5}, seed=1)


def test_a_trial_is_opened_reports_and_is_closed(recorded: Recorded) -> None:
    running = recorded.open(trial(0))
    run_id = str(running.run_id)
    for step in (0, 2):
        recorded.tracker.log_report(run_id, step, {"value": float(step)}, timestamp=1000 + step)
    ended = replace(running, state=TrialState.PRUNED, value=2.0, reports={0: 0.0, 2: 2.0}, duration=0.1)
    recorded.tracker.end_trial(ended, traceback=None)
    recorded.wait_for(RunClosed(ended))
    assert recorded.look(run_id) == ("PRUNED", {0: 0.0, 2: 2.0})


def test_each_attempt_has_a_run_of_its_own(recorded: Recorded) -> None:
    first = recorded.open(trial(0))
    failed = replace(first, state=TrialState.FAILED, reason=Reason.EXCEPTION, duration=0.1)
    recorded.tracker.end_trial(failed, traceback="Traceback")
    recorded.wait_for(RunClosed(failed))
    second = recorded.open(trial(0, 2), str(first.run_id))
    assert second.run_id != first.run_id
    assert recorded.look(str(first.run_id))[0] == "FAILED"


def test_a_run_that_was_created_ahead_is_used(recorded: Recorded) -> None:
    recorded.tracker.prefetch_trial(0)
    recorded.tracker.prefetch_trial(0)
    running = recorded.open(trial(0))
    ended = replace(running, state=TrialState.COMPLETE, value=1.0, metrics={"value": 1.0}, duration=0.1)
    recorded.tracker.end_trial(ended, traceback=None)
    recorded.wait_for(RunClosed(ended))
    assert recorded.look(str(running.run_id))[0] == "COMPLETE"


def test_a_dropped_attempt_has_no_run(recorded: Recorded) -> None:
    recorded.tracker.start_trial(trial(0), None)
    recorded.tracker.drop_trial(trial(0))
    running = recorded.tracker.events()
    list(running)
    if isinstance(recorded.tracker, MemoryTracker):
        assert recorded.tracker.runs == {}
        return
    assert isinstance(recorded.tracker, Tracker)
    recorded.tracker.do(lambda: None, lambda: None)
    assert MlflowClient().search_runs(["0"], "tags.`mltune.kind` = 'trial'") == []


def test_events_come_in_the_order_of_the_calls(recorded: Recorded) -> None:
    begun = [recorded.open(trial(number)) for number in range(3)]
    ended = [replace(each, state=TrialState.COMPLETE, value=1.0, duration=0.1) for each in reversed(begun)]
    for each in ended:
        recorded.tracker.end_trial(each, traceback=None)
    recorded.wait_for(*map(RunClosed, ended))
