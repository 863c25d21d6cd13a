"""Run one objective, in a fresh thread of whichever process this is."""

from __future__ import annotations

import faulthandler
import importlib
import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from itertools import dropwhile
from typing import Any

from mltune.errors import ObjectiveError, TrialPruned
from mltune.execution._base import Cost, Ended, ObjectiveRef, Pruned, Raised, Reported, Returned, Setup, Task, TimedOut
from mltune.tracking import attach, models
from mltune.trial import Trial, as_metrics

Objective = Callable[[Trial], Any]
Report = Callable[[Reported], bool]

_HANG_GRACE = 2.0  # seconds after `trial_timeout` that this process gets to say so


class Runner:
    """A study's objective, loaded once in this process.

    Args:
        setup: What is the same for all trials.
        report: Sends a report to the driver and returns whether the trial is to stop.
        dump_to: The file descriptor for the traceback of an objective that hangs and holds the GIL.

    Raises:
        ObjectiveError: The objective cannot be loaded here.
    """

    def __init__(self, setup: Setup, report: Report, dump_to: int = 2) -> None:
        self._setup = setup
        self._report = report
        self._dump_to = dump_to
        self._objective = load_objective(setup.objective)

    def run(self, task: Task) -> Ended:
        """Run the objective; never raises, whatever user code does.

        After :class:`TimedOut` the objective still runs, and this process is to be ended: it ends by itself after
        2 seconds, as it does when the objective holds the GIL.
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
            return Ended(task.number, TimedOut(_where(thread)), services.cost)
        if timeout is not None:
            faulthandler.cancel_dump_traceback_later()
        nothing = Raised("the objective's error cannot be shown", "the objective raised what cannot be shown\n")
        return Ended(task.number, outcome[0] if outcome else nothing, services.cost)

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
            return Raised(_one_line(error), _user_traceback(error))


class _Services:
    """What a trial needs of its worker."""

    def __init__(self, setup: Setup, task: Task, report: Report) -> None:
        self._setup = setup
        self._task = task
        self._report = report
        self.model_id: str | None = None
        self.cost = Cost()

    def report(self, step: int, metrics: Mapping[str, float]) -> bool:
        return self._report(Reported(self._task.number, step, metrics, int(time.time() * 1000)))

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


def load_objective(source: ObjectiveRef | bytes | Objective) -> Objective:
    """Import the objective by name, or unpickle it.

    Raises:
        ObjectiveError: It cannot be had, or is no function; one sentence.
    """
    if isinstance(source, bytes):
        try:
            return pickle.loads(source)  # type: ignore[no-any-return]
        except Exception as error:
            raise ObjectiveError(f"the objective must load in a worker, but there {_one_line(error)}") from error
    if not isinstance(source, ObjectiveRef):
        return source
    _put_first(source.folder)
    try:
        found = getattr(importlib.import_module(source.module), source.function, None)
    except BaseException as error:
        raise ObjectiveError(
            f"`objective` must be importable from {source.folder}, but importing '{source.module}' "
            f"failed: {_one_line(error)}"
        ) from error
    if not callable(found):
        raise ObjectiveError(
            f"`objective` must name a function in module '{source.module}' "
            f"({getattr(sys.modules[source.module], '__file__', source.folder)}), but it has no '{source.function}'"
        )
    return found  # type: ignore[no-any-return]


def _put_first(folder: str) -> None:
    if folder in sys.path:
        sys.path.remove(folder)
    sys.path.insert(0, folder)


def _one_line(error: BaseException) -> str:
    """Type and message, and where user code stood, on one line."""
    text = " ".join("".join(traceback.format_exception_only(error)).split())
    frames = traceback.extract_tb(error.__traceback__)
    users = [frame for frame in frames if not _is_ours(frame.filename) and "importlib" not in frame.filename]
    return f"{text} ({users[-1].filename}, line {users[-1].lineno})" if users else text


def _user_traceback(error: BaseException) -> str:
    """The traceback from the objective on, without mltune's own frames above it."""
    tb = error.__traceback__
    while tb is not None and tb.tb_next is not None and _is_ours(tb.tb_frame.f_code.co_filename):
        tb = tb.tb_next
    return "".join(traceback.format_exception(type(error), error, tb))


def _where(thread: threading.Thread) -> str:
    """Where a thread stands in user code, as a traceback."""
    stack = traceback.extract_stack(sys._current_frames().get(thread.ident or 0))
    users = dropwhile(lambda frame: _is_ours(frame.filename) or frame.filename == threading.__file__, stack)
    return "".join(["Traceback (most recent call last):\n", *traceback.format_list(list(users))])


def _is_ours(filename: str) -> bool:
    return os.path.dirname(filename) == os.path.dirname(__file__)
