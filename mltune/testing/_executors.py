"""The laws of executors: tests that every executor passes."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import cloudpickle
import psutil
import pytest

from mltune.errors import ObjectiveError
from mltune.execution import Executor, ExecutorOptions, check_executor, get_executor
from mltune.messages import (
    Decision,
    Died,
    Ended,
    Message,
    Pruned,
    Raised,
    Reported,
    Returned,
    Task,
    TimedOut,
    WorkerConfig,
)
from mltune.objective import ObjectiveRef
from mltune.testing._gaps import Gaps
from mltune.trial import Trial

_PATIENCE = 300.0  # seconds to wait for an expected message
_TIMEOUT = 3.0  # seconds; a trial that does nothing takes a hundredth of that

Objective = Callable[[Trial], Any]


def run_sent(trial: Trial) -> Any:
    """Run the pickled objective in the trial's params; this lets all laws share one executor."""
    return pickle.loads(trial.params["objective"])(trial)


class ExecutorContract(Gaps):
    """The contract of executors, as tests: subclass it in a test module and set ``executor`` or ``executor_class``.

    What an executor's ``limits`` exclude is not tested.

    Attributes:
        executor: The executor's name in the registry.
        executor_class: The executor's class, if it is not in the registry.
        gaps: The tests that the executor does not pass, with the reason. They fail if that test passes.
    """

    executor: ClassVar[str] = ""
    executor_class: ClassVar[type[Executor] | None] = None

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _shared(cls) -> Iterator[dict[str, Executor]]:
        """The executor of the laws that need not start one; it is closed before others are started."""
        shared: dict[str, Executor] = {}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLTUNE_UNSET", "here")
            yield shared
        for executor in shared.values():
            executor.close()

    @pytest.fixture
    def started(self, _shared: dict[str, Executor]) -> Executor:
        """An executor that has started."""
        if not _shared:
            _shared["one"] = self._make()
            _shared["one"].start(self._setup())
        return _shared["one"]

    @pytest.fixture
    def alone(self, _shared: dict[str, Executor]) -> None:
        """Close the shared executor: two may not find room at once."""
        while _shared:
            _shared.popitem()[1].close()

    def test_what_the_objective_returns_is_its_outcome(self, started: Executor) -> None:
        """The outcome is the returned number under the study metric's name, or the returned metrics by name."""
        assert self._run(started, lambda trial: 1.5) == Returned({"value": 1.5})
        assert self._run(started, lambda trial: {"value": 1, "other": 2.0}) == Returned({"value": 1.0, "other": 2.0})

    def test_the_trial_is_the_task(self, started: Executor) -> None:
        """The trial's params, number, seed and run are those of the task."""

        def read_trial(trial: Trial) -> dict[str, float]:
            return {
                "value": trial.params["x"],
                "number": trial.number,
                "seed": trial.seed,
                "run": int(str(trial.run_id)),
            }

        task = self._task(read_trial, number=7, seed=11, run_id="3" * 8, x=0.5)
        assert self._end_of(started, task) == Returned({"value": 0.5, "number": 7.0, "seed": 11.0, "run": 33333333.0})

    def test_what_the_objective_raises_is_an_outcome(self, started: Executor) -> None:
        """Any exception is an outcome, with the traceback as Python prints it; the executor runs the next trial."""
        for error in (ValueError("a bad day"), KeyboardInterrupt(), SystemExit(3)):

            def fails(trial: Trial, error: BaseException = error) -> float:
                raise error

            outcome = self._run(started, fails)
            assert isinstance(outcome, Raised)
            assert outcome.traceback.startswith("Traceback (most recent call last):")
            assert type(error).__name__ in outcome.traceback.splitlines()[-1]
        assert self._run(started, lambda trial: 1.0) == Returned({"value": 1.0})

    def test_reports_wait_for_their_answer(self, started: Executor) -> None:
        """Each report is a message; after CONTINUE the trial goes on, after STOP ``report`` raises TrialPruned."""

        def reports(trial: Trial) -> float:
            for step in (0, 3):
                trial.report({"value": float(step), "other": 1.0}, step=step)
            return 9.0

        for last, expected in ((Decision.CONTINUE, Returned({"value": 9.0})), (Decision.STOP, Pruned())):
            started.submit(self._task(reports))
            for step, decision in ((0, Decision.CONTINUE), (3, last)):
                message = self._next(started)
                assert isinstance(message, Reported)
                assert (message.number, message.step) == (0, step)
                assert message.metrics == {"value": float(step), "other": 1.0}
                assert abs(message.timestamp / 1000 - time.time()) < _PATIENCE
                started.answer(0, decision)
            assert self._next(started) == Ended(0, expected)

    def test_n_jobs_run_at_once(self, started: Executor, tmp_path: Path) -> None:
        """The executor runs as many trials at the same time as requested."""
        if started.options.n_jobs == 1:
            pytest.skip("the executor runs one trial at a time")
        folder = str(tmp_path)

        def meets(trial: Trial) -> float:
            Path(folder, str(trial.number)).touch()
            while len(os.listdir(folder)) < 2:
                time.sleep(0.01)
            return 1.0

        for number in (0, 1):
            started.submit(self._task(meets, number=number))
        ended = {message.number for message in (self._next(started), self._next(started))}
        assert ended == {0, 1}

    def test_waiting_ends_in_time_and_can_be_woken(self, started: Executor) -> None:
        """``next`` returns None after its timeout, and when ``wake`` is called before or while it waits."""
        assert started.next(0.0) is None
        assert started.next(0.1) is None
        started.wake()
        assert started.next(_PATIENCE) is None
        timer = threading.Timer(0.1, started.wake)
        timer.start()
        assert started.next(_PATIENCE) is None
        timer.join()

    def test_a_process_that_dies_ends_its_own_trial_only(self, started: Executor) -> None:
        """If a trial's process dies, the outcome says how, and the next trial runs."""
        if started.limits.in_process:
            pytest.skip("objectives run in the driver's process")
        outcome = self._run(started, lambda trial: os._exit(3))
        assert isinstance(outcome, Died)
        assert outcome.how
        assert self._run(started, lambda trial: 1.0) == Returned({"value": 1.0})

    def test_variables_are_as_the_study_wants_them(self, started: Executor) -> None:
        """The environment has the variables that the study sets, and lacks those that it unsets."""
        if started.limits.in_process:
            pytest.skip("objectives run in the driver's process")

        def read_environment(trial: Trial) -> dict[str, float]:
            return {"value": float(os.environ["MLTUNE_SET"]), "unset": float("MLTUNE_UNSET" in os.environ)}

        assert self._run(started, read_environment) == Returned({"value": 5.0, "unset": 0.0})

    def test_a_trial_that_takes_too_long_is_ended(self, alone: None, tmp_path: Path) -> None:
        """``trial_timeout`` ends a trial that exceeds it, and no other."""
        if not self._class().limits.ends_trials:
            pytest.skip("the executor cannot end trials")
        path = str(tmp_path / "pid")

        def hangs(trial: Trial) -> float:
            Path(path).write_text(str(os.getpid()))
            time.sleep(_PATIENCE)
            return 1.0

        with closing(self._make(trial_timeout=_TIMEOUT)) as executor:
            executor.start(self._setup(trial_timeout=_TIMEOUT))
            assert isinstance(self._run(executor, hangs), TimedOut)
            self._await_end(int(Path(path).read_text()))
            assert self._run(executor, lambda trial: 1.0) == Returned({"value": 1.0})

    def test_closing_ends_what_runs(self, alone: None, tmp_path: Path) -> None:
        """Closing ends running trials and their processes; closing twice and waking afterwards do no harm."""
        path = str(tmp_path / "pid")

        def hangs(trial: Trial) -> float:
            Path(path).with_suffix(".new").write_text(str(os.getpid()))
            Path(path).with_suffix(".new").rename(path)
            time.sleep(_PATIENCE)
            return 1.0

        executor = self._make()
        executor.start(self._setup())
        if not executor.limits.in_process:
            executor.submit(self._task(hangs))
            deadline = time.monotonic() + _PATIENCE
            while not Path(path).exists():
                assert time.monotonic() < deadline, "the trial did not begin"
                executor.next(0.05)
        executor.close()
        if not executor.limits.in_process:
            self._await_end(int(Path(path).read_text()))
        executor.close()
        executor.wake()

    def test_an_objective_that_cannot_be_loaded_is_refused_at_the_start(self, alone: None, tmp_path: Path) -> None:
        """``start`` raises an ObjectiveError that names what cannot be loaded."""
        with closing(self._make()) as executor, pytest.raises(ObjectiveError, match="no_such_module"):
            executor.start(
                WorkerConfig(
                    objective=ObjectiveRef("no_such_module", "train", str(tmp_path)), metric="value", environment={}
                )
            )

    def test_more_than_it_can_do_is_refused(self) -> None:
        """Options beyond the executor's declared limits are refused, with one sentence for each limit."""
        limits = self._class().limits
        options = ExecutorOptions(
            n_jobs=(limits.max_jobs or 0) + 1,
            resources={} if limits.places else {"cpu": 1},
            trial_timeout=None if limits.ends_trials else 1.0,
        )
        expected = (limits.max_jobs is not None) + (not limits.places) + (not limits.ends_trials)
        assert len(check_executor(self.executor or "this one", self._class(), options)) == expected

    def test_gaps_are_laws(self) -> None:
        """Each declared gap names a law that exists."""
        assert [name for name in self.gaps if not hasattr(self, name)] == []

    # Helpers

    @classmethod
    def _class(cls) -> type[Executor]:
        return cls.executor_class or get_executor(cls.executor)

    @classmethod
    def _make(cls, **options: Any) -> Executor:
        executor = cls._class()
        return executor(ExecutorOptions(n_jobs=min(2, executor.limits.max_jobs or 2), **options))

    @classmethod
    def _setup(cls, **options: Any) -> WorkerConfig:
        objective: Any = ObjectiveRef("mltune.testing._executors", "run_sent", os.getcwd())
        return WorkerConfig(
            objective=objective, metric="value", environment={"MLTUNE_SET": "5", "MLTUNE_UNSET": None}, **options
        )

    def _task(
        self, objective: Objective, number: int = 0, *, seed: int = 0, run_id: str = "0" * 32, **params: Any
    ) -> Task:
        params["objective"] = cloudpickle.dumps(objective)
        return Task(number=number, params=params, seed=seed, run_id=run_id, experiment_id="0")

    def _run(self, executor: Executor, objective: Objective) -> Any:
        return self._end_of(executor, self._task(objective))

    def _end_of(self, executor: Executor, task: Task) -> Any:
        executor.submit(task)
        ended = self._next(executor)
        assert isinstance(ended, Ended)
        assert ended.number == task.number
        return ended.outcome

    def _next(self, executor: Executor) -> Message:
        deadline = time.monotonic() + _PATIENCE
        while (message := executor.next(1.0)) is None:
            assert time.monotonic() < deadline, "no message came"
        return message

    def _await_end(self, pid: int) -> None:
        deadline = time.monotonic() + _PATIENCE
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, f"process {pid} lives on"
            time.sleep(0.02)
