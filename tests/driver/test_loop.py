"""The laws of the driver's loop, in memory: each number once, retries, grace, signals, give-up, the best trial."""

from __future__ import annotations

import itertools
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mltune._util.signals import Signals, Stop
from mltune._util.timing import Stopwatch, Timing
from mltune.config import validate
from mltune.driver.attempts import Attempts
from mltune.driver.events import Callback
from mltune.driver.loop import Loop
from mltune.driver.state import StudyState
from mltune.engines import Engine
from mltune.execution import ExecutorOptions
from mltune.goal import Goal
from mltune.messages import (
    Decision,
    Died,
    Ended,
    Pruned,
    Raised,
    Reported,
    Returned,
    StoreDown,
    StoreUp,
    Task,
    TimedOut,
)
from mltune.retry import StoreError
from mltune.search import SearchProblem, Spec
from mltune.space import Float, SearchSpace
from mltune.testing import MemoryTracker, Script, ScriptedExecutor
from mltune.trial import Direction, FrozenTrial, Reason, TrialState

OUTCOMES: dict[str, Any] = {
    "complete": Returned({"value": 1.0}),
    "better": Returned({"value": 0.5}),
    "nan": Returned({"value": float("nan")}),
    "missing": Returned({"other": 1.0}),
    "pruned": Pruned(),
    "raised": Raised("no", "Traceback"),
    "timed-out": TimedOut("where it stood"),
    "died": Died("the worker was killed"),
}
ENDS = {
    "complete": (TrialState.COMPLETE, None),
    "better": (TrialState.COMPLETE, None),
    "nan": (TrialState.FAILED, Reason.NAN),
    "missing": (TrialState.FAILED, Reason.MISSING_METRIC),
    "pruned": (TrialState.PRUNED, None),
    "raised": (TrialState.FAILED, Reason.EXCEPTION),
    "timed-out": (TrialState.FAILED, Reason.TIMEOUT),
    "died": (TrialState.FAILED, Reason.WORKER_DIED),
}
FINE = Script(outcome=OUTCOMES["complete"])
NEVER = Script(outcome=None)

Scripts = Callable[[Task, int], Script]


class Told(Engine):
    """Random points; remembers what it was told and asked, and stops trials at a value above 9."""

    def __init__(self) -> None:
        space = SearchSpace({"x": Float(0.0, 1.0)})
        super().__init__(
            SearchProblem(space=space, goal=Goal("value", Direction.MINIMIZE), seed=0, algorithm=Spec("random"))
        )
        self.told: list[FrozenTrial] = []
        self.asked: list[int] = []

    def propose(self, number: int) -> Any:
        self.asked.append(number)
        return super().propose(number)

    def tell(self, trial: FrozenTrial) -> None:
        self.told.append(trial)

    def should_prune(self, trial: FrozenTrial, step: int) -> bool:
        return trial.reports[step] > 9


class Notes(Callback):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.ended: list[tuple[int, int, TrialState]] = []

    def on_note(self, text: str) -> None:
        self.notes.append(text)

    def on_trial_end(self, study: StudyState, trial: FrozenTrial) -> None:
        self.ended.append((trial.number, trial.attempt, trial.state))


class Study:
    """A loop on stand-ins, and all that they saw."""

    def __init__(self, script: Scripts, *, lag: int = 0, order: int = 0, past: Any = None, **keys: Any) -> None:
        given = {
            "name": "s",
            "direction": "minimize",
            "seed": 1,
            "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
        }
        self.config = validate(given | {"n_trials": 6, "retries": {"worker-died": 0}} | keys)
        self.engine, self.tracker, self.callback, self.signals = Told(), MemoryTracker(lag), Notes(), Signals()
        self.executor = ScriptedExecutor(ExecutorOptions(n_jobs=self.config.n_jobs), script, seed=order)
        self.state = StudyState(self.config, Attempts(self.config.retries, past or {}), Stopwatch())
        self.loop = Loop(
            self.engine,
            self.executor,
            self.tracker,
            self.state,
            callback=self.callback,
            signals=self.signals,
            timing=Timing(poll=0.0, signal_grace=0.05),
        )

    def run(self) -> Study:
        self.loop.run()
        self.settle()
        return self

    def settle(self) -> None:
        """Have all events handled, as a session does at its end."""
        for _ in range(100):
            for event in self.tracker.events():
                self.loop.handle(event)

    @property
    def ends(self) -> list[tuple[TrialState, Reason | None]]:
        """The ends of the runs, in the order in which they were created."""
        return [(run.trial.state, run.trial.reason) for run in self.tracker.runs.values()]


def scripted(*names: str, **reports: Any) -> Scripts:
    """By the number of the trial, again and again."""
    return lambda task, attempt: Script((0.1, 0.2), OUTCOMES[names[task.number % len(names)]])


def one_after_the_other(*names: str) -> Scripts:
    """By the attempt at trial 0; all other trials are fine."""
    return lambda task, attempt: Script(outcome=OUTCOMES[names[attempt - 1]]) if task.number == 0 else FINE


@pytest.mark.parametrize("name", ENDS)
def test_each_outcome_has_its_end(name: str) -> None:
    study = Study(lambda task, attempt: Script(outcome=OUTCOMES[name]), n_trials=1).run()
    assert study.ends == [ENDS[name]]
    (run,) = study.tracker.runs.values()
    assert run.closed
    assert (run.traceback is None) == (ENDS[name][0] is not TrialState.FAILED)


@settings(max_examples=150, deadline=None)
@given(
    names=st.lists(st.sampled_from(sorted(OUTCOMES)), min_size=1, max_size=8),
    n_jobs=st.integers(1, 4),
    n_trials=st.integers(1, 12),
    retries=st.fixed_dictionaries({reason: st.integers(0, 2) for reason in ("worker-died", "timeout", "exception")}),
    lag=st.integers(0, 5),
    order=st.integers(0, 3),
)
def test_whatever_happens_each_number_counts_once(
    names: list[str], n_jobs: int, n_trials: int, retries: dict[str, int], lag: int, order: int
) -> None:
    def script(task: Task, attempt: int) -> Script:
        return Script((0.1, 0.2), OUTCOMES[names[(task.number + attempt) % len(names)]])

    study = Study(script, n_jobs=n_jobs, n_trials=n_trials, retries=retries, lag=lag, order=order).run()
    runs = list(study.tracker.runs.values())
    assert all(run.closed for run in runs)
    numbers = [trial.number for trial in study.state.trials]
    assert sorted(numbers) == list(range(len(numbers)))
    assert len(numbers) == n_trials or study.state.aborted
    assert [trial.number for trial in study.engine.told] == numbers
    last = {run.trial.number: run.trial for run in runs}
    assert sorted(last.values(), key=lambda trial: trial.number) == sorted(study.state.trials, key=lambda t: t.number)
    for number, attempts in itertools.groupby(sorted(runs, key=by_number), key=lambda run: run.trial.number):
        tried = list(attempts)
        assert [run.trial.attempt for run in tried] == list(range(1, len(tried) + 1))
        assert [run.first for run in tried[1:]] == [tried[0].trial.run_id] * (len(tried) - 1)
        assert len({run.trial.seed for run in tried}) == 1
        reasons = Counter(str(run.trial.reason) for run in tried[:-1])
        assert all(run.trial.state is TrialState.FAILED for run in tried[:-1])
        assert all(count <= retries.get(reason, 0) for reason, count in reasons.items())
        assert study.engine.asked.count(number) == 1
    complete = [trial for trial in study.state.trials if trial.state is TrialState.COMPLETE]
    best = min(complete, key=lambda trial: (trial.value, trial.number), default=None)
    assert study.state.best is best
    assert (study.tracker.best[-1][0] if study.tracker.best else None) == (best.run_id if best else None)
    assert set(study.tracker.removed) == {run.trial.run_id for run in runs} - {best.run_id if best else None}
    assert sorted(study.callback.ended) == sorted((t.number, t.attempt, t.state) for t in study.state.trials)
    assert study.state.running == {}


def by_number(run: Any) -> tuple[int, int]:
    return run.trial.number, run.trial.attempt


def test_at_most_n_jobs_run_at_once() -> None:
    most = 0

    def script(task: Task, attempt: int) -> Script:
        nonlocal most
        most = max(most, len(study.state.running))
        return Script((1.0,) * 3, OUTCOMES["complete"])

    study = Study(script, n_jobs=3, n_trials=12)
    study.run()
    assert most == 3


def test_a_trial_that_the_scheduler_stops_is_pruned_whatever_it_returns() -> None:
    study = Study(lambda task, attempt: Script((1.0, 10.0, 1.0), OUTCOMES["complete"]), n_trials=1).run()
    assert study.ends == [(TrialState.PRUNED, None)]
    (trial,) = study.state.trials
    assert (trial.value, trial.reports) == (10.0, {0: 1.0, 1: 10.0})


def test_a_trial_that_returns_though_it_was_stopped_is_pruned() -> None:
    study = Study(lambda task, attempt: NEVER, n_trials=1)
    study.loop._start_trials()
    for event in study.tracker.events():
        study.loop.handle(event)
    study.executor.answer = lambda number, decision: None  # type: ignore[method-assign]
    study.loop.handle(Reported(0, 0, {"value": 10.0}, 0))
    study.loop.handle(Ended(0, Returned({"value": 0.0})))
    assert study.ends == [(TrialState.PRUNED, None)]


def test_reports_of_other_metrics_are_recorded_and_not_decided() -> None:
    answers: list[Decision] = []
    study = Study(lambda task, attempt: NEVER, n_trials=1)
    study.loop._start_trials()
    for event in study.tracker.events():
        study.loop.handle(event)
    study.executor.answer = lambda number, decision: answers.append(decision)  # type: ignore[method-assign]
    study.loop.handle(Reported(0, 0, {"other": 99.0}, 0))
    study.loop.handle(Reported(7, 0, {"value": 99.0}, 0))  # a thread that an earlier objective left behind
    assert answers == [Decision.CONTINUE]
    assert study.tracker.runs["run-0-1"].reports == {0: {"other": 99.0}}


@pytest.mark.parametrize(
    ("names", "retries", "expected"),
    [
        (["died", "complete"], {"worker-died": 1}, ["died", "complete"]),
        (["died", "died", "complete"], {"worker-died": 1}, ["died", "died"]),
        (
            ["died", "raised", "died", "complete"],
            {"worker-died": 2, "exception": 1},
            ["died", "raised", "died", "complete"],
        ),
        (["nan", "complete"], {"exception": 5}, ["nan"]),
        (["timed-out", "complete"], {"timeout": 1}, ["timed-out", "complete"]),
    ],
)
def test_retries_are_by_reason(names: list[str], retries: dict[str, int], expected: list[str]) -> None:
    study = Study(one_after_the_other(*names), n_trials=1, retries=retries).run()
    assert study.ends == [ENDS[name] for name in expected]
    tried = [note for note in study.callback.notes if "is tried again" in note]
    assert len(tried) == len(expected) - 1


def test_five_first_failures_end_the_study() -> None:
    study = Study(scripted("raised"), n_trials=20).run()
    assert study.state.aborted
    assert study.ends == [ENDS["raised"]] * 5
    assert study.state.last_error == "no"


def test_what_runs_when_a_study_is_aborted_still_counts() -> None:
    study = Study(scripted("raised"), n_trials=20, n_jobs=3).run()
    assert study.state.aborted
    assert 5 <= len(study.state.trials) <= 7


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_after_a_signal_running_trials_have_a_grace_and_none_starts(signum: int) -> None:
    def script(task: Task, attempt: int) -> Script:
        if task.number == 1:
            study.signals.received = signum
        return FINE if task.number < 2 else NEVER

    study = Study(script, n_trials=6, n_jobs=1)
    study.run()
    assert study.ends == [ENDS["complete"]] * 2
    assert any(note.startswith("stopping: running trials have 0.05 s") for note in study.callback.notes)


def test_trials_that_outlast_the_grace_are_interrupted() -> None:
    def script(task: Task, attempt: int) -> Script:
        study.signals.received = signal.SIGTERM
        return NEVER

    study = Study(script, n_jobs=2)
    began = time.monotonic()
    with pytest.raises(Stop):
        study.run()
    assert time.monotonic() - began >= 0.05
    study.executor.close()
    study.loop.interrupt()
    assert {run.trial.state for run in study.tracker.runs.values()} == {TrialState.INTERRUPTED}
    assert study.tracker.removed == []  # closing the runs comes first
    assert study.engine.told == []


def test_a_second_signal_stops_at_once() -> None:
    def script(task: Task, attempt: int) -> Script:
        study.signals.received, study.signals.insisted = signal.SIGINT, True
        return NEVER

    study = Study(script, grace_period=600)
    with pytest.raises(Stop):
        study.run()
    assert study.callback.notes == []


def test_a_death_after_a_signal_is_an_interruption() -> None:
    def script(task: Task, attempt: int) -> Script:
        study.signals.received = signal.SIGTERM
        return Script(outcome=OUTCOMES["died"])

    study = Study(script, n_jobs=2, retries={"worker-died": 2})
    study.run()
    assert set(study.ends) == {(TrialState.INTERRUPTED, None)}


@pytest.mark.parametrize("lag", [0, 10**6])
def test_an_attempt_whose_run_is_not_there_yet_is_dropped(lag: int) -> None:
    study = Study(lambda task, attempt: NEVER, n_jobs=2, lag=lag)
    study.loop._start_trials()
    for event in study.tracker.events():
        study.loop.handle(event)
    study.loop.interrupt()
    interrupted = [run for run in study.tracker.runs.values() if run.trial.state is TrialState.INTERRUPTED]
    assert (len(interrupted), study.tracker.dropped) == ((2, []) if lag == 0 else (0, [(0, 1), (1, 1)]))


def test_after_the_timeout_and_its_grace_trials_are_interrupted() -> None:
    keys: dict[str, Any] = {"n_trials": None, "timeout": 0.05, "grace_period": 0.05}
    study = Study(lambda task, attempt: FINE if task.number == 0 else NEVER, **keys)
    study.run()
    states = [run.trial.state for run in study.tracker.runs.values()]
    assert states[-1] is TrialState.INTERRUPTED or states[-1] is TrialState.COMPLETE
    assert study.state.upcoming() is None


def test_a_store_that_fails_ends_the_loop() -> None:
    def script(task: Task, attempt: int) -> Script:
        study.tracker.failure = StoreError("the disk is full")
        return NEVER

    study = Study(script)
    with pytest.raises(StoreError):
        study.run()


def test_an_outage_is_told_once() -> None:
    def script(task: Task, attempt: int) -> Script:
        if task.number == 1:
            study.tracker.happen(StoreDown("gone"))
        if task.number == 3:
            study.tracker.happen(StoreUp())
        return FINE

    study = Study(script)
    study.run()
    assert study.callback.notes == [
        "the tracking store does not answer, results wait in memory: gone",
        "the tracking store answers again",
    ]


def test_runs_of_short_trials_are_created_ahead() -> None:
    study = Study(lambda task, attempt: FINE, n_trials=4).run()
    assert study.tracker.prefetched == [2, 3]


def ended(number: int, state: TrialState, attempt: int = 1, value: float | None = None) -> FrozenTrial:
    reason = Reason.EXCEPTION if state is TrialState.FAILED else None
    run_id = f"old-{number}-{attempt}"
    return FrozenTrial(
        number=number,
        params={"x": 0.5},
        seed=0,
        attempt=attempt,
        state=state,
        value=value,
        reason=reason,
        run_id=run_id,
    )


def test_a_resumed_study_tries_again_what_was_cut_off_and_goes_on() -> None:
    past = {
        0: [ended(0, TrialState.COMPLETE, value=2.0)],
        1: [ended(1, TrialState.INTERRUPTED)],
        2: [ended(2, TrialState.FAILED)],
        3: [ended(3, TrialState.INTERRUPTED), ended(3, TrialState.INTERRUPTED, 2)],
    }
    study = Study(lambda task, attempt: FINE, n_trials=5, past=past)
    study.engine.replay([ended(0, TrialState.COMPLETE, value=2.0), ended(1, TrialState.INTERRUPTED)])
    study.run()
    runs = {(run.trial.number, run.trial.attempt): run.first for run in study.tracker.runs.values()}
    assert runs == {(1, 2): "old-1-1", (3, 3): "old-3-1", (4, 1): None}
    assert study.tracker.runs["run-1-2"].trial.params == {"x": 0.5}
    assert sorted(trial.number for trial in study.state.trials) == [0, 1, 2, 3, 4]
