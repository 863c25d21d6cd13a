"""The only writer of the record: the parent run of a study and the nested runs of its trials."""

from __future__ import annotations

import itertools
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from mltune._util.redaction import redact
from mltune._util.timing import TIMING, Stopwatch, Timing
from mltune.messages import Event, RunClosed, RunOpened
from mltune.retry import LeaseLostError, StoreError
from mltune.tracking import models
from mltune.tracking.cost import TrackingCost
from mltune.tracking.creation import RunCreator
from mltune.tracking.entries import Entries
from mltune.tracking.lease import HELD, Lease
from mltune.tracking.note import merged
from mltune.tracking.open_trial import OpenTrial, final_metrics, final_tags, now
from mltune.tracking.other_runs import close_children
from mltune.tracking.tags import LIMIT, STATUS, own_tags, to_tags
from mltune.trial import FrozenTrial, Models, Reason, TrialState

if TYPE_CHECKING:
    from mltune.tracking.writer import Writer

T = TypeVar("T")

PRIMARY_METRIC = "mlflow.experiment.primaryMetric.name"


class Tracker:
    """Tracker that writes one study to MLflow in a thread of its own and addresses every run by id.

    Calls are queued and written later, in order, except those made with :meth:`do`, which waits. :meth:`events` yields
    what has been written, and :meth:`close` waits for the rest.

    Args:
        client: A client of the tracking store.
        experiment_id: The experiment of all runs of the study.
        writer: Makes the calls; it is closed with the tracker.
        name: The study's name.
        metric: The study's metric.
        keep_models: Which models are kept.
        project_run: The run that ``mlflow run`` created for this study, or None.
        clock: Clock that measures how long the study has been running.
        timing: Intervals and grace periods.

    Attributes:
        experiment_id: The experiment of all runs of the study.
        run_id: The parent run's id; empty until it is open.
        description: The description that is written to the parent run with the next heartbeat and at the end.
    """

    def __init__(
        self,
        client: MlflowClient,
        experiment_id: str,
        writer: Writer,
        *,
        name: str,
        metric: str,
        keep_models: Models = Models.ALL,
        project_run: Run | None = None,
        clock: Stopwatch | None = None,
        timing: Timing = TIMING,
    ) -> None:
        self._client = client
        self._name = name
        self._metric = metric
        self._keep_models = keep_models
        self._project_run = project_run
        self._creator = RunCreator(client, experiment_id)
        active = mlflow.active_run()  # of this thread
        active_id = str(active.info.run_id) if active is not None else None
        self._create_parent = self._creator.creation(name, {"uid": secrets.token_hex(16)}, active_id)
        self._clock = clock or Stopwatch()
        self._timing = timing
        self._writer = writer
        self._starting: dict[str, OpenTrial] = {}  # by uid, until the run exists
        self._ready: list[RunOpened] = []  # prefetched runs whose trials start now
        self._open_trials: dict[str, OpenTrial] = {}  # by run id
        self._prefetched: dict[str, Callable[[], str]] = {}  # uid to the call that creates the run
        self._ended = 0
        self._busy_before = 0.0  # seconds that the writer was busy before the first trial
        self._models_s = 0.0
        self._models_size = 0
        self._files_size = 0
        self.experiment_id = experiment_id
        self.run_id = ""
        self.description: str | None = None

    @property
    def cost(self) -> TrackingCost:
        """Cost of tracking the trials so far."""
        seconds = self._writer.busy - self._busy_before + self._models_s
        return TrackingCost(1000 * seconds / max(1, self._ended), self._files_size + self._models_size)

    def start_study(self, tags: Mapping[str, str], study_yaml: str) -> None:
        """Create the parent run, or use the one that ``mlflow run`` created, and set :attr:`run_id`.

        Like :meth:`resume_study`, this writes at once and is idempotent, so that :meth:`do` can retry it.

        Args:
            tags: The study's own tags, without the prefix ``mltune.``.
            study_yaml: The study as it runs, logged as an artifact.
        """
        self.run_id = self._take_project_run() if self._project_run is not None else self._create_parent()
        self._write_study(tags, study_yaml)
        self._client.set_experiment_tag(self.experiment_id, PRIMARY_METRIC, self._metric)
        self._open()

    def take_study(self, run_id: str, size: int) -> None:
        """Start to renew the lease on a study acquired by :func:`mltune.tracking.reconcile.take_over`.

        Args:
            run_id: The parent run.
            size: Bytes of the files that were uploaded before.
        """
        self.run_id, self._files_size = run_id, size
        self._open()

    def resume_study(self, tags: Mapping[str, str], study_yaml: str) -> None:
        """Update the record of a study after :meth:`take_study`; the arguments are those of :meth:`start_study`."""
        self._renew()
        self._write_study(tags, study_yaml)

    def prefetch_trial(self, number: int) -> None:
        """Create the run of a trial's first attempt ahead of time, so that the trial need not wait for the store."""
        uid = self._uid(number, 1)
        if uid not in self._prefetched:
            self._prefetched[uid] = self._trial_creation(number, 1, None)
            self._writer.put(self._prefetched[uid])

    def start_trial(self, trial: FrozenTrial, first: str | None) -> None:
        """Create the nested run of a trial; the event :class:`~mltune.messages.RunOpened` has its id.

        Args:
            trial: The trial; its run id is not known yet.
            first: The run of the first attempt if this is a later one, or None.
        """
        uid, opened = self._uid(trial.number, trial.attempt), OpenTrial()
        create = self._prefetched.pop(uid, None) or self._trial_creation(trial.number, trial.attempt, first)
        self._busy_before = self._busy_before or self._writer.busy
        opened.entries.add(
            params=[Param(name, str(value)) for name, value in trial.params.items()],
            tags={"seed": str(trial.seed), "params": json.dumps(dict(trial.params))},
        )
        self._starting[uid] = opened
        if (run_id := self._creator.run_ids.get(uid)) is not None:
            self._ready.append(RunOpened(trial.number, trial.attempt, run_id))
        else:
            self._writer.put(create, lambda run_id: RunOpened(trial.number, trial.attempt, run_id))

    def log_report(self, run_id: str, step: int, metrics: Mapping[str, float], timestamp: int) -> None:
        """Buffer the metrics of one step, and flush the buffer at intervals."""
        trial = self._open_trials[run_id]
        trial.entries.add(metrics=[Metric(name, value, timestamp, step) for name, value in metrics.items()])
        trial.last_step, trial.last_time = step, timestamp
        if time.monotonic() - trial.flushed > self._timing.flush_every:
            self._flush(run_id, trial)

    def end_trial(self, trial: FrozenTrial, *, traceback: str | None) -> None:
        """Write the outcome of a trial and close its run; the event :class:`~mltune.messages.RunClosed` confirms it.

        Args:
            trial: The trial in its final state.
            traceback: Logged as an artifact, or None.
        """
        run_id, client = trial.run_id, self._client
        assert run_id is not None
        if traceback is not None:
            text = redact(traceback)
            self._writer.put(lambda: self._log_text(run_id, "traceback.txt", text))
        opened = self._open_trials.pop(run_id)
        self._ended += 1
        end = opened.created + round(1000 * (trial.duration or 0.0))  # MLflow shows the difference as the duration
        finish = partial(opened.entries.add, metrics=final_metrics(trial, opened), tags=final_tags(trial))
        if trial.state is TrialState.INTERRUPTED or trial.reason in (Reason.TIMEOUT, Reason.WORKER_DIED):
            self._writer.put(lambda: close_children(client, self.experiment_id, run_id))
        if trial.finished and traceback is None:
            finish()  # at once, so that a queued write includes it
        else:
            self._writer.put(finish)  # after the calls above: the final state implies that all else is written
        self._writer.put(lambda: opened.entries.write(client, run_id))
        self._writer.put(lambda: client.set_terminated(run_id, STATUS[trial.state], end), lambda _: RunClosed(trial))

    def add_cost(self, seconds: float, size: int) -> None:
        """Add the cost of models that a trial logged: seconds, and bytes."""
        self._models_s += seconds
        self._models_size += size

    def remove_models(self, trial: FrozenTrial) -> None:
        """Delete the models of a trial that is not the best, if only the best trial's models are kept."""

        def remove() -> None:
            if not self._writer.failed:  # if it failed, the better trial may not be written
                models.remove_models(self._client, self.experiment_id, str(trial.run_id))

        if self._keep_models is Models.BEST and trial.run_id is not None:
            self._writer.put(remove)

    def drop_trial(self, trial: FrozenTrial) -> None:
        """Delete the run, if it exists by now, of a trial that never began."""
        self._starting.pop(self._uid(trial.number, trial.attempt), None)
        self._writer.put(partial(self._creator.delete, self._uid(trial.number, trial.attempt)))

    def log_best(self, trial: FrozenTrial, step: int) -> None:
        """Record the best trial so far on the parent run; ``step`` is the number of trials that finished before it."""
        time_ms = now()
        announcement = Entries()
        announcement.add(
            metrics=[Metric(name, value, time_ms, step) for name, value in trial.metrics.items()],
            tags={
                "best_run_id": str(trial.run_id),
                "best_value": repr(trial.value),
                "best_params": json.dumps(dict(trial.params)),
            },
        )
        self._writer.put(lambda: announcement.write(self._client, self.run_id))

    def end_study(self, state: TrialState, reason: str | None = None) -> None:
        """Write the outcome of the study, and close its parent run."""
        plain = redact(reason or "").encode("utf-8", "backslashreplace").decode()
        tags = {"state": str(state), "elapsed_s": self._elapsed_s()} | ({"reason": plain[:LIMIT]} if plain else {})
        ended = now()
        unused, self._prefetched = list(self._prefetched), {}

        def end() -> None:
            if self.run_id:  # it may have been set while this call was queued
                self._creator.delete_duplicates()
                tags.update(self.cost.to_tags())
                self._client.set_terminated(self.run_id, STATUS[state], ended)
                described = self._described(self._client.get_run(self.run_id))
                self._client.log_batch(self.run_id, tags=to_tags(tags) + described)  # last: all else is written

        # Unused runs are deleted first if the study is COMPLETE; otherwise `reconcile` can still delete them later.
        if state is not TrialState.COMPLETE:
            self._writer.put(end)
        for uid in unused:
            self._writer.put(partial(self._creator.delete, uid))
        if state is TrialState.COMPLETE:
            self._writer.put(end)

    def do(self, call: Callable[[], T], check: Callable[[], None]) -> T:
        """Return the result of a call to the store, which is made after all calls queued before it.

        Args:
            call: Retried while the store does not answer.
            check: Called repeatedly during the wait; it may raise to end the wait.
        """
        return self._writer.do(call, check)

    def events(self) -> Iterator[Event]:
        """Yield the events since the last call, without waiting; then flush the params of trials that still run.

        Raises:
            StoreError: The store did not answer in time, or a retry would not help.
        """
        ready, self._ready = self._ready, []
        for event in itertools.chain(ready, self._writer.events()):
            if isinstance(event, RunOpened):
                self._begin(event)
            yield event
        for run_id, trial in self._open_trials.items():
            if not trial.shown and time.monotonic() - trial.flushed > self._timing.one_call:
                self._flush(run_id, trial)

    def _begin(self, event: RunOpened) -> None:
        uid = self._uid(event.number, event.attempt)
        if (opened := self._starting.pop(uid, None)) is not None:
            opened.created = self._creator.take_creation_time(uid)
            opened.flushed = time.monotonic()
            self._open_trials[event.run_id] = opened

    def close(self, grace: float) -> bool:
        """Write what is queued, for at most ``grace`` seconds; return whether all of it is written."""
        written = self._writer.close(grace)
        HELD.discard(self.run_id)
        return written

    def _flush(self, run_id: str, trial: OpenTrial) -> None:
        trial.shown, trial.flushed = True, time.monotonic()
        self._writer.put(lambda: trial.entries.write(self._client, run_id))

    def _write_study(self, tags: Mapping[str, str], study_yaml: str) -> None:
        study_tags = {"kind": "study", **tags, "state": "RUNNING", "lease": str(Lease.mine())}
        self._log_text(self.run_id, "study.yaml", study_yaml)
        self._client.log_batch(self.run_id, tags=to_tags(study_tags))  # last: a run with these tags can be resumed

    def _open(self) -> None:
        HELD.add(self.run_id)
        self._writer.keep(self._renew)

    def _renew(self) -> None:
        """Renew the lease, or raise if another process has taken over the study or deleted it."""
        run = self._client.get_run(self.run_id)
        lease, current = Lease.mine(), Lease.parse(own_tags(run).get("lease"))
        if current is not None and not current.same_driver(lease):
            raise LeaseLostError(f"the study was taken over by process {current.pid} on {current.host}")
        if run.info.lifecycle_stage != "active":
            raise StoreError("the study's run was deleted: restore it (`mlflow runs restore`) to resume the study")
        tags = {"lease": str(lease), "elapsed_s": self._elapsed_s()} | (self.cost.to_tags() if self._ended else {})
        self._client.log_batch(self.run_id, tags=to_tags(tags) + self._described(run))

    def _elapsed_s(self) -> str:
        return f"{self._clock.elapsed:.1f}"

    def _described(self, run: Run) -> list[RunTag]:
        """Return the tag with the parent run's description if it has changed; text that users wrote is kept."""
        before = run.data.tags.get(MLFLOW_RUN_NOTE, "")
        description = (self.description or "").encode("utf-8", "backslashreplace").decode()
        text = merged(before, description) if description else None
        return [RunTag(MLFLOW_RUN_NOTE, text)] if text is not None and text != before else []

    def _uid(self, number: int, attempt: int) -> str:
        return f"{self.run_id}-{number}-{attempt}"

    def _trial_creation(self, number: int, attempt: int, first: str | None) -> Callable[[], str]:
        tags = {
            "kind": "trial",
            "study": self.run_id,
            "number": str(number),
            "uid": self._uid(number, attempt),
            "attempt": str(attempt),
            "state": str(TrialState.RUNNING),
        } | ({"first_attempt": first} if first is not None else {})
        suffix = f".{attempt}" if attempt > 1 else ""
        return self._creator.creation(f"{number:04d}{suffix}-{self._name}", tags, self.run_id)

    def _take_project_run(self) -> str:
        assert self._project_run is not None
        run_id = str(self._project_run.info.run_id)
        self._client.update_run(run_id, name=self._name)  # replaces a random name; --run-name is set later
        for name, value in self._project_run.data.tags.items():
            if (clean := redact(value)) != value:  # such as a token in the project's address
                self._client.set_tag(run_id, name, clean)
        os.environ.pop("MLFLOW_RUN_ID", None)  # the run is in use now; `mlflow.start_run` pops it, too
        return run_id

    def _log_text(self, run_id: str, name: str, text: str) -> None:
        with TemporaryDirectory(prefix="mltune-") as folder:
            path = Path(folder, name)
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
            self._client.log_artifact(run_id, str(path))
            self._files_size += path.stat().st_size
