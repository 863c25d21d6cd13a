"""A real browser: Debian's Chromium, installed where it is missing, driven by Playwright."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-angle=swiftshader",  # WebGL without a GPU: parallel coordinates are drawn with it
    "--enable-unsafe-swiftshader",
]
WAIT = 120_000  # milliseconds for anything to appear


def chromium() -> str:
    """The browser's path."""
    if shutil.which("chromium") is None:
        for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "chromium"]):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    path = shutil.which("chromium")
    assert path is not None
    return path


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser without a window."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        try:
            yield started
        finally:
            started.close()


@contextmanager
def page(started: Browser, *, offline: bool = False, height: int = 900) -> Iterator[Page]:
    """A page that reaches nothing but this machine, or nothing but files."""
    context = started.new_context(viewport={"width": 1500, "height": height}, offline=offline)
    context.set_default_timeout(WAIT)
    context.route(lambda url: not url.startswith(("http://127.0.0.1:", "file:", "data:", "blob:")), lambda r: r.abort())
    try:
        yield context.new_page()
    finally:
        context.close()
