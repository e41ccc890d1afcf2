"""Fixtures of the browser tests: a Chromium for each module, one JupyterLab for all of them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser.chromium import find_chromium, launch
from browser.pages import LabPage
from browser.servers import LAB, copy_notebooks, jupyter, write_settings
from playwright.sync_api import Browser


@pytest.fixture(scope="module")  # Playwright's event loop is gone before the notebooks' tests start theirs
def chromium() -> Iterator[Browser]:
    """A headless Chromium; without one the tests skip, or fail under CI, and say why."""
    with launch(find_chromium()) as browser:
        yield browser


@pytest.fixture(scope="session")
def lab(tmp_path_factory) -> Iterator[tuple[str, Path, Path]]:
    """A JupyterLab over a copy of the notebooks: its address, that folder, and its settings folder."""
    home = tmp_path_factory.mktemp("jupyter")
    notebooks = copy_notebooks(tmp_path_factory.mktemp("copy"))
    write_settings(home)
    with jupyter(LAB, notebooks, home) as address:
        yield address, notebooks, home


@pytest.fixture
def open_lab(chromium, lab) -> Iterator[Callable[..., LabPage]]:
    """`open_lab("01_axes.ipynb")`: a page with that notebook open; no error may be left at the end."""
    address, _, _ = lab
    pages: list[LabPage] = []

    def open_page(name: str) -> LabPage:
        pages.append(LabPage(chromium, address))
        pages[-1].open(name)
        return pages[-1]

    yield open_page
    errors = [error for page in pages for error in page.errors]
    for page in pages:
        page.close()
    assert not errors, "\n".join(errors)
