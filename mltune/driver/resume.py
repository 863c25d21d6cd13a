"""Resume a study from its runs alone: what may change, and what may not."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mltune.config import Draft, StudyConfig, draft_study, read_yaml, validate
from mltune.driver.attempts import Attempts
from mltune.driver.events import Callback, notify
from mltune.driver.problems import Problems
from mltune.driver.request import Resolved, StudyRequest, implied_executor, pack_for, resolve
from mltune.errors import RequestError
from mltune.objective import Objective, ObjectiveRef
from mltune.studies import from_record
from mltune.tracking import connection, reader
from mltune.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from mltune.params import Params
    from mltune.study import Study
    from mltune.tracking.reader import StudyRecord

_SHOWN = 3  # old trials that a new space refuses


def prepare_resume(
    run_id: str,
    changes: Mapping[str, Any],
    callback: Callback,
    *,
    objective: Objective | str | None = None,
    file: Draft | None = None,
    folder: Path | None = None,
    steal: bool = False,
    faults: Sequence[str] = (),
) -> StudyRequest | Study:
    """Return the request that resumes a study, or the study if it is finished; see :func:`mltune.resume`.

    Args:
        run_id: The study's parent run.
        changes: Keys of a study file that replace the recorded ones.
        callback: Notified if the study is finished.
        objective: A function, or its name.
        file: A study file: its space and its objective are used.
        folder: Where the file is.
        steal: Take the study over though its driver seems to be alive.
        faults: What is wrong with the other arguments of the caller.

    Raises:
        RequestError: All that is wrong.
    """
    with connection.reading() as store:
        client = store.client
        record = reader.read_study(client, run_id)
        recorded = read_yaml(reader.read_study_file(client, run_id), f"study.yaml of run {run_id}")
    _leave_project_run(run_id)
    notes = _check_free(record, steal=steal)
    before, problems = validate(recorded), Problems()
    problems.add(*faults)
    draft, more = _changed(recorded, before, changes, file, problems)
    draft = _checked_space(draft, before, record, problems)
    study = resolve(draft, problems)
    config = draft.config if study is None else study.config
    if (finished := _finished(record, config)) is not None:
        problems.check()
        notify(callback, f"study {run_id} is finished and was left as it is: {finished}")
        return from_record(record, store, config)
    where = [folder, record.tags.get("folder"), "."]
    if objective is not None or file is None or "objective" not in file.wrong:
        with problems:
            found = _objective(objective or config.objective, study, [Path(each) for each in where if each is not None])
    problems.check()
    assert study is not None
    return StudyRequest(study=study, objective=found, notes=(*notes, *more), past=record, steal=steal)


def _leave_project_run(run_id: str) -> None:
    """Check that the run created by ``mlflow run`` is the study's, and unset it for the objective."""
    if os.environ.get("MLFLOW_RUN_ID", run_id) != run_id:
        raise RequestError(
            f"`mlflow run -e resume` must be given the study's run as --run-id too, "
            f"or it makes a run of its own: --run-id {run_id} -P run_id={run_id}"
        )
    os.environ.pop("MLFLOW_RUN_ID", None)


def _check_free(record: StudyRecord, *, steal: bool) -> list[str]:
    """Check that no driver is at work on the study, unless it is to be stolen; return a note if it is.

    Raises:
        RequestError: A driver is at work on it.
    """
    lease = record.lease
    if not record.is_driven or lease is None:
        return []
    driver = f"process {lease.pid} on {lease.host}"
    if not steal:
        raise RequestError(
            f"a study must have no driver to be resumed, but {driver} is at work on {record.run_id}: "
            f"stop that process, or take the study over with --steal"
        )
    return [f"the study was taken over from {driver}, which seemed to be alive"]


def _changed(
    recorded: Mapping[str, Any],
    before: StudyConfig,
    changes: Mapping[str, Any],
    file: Draft | None,
    problems: Problems,
) -> tuple[Draft, list[str]]:
    """Return the study with its changes, and notes for the user; add to ``problems`` what is wrong with the changes."""
    notes: list[str] = []
    data = dict(recorded)
    if file is not None:
        problems.add(*file.faults)
        with problems:
            notes += _kept(before, file, changes)
        data |= {key: getattr(file.config, key) for key in {"space", "objective"} - file.wrong}
    data["executor"], kept_place = place(before, changes)
    if not kept_place and data.pop("resources", None):
        notes.append("`resources` is dropped: it was meant for the executor that the study had")
    draft = draft_study({**data, **changes})
    problems.add(*draft.faults)
    return draft, notes


def place(before: StudyConfig, changes: Mapping[str, Any]) -> tuple[str | None, bool]:
    """Return the executor to use, or None for the implied one, and whether it is the one that the study had.

    Another engine brings the executor that it implies, unless the study named one that its own engine does not imply.
    """
    was = before.executor or implied_executor(before.engine)
    named = changes.get("executor", before.executor)
    if "executor" not in changes and "engine" in changes and was == (implied_executor(before.engine) or was):
        named = None
    return named, was == (named or implied_executor(changes.get("engine", before.engine)))


def _kept(before: StudyConfig, draft: Draft, changes: Mapping[str, Any]) -> list[str]:
    """Return notes on keys of a study file that differ from the record and are ignored.

    Raises:
        RequestError: The file has another metric or direction, so that old and new values could not be compared.
    """
    file = draft.config
    moved = [
        f"`{key}` must stay as the study has it, '{getattr(before, key)}', but the study file says "
        f"'{getattr(file, key)}': begin a new study with `mltune run`"
        for key in ("metric", "direction")
        if key not in draft.wrong and getattr(file, key) != getattr(before, key)
    ]
    if moved:
        raise RequestError(moved)
    keys = [key for key in ("algorithm", "scheduler", "engine", "n_trials", "seed") if key in file.model_fields_set]
    other = [key for key in keys if key not in changes and str(getattr(file, key)) != str(getattr(before, key))]
    other = [key for key in other if str(getattr(file, key)) not in ("auto", "None")]
    kept = [f"{key} stays {getattr(before, key)}, though the study file says {getattr(file, key)}" for key in other]
    return ["; ".join(kept)] if kept else []


def _checked_space(draft: Draft, before: StudyConfig, record: StudyRecord, problems: Problems) -> Draft:
    """Return the study with the points that it has tried; if its space refuses some, add that to ``problems``."""
    if "space" in draft.wrong:
        return draft
    try:
        return replace(draft, config=_with_old_points(draft.config, before, record))
    except RequestError as error:
        problems.add(*error.faults)
    config = draft.config.model_copy(update={"initial_points": ()})
    return replace(draft, config=config, wrong=draft.wrong | {"initial_points"})


def _with_old_points(config: StudyConfig, before: StudyConfig, record: StudyRecord) -> StudyConfig:
    """Check that a changed space contains all finished trials; let a changed grid continue with the points left.

    Raises:
        RequestError: A finished trial is not a point of the space.
    """
    attempts = Attempts(config.retries, record.attempts)
    finished = attempts.finished()
    wrong = [
        (trial, faults) for trial in finished if (faults := config.space.faults(config.space.coerce(trial.params)))
    ]
    if wrong:
        raise RequestError(
            [
                f"the space must hold all finished trials, but trial {trial.number} is not in it ({faults[0]}): "
                f"keep what old trials need, or begin a new study with `mltune run`"
                for trial, faults in wrong[:_SHOWN]
            ]
        )
    if config.algorithm.name != "grid" or json.dumps(config.space.to_dict()) == json.dumps(before.space.to_dict()):
        return config
    unfinished = [trial for trial in attempts.unfinished() if not config.space.faults(trial.params)]
    return config.model_copy(update={"initial_points": _taken(config, [*finished, *unfinished])})


def _taken(config: StudyConfig, begun: Sequence[FrozenTrial]) -> tuple[Params, ...]:
    """Return the points of a changed grid by number, up to the last number that was started."""
    taken = {trial.number: config.space.coerce(trial.params) for trial in begun}
    texts = {json.dumps(point) for point in taken.values()}  # as Python compares them, 1 is True
    rest = iter(point for point in config.space.grid() if json.dumps(point) not in texts)
    points = (taken.get(number) or next(rest, None) for number in range(max(taken, default=-1) + 1))
    return tuple(point for point in points if point is not None)


def _objective(
    objective: Objective | str | None, study: Resolved | None, folders: Sequence[Path]
) -> ObjectiveRef | bytes | Objective:
    """Return the packed objective; one given by name is taken from the first folder that has its module.

    Raises:
        RequestError: No objective is given, and the study was started with a function, which is not recorded.
    """
    if objective is None:
        raise RequestError(
            "the study was begun with a function, which is not in MLflow: resume it with "
            'mltune.resume("RUN_ID", objective), or give a study file that names it with --study'
        )
    if not isinstance(objective, str):
        return pack_for(study, objective, ".")
    module = objective.partition(":")[0].partition(".")[0]
    has_it = (folder for folder in folders if PathFinder.find_spec(module, [str(folder.absolute())]) is not None)
    return ObjectiveRef.parse(objective, next(has_it, folders[0]))


def _finished(record: StudyRecord, config: StudyConfig) -> str | None:
    """Return which budget a finished study has used up, or None if the study can continue."""
    if record.tags.get("state") != TrialState.COMPLETE:
        return None
    finished = {trial.number for trial in Attempts(config.retries, record.attempts).finished()}
    elapsed = float(record.tags.get("elapsed_s", 0.0))
    if config.timeout is not None and elapsed >= config.timeout:
        return f"its {config.timeout:g} s are over; a larger --timeout extends it"
    if config.n_trials is None or any(number not in finished for number in range(config.n_trials)):
        return None
    return f"it has {len(finished)} trials; a larger --n-trials extends it"
