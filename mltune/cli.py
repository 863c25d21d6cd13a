"""The command line; no logic of its own."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mltune._util.redaction import redact
from mltune.errors import MissingPackageError, MltuneError, RequestError, StudyInterrupted

if TYPE_CHECKING:
    from rich.console import Console

    from mltune.config import Draft
    from mltune.tracking.connection import Store

_UsageError: Any = typer.BadParameter.__base__  # click's, which typer does not export

app = typer.Typer(
    name="mltune",
    help="Hyperparameter search as a native part of MLflow.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda token: token.replace("_", "-"),
    },
)


def _print_version(requested: bool) -> None:
    if requested:
        import mltune

        print(f"mltune {mltune.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Hyperparameter search as a native part of MLflow."""


@app.command()
def run(
    study: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study file.")],
    engine: Annotated[str | None, typer.Option(help="optuna, ray or a plugin's name.")] = None,
    executor: Annotated[str | None, typer.Option(help="Who runs the trials: local, inline, ray or a plugin's.")] = None,
    algorithm: Annotated[
        str | None, typer.Option(help="Who proposes: auto, grid, random, qmc, tpe, gp, cmaes, …")
    ] = None,
    scheduler: Annotated[str | None, typer.Option(help="Who stops early: none, asha, hyperband, median.")] = None,
    n_trials: Annotated[int | None, typer.Option(help="Trials in all.")] = None,
    n_jobs: Annotated[int | None, typer.Option(help="Trials at once.")] = None,
    timeout: Annotated[str | None, typer.Option(help="Start no trial after this: seconds, or such as 10m.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes the study repeatable.")] = None,
    keep_models: Annotated[str | None, typer.Option(help="Whose models are kept: all, best or none.")] = None,
    registered_model_name: Annotated[str | None, typer.Option(help="Register the best model under this name.")] = None,
    experiment_name: Annotated[str | None, typer.Option(help="The MLflow experiment.")] = None,
    models: Annotated[str | None, typer.Option(hidden=True)] = None,
    register: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run a study file; options override its keys."""
    options = {
        "engine": engine,
        "executor": executor,
        "algorithm": algorithm,
        "scheduler": scheduler,
        "n_trials": n_trials,
        "n_jobs": n_jobs,
        "timeout": timeout,
        "seed": seed,
        "keep_models": keep_models,
        "registered_model_name": registered_model_name,
        "experiment_name": experiment_name,
        "models": models,
        "register": register,
    }
    from mltune.config import draft_study_file

    draft = draft_study_file(study, {key: value for key, value in options.items() if value is not None})

    with _interruptible(), _workers_prepared(draft):
        from mltune.api import run_study
        from mltune.terminal.display import make_display

        run_study(draft, str(draft.config.objective), make_display(), study.parent)


def _workers_prepared(draft: Draft) -> contextlib.AbstractContextManager[None]:
    """Have the workers of executor local import MLflow while this process does, and checks the request."""
    config = draft.config
    is_local = config.executor == "local" or (config.executor is None and config.engine == "optuna")
    if draft.faults or not is_local:
        return contextlib.nullcontext()
    from mltune.execution import local

    return local.prepared(config.n_jobs)


@app.command()
def resume(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="The study's parent run.")],
    study: Annotated[Path | None, typer.Option(help="A study file: its objective and its space are used.")] = None,
    engine: Annotated[str | None, typer.Option(help="Another engine.")] = None,
    executor: Annotated[str | None, typer.Option(help="Another executor.")] = None,
    n_trials: Annotated[int | None, typer.Option(help="Trials in all, the old ones included.")] = None,
    n_jobs: Annotated[int | None, typer.Option(help="Trials at once.")] = None,
    timeout: Annotated[str | None, typer.Option(help="Seconds in all, or such as 10m, those before included.")] = None,
    steal: Annotated[bool, typer.Option("--steal", help="Take it over though its driver seems to be alive.")] = False,
) -> None:
    """Resume a study that was killed, interrupted or failed, or extend a finished one."""
    options = {"engine": engine, "executor": executor, "n_trials": n_trials, "n_jobs": n_jobs, "timeout": timeout}
    from mltune.config import draft_study_file

    file = draft_study_file(study, {}) if study is not None else None

    from mltune.api import resume_study
    from mltune.terminal.display import make_display

    with _interruptible():
        resume_study(
            run_id,
            {key: value for key, value in options.items() if value is not None},
            make_display(),
            file=file,
            folder=study.parent if study is not None else None,
            steal=steal,
        )


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """A study's interruption as an exit code; click would make "Aborted!" and 1 of every KeyboardInterrupt."""
    try:
        yield
    except StudyInterrupted as error:
        raise typer.Exit(_say([str(error)], 128 + error.signum)) from None


@app.command()
def show(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="The study's parent run.")],
    top: Annotated[int, typer.Option(min=1, help="How many trials, the best first.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with all trials.")] = False,
) -> None:
    """Show a study and its trials, read from MLflow."""
    from mltune.report.read import read_view
    from mltune.terminal.tables import study_data, study_table

    with _store() as store:
        view = read_view(store.client, run_id, reports=False)
    _print_json(study_data(view)) if as_json else _console().print(study_table(view, top))


@app.command("list")
def list_(
    experiment_name: Annotated[str | None, typer.Option(help="Only the studies of this MLflow experiment.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the studies in the tracking store, the latest first."""
    from mltune.studies import list_studies
    from mltune.terminal.tables import list_data, list_table

    with _store() as store:
        studies = list_studies(store, experiment_name)
    _print_json(list_data(studies)) if as_json else _console().print(list_table(studies))


@app.command()
def report(run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="The study's parent run.")]) -> None:
    """Make a study's report (again), as artifacts `report/` of its run: charts, leaderboard, picture."""
    from mltune.report import missing
    from mltune.report.read import read_view
    from mltune.report.write import FOLDER, write_report

    if sentences := missing():
        raise MissingPackageError(sentences)
    with _store() as store:
        write_report(store.client, read_view(store.client, run_id))
    print(f"study {run_id} has a new report: artifacts {FOLDER}/ of its run")


@app.command()
def delete(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="The study's parent run.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a study: its runs, models and artifacts, but no model that is registered."""
    from mltune.tracking.delete import remove_study
    from mltune.tracking.reader import read_study

    with _store() as store:
        record = read_study(store.client, run_id)
    if not yes:
        what = f"study {record.name} with {len(record.trials)} trials, their models and artifacts"
        typer.confirm(f"Delete {what}? This cannot be undone.", abort=True)
    with _store() as store:
        removed = remove_study(store.client, run_id)
    stays = f"; registered models stay, and their runs: {', '.join(removed.kept)}" if removed.kept else ""
    print(f"study {run_id} is deleted{stays}")
    if removed.undeleted:
        raise MltuneError("the store must delete artifacts, but these stay: " + ", ".join(removed.undeleted))


def _store() -> contextlib.AbstractContextManager[Store]:
    from mltune.tracking import connection

    return connection.reading()


def _console() -> Console:
    from rich.console import Console

    return Console(soft_wrap=True, highlight=False, markup=False, emoji=False)


def _print_json(data: Any) -> None:
    import json

    print(json.dumps(data, indent=2, allow_nan=False))


@app.command()
def engines() -> None:
    """List the engines, with what they offer."""
    from mltune.engines import list_engines
    from mltune.terminal.tables import engine_table

    _console().print(engine_table(list_engines()))


def main(arguments: list[str] | None = None) -> None:
    """The ``mltune`` command: 0 done, 1 the study failed, 2 the request was wrong, 130 or 143 interrupted."""
    code = _exit_code(arguments)
    gc.freeze()  # Python looks for cycles at its end: a second, after MLflow
    sys.exit(code)


def _exit_code(arguments: list[str] | None) -> int:
    try:
        return app(arguments, standalone_mode=False) or 0
    except RequestError as error:
        return _say(error.faults, 2)
    except MltuneError as error:
        return _say([str(error)], 1)
    except typer.Abort:
        return _say(["aborted"], 1)
    except _UsageError as error:
        usage = [error.ctx.get_usage()] if error.ctx is not None else []
        return _say([error.format_message(), *usage], 2) if error.format_message() else 2


def _say(lines: Any, code: int) -> int:
    for line in lines:
        print(f"mltune: {redact(line)}", file=sys.stderr)
    return code
