"""Fixtures of the Colab stand-in: the classic notebook page in Chromium, with Colab's versions behind it."""

from importlib.metadata import version

import pytest
from browser.chromium import find_chromium, launch
from browser.pages import ClassicPage
from browser.servers import CLASSIC, copy_notebooks, jupyter


@pytest.fixture(scope="session", autouse=True)
def colab_environment() -> None:
    """Everything here is about ipywidgets 7: with another version the tests would prove nothing."""
    assert version("ipywidgets") == "7.7.1", "run these tests by `make test-colab`"


@pytest.fixture
def classic(tmp_path):
    """A function that opens a notebook in the classic page; no error may be left at the end."""
    home = tmp_path / "jupyter"
    home.mkdir()
    with jupyter(CLASSIC, copy_notebooks(tmp_path), home) as address, launch(find_chromium()) as browser:
        page = ClassicPage(browser, address)

        def open_page(name: str) -> ClassicPage:
            page.open(name)
            return page

        yield open_page
        errors = list(page.errors)
        page.close()
    assert not errors, "\n".join(errors)
