"""Take the README's picture: a study in the MLflow UI, in headless Chromium (Debian's package `chromium`)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
PORT = 5077
UNWANTED = ("Dataset", "Source")
COLUMNS = ("val_accuracy", "hidden_size", "learning_rate", "batch_size")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def main() -> None:
    """Run the digits study in an empty folder, serve it, and take the picture."""
    if shutil.which("chromium") is None:
        sys.exit("chromium is missing: apt-get install chromium")
    with TemporaryDirectory() as folder:
        study = ROOT / "projects" / "digits" / "study.yaml"
        subprocess.run([sys.executable, "-m", "mltune", "run", study, "--n-trials", "12"], cwd=folder, check=True)
        with served(Path(folder)) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            page = browser.new_page(viewport={"width": 1500, "height": 760})
            shoot(page, address)
            browser.close()


def shoot(page: Page, address: str) -> None:
    """Open the runs, expand the study, choose the columns, and keep the picture."""
    page.goto(f"{address}/#/experiments/0/runs")
    page.get_by_text("digits", exact=True).first.wait_for()
    page.get_by_text("Model training").click()
    page.get_by_role("button", name="Close").click()  # MLflow's assistant
    page.get_by_role("gridcell").filter(has_text="digits").get_by_role("button").first.click()
    page.get_by_role("button", name="Columns").click()
    for column in UNWANTED + COLUMNS:
        page.get_by_placeholder("Search columns").fill(column)
        node = page.locator("[class*=tree-treenode]").filter(has=page.get_by_text(column, exact=True))
        node.last.locator("[class*=checkbox]").first.click()
    page.mouse.click(900, 60)
    page.wait_for_timeout(2000)
    page.screenshot(path=ROOT / "docs" / "images" / "runs.png")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """`mlflow server` on the folder's database; its address."""
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(PORT), "--workers", "1"]
    process = subprocess.Popen(
        [*command, "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"],
        cwd=folder,
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{PORT}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/health")
                break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait()


if __name__ == "__main__":
    main()
