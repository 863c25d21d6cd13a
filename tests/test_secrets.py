"""Credentials appear in nothing that a study leaves behind, and in nothing that it says."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

import mltune
from mltune._util.redaction import redact
from mltune.cli import main
from tests.servers import Server

IN_ADDRESS = "Gr4nite-in-the-address"
IN_VARIABLE = "b4salt-in-a-variable"
IN_TRACEBACK = "m4rble-in-a-traceback"
IN_PROJECT = "sl4te-in-the-project"
SECRETS = (IN_ADDRESS, IN_VARIABLE, IN_TRACEBACK, IN_PROJECT)

STUDY = """
objective: objective:train
name: secretive
direction: minimize
algorithm: random
n_trials: 6
seed: 1
registered_model_name: secretive
space:
  x: {type: float, low: 0, high: 1}
"""

OBJECTIVE = f"""
import os
import mlflow
from sklearn.linear_model import LinearRegression

def train(trial):
    mlflow.log_metric("seen", 1.0)
    if trial.number == 1:
        raise RuntimeError("no connection to postgres://admin:{IN_TRACEBACK}@db/x, " + os.environ["WAREHOUSE_TOKEN"])
    if trial.number == 2:
        raise RuntimeError('refused: {{"password": "{IN_TRACEBACK}"}} Authorization: Bearer {IN_TRACEBACK}')
    trial.log_model(LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]), input_example=[[0.5]])
    return trial.params["x"]
"""


SCRIPT = """
import mltune
mltune.tune(lambda trial: 1.0, {"x": mltune.Float(0, 1)}, direction="minimize", n_trials=1)
"""


@pytest.fixture
def secret_uri(server: tuple[str, Server]) -> str:
    """A tracking server's address with a password in it."""
    return server[0].replace("://", f"://bob:{IN_ADDRESS}@")


Say = Callable[..., tuple[int, str]]


@pytest.fixture
def say(chdir: Path, tracking_uri: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Say:
    """A command's exit code in the current folder, and all that it said; without arguments, that of a script."""

    def say(uri: str, *arguments: str) -> tuple[int, str]:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setenv("WAREHOUSE_TOKEN", IN_VARIABLE)
        monkeypatch.setenv("MLTUNE_REPORT", "true")
        mlflow.set_tracking_uri(uri)
        capfd.readouterr()
        code: str | int | None = 0
        try:
            main(list(arguments)) if arguments else exec(SCRIPT, {})
        except SystemExit as error:
            code = error.code
        except BaseException:
            traceback.print_exc()
            code = 1
        out, err = capfd.readouterr()
        return int(code or 0), out + err

    return say


def leaks(files: Mapping[str, bytes]) -> list[str]:
    return [f"{secret} in {name}" for name, text in files.items() for secret in SECRETS if secret.encode() in text]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.processes
def test_nothing_that_a_study_leaves_or_says_holds_a_secret(
    server: tuple[str, Server], secret_uri: str, say: Say, chdir: Path
) -> None:
    client = MlflowClient(tracking_uri=secret_uri)
    experiment = client.create_experiment("secretive")
    (chdir / "study.yaml").write_text(STUDY)
    (chdir / "objective.py").write_text(OBJECTIVE)
    code, said = say(secret_uri, "run", "study.yaml", "--experiment-name", "secretive")
    assert code == 0, said
    assert "6 trials: 4 complete, 2 failed" in said
    store = server[1].folder
    files = contents(store / "artifacts" / experiment)
    assert {Path(name).name for name in files} >= {"report.html", "traceback.txt", "study.yaml"}
    tracebacks = [text.decode() for name, text in files.items() if name.endswith("traceback.txt")]
    assert any("no connection to postgres://db/x, ***" in text for text in tracebacks)
    (parent,) = client.search_runs([experiment], "tags.`mltune.kind` = 'study'")
    run_id = parent.info.run_id
    for command in ("show", "report", "resume"):
        code, shown = say(secret_uri, command, run_id)
        assert code == 0, shown
        assert leaks({command: shown.encode()}) == []
    (chdir / "objective.py").unlink()  # it holds what it is to leak
    shutil.rmtree(chdir / "__pycache__", ignore_errors=True)
    assert (store / "mlflow.db").exists()
    assert leaks(contents(store) | contents(chdir) | {"what was said": said.encode()}) == []


@pytest.mark.processes
def test_a_token_in_the_projects_address_is_taken_out(
    tracking_uri: str, say: Say, chdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(tracking_uri=tracking_uri)
    source = f"https://oauth2:{IN_PROJECT}@git.example/project.git"
    experiment = client.create_experiment("a project's")
    parent = client.create_run(experiment, tags={"mlflow.source.name": source, "mlflow.project.entryPoint": "main"})
    (chdir / "study.yaml").write_text(STUDY)
    (chdir / "objective.py").write_text("def train(trial):\n    return trial.params['x']\n")
    monkeypatch.setenv("MLFLOW_RUN_ID", parent.info.run_id)
    code, said = say(tracking_uri, "run", "study.yaml", "--registered-model-name", "plain")
    assert code == 1  # it logs no model to register
    tags = client.get_run(parent.info.run_id).data.tags
    assert tags["mlflow.source.name"] == "https://git.example/project.git"
    assert leaks({"tags": str(tags).encode(), "said": said.encode()}) == []


@pytest.mark.processes
@pytest.mark.parametrize("arguments", [["list"], []], ids=["command", "script"])
def test_a_server_that_is_away(arguments: list[str], say: Say) -> None:
    code, said = say(f"http://bob:{IN_ADDRESS}@127.0.0.1:9", *arguments)
    assert code != 0
    assert "the tracking server must answer, but http://127.0.0.1:9 did not" in said
    assert leaks({"said": said.encode()}) == []


@pytest.mark.processes
def test_a_server_that_refuses(secret_uri: str, say: Say) -> None:
    """An error of MLflow's that names the address is not shown as the cause of ours."""
    code, said = say(f"{secret_uri}/nowhere")
    assert code == 1
    assert "StoreUnavailableError: the tracking store " in said
    assert leaks({"said": said.encode()}) == []


def test_wrong_requests_do_not_repeat_secrets(say: Say, chdir: Path) -> None:
    (chdir / "study.yaml").write_text(STUDY + f"experiment_name: {{password: {IN_TRACEBACK}}}\n")
    words = ["--password", IN_TRACEBACK], [f"--password={IN_TRACEBACK}"], [f"password={IN_TRACEBACK}"]
    for options in ([], *words):
        code, said = say("sqlite:///x.db", "run", "study.yaml", *options)
        assert code == 2
        assert leaks({"said": said.encode()}) == []
    with pytest.raises(mltune.RequestError) as caught:
        mltune.tune(lambda trial: 1.0, {"x": {"type": f"token={IN_TRACEBACK}"}}, direction="minimize", n_trials=1)
    assert leaks({"error": str(caught.value).encode()}) == []


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("http://bob:s3cret@host:5000/x and https://tok@h", "http://host:5000/x and https://h"),
        ("password=hunter22&x=1", "password=***&x=1"),
        ('{"api_key": "abcd1234", "x": 1}', '{"api_key": "***", "x": 1}'),
        ("AWS_SECRET_ACCESS_KEY: abcd1234", "AWS_SECRET_ACCESS_KEY: ***"),
        ("Authorization: Bearer abcd1234efgh", "Authorization: Bearer ***"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
        ("http://bob:p@ss@host and postgresql://u:pa'ss@h", "http://host and postgresql://h"),
        ("api_key=12345678-90ab-cdef password=2024-Secret!x", "api_key=*** password=***"),
        ("""password="my secret pass", token='a,bcdefg'""", """password="***", token='***'"""),
        ("Authorization: token abcd1234 AccountKey=abcd1234==", "Authorization: token *** AccountKey=***"),
        ("space.api_key: must be one of a, b", "space.api_key: must be one of a, b"),
        ("max_tokens=512, token=3, lr=1e-3, mail me@host", "max_tokens=512, token=3, lr=1e-3, mail me@host"),
        ("space.token: `low` must be a number", "space.token: `low` must be a number"),
        ("password=12345678 api_key = 1234567890", "password=*** api_key = ***"),
        ("AWS_SECRET_ACCESS_KEY: abcdefgh", "AWS_SECRET_ACCESS_KEY: ***"),
        ("mysql --host h --db-password hunter2 -v", "mysql --host h --db-password *** -v"),
        ("--token-limit 5000, pad_token=1000", "--token-limit 5000, pad_token=1000"),
    ],
)
def test_redact(text: str, redacted: str) -> None:
    assert redact(text) == redacted


def test_values_of_secret_variables_are_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    monkeypatch.setenv("MY_TOKENIZER", "word-piece")
    monkeypatch.setenv("DB_PASSWORD", "abc")  # too short: it may be part of any word
    monkeypatch.setenv("POSTGRES_PASSWORD", "postgres")
    monkeypatch.setenv("LLM_MAX_TOKENS", "128000")
    assert redact("hf_0123456789 word-piece abc") == "*** word-piece abc"
    assert redact("postgresql://h/x as postgres, n=128000") == "postgresql://h/x as ***, n=128000"


def test_long_texts_are_redacted_at_once() -> None:
    """Each takes minutes where names are looked for with a pattern that begins anywhere."""
    for text in ("a-" * 100_000, "-" * 200_000, "=" * 200_000, "token" * 50_000, " " * 200_000):
        assert redact(text) == text
