"""What people see in MLflow's own UI, in a real browser; its pictures are the README's (`make screenshot`)."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest
from mlflow import MlflowClient
from playwright.sync_api import Browser, FrameLocator, Page

import mltune
from mltune import Categorical, Direction, Float, FrozenTrial, Int, Reason, SearchSpace, TrialState
from mltune.cli import main
from mltune.report.view import View
from mltune.report.write import write_files
from mltune.tracking.reader import StudyRecord
from tests.browser import browser, page
from tests.servers import Server

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[1]
CHARTS = 6  # of a study whose trials report, none of which failed
SHAPES = ".trace .points path, .trace .lines path, .trace .point path"  # dots, lines and bars


@dataclass
class Seen:
    """A study on a server, and a browser to look at it.

    Attributes:
        said: What the command printed.
        pictures: Where screenshots go.
    """

    address: str
    run_id: str
    said: str
    browser: Browser
    pictures: Path


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, server: tuple[str, Server]) -> Iterator[Seen]:
    """The digits study, by the command, on a real server."""
    folder = tmp_path_factory.mktemp("seen")
    pictures = Path(os.environ.get("MLTUNE_PICTURES", folder)).absolute()
    address, said = server[0], StringIO()
    command = ["run", str(ROOT / "projects" / "digits" / "study.yaml"), "--experiment-name", "digits"]
    with browser() as started:
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
            patch.chdir(folder)
            patch.setenv("MLFLOW_TRACKING_URI", address)
            patch.setenv("MLTUNE_REPORT", "true")
            with pytest.raises(SystemExit, match=r"^0$"):
                main([*command, "--n-trials", "12"])  # one at a time: the same trials each time
        (run_id,) = re.findall(r", run (\w{32})$", said.getvalue().splitlines()[0])
        yield Seen(address, run_id, said.getvalue(), started, pictures)


def close_assistant(page: Page) -> None:
    page.get_by_role("button", name="Close").click()


def link(said: str, beginning: str) -> str:
    """The address in a line of the output."""
    (found,) = re.findall(rf"^{beginning}: (http\S+)$", said, re.MULTILINE)
    return str(found)


def await_charts(report: FrameLocator | Page) -> None:
    """Scroll through a report until all its charts are drawn, with something in each."""
    report.locator(".chart .main-svg").first.wait_for()
    for chart in report.locator(".chart").all():
        chart.scroll_into_view_if_needed()
        chart.locator(SHAPES).first.wait_for(state="attached")


def test_the_study_page(seen: Seen) -> None:
    with page(seen.browser, height=700) as window:
        window.goto(link(seen.said, "view"))
        close_assistant(window)
        best = window.get_by_role("link", name=re.compile(r"^trial \d+$"))
        best.wait_for()
        window.get_by_text("mltune: COMPLETE", exact=True).wait_for()
        window.get_by_text("Show more").first.click()
        window.screenshot(path=seen.pictures / "study.png")
        with window.expect_popup() as opened:
            best.click()
        opened.value.get_by_role("heading", name=re.compile(r"^\d{4}-digits$")).wait_for()


def test_the_report_is_drawn_without_network(seen: Seen, tmp_path: Path) -> None:
    with page(seen.browser, height=1000) as window:
        window.goto(link(seen.said, "view"))
        close_assistant(window)
        with window.expect_popup() as opened:
            window.get_by_role("link", name="Report", exact=True).click()
        report = opened.value.frame_locator("iframe")
        await_charts(report)
        assert report.locator(".chart").count() == CHARTS
        report.get_by_role("heading", name="digits").scroll_into_view_if_needed()
        opened.value.screenshot(path=seen.pictures / "report.png")
    client = MlflowClient(tracking_uri=seen.address)
    file = client.download_artifacts(seen.run_id, "report/report.html", str(tmp_path))
    with page(seen.browser, offline=True) as window:
        asked: list[str] = []
        window.on("request", lambda request: asked.append(request.url))
        window.goto(f"file://{file}")
        await_charts(window)
        assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_the_parent_expands_to_its_trials(seen: Seen) -> None:
    with page(seen.browser, height=760) as window:
        experiment = MlflowClient(tracking_uri=seen.address).get_run(seen.run_id).info.experiment_id
        window.goto(f"{seen.address}/#/experiments/{experiment}/runs")
        close_assistant(window)
        window.get_by_text("Model training").click()
        row = window.get_by_role("gridcell").filter(has_text="digits")
        row.get_by_role("button").first.click()
        window.get_by_text("0011-digits", exact=True).wait_for()
        show_columns(window)
        window.screenshot(path=seen.pictures / "runs.png")


def show_columns(window: Page) -> None:
    """Put the study's metric and params in place of what is empty here."""
    window.get_by_role("button", name="Columns").click()
    for column in ("Dataset", "Source", "val_accuracy", "hidden_size", "learning_rate", "batch_size"):
        window.get_by_placeholder("Search columns").fill(column)
        node = window.locator("[class*=tree-treenode]").filter(has=window.get_by_text(column, exact=True))
        node.last.locator("[class*=checkbox]").first.click()
    window.mouse.click(900, 60)
    window.get_by_role("columnheader", name="val_accuracy").first.wait_for()


def test_trials_are_compared(seen: Seen) -> None:
    with page(seen.browser) as window:
        window.goto(link(seen.said, "compare its trials"))
        close_assistant(window)
        window.get_by_text("12 matching runs").wait_for()
        window.get_by_label("Select all runs").click(force=True)
        window.get_by_role("button", name="Compare").click()
        window.get_by_role("heading", name="Comparing 12 Runs from 1 Experiment").wait_for()
        window.get_by_role("tab", name="Parallel Coordinates Plot").wait_for()
        window.locator(".parcoords").first.wait_for()
        window.wait_for_timeout(1000)  # its lines are drawn one after the other
        window.screenshot(path=seen.pictures / "compare.png")


def test_the_champion_is_in_the_registry(seen: Seen) -> None:
    with page(seen.browser, height=600) as window:
        window.goto(f"{seen.address}/#/models/digits")
        window.get_by_role("link", name="Version 1").wait_for()
        window.get_by_text("champion").first.wait_for()
        close_assistant(window)
        window.screenshot(path=seen.pictures / "model.png")


def test_more_trials_than_a_page_holds_are_a_sorted_list(
    seen: Seen, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", seen.address)
    import mlflow

    mlflow.set_tracking_uri(seen.address)
    result = mltune.tune(
        lambda trial: trial.params["x"],
        {"x": Float(0, 1)},
        direction="maximize",
        metric="score",
        name="many",
        experiment_name="many",
        algorithm="random",
        n_trials=110,
        seed=3,
        executor="inline",
    )
    ranked = sorted(result.trials, key=lambda trial: -(trial.value or 0))
    with page(seen.browser) as window:
        window.goto(link(capsys.readouterr().out, "compare its trials"))
        close_assistant(window)
        window.get_by_text("100 matching runs").wait_for()
        names = window.get_by_role("link", name=re.compile(r"^\d{4}-many$"))
        names.first.wait_for()
        shown = [names.nth(i).inner_text() for i in range(5)]
        assert shown == [f"{trial.number:04d}-many" for trial in ranked[:5]]
        window.get_by_role("button", name="Load more").click()
        window.get_by_text("110 matching runs").wait_for()


def test_a_report_of_two_thousand_trials(seen: Seen, tmp_path: Path) -> None:
    write_files(big_view(2000), tmp_path)
    file = tmp_path / "report.html"
    assert file.stat().st_size < 10e6
    with page(seen.browser, offline=True) as window:
        window.goto("about:blank")
        began = time.monotonic()
        window.goto(f"file://{file}")
        window.locator(".chart .main-svg").first.wait_for()
        took = time.monotonic() - began
        await_charts(window)
    print(f"a report of 2,000 trials was open after {took:.1f} s")


def big_view(n_trials: int) -> View:
    """A study as large as people make them: eleven parameters, curves of up to 100 steps, pruned and failed trials."""
    import random

    rng = random.Random(0)
    floats = {f"x{i}": Float(0, 1) for i in range(7)}
    others = {"rate": Float(1e-5, 1, log=True), "depth": Int(1, 20), "kind": Categorical(["a", "b", "c"])}
    space = SearchSpace(floats | others | {"momentum": Float(0, 1, when={"kind": ["a"]})})
    trials = []
    for number in range(n_trials):
        params = space.sample(rng)
        value = sum((float(params[name] or 0.0) - 0.3) ** 2 for name in floats) + 0.01 * float(params["depth"] or 0)
        state = rng.choices([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED], [30, 65, 5])[0]
        steps = 100 if state is TrialState.COMPLETE else rng.choice([1, 3, 9, 27])
        trials.append(
            FrozenTrial(
                number=number,
                params=params,
                seed=number,
                state=state,
                value=None if state is TrialState.FAILED else value,
                reports={step: value + 1 / (step + 1) for step in range(steps)},
                metrics={"value": value},
                run_id=f"{number:032x}",
                reason=Reason.EXCEPTION if state is TrialState.FAILED else None,
                duration=steps * 0.1,
            )
        )
    tags = {"metric": "value", "direction": "minimize", "engine": "optuna", "algorithm": "tpe", "scheduler": "asha"}
    record = StudyRecord(
        run_id="0" * 32,
        experiment_id="0",
        name="big",
        tags=tags | {"seed": "0", "state": "COMPLETE", "direction": str(Direction.MINIMIZE)},
        attempts={trial.number: [trial] for trial in trials},
        steps={},
        created={str(trial.run_id): 2.0 * trial.number for trial in trials},
        ended={},
    )
    return View(record=record, trials=trials, space=space, n_jobs=4, n_trials=n_trials)
