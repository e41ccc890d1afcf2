"""Notebook 06 in JupyterLab: run all cells, turn its explorer with the keyboard, let it measure."""

import re

import pytest

from normviz.picture.cost_widget import BATCHES

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_explorer_of_costs_obeys_the_keyboard_and_measures(open_lab, theme):
    page = open_lab("06_what_statistics_cost.ipynb", dark=theme == "dark")
    page.run_all()
    page.screenshot_notebook(f"06_what_statistics_cost-{theme}")
    button = page.page.get_by_role("button", name="measure here")
    explorer = page.page.locator(".widget-vbox").filter(has=button).first
    caption = explorer.locator("p[role=status]")

    def shown(*parts: str) -> str:
        """The caption, once it holds these words."""
        for part in parts:
            caption.filter(has_text=part).wait_for(timeout=30_000)
        return caption.inner_text()

    before = int(page.value("batch"))
    shown(f"{before} × 197 tokens of 48 features", "Measured")
    page.press("batch", "ArrowLeft")
    after = BATCHES[BATCHES.index(before) - 1]
    text = shown(f"{after} × 197 tokens of 48 features", "not measured")
    assert f"{2 * after * 197:,} statistics" in text and page.value("batch") == str(after)
    page.press("tokens", "Home")
    page.press("width", "End")
    shown(f"{after} × 16 tokens of 768 features")

    button.focus()
    page.page.keyboard.press("Space")
    text = shown("Measured: LayerNorm")
    assert re.search(r"LayerNorm [\d.]+ [mµn]?s, BatchNorm in evaluation [\d.]+ [mµn]?s", text)
    assert explorer.locator("svg").count() == 1 and not explorer.locator("[role=alert]").count()
    page.screenshot(f"06-explorer-{theme}", explorer)
