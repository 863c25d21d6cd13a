"""The only writer of the record: the parent run of a study and the nested runs of its trials."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mltune.errors import SpaceError, StoreUnavailableError
from mltune.space import Categorical, Parameter, SearchSpace
from mltune.trial import FrozenTrial, TrialState

PRIMARY_METRIC = "mlflow.experiment.primaryMetric.name"

STATUS: Mapping[str, str] = {
    "RUNNING": "RUNNING",
    "COMPLETE": "FINISHED",
    "PRUNED": "KILLED",
    "FAILED": "FAILED",
    "INTERRUPTED": "KILLED",
}
"""State (``mltune.state``) to MLflow's run status, for studies and trials alike; as in ``mlflow.optuna``."""

_TAG_LIMIT = 8000  # characters
_FLUSH_INTERVAL = 1.0  # seconds between the writes of one trial's reports


class Tracker:
    """Writes one study to MLflow, addressing every run by id.

    Args:
        client: A client of the tracking store.
        experiment_id: Where all runs of the study live.
        project_run: The run that ``mlflow run`` made for this study, see :func:`project_run`.
        name: The study's name.
        metric: The study's metric.
    """

    def __init__(
        self, client: MlflowClient, experiment_id: str, *, name: str, metric: str, project_run: Run | None = None
    ) -> None:
        self._client = client
        self._name = name
        self._metric = metric
        self._project_run = project_run
        self._context: dict[str, str] = resolve_tags()
        self._reports: dict[str, _Buffer] = {}
        self.experiment_id = experiment_id
        self.run_id = ""

    def start_study(self, tags: Mapping[str, str], study_yaml: str) -> None:
        """Open the parent run, or take the one that ``mlflow run`` opened; ``run_id`` names it from then on.

        Args:
            tags: The study's own tags, without their ``mltune.`` prefix.
            study_yaml: The study as it runs, kept as an artifact.
        """
        client = self._client
        wanted = _prefixed({"kind": "study", **tags, "state": "RUNNING"})
        self.run_id = self._take_project_run() if self._project_run is not None else self._create_parent()
        client.log_batch(self.run_id, tags=_tags(wanted))
        client.set_experiment_tag(self.experiment_id, PRIMARY_METRIC, self._metric)
        self._log_text(self.run_id, "study.yaml", study_yaml)

    def start_trial(self, trial: FrozenTrial) -> str:
        """Open the nested run of a trial; its id."""
        tags = {
            "kind": "trial",
            "study": self.run_id,
            "number": str(trial.number),
            "uid": f"{self.run_id}-{trial.number}-1",
            "seed": str(trial.seed),
            "params": json.dumps(dict(trial.params)),
            "state": TrialState.RUNNING,
            "attempt": "1",
        }
        run = self._client.create_run(
            self.experiment_id,
            run_name=f"{trial.number:04d}-{self._name}",
            tags=self._context | _prefixed(tags) | {MLFLOW_PARENT_RUN_ID: self.run_id},
        )
        run_id = str(run.info.run_id)
        try:
            self._client.log_batch(run_id, params=[Param(name, str(value)) for name, value in trial.params.items()])
        except BaseException:
            with contextlib.suppress(Exception):  # nobody else knows of this run
                self._client.set_terminated(run_id, STATUS[TrialState.FAILED])
            raise
        self._reports[run_id] = _Buffer()
        return run_id

    def log_report(self, run_id: str, step: int, metrics: Mapping[str, float], timestamp: int) -> None:
        """Keep the metrics of one step, and write what is kept once in a while."""
        buffer = self._reports[run_id]
        buffer.metrics += [Metric(name, value, timestamp, step) for name, value in metrics.items()]
        buffer.last_step, buffer.last_time = step, timestamp
        if time.monotonic() - buffer.flushed > _FLUSH_INTERVAL:
            self._client.log_batch(run_id, metrics=buffer.take())

    def end_trial(self, trial: FrozenTrial, *, traceback: str | None = None) -> None:
        """Write what a trial came to, and close its run."""
        run_id = trial.run_id
        assert run_id is not None
        if traceback is not None:
            self._log_text(run_id, "traceback.txt", traceback)
        buffer = self._reports[run_id]
        self._client.log_batch(run_id, metrics=buffer.take() + _final(trial, buffer), tags=_end_tags(trial))
        self._client.set_terminated(run_id, STATUS[trial.state])
        del self._reports[run_id]

    def log_best(self, trial: FrozenTrial) -> None:
        """Say on the parent run which trial is the best so far; the steps of its metrics are trial numbers."""
        now = int(time.time() * 1000)
        tags = {
            "best_run_id": str(trial.run_id),
            "best_value": repr(trial.value),
            "best_params": json.dumps(dict(trial.params)),
        }
        metrics = [Metric(name, value, now, trial.number) for name, value in trial.metrics.items()]
        self._client.log_batch(self.run_id, metrics=metrics, tags=_tags(_prefixed(tags)))

    def end_study(self, state: TrialState, reason: str | None = None) -> None:
        """Write what the study came to, and close its run."""
        plain = (reason or "").encode("utf-8", "backslashreplace").decode()
        tags = {"state": str(state)} | ({"reason": plain} if plain else {})
        self._client.log_batch(self.run_id, tags=_tags(_prefixed(tags)))
        self._client.set_terminated(self.run_id, STATUS[state])

    def _take_project_run(self) -> str:
        assert self._project_run is not None
        run_id = str(self._project_run.info.run_id)
        self._client.update_run(run_id, name=self._name)  # in place of a random name; --run-name is set later
        os.environ.pop("MLFLOW_RUN_ID", None)  # it is taken, as when `mlflow.start_run` takes it
        return run_id

    def _create_parent(self) -> str:
        active = mlflow.active_run()
        within = {MLFLOW_PARENT_RUN_ID: active.info.run_id} if active is not None else {}
        run = self._client.create_run(self.experiment_id, run_name=self._name, tags=self._context | within)
        return str(run.info.run_id)

    def _log_text(self, run_id: str, name: str, text: str) -> None:
        with TemporaryDirectory(prefix="mltune-") as folder:
            path = Path(folder, name)
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
            self._client.log_artifact(run_id, str(path))


class _Buffer:
    """Reported metrics of one run that are not written yet."""

    def __init__(self) -> None:
        self.metrics: list[Metric] = []
        self.last_step = 0
        self.last_time = 0
        self.flushed = time.monotonic()

    def take(self) -> list[Metric]:
        taken, self.metrics = self.metrics, []
        self.flushed = time.monotonic()
        return taken


def project_run(client: MlflowClient) -> Run | None:
    """The run that ``mlflow run`` made for this process; None where user code or an earlier study has taken it."""
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if run_id is None or mlflow.active_run() is not None:
        return None
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        raise StoreUnavailableError(
            f"MLFLOW_RUN_ID must name a run of this store, but there is no run '{run_id}': unset it"
        ) from error


def check_fits(space: SearchSpace) -> None:
    """Make sure that the tag with a trial's params holds any point of a space.

    Raises:
        SpaceError: The longest point is too long.
    """
    longest = sum(len(json.dumps(name)) + _longest(parameter) + 4 for name, parameter in space.items())
    if longest > _TAG_LIMIT:
        raise SpaceError(
            f"a point of the space must fit into {_TAG_LIMIT:,} characters of JSON (MLflow's limit for a tag), "
            f"but the longest has {longest:,}: shorten the names or choices"
        )


def _longest(parameter: Parameter) -> int:
    values = parameter.choices if isinstance(parameter, Categorical) else (-1.7976931348623157e308,)
    return max(len(json.dumps(value)) for value in values)


def _final(trial: FrozenTrial, buffer: _Buffer) -> list[Metric]:
    """The returned metrics, later than all reports so that MLflow shows them as current; and the duration."""
    now = max(int(time.time() * 1000), buffer.last_time + 1)
    returned = trial.metrics if trial.state is TrialState.COMPLETE or not trial.reports else {}
    metrics = [Metric(name, value, now, buffer.last_step, model_id=trial.model_id) for name, value in returned.items()]
    return [*metrics, Metric("duration_s", trial.duration or 0.0, now, 0)]


def _end_tags(trial: FrozenTrial) -> list[RunTag]:
    tags = {"state": str(trial.state)}
    if trial.value is not None:
        tags["value"] = repr(trial.value)
    if trial.reason is not None:
        tags["reason"] = str(trial.reason)
    return _tags(_prefixed(tags))


def _prefixed(tags: Mapping[str, str]) -> dict[str, str]:
    return {f"mltune.{name}": str(value) for name, value in tags.items()}


def _tags(tags: Mapping[str, str]) -> list[RunTag]:
    return [RunTag(name, value) for name, value in tags.items()]
