"""Notebook 05 in JupyterLab: run all cells, then turn the explorer of time steps with the keyboard."""

import pytest
from playwright.sync_api import expect

from normviz.picture.sequences import SIZES, State, read

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_time_explorer_obeys_the_keyboard(open_lab, theme):
    page = open_lab("05_sequences.ipynb", dark=theme == "dark")
    page.run_all()
    page.screenshot_notebook(f"05_sequences-{theme}")
    explorer = page.page.locator(".widget-vbox").filter(has=page.widget("time step")).first
    said = explorer.locator("p[role=status]")

    def shows(**state):
        caption = read(State(**state)).caption
        expect(said).to_have_text(caption, timeout=10_000)
        assert explorer.locator("svg[role=img]").get_attribute("aria-label") == caption

    shows(batch_size=16, step=35)
    page.press("time step", "ArrowRight", times=3)
    shows(batch_size=16, step=38)
    page.press("batch size", "End")
    shows(batch_size=SIZES[-1], step=38)
    page.press("seed", "ArrowRight")
    shows(batch_size=SIZES[-1], step=38, seed=1)
    for button, change in (
        ("shared", {"per_step": False}),
        ("counted", {"masked": False}),
        ("row", {"feature": "row"}),
    ):
        explorer.get_by_role("button", name=button, exact=True).focus()
        page.page.keyboard.press("Enter")
        state = {"batch_size": SIZES[-1], "step": 38, "seed": 1} | change
        shows(**state)
        page.screenshot(f"explore_time-{theme}-{button}", explorer)
        if change.get("feature") is None:  # back again
            explorer.get_by_role(
                "button", name={"shared": "per step", "counted": "left out"}[button], exact=True
            ).focus()
            page.page.keyboard.press("Enter")
