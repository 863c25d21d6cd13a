"""What the processes of one run of the suite share: made by the first that needs it, read by all."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

# where MLflow's tables hold addresses of artifacts
_PLACES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
    "tags": ("value",),
}


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder that one process of this run of the suite fills, while the others wait."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"shared-{name}"
    folder.mkdir(exist_ok=True)
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".made").exists():
            for left in folder.glob("[!.]*"):  # by one that failed over it
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            make(folder)
            (folder / ".made").touch()
    return folder


def copy_store(source: Path, folder: Path) -> str:
    """Copy an MLflow database and the artifacts beside it to another folder; the copy's address."""
    shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "*.db-*"))
    return move_store(source, folder)


def move_store(source: Path, folder: Path) -> str:
    """Have a store that stands in another folder now find its artifacts there; its address."""
    database = folder / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        for table, columns in _PLACES.items():
            for column in columns:
                update = f"UPDATE {table} SET {column} = REPLACE({column}, ?, ?)"
                connection.execute(update, (f"{source}/", f"{folder}/"))
    return f"sqlite:///{database}"
