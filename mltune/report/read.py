"""Read a study for its report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient

from mltune.report.view import View
from mltune.space import Categorical, Float, Parameter, SearchSpace
from mltune.studies import read_config
from mltune.tracking import reader

if TYPE_CHECKING:
    from mltune.trial import FrozenTrial


def read_view(client: MlflowClient, run_id: str, *, reports: bool = True) -> View:
    """Read a study of any age and engine; if its study file cannot be read, the view is built from the trials alone.

    Args:
        client: A client of the tracking store.
        run_id: The id of the parent run.
        reports: Whether to read the trials' reports, which takes one call for each trial that made some.

    Raises:
        RequestError: The run does not exist or is not a study.
    """
    record = reader.read_study(client, run_id)
    trials = reader.read_reports(client, record, record.trials) if reports else list(record.trials)
    config = read_config(client, run_id)
    if config is None:
        return View(record=record, trials=trials, space=seen_space(trials))
    return View.from_config(record, trials, config)


def seen_space(trials: Sequence[FrozenTrial]) -> SearchSpace:
    """Return the smallest space that contains all trials, for drawing; without trials, a space of one point."""
    values: dict[str, list[Any]] = {}
    for trial in trials:
        for name, value in trial.params.items():
            values.setdefault(name, []).append(value)
    return SearchSpace({name: _around(seen) for name, seen in values.items()} or {"-": Categorical(["-"])})


def _around(seen: Sequence[Any]) -> Parameter:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in seen):
        return Float(min(seen), max(seen))
    return Categorical(list({(type(value), value): value for value in seen}.values()))
