"""Run one objective, in a new thread of the current process."""

from __future__ import annotations

import faulthandler
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from mltune._util.tracebacks import one_line, stack_of, user_traceback
from mltune.errors import TrialPruned
from mltune.messages import Cost, Decision, Ended, Pruned, Raised, Reported, Returned, Task, TimedOut, WorkerConfig
from mltune.objective import load
from mltune.trial import Trial, as_metrics
from mltune.worker import attach, models

Report = Callable[[Reported], Decision]

_HANG_GRACE = 2.0  # seconds after `trial_timeout` until this process exits, if it has not been ended


class Runner:
    """A study's objective, loaded once in this process.

    Args:
        setup: The configuration, the same for all trials.
        report: Sends a report to the driver and returns the answer.
        dump_to: The file descriptor for the traceback of an objective that hangs and holds the GIL.

    Raises:
        ObjectiveError: The objective cannot be loaded here.
    """

    def __init__(self, setup: WorkerConfig, report: Report, dump_to: int = 2) -> None:
        self._setup = setup
        self._report = report
        self._dump_to = dump_to
        self._objective = load(setup.objective)

    def run(self, task: Task) -> Ended:
        """Run the objective; never raise, whatever user code does.

        After :class:`TimedOut` the objective still runs, and the caller must end this process. The process exits by
        itself 2 seconds after the timeout, even if the objective holds the GIL.
        """
        outcome: list[Returned | Pruned | Raised] = []
        services = _Services(self._setup, task, self._report)
        thread = threading.Thread(
            target=lambda: outcome.append(self._attached(task, services)), name=f"trial-{task.number}", daemon=True
        )
        timeout = self._setup.trial_timeout
        if timeout is not None:
            faulthandler.dump_traceback_later(timeout + _HANG_GRACE, exit=True, file=self._dump_to)
        thread.start()
        thread.join(timeout)
        if thread.is_alive():
            return Ended(task.number, TimedOut(stack_of(thread)), services.cost)
        if timeout is not None:
            faulthandler.cancel_dump_traceback_later()
        fallback = Raised("the objective's error cannot be shown", "the objective raised what cannot be shown\n")
        return Ended(task.number, outcome[0] if outcome else fallback, services.cost)

    def _attached(self, task: Task, services: _Services) -> Returned | Pruned | Raised:
        trial = Trial(
            task.params,
            number=task.number,
            seed=task.seed,
            metric=self._setup.metric,
            run_id=task.run_id,
            services=services,
        )
        try:
            with attach.attached(task.run_id, task.experiment_id):
                returned = self._objective(trial)
                metrics = {} if returned is None else as_metrics(returned, self._setup.metric)
                return Returned(metrics, services.model_id)
        except TrialPruned:
            return Pruned(services.model_id)
        except BaseException as error:
            return Raised(one_line(error), user_traceback(error))


class _Services:
    """The worker's implementation of :class:`~mltune.trial.TrialServices`, for one task."""

    def __init__(self, setup: WorkerConfig, task: Task, report: Report) -> None:
        self._setup = setup
        self._task = task
        self._report = report
        self.model_id: str | None = None
        self.cost = Cost()

    def report(self, step: int, metrics: Mapping[str, float]) -> bool:
        reported = Reported(self._task.number, step, metrics, int(time.time() * 1000))
        return self._report(reported) is Decision.STOP

    def log_model(self, model: Any, name: str, **options: Any) -> str:
        if not self._setup.log_models:
            return ""
        began = time.monotonic()
        self.model_id, size = models.log_model(
            model,
            name,
            run_id=self._task.run_id,
            experiment_id=self._task.experiment_id,
            tracking_uri=self._setup.environment.get("MLFLOW_TRACKING_URI"),
            params=self._task.params,
            patience=self._setup.store_timeout,
            **options,
        )
        self.cost += Cost(time.monotonic() - began, size)
        return self.model_id
