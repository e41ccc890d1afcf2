"""Find and start the Chromium that the tests drive."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Works as root in a container, keeps to this machine, and asks its maker nothing.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find_chromium() -> str:
    """The browser's path: $NORMVIZ_CHROMIUM, or the first of NAMES found; skips where there is none, fails in CI."""
    named = os.environ.get("NORMVIZ_CHROMIUM")
    if found := named or next(filter(None, map(shutil.which, NAMES)), None):
        return found
    reason = f"no Chromium: none of {', '.join(NAMES)} is on the PATH and NORMVIZ_CHROMIUM names none"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def launch(executable: str) -> Iterator[Browser]:
    """A headless Chromium with a fresh profile."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()
