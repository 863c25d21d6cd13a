"""Read a study from its runs."""

from __future__ import annotations

import contextlib
import gc
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Run
from mlflow.exceptions import MlflowException

from mltune._util.redaction import cause
from mltune.errors import RequestError
from mltune.goal import Goal
from mltune.retry import is_transient
from mltune.tracking.lease import Lease
from mltune.tracking.tags import ALL_STEPS, own_tags
from mltune.trial import DURATION, FrozenTrial, Reason, TrialState

_PAGE = 5000
_READERS = 4  # concurrent calls; a database's pool holds five connections
_LARGEST = 1.7976931348623157e308  # MLflow's database stores this for infinity


@dataclass(frozen=True)
class StudyRecord:
    """A study as recorded in its runs.

    Attributes:
        tags: The parent run's ``mltune.*`` tags, without the prefix.
        attempts: Trial number to all attempts at the trial, in order; the numbers are in order, too.
        steps: Run id to the steps at which the run reported the study's metric, or to None for all steps that it has;
            runs without reports are absent.
        created: Run id to the time at which the run was created, in seconds since 1970.
        ended: Run id to the time at which the run was closed, in seconds since 1970; open runs are absent.
    """

    run_id: str
    experiment_id: str
    name: str
    tags: Mapping[str, str]
    attempts: Mapping[int, Sequence[FrozenTrial]]
    steps: Mapping[str, Sequence[int] | None]
    created: Mapping[str, float]
    ended: Mapping[str, float]

    @property
    def trials(self) -> tuple[FrozenTrial, ...]:
        """The last attempt at each trial, in the order of the numbers."""
        return tuple(attempts[-1] for attempts in self.attempts.values())

    @property
    def goal(self) -> Goal:
        """The metric that decides, and which of its values are better."""
        return Goal.from_tags(self.tags)

    @property
    def best_trial(self) -> FrozenTrial | None:
        """The COMPLETE trial with the best value, or None if no trial is COMPLETE."""
        return self.goal.best(self.trials)

    @property
    def lease(self) -> Lease | None:
        """The lease of the current or last driver, or None if it is missing or cannot be parsed."""
        return Lease.parse(self.tags.get("lease"))

    @property
    def is_driven(self) -> bool:
        """Whether a driver is working on the study."""
        return is_driven(self.run_id, self.tags)


def is_driven(run_id: str, tags: Mapping[str, str]) -> bool:
    """Return whether a driver is working on a study that has these tags."""
    lease = Lease.parse(tags.get("lease"))
    return tags.get("state") == "RUNNING" and lease is not None and lease.is_held(run_id)


def read_study(client: MlflowClient, run_id: str) -> StudyRecord:
    """Return the record of a study with all its trials, without their reports.

    Raises:
        RequestError: The run does not exist, is not a study, or is deleted.
    """
    parent = parent_run(client, run_id)
    return to_record(parent, trial_runs(client, parent))


def to_record(parent: Run, trials: Iterable[Run]) -> StudyRecord:
    """Return what the runs of a study record; runs that were created ahead of their trials are left out."""
    runs = [run for run in trials if "params" in own_tags(run)]
    attempts: dict[int, list[FrozenTrial]] = {}
    for trial in sorted(map(_frozen, runs), key=lambda trial: (trial.number, trial.attempt)):
        attempts.setdefault(trial.number, []).append(trial)
    steps = {run.info.run_id: _steps(own_tags(run)["steps"]) for run in runs if "steps" in own_tags(run)}
    created = {run.info.run_id: run.info.start_time / 1000 for run in runs}
    ended = {run.info.run_id: run.info.end_time / 1000 for run in runs if run.info.end_time}
    head = (parent.info.run_id, parent.info.experiment_id, parent.info.run_name, own_tags(parent))
    return StudyRecord(*head, attempts, steps, created, ended)


def parent_run(client: MlflowClient, run_id: str) -> Run:
    """Return the parent run of a study.

    Raises:
        RequestError: The run does not exist, is not a study, or is deleted.
    """
    try:
        parent = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise RequestError(
            f"the run id must name a study's run, but there is no run '{run_id}' in this store"
        ) from cause(error)
    if own_tags(parent).get("kind") != "study":
        raise RequestError(f"the run id must name a study's run, but run '{run_id}' is no mltune study")
    if parent.info.lifecycle_stage != "active":
        raise RequestError(f"study {run_id} is deleted: restore it (`mlflow runs restore --run-id {run_id}`)")
    return parent


def read_study_file(client: MlflowClient, run_id: str) -> str:
    """Return the content of a study's artifact ``study.yaml``.

    Raises:
        RequestError: The artifact does not exist, or cannot be downloaded.
    """
    with TemporaryDirectory(prefix="mltune-") as folder:
        try:
            return Path(client.download_artifacts(run_id, "study.yaml", folder)).read_text(encoding="utf-8")
        except Exception as error:  # an error of a cloud library, or a missing artifact
            if is_transient(error):
                raise
            raise RequestError(
                f"study {run_id} cannot be resumed, for it has no artifact study.yaml: "
                f"it was killed before it began, or its artifacts are out of reach from here"
            ) from cause(error)


def read_reports(
    client: MlflowClient, record: StudyRecord, trials: Sequence[FrozenTrial], known: Iterable[FrozenTrial] = ()
) -> list[FrozenTrial]:
    """Return trials of a study with their ``reports``; this takes one call for each trial that has reports.

    Args:
        client: A client of the store.
        record: The study.
        trials: Some of its trials.
        known: Trials with their reports, which need not be read.
    """
    reports = {trial.run_id: trial.reports for trial in known}

    def with_reports(trial: FrozenTrial) -> FrozenTrial:
        if trial.run_id in reports:
            return replace(trial, reports=reports[trial.run_id])
        run_id = str(trial.run_id)
        if run_id not in record.steps:
            return trial
        history = client.get_metric_history(run_id, record.tags["metric"])
        return replace(trial, reports=_reports(history, record.steps[run_id]))

    with ThreadPoolExecutor(_READERS) as readers:
        return list(readers.map(with_reports, trials))


def trial_runs(client: MlflowClient, parent: Run) -> Iterator[Run]:
    """Yield all runs of a study's trials, oldest first."""
    return search_all(client, [parent.info.experiment_id], f"tags.`mltune.study` = '{parent.info.run_id}'")


def search_all(client: MlflowClient, experiments: Sequence[str], which: str) -> Iterator[Run]:
    """Yield the active runs of some experiments that match a filter, oldest first so that new runs shift no page."""
    token = None
    while True:
        with _no_search_for_cycles():
            page = client.search_runs(
                list(experiments),
                which,
                max_results=_PAGE,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
        yield from page
        token = page.token
        if not token:
            return


@contextlib.contextmanager
def _no_search_for_cycles() -> Iterator[None]:
    """Disable the garbage collector within the block.

    A page is a hundred thousand objects; searching them for cycles would take as long as creating them.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def study_runs(client: MlflowClient, experiment: str | None = None) -> list[tuple[Run, str]]:
    """Return the parent runs of an experiment, or of all experiments if it is None, each with its experiment's name.

    The latest is the first.

    Raises:
        RequestError: The experiment does not exist, or is deleted.
    """
    experiments = {str(active.experiment_id): active.name for active in _experiments(client)}
    if experiment is not None:
        experiments = {key: name for key, name in experiments.items() if name == experiment}
        if not experiments:
            raise RequestError(f"the experiment must exist, but there is no active one named '{experiment}'")
    runs = search_all(client, list(experiments), "tags.`mltune.kind` = 'study'") if experiments else iter(())
    return [(run, experiments[run.info.experiment_id]) for run in runs][::-1]


def _experiments(client: MlflowClient) -> Iterator[Experiment]:
    token = None
    while True:
        page = client.search_experiments(page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _frozen(run: Run) -> FrozenTrial:
    tags = own_tags(run)
    metrics = {name: _unclipped(value) for name, value in run.data.metrics.items()}
    duration = metrics.pop(DURATION, None)
    return FrozenTrial(
        number=int(tags["number"]),
        attempt=int(tags["attempt"]),
        params=json.loads(tags["params"]),
        seed=int(tags["seed"]),
        state=TrialState(tags["state"]),
        value=float(tags["value"]) if "value" in tags else None,
        metrics=metrics,
        run_id=run.info.run_id,
        reason=Reason(tags["reason"]) if "reason" in tags else None,
        duration=duration,
    )


def _steps(tag: str) -> list[int] | None:
    return None if tag == ALL_STEPS else json.loads(tag)


def _reports(history: Iterable[Metric], steps: Sequence[int] | None) -> dict[int, float]:
    """Return reported values by step, in the order of the steps, without values logged later at the same step.

    User code or the end of the trial may have logged such values.
    """
    first: dict[int, float] = {}
    for metric in sorted(history, key=lambda metric: (metric.step, metric.timestamp)):
        first.setdefault(metric.step, _unclipped(metric.value))
    return {step: first[step] for step in (first if steps is None else steps) if step in first}


def _unclipped(value: float) -> float:
    return math.copysign(math.inf, value) if abs(value) >= _LARGEST else value
