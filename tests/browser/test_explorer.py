"""Notebook 01 in JupyterLab, as a reader meets it: run all cells, then turn the explorer with the keyboard."""

import pytest
from browser.explorer_checks import drive_by_keyboard

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_explorer_obeys_the_keyboard(open_lab, theme):
    page = open_lab("01_axes.ipynb", dark=theme == "dark")
    page.run_all()
    page.screenshot_notebook(f"01_axes-{theme}")
    drive_by_keyboard(page)
    page.screenshot(f"explorer-{theme}", page.explorer())
