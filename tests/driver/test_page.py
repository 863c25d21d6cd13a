"""What a study's run shows in MLflow: description, report, leaderboard, picture."""

from __future__ import annotations

import csv
import io
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

import mltune
from mltune import Categorical, TrialState
from mltune._util.timing import Timing
from mltune.cli import main
from mltune.driver.refresher import Refresher
from mltune.report._timeline import lanes
from mltune.report.read import read_view
from mltune.tracking.reader import read_study
from tests.drivers import wait_for
from tests.recorded import SPACE
from tests.recorded import reports as objective

TITLES = (
    "Optimisation history",
    "Parameter importances",
    "Parallel coordinates",
    "Slices",
    "Intermediate values",
    "Failures by reason",
    "Timeline of workers",
    "Leaderboard",
)


@pytest.fixture(autouse=True)
def with_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLTUNE_REPORT", "true")


def tune(objective: Any = objective, **arguments: Any) -> mltune.StudyResult:
    defaults: dict[str, Any] = {"direction": "minimize", "n_trials": 18, "seed": 1, "scheduler": "asha"}
    return mltune.tune(objective, SPACE, **defaults | {"executor": "inline", "quiet": True} | arguments)


def artifact(client: MlflowClient, run_id: str, name: str) -> str:
    return Path(client.download_artifacts(run_id, name)).read_text(encoding="utf-8")


def description(client: MlflowClient, run_id: str) -> str:
    return str(client.get_run(run_id).data.tags["mlflow.note.content"])


def best_trial(client: MlflowClient, study: str) -> mltune.FrozenTrial:
    """What the store says that is the best."""
    record = read_study(client, study)
    best = record.tags["best_run_id"]
    return next(trial for trial in record.trials if trial.run_id == best)


@pytest.mark.recorded("finished")
def test_the_report_of_a_study(client: MlflowClient, recorded_study: str) -> None:
    names = {each.path for each in client.list_artifacts(recorded_study, "report")}
    assert names == {"report/report.html", "report/leaderboard.csv", "report/history.png"}
    html = artifact(client, recorded_study, "report/report.html")
    assert re.findall(r"<h2>(.*?)</h2>", html) == list(TITLES)
    (seconds,) = re.findall(r"COMPLETE: 18 of 18 trials: .*, in (\d+\.\d) s\.", html)
    assert float(seconds) > 0.0
    assert "tracking took 0 ms" not in html
    assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)=", html)
    picture = Path(client.download_artifacts(recorded_study, "report/history.png")).read_bytes()
    assert picture.startswith(b"\x89PNG")


@pytest.mark.recorded("finished")
def test_the_leaderboard_has_every_trial_from_the_best(client: MlflowClient, recorded_study: str) -> None:
    best = best_trial(client, recorded_study)
    rows = list(csv.DictReader(io.StringIO(artifact(client, recorded_study, "report/leaderboard.csv"))))
    assert len(rows) == 18
    complete = [row for row in rows if row["state"] == "COMPLETE"]
    assert rows[: len(complete)] == complete
    assert [int(row["rank"]) for row in complete] == list(range(1, len(complete) + 1))
    values = [float(row["value"]) for row in complete]
    assert values == sorted(values)
    assert int(rows[0]["trial"]) == best.number
    assert float(rows[0]["params.rate"]) == best.params["rate"]
    assert {row["reason"] for row in rows if row["state"] == "FAILED"} == {"exception"}


@pytest.mark.recorded("finished")
def test_the_description_of_a_finished_study(client: MlflowClient, recorded_study: str) -> None:
    text = description(client, recorded_study)
    best = best_trial(client, recorded_study)
    assert text.startswith("**mltune: COMPLETE** — 18 of 18 trials: ")
    assert f"[trial {best.number}](#/experiments/0/runs/{best.run_id}) with **{best.value:g}**" in text
    assert "Engine optuna, algorithm tpe, scheduler asha, seed 1." in text
    assert f"(#/experiments/0/runs/{recorded_study}/artifacts/report/report.html)" in text
    assert f'mltune.resume("{recorded_study}", objective, n_trials=36)' in text
    assert "mlflow models serve" not in text


def test_the_description_says_what_extends_a_study_that_a_timeout_ended(client: MlflowClient) -> None:
    def slow(trial: mltune.Trial) -> float:
        time.sleep(0.2)
        return float(trial.params["x"])

    result = tune(slow, n_trials=None, timeout=1.0, scheduler="none")
    (timeout,) = re.findall(r"objective, timeout=(\d+)\)", description(client, result.run_id))
    assert len(mltune.resume(result.run_id, slow, timeout=timeout, quiet=True).trials) > len(result.trials)
    both = description(client, tune(slow, n_trials=1, timeout=0.1, scheduler="none").run_id)
    assert re.search(r"objective, n_trials=2, timeout=\d+\)", both)


def test_the_description_of_a_running_study(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mltune._util.timing.TIMING", Timing(renew_every=0.1, describe_every=0.1))
    seen = []

    def look() -> bool:
        (parent,) = client.search_runs(["0"], "tags.`mltune.kind` = 'study'")
        seen.append(parent.data.tags.get("mlflow.note.content", ""))
        return "s left (as of" in seen[-1]

    def waits(trial: mltune.Trial) -> float:
        if trial.number == 5:
            wait_for(look)
        return float(trial.params["x"])

    tune(waits, n_trials=6, scheduler="none")
    assert seen[-1].startswith("**mltune: RUNNING** — ")
    assert re.search(r"of 6 trials: \d complete, in .* s; about .* s left \(as of .* UTC\)", seen[-1])
    assert "Best (minimize value): [trial " in seen[-1]


def test_what_people_write_above_stays(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tune(n_trials=3).run_id
    notes = "Our first try with **mltune: the tool**.\n\nMore notes.\n\n"
    client.set_tag(study, "mlflow.note.content", notes + description(client, study))
    mltune.resume(study, objective, n_trials=4, quiet=True)
    text = description(client, study)
    assert text.startswith(f"{notes}**mltune: COMPLETE** — 4 of 4 trials")
    assert text.count("\n**mltune: ") == 1


def test_a_study_that_failed_has_a_report_too(client: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(trial: mltune.Trial) -> float:
        raise ValueError("never")

    with pytest.raises(mltune.StudyFailedError) as caught:
        tune(fails, quiet=False)
    html = artifact(client, caught.value.run_id, "report/report.html")
    assert re.findall(r"<h2>(.*?)</h2>", html) == [
        "Worth a look",
        "Failures by reason",
        "Timeline of workers",
        "Leaderboard",
    ]
    text = description(client, caught.value.run_id)
    assert text.startswith("**mltune: FAILED** — 5 of 18 trials: 5 failed")
    assert "- the first 5 of 5 trials failed and none completed; the last one: " in text
    (warning,) = re.findall(r"<li>(5 of 5 .*?)</li>", html)
    assert f"- {warning}" in text
    assert f"note: {warning}" in capsys.readouterr().out


def test_a_study_whose_best_model_is_missing_has_a_report_too(client: MlflowClient) -> None:
    with pytest.raises(mltune.StudyFailedError, match="nothing was registered") as caught:
        tune(registered_model_name="none-there")
    assert "<h2>Slices</h2>" in artifact(client, caught.value.run_id, "report/report.html")


def test_a_chart_that_cannot_be_drawn_does_not_cost_the_others(client: MlflowClient) -> None:
    def diverges(trial: mltune.Trial) -> float:
        return {1: 1.7e308, 2: -1.7e308}.get(trial.number, float(trial.params["x"]))

    html = artifact(client, tune(diverges, n_trials=12).run_id, "report/report.html")
    assert "A chart is missing" in html
    assert "<h2>Timeline of workers</h2>" in html


def test_a_report_that_cannot_be_made_does_not_fail_the_study(
    client: MlflowClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mlruns" / "0").mkdir(parents=True)

    def in_the_way(trial: mltune.Trial) -> float:
        (parent,) = client.search_runs(["0"], "tags.`mltune.kind` = 'study'")
        Path(parent.info.artifact_uri, "report").touch()
        return float(trial.params["x"])

    result = tune(in_the_way, n_trials=1, quiet=False)
    assert result.state is TrialState.COMPLETE
    said = capsys.readouterr().out
    assert re.search(r"note: no report was made \(\w+Error: ", said)
    assert f"make it with: mltune report {result.run_id}" in said


@pytest.mark.recorded("finished")
@pytest.mark.parametrize("study_file", ["foreign", "gone"])
def test_a_report_of_an_old_study_of_a_foreign_engine(
    study_file: str, client: MlflowClient, recorded_study: str, capsys: pytest.CaptureFixture[str]
) -> None:
    client.set_tag(recorded_study, "mltune.engine", "nevergrad")
    folder = Path(client.get_run(recorded_study).info.artifact_uri)
    (folder / "report" / "report.html").unlink()
    if study_file == "foreign":
        text = (folder / "study.yaml").read_text()
        (folder / "study.yaml").write_text(text.replace("engine: optuna", "engine: nevergrad"))
    else:
        (folder / "study.yaml").unlink()
    with pytest.raises(SystemExit, match="0"):
        main(["report", recorded_study])
    html = artifact(client, recorded_study, "report/report.html")
    assert "engine nevergrad" in html
    assert "<h2>Slices</h2>" in html
    assert capsys.readouterr().out == f"study {recorded_study} has a new report: artifacts report/ of its run\n"


def test_errors_that_are_no_text_or_no_end_do_not_stop_the_description(client: MlflowClient) -> None:
    def fails(trial: mltune.Trial) -> float:
        raise ValueError("caf\udcff" + "x" * 9000)

    with pytest.raises(mltune.StudyFailedError) as caught:
        tune(fails)
    assert client.get_run(caught.value.run_id).data.tags["mltune.state"] == "FAILED"
    text = description(client, caught.value.run_id)
    assert text.startswith("**mltune: FAILED** — 5 of 18 trials")
    assert "caf\\udcff" in text


@pytest.mark.recorded("finished")
def test_the_timeline_of_a_study_that_was_cut_off(client: MlflowClient, recorded_study: str) -> None:
    view = read_view(client, recorded_study)
    first = view.record.attempts[0][0]
    cut = replace(first, state=TrialState.INTERRUPTED, duration=None)
    record = replace(view.record, attempts={0: [cut, first], **{n: view.record.attempts[n] for n in range(1, 18)}})
    ends = [bar.start + bar.seconds for bar in lanes(replace(view, record=record))]
    assert max(ends) <= max(view.record.ended.values()) + 1.0
    opened = replace(record, ended={}, tags={**record.tags, "state": "RUNNING"})
    assert max(bar.start + bar.seconds for bar in lanes(replace(view, record=opened))) < time.time() + 1.0


def test_names_are_no_markup(client: MlflowClient) -> None:
    evil = "<script>alert(1)</script>"
    result = mltune.tune(
        lambda trial: float(trial.number),
        {"kind": Categorical([evil, "b"])},
        direction="minimize",
        n_trials=4,
        name=f"study {evil}",
        executor="inline",
        quiet=True,
    )
    html = artifact(client, result.run_id, "report/report.html")
    assert "<script>alert" not in html
    assert "study &lt;script&gt;alert(1)" in html


def busy_after(refresher: Refresher, study: str) -> bool:
    """Let the refresher attend to the study, and return whether it then makes a report."""
    refresher.tick(study)
    return refresher.busy


@pytest.mark.processes
@pytest.mark.recorded("finished")
def test_a_report_is_refreshed_so_seldom_that_it_costs_a_hundredth(
    client: MlflowClient, tracking_uri: str, recorded_study: str
) -> None:
    study = recorded_study
    html = Path(client.get_run(study).info.artifact_uri) / "report" / "report.html"
    html.unlink()
    patient = Refresher({"MLFLOW_TRACKING_URI": tracking_uri})
    patient.tick(study)
    assert not patient.busy
    eager = Refresher({"MLFLOW_TRACKING_URI": tracking_uri}, share=1e9)
    eager.tick(study)
    assert eager.busy
    wait_for(html.exists, 240)
    wait_for(lambda: not busy_after(eager, study), 240)
    eager.tick(study)
    wait_for(lambda: eager.busy, 60)
    eager.cancel()
    assert not eager.busy
    assert not patient.busy


@pytest.mark.processes
def test_a_study_has_a_report_while_it_runs(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def waits(trial: mltune.Trial) -> float:
        if trial.number == 2:
            (parent,) = client.search_runs(["0"], "tags.`mltune.kind` = 'study'")
            html = Path(parent.info.artifact_uri, "report", "report.html")
            wait_for(lambda: html.exists() and html.read_text(encoding="utf-8").rstrip().endswith("</html>"), 240)
            seen.append(html.read_text(encoding="utf-8"))
        return float(trial.params["x"])

    seen: list[str] = []
    monkeypatch.setattr("mltune.driver.refresher._FIRST", 0.0)
    result = tune(waits, n_trials=3)
    assert re.search(r"RUNNING: \d of 3 trials", seen[0])
    assert "COMPLETE: 3 of 3 trials" in artifact(client, result.run_id, "report/report.html")


@pytest.mark.processes
@pytest.mark.recorded("finished")
def test_the_next_refresh_waits_for_as_long_as_the_last_one_allows(
    tracking_uri: str, recorded_study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = recorded_study
    monkeypatch.setattr("mltune.driver.refresher._FIRST", 0.0)
    refresher = Refresher({"MLFLOW_TRACKING_URI": tracking_uri}, share=0.5)
    began = time.monotonic()
    refresher.tick(study)
    assert refresher.busy
    wait_for(lambda: not busy_after(refresher, study), 240)
    ended = time.monotonic()
    wait_for(lambda: busy_after(refresher, study), 600)
    assert time.monotonic() - ended >= 1.9 * (ended - began)
    refresher.cancel()
