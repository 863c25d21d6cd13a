"""Read a study back from its runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from mltune.errors import RequestError
from mltune.trial import Direction, FrozenTrial, Reason, TrialState

_PAGE = 1000


@dataclass(frozen=True)
class StudyRecord:
    """A study as its runs tell it; the trials in the order of their numbers.

    Attributes:
        tags: The parent run's ``mltune.*`` tags, without the prefix.
    """

    run_id: str
    name: str
    tags: Mapping[str, str]
    trials: tuple[FrozenTrial, ...]

    @property
    def best_trial(self) -> FrozenTrial | None:
        """The COMPLETE trial with the best value, None where there is none."""
        return best_of(self.trials, Direction(self.tags["direction"]))


def best_of(trials: tuple[FrozenTrial, ...], direction: Direction) -> FrozenTrial | None:
    """The first COMPLETE trial that no other one beats."""
    best: FrozenTrial | None = None
    for trial in trials:
        if trial.state is TrialState.COMPLETE and trial.value is not None:
            best = trial if direction.better(trial.value, best.value if best else None) else best
    return best


def read_study(client: MlflowClient, run_id: str) -> StudyRecord:
    """Read a study and all its trials.

    Raises:
        RequestError: There is no such run, or it is no study.
    """
    try:
        parent = client.get_run(run_id)
    except MlflowException as error:
        raise RequestError(
            f"the run id must name a study's run, but there is no run '{run_id}' in this store"
        ) from error
    tags = _own_tags(parent)
    if tags.get("kind") != "study":
        raise RequestError(f"the run id must name a study's run, but run '{run_id}' is no mltune study")
    trials = [_frozen(run) for run in _children(client, parent)]
    return StudyRecord(run_id, parent.info.run_name, tags, tuple(sorted(trials, key=lambda trial: trial.number)))


def _children(client: MlflowClient, parent: Run) -> Iterator[Run]:
    token = None
    while True:
        page = client.search_runs(
            [parent.info.experiment_id],
            f"tags.`mltune.study` = '{parent.info.run_id}'",
            max_results=_PAGE,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return


def _frozen(run: Run) -> FrozenTrial:
    tags = _own_tags(run)
    metrics = dict(run.data.metrics)
    duration = metrics.pop("duration_s", None)
    return FrozenTrial(
        number=int(tags["number"]),
        params=json.loads(tags["params"]),
        seed=int(tags["seed"]),
        state=TrialState(tags["state"]),
        value=float(tags["value"]) if "value" in tags else None,
        metrics=metrics,
        run_id=run.info.run_id,
        reason=Reason(tags["reason"]) if "reason" in tags else None,
        duration=duration,
    )


def _own_tags(run: Run) -> dict[str, str]:
    return {key.removeprefix("mltune."): value for key, value in run.data.tags.items() if key.startswith("mltune.")}
