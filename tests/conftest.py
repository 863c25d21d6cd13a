"""Shared fixtures: a real MLflow on SQLite, fresh for every test, and nothing written outside of `tmp_path`."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from contextlib import chdir as chdir_to
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from tests.drivers import Drivers, Zygote, zygote
from tests.recorded import record
from tests.servers import Server, ray_cluster, tracking_server
from tests.shared import copy_store, make_once, move_store
from tests.store import forget_tracking_uri

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ["MLTUNE_REPORT"] = "false"  # a second or more for each study; tests of reports turn them on


_HEAVY_MARKS = ("processes", "alone", "slow", "chaos")
_HEAVY_FIXTURES = {"server", "cluster", "join_ray", "warm", "drivers", "workers"}
_is_light = False


def _refuse_processes(event: str, arguments: tuple[Any, ...]) -> None:
    if not (_is_light and event == "subprocess.Popen"):
        return
    command = [os.fsdecode(each) for each in arguments[1]]
    python = Path(command[0]).name.startswith("python")
    if python and any(each == "-m" or each.endswith(".py") or "mltune.worker" in each for each in command):
        raise AssertionError("a test that starts workers or commands must be marked `processes` or `alone`")


sys.addaudithook(_refuse_processes)


def _is_marked(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) for name in _HEAVY_MARKS)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files of long tests before those of short ones, so that the processes of a parallel run end together."""
    for item in items:
        if not _is_marked(item) and _HEAVY_FIXTURES & {*getattr(item, "fixturenames", ())}:
            raise pytest.UsageError(f"{item.nodeid} uses processes: mark it `processes` or `alone`")
        if "cluster" in getattr(item, "fixturenames", ()) and not _uses_ray(item.nodeid):
            raise pytest.UsageError(f"{item.nodeid} uses Ray: its name must say so")
    long = Counter(item.path for item in items if item.get_closest_marker("processes"))
    items.sort(key=lambda item: (not _uses_ray(item.nodeid), -long[item.path]))


class RayTogether(LoadScopeScheduling):  # type: ignore[misc]
    """Runs the tests of each file in one process, but for those that use Ray; `--dist loadgroup`.

    Of these, the tests of the executor run in one process and those of studies in another, for a Ray takes seconds to
    start. xdist's own groups come to nothing with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if not _uses_ray(nodeid):
            return file
        return "ray" if file.startswith("tests/execution/") else "studies on ray"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    return RayTogether(config, log) if config.getvalue("dist") == "loadgroup" else None


def _uses_ray(nodeid: str) -> bool:
    return re.search(r"(?<![a-z])ray(?![a-z])", nodeid) is not None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Keep the marks true that `make test-fast` and the two phases of `make test` go by."""
    global _is_light
    _is_light = not _is_marked(item)
    try:
        return (yield)
    finally:
        _is_light = False


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an empty MLflow store, made once: its migrations take over a second.

    Use a copy by `copy_store`: runs of the database itself, or of a plain copy of it, write into this folder.
    """
    return make_once(tmp_path_factory, "empty", _migrate)


def _migrate(folder: Path) -> None:
    path = folder / "mlflow.db"
    with chdir_to(folder):  # MLflow makes its folder `mlruns` where it stands
        MlflowClient(tracking_uri=f"sqlite:///{path}").get_experiment("0")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")  # as mltune sets it in a database that is not there before


@pytest.fixture
def chdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`tmp_path`, as the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tracking_uri(
    request: pytest.FixtureRequest, empty_store: Path, chdir: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The address of a fresh store in `tmp_path`, set in MLflow and in the environment.

    It is empty, or holds the studies that the test's mark `recorded` names.
    """
    import mlflow

    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)
    marker = request.node.get_closest_marker("recorded")
    source = empty_store
    if marker is not None:
        factory = request.getfixturevalue("tmp_path_factory")
        kind = marker.args[0]
        source = make_once(factory, f"recorded-{kind}", lambda folder: record(kind, folder, empty_store))
    uri = copy_store(source, chdir)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    _forget_artifacts()
    yield uri
    _reset_mlflow()


@pytest.fixture
def client(tracking_uri: str) -> MlflowClient:
    """A client of the fresh store."""
    return MlflowClient(tracking_uri=tracking_uri)


@pytest.fixture
def recorded_study(client: MlflowClient) -> str:
    """The run id of the study that the test's mark `recorded` names."""
    (parent,) = client.search_runs(["0"], "tags.`mltune.kind` = 'study'")
    return str(parent.info.run_id)


@pytest.fixture
def first_release(tracking_uri: str, chdir: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The run ids of the studies that the first release recorded, by name; their store is set in MLflow."""
    import mlflow

    shutil.unpack_archive(Path(__file__).parent / "data" / "first-release.zip", chdir / "first-release")
    uri = move_store(Path("/first-release"), chdir / "first-release")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    studies = MlflowClient().search_runs(["0"], "tags.`mltune.kind` = 'study'")
    return {str(run.info.run_name): str(run.info.run_id) for run in studies}


def _forget_artifacts() -> None:
    """MLflow remembers a run's artifact folder by the run's id, which copies of a recorded store share."""
    from mlflow.tracking._tracking_service import utils

    utils._artifact_repos_cache.clear()


def _reset_mlflow() -> None:
    """Forget what MLflow keeps per process: addresses, experiment, active runs, autologging."""
    import mlflow
    from mlflow.tracking import fluent

    mlflow.autolog(disable=True, silent=True)
    mlflow.sklearn.autolog(disable=True, silent=True)  # the line above does not undo what is enabled by itself
    while mlflow.active_run() is not None:
        mlflow.end_run()
    fluent._active_experiment_id = None
    mlflow.set_registry_uri("")
    forget_tracking_uri()
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_REGISTRY_URI"):
        os.environ.pop(name, None)


LOAD = """
import json, sys
class NoMltune:
    def find_spec(self, name, path=None, target=None):
        assert name.partition(".")[0] != "mltune", "the model imports mltune"
sys.meta_path.insert(0, NoMltune())
import mlflow, numpy, pandas
answers = []
for uri, path, kind in json.loads(sys.argv[1]):
    rows = pandas.read_json(path, orient="split", precise_float=True)
    if kind == "array":
        rows = rows.to_numpy(dtype="float32")
    answers.append(numpy.asarray(mlflow.pyfunc.load_model(uri).predict(rows)).tolist())
print(json.dumps(answers))
"""

PredictEach = Callable[..., list[list[float]]]
Predict = Callable[..., list[float]]


@pytest.fixture
def predict_each_elsewhere(tracking_uri: str, tmp_path: Path) -> PredictEach:
    """Load models in an empty folder, in a process that cannot import mltune, and predict; pairs of model and rows."""

    def predict(*asked: tuple[str, Any], kind: str = "frame") -> list[list[float]]:
        empty = tmp_path / "empty"
        empty.mkdir(exist_ok=True)
        questions = []
        for number, (uri, rows) in enumerate(asked):
            path = tmp_path / f"rows-{number}.json"
            path.write_text(rows.to_json(orient="split"))
            questions.append((uri, str(path), kind))
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MLFLOW_TRACKING_URI": tracking_uri}
        command = [sys.executable, "-c", LOAD, json.dumps(questions)]
        done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert list(empty.iterdir()) == []
        return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]

    return predict


@pytest.fixture
def predict_elsewhere(predict_each_elsewhere: PredictEach) -> Predict:
    """The same for one model."""
    return lambda uri, rows, kind="frame": predict_each_elsewhere((uri, rows), kind=kind)[0]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[tuple[str, Server]]:
    """A tracking server, which also has the artifacts, for all tests that do not test a server's life."""
    folder = tmp_path_factory.mktemp("server")
    copy_store(empty_store, folder)
    with tracking_server(folder, folder / "mlflow.db") as server:
        yield server


@pytest.fixture(scope="session")
def cluster() -> Iterator[dict[str, str]]:
    """The variables by which a Ray is joined that is no study's own, for all tests that do not test a Ray's life."""
    with ray_cluster() as variables:
        yield variables


@pytest.fixture(scope="session")
def join_ray(cluster: dict[str, str]) -> Callable[[], AbstractContextManager[None]]:
    """Within the block that it makes, studies of this process join a Ray that runs already."""
    from mltune.execution.ray.cluster import _forget_token

    @contextmanager
    def join() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in cluster.items():
                patch.setenv(name, value)
            _forget_token()
            yield
        _forget_token()

    return join


@pytest.fixture
def joined_ray(join_ray: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Have the studies of this test, and of the drivers that it starts, join a Ray that runs already."""
    with join_ray():
        yield


@pytest.fixture(scope="session")
def warm() -> Iterator[Zygote]:
    """The process that drivers are forked from."""
    with zygote() as process:
        yield process


@pytest.fixture
def drivers(warm: Zygote, tracking_uri: str, chdir: Path) -> Iterator[Drivers]:
    """Starts drivers in `tmp_path`, with the fresh store; those that the test leaves behind are killed."""
    with closing(Drivers(warm, chdir, {"MLFLOW_TRACKING_URI": tracking_uri})) as made:
        yield made
