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
from typing import TypeVar

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE

from mltune._util.redaction import redact
from mltune._util.timing import TIMING, Stopwatch, Timing
from mltune.messages import Event, RunClosed, RunOpened
from mltune.retry import LeaseLostError, StoreError
from mltune.tracking import delete
from mltune.tracking.cost import TrackingCost
from mltune.tracking.entries import Entries
from mltune.tracking.lease import HELD, Lease
from mltune.tracking.note import merged
from mltune.tracking.open_trial import OpenTrial, final_metrics, final_tags, now
from mltune.tracking.other_runs import close_children, discard, duplicates
from mltune.tracking.tags import LIMIT, STATUS, own_tags, prefixed, to_tags
from mltune.tracking.writer import Writer
from mltune.trial import FrozenTrial, Models, Reason, TrialState

T = TypeVar("T")

PRIMARY_METRIC = "mlflow.experiment.primaryMetric.name"


class Tracker:
    """Writes one study to MLflow, addressing every run by id, from a thread of its own.

    What is not asked for by :meth:`do` is written some time later, in the order of the calls; :meth:`events` says
    what has been, and :meth:`close` waits for it.

    Args:
        client: A client of the tracking store.
        experiment_id: Where all runs of the study live.
        name: The study's name.
        metric: The study's metric.
        models: Which models are kept.
        project_run: The run that ``mlflow run`` made for this study.
        patience: Seconds for which a store that does not answer is tried again.
        wake: Called when there are :meth:`events`; from another thread.
        clock: How long the study has been running.
        timing: Periods.

    Attributes:
        experiment_id: Where all runs of the study live.
        run_id: The parent run, once it is open.
        description: What the parent run's description is to be, with the next sign of life and at the end.
    """

    def __init__(
        self,
        client: MlflowClient,
        experiment_id: str,
        *,
        name: str,
        metric: str,
        models: Models = Models.ALL,
        project_run: Run | None = None,
        patience: float = 600.0,
        wake: Callable[[], None] = lambda: None,
        clock: Stopwatch | None = None,
        timing: Timing = TIMING,
    ) -> None:
        self._client = client
        self._name = name
        self._metric = metric
        self._models = models
        self._project_run = project_run
        self._context = {name: redact(value) for name, value in resolve_tags().items()}
        active = mlflow.active_run()  # of this thread
        within = str(active.info.run_id) if active is not None else None
        self._create_parent = self._creation(name, {"uid": secrets.token_hex(16)}, within)
        self._clock = clock or Stopwatch()
        self._timing = timing
        self._writer = Writer(patience, timing.renew_every, wake)
        self._starting: dict[str, OpenTrial] = {}  # by uid, until the run is there
        self._ready: list[RunOpened] = []  # runs that were made ahead and are used now
        self._open_trials: dict[str, OpenTrial] = {}  # by run id
        self._prefetched: dict[str, Callable[[], str]] = {}  # uid to what makes the run
        self._born: dict[str, int] = {}  # uid to when the run was made, in milliseconds since 1970, until it is used
        self._runs: dict[str, str] = {}  # uid to run id
        self._made_twice: set[str] = set()  # uids
        self._ended = 0
        self._busy_before = 0.0  # the first trial
        self._models_s = 0.0
        self._models_size = 0
        self._files_size = 0
        self.experiment_id = experiment_id
        self.run_id = ""
        self.description: str | None = None

    @property
    def cost(self) -> TrackingCost:
        """What the record of the trials took so far."""
        seconds = self._writer.busy - self._busy_before + self._models_s
        return TrackingCost(1000 * seconds / max(1, self._ended), self._files_size + self._models_size)

    def start_study(self, tags: Mapping[str, str], study_yaml: str) -> None:
        """Open the parent run, or take the one that ``mlflow run`` opened; ``run_id`` names it from then on.

        Like :meth:`resume_study` it writes at once, and may be called again: see :meth:`do`.

        Args:
            tags: The study's own tags, without their ``mltune.`` prefix.
            study_yaml: The study as it runs, kept as an artifact.
        """
        self.run_id = self._take_project_run() if self._project_run is not None else self._create_parent()
        self._write_study(tags, study_yaml)
        self._client.set_experiment_tag(self.experiment_id, PRIMARY_METRIC, self._metric)
        self._open()

    def take_study(self, run_id: str, size: int) -> None:
        """Start renewing the lease of a study just taken over, see :func:`mltune.tracking.reconcile.take_over`.

        Args:
            run_id: The parent run.
            size: Bytes of the files that were uploaded before.
        """
        self.run_id, self._files_size = run_id, size
        self._open()

    def resume_study(self, tags: Mapping[str, str], study_yaml: str) -> None:
        """Say what a study that was taken is from now on; the arguments are those of :meth:`start_study`."""
        self._renew()
        self._write_study(tags, study_yaml)

    def prefetch_trial(self, number: int) -> None:
        """Make the run of a trial's first attempt ahead of it, so that the trial need not wait for the store."""
        uid = self._uid(number, 1)
        if uid not in self._prefetched:
            self._prefetched[uid] = self._trial_creation(number, 1, None)
            self._writer.put(self._prefetched[uid])

    def start_trial(self, trial: FrozenTrial, first: str | None) -> None:
        """Open the nested run of a trial; the event :class:`~mltune.messages.RunOpened` names it.

        Args:
            trial: The trial; its run is not known yet.
            first: The run of the first attempt, if this is a later one.
        """
        uid, opened = self._uid(trial.number, trial.attempt), OpenTrial()
        create = self._prefetched.pop(uid, None) or self._trial_creation(trial.number, trial.attempt, first)
        self._busy_before = self._busy_before or self._writer.busy
        opened.entries.add(
            params=[Param(name, str(value)) for name, value in trial.params.items()],
            tags={"seed": str(trial.seed), "params": json.dumps(dict(trial.params))},
        )
        self._starting[uid] = opened
        if uid in self._runs:
            self._ready.append(RunOpened(trial.number, trial.attempt, self._runs[uid]))
        else:
            self._writer.put(create, lambda run_id: RunOpened(trial.number, trial.attempt, run_id))

    def log_report(self, run_id: str, step: int, metrics: Mapping[str, float], timestamp: int) -> None:
        """Keep the metrics of one step, and write what is kept once in a while."""
        trial = self._open_trials[run_id]
        trial.entries.add(metrics=[Metric(name, value, timestamp, step) for name, value in metrics.items()])
        trial.last_step, trial.last_time = step, timestamp
        if time.monotonic() - trial.flushed > self._timing.flush_every:
            self._flush(run_id, trial)

    def end_trial(self, trial: FrozenTrial, *, traceback: str | None) -> None:
        """Write the outcome of a trial and close its run; the event :class:`~mltune.messages.RunClosed` says when.

        Args:
            trial: The trial as it ended.
            traceback: Kept as an artifact.
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
            finish()  # so that a write that waits takes it along
        else:
            self._writer.put(finish)  # the state says that all else is there
        self._writer.put(lambda: opened.entries.write(client, run_id))
        self._writer.put(lambda: client.set_terminated(run_id, STATUS[trial.state], end), lambda _: RunClosed(trial))

    def add_cost(self, seconds: float, size: int) -> None:
        """A trial has logged models, of so many bytes."""
        self._models_s += seconds
        self._models_size += size

    def remove_models(self, trial: FrozenTrial) -> None:
        """Delete the models of a trial that is not the best, where only that one's are kept."""

        def remove() -> None:
            if not self._writer.failed:  # else the better trial may not be written
                delete.remove_models(self._client, self.experiment_id, str(trial.run_id))

        if self._models is Models.BEST and trial.run_id is not None:
            self._writer.put(remove)

    def drop_trial(self, trial: FrozenTrial) -> None:
        """Delete the run, if there is one by now, of a trial that was never begun."""
        self._starting.pop(self._uid(trial.number, trial.attempt), None)
        self._delete_run(self._uid(trial.number, trial.attempt))

    def log_best(self, trial: FrozenTrial, step: int) -> None:
        """Say on the parent run which trial is the best so far; ``step`` is how many trials had finished before it."""
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
        """Write what the study came to, and close its run."""
        plain = redact(reason or "").encode("utf-8", "backslashreplace").decode()
        tags = {"state": str(state), "elapsed_s": self._elapsed_s()} | ({"reason": plain[:LIMIT]} if plain else {})
        ended = now()
        unused, self._prefetched = list(self._prefetched), {}

        def end() -> None:
            if self.run_id:  # it may have come while this waited
                self._delete_duplicates()
                tags.update(self.cost.to_tags())
                self._client.set_terminated(self.run_id, STATUS[state], ended)
                described = self._described(self._client.get_run(self.run_id))
                self._client.log_batch(self.run_id, tags=to_tags(tags) + described)  # last: says that all is written

        if state is not TrialState.COMPLETE:  # a COMPLETE study is not looked at again, of others `reconcile` does it
            self._writer.put(end)
        for uid in unused:
            self._delete_run(uid)
        if state is TrialState.COMPLETE:
            self._writer.put(end)

    def do(self, call: Callable[[], T], check: Callable[[], None]) -> T:
        """What a call to the store returns, once all that was put before it is written.

        Args:
            call: Made again while the store does not answer.
            check: Called now and then; may end the wait by raising.
        """
        return self._writer.do(call, check)

    def events(self) -> Iterator[Event]:
        """Yield what has happened since the last time, without waiting; have the params of trials that go on written.

        Raises:
            StoreError: The store did not come back, or trying again is no use.
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
            opened.created = self._born.pop(uid, now())
            opened.flushed = time.monotonic()
            self._open_trials[event.run_id] = opened

    def close(self, grace: float) -> bool:
        """Write what is left, in so many seconds at most; whether all is written."""
        written = self._writer.close(grace)
        HELD.discard(self.run_id)
        return written

    def _flush(self, run_id: str, trial: OpenTrial) -> None:
        trial.shown, trial.flushed = True, time.monotonic()
        self._writer.put(lambda: trial.entries.write(self._client, run_id))

    def _write_study(self, tags: Mapping[str, str], study_yaml: str) -> None:
        wanted = {"kind": "study", **tags, "state": "RUNNING", "lease": str(Lease.mine())}
        self._log_text(self.run_id, "study.yaml", study_yaml)
        self._client.log_batch(self.run_id, tags=to_tags(wanted))  # last: what says that it is a study can be resumed

    def _open(self) -> None:
        HELD.add(self.run_id)
        self._writer.keep(self._renew)

    def _renew(self) -> None:
        """Say that we live, unless somebody else has taken the study over or deleted it."""
        run = self._client.get_run(self.run_id)
        mine, found = Lease.mine(), Lease.parse(own_tags(run).get("lease"))
        if found is not None and not found.same_driver(mine):
            raise LeaseLostError(f"the study was taken over by process {found.pid} on {found.host}")
        if run.info.lifecycle_stage != "active":
            raise StoreError("the study's run was deleted: restore it (`mlflow runs restore`) to resume the study")
        so_far = {"lease": str(mine), "elapsed_s": self._elapsed_s()} | (self.cost.to_tags() if self._ended else {})
        self._client.log_batch(self.run_id, tags=to_tags(so_far) + self._described(run))

    def _elapsed_s(self) -> str:
        return f"{self._clock.elapsed:.1f}"

    def _described(self, run: Run) -> list[RunTag]:
        """The parent run's description, where it changes; what people wrote into it stays."""
        before = run.data.tags.get(MLFLOW_RUN_NOTE, "")
        ours = (self.description or "").encode("utf-8", "backslashreplace").decode()
        text = merged(before, ours) if ours else None
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
        again = f".{attempt}" if attempt > 1 else ""
        return self._creation(f"{number:04d}{again}-{self._name}", tags, self.run_id)

    def _creation(self, name: str, tags: Mapping[str, str], parent: str | None) -> Callable[[], str]:
        """A call that creates a run, and finds it where an earlier try did so without saying."""
        uid, tried = tags["uid"], False

        def create() -> str:
            nonlocal tried
            if tried and uid not in self._runs:
                self._made_twice.add(uid)
                self._find_run(uid)
            tried = True
            if uid not in self._runs:
                within = {MLFLOW_PARENT_RUN_ID: parent} if parent is not None else {}
                run = self._client.create_run(
                    self.experiment_id, tags=self._context | prefixed(tags) | within, run_name=name
                )
                self._born[uid] = run.info.start_time
                self._runs[uid] = str(run.info.run_id)
            return self._runs[uid]

        return create

    def _find_run(self, uid: str) -> None:
        if found := duplicates(self._client, self.experiment_id, uid):
            self._runs[uid] = found[0]

    def _delete_duplicates(self) -> None:
        """A request that seemed lost may have made a second run later on."""
        for uid in self._made_twice:
            for run_id in duplicates(self._client, self.experiment_id, uid):
                if run_id != self._runs.get(uid):
                    discard(self._client, run_id)

    def _delete_run(self, uid: str) -> None:
        def delete() -> None:
            if uid in self._runs:
                discard(self._client, self._runs[uid])

        self._writer.put(delete)

    def _take_project_run(self) -> str:
        assert self._project_run is not None
        run_id = str(self._project_run.info.run_id)
        self._client.update_run(run_id, name=self._name)  # in place of a random name; --run-name is set later
        for name, value in self._project_run.data.tags.items():
            if (clean := redact(value)) != value:  # such as a token in the project's address
                self._client.set_tag(run_id, name, clean)
        os.environ.pop("MLFLOW_RUN_ID", None)  # it is taken, as when `mlflow.start_run` takes it
        return run_id

    def _log_text(self, run_id: str, name: str, text: str) -> None:
        with TemporaryDirectory(prefix="mltune-") as folder:
            path = Path(folder, name)
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
            self._client.log_artifact(run_id, str(path))
            self._files_size += path.stat().st_size
