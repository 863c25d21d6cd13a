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


def move_artifacts(database: Path, old: Path, new: Path) -> None:
    """Make a copied MLflow database name the artifacts that were copied with it."""
    with closing(sqlite3.connect(database)) as connection, connection:
        for table, columns in _PLACES.items():
            for column in columns:
                update = f"UPDATE {table} SET {column} = REPLACE({column}, ?, ?)"
                connection.execute(update, (f"{old}/", f"{new}/"))
