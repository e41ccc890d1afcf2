"""Notebook 04 in JupyterLab: run all cells, then turn the explorer of groups with the keyboard."""

from dataclasses import replace

import pytest
from playwright.sync_api import expect

from normviz.picture.groups import State, read

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_groups_explorer_obeys_the_keyboard(open_lab, theme):
    page = open_lab("04_instance_and_group_norm.ipynb", dark=theme == "dark")
    page.run_all()
    page.screenshot_notebook(f"04_instance_and_group_norm-{theme}")
    explorer = page.page.locator(".widget-vbox").filter(has=page.widget("groups G")).first
    picture = explorer.locator("svg[role=img]")

    def shows(state):
        """Sentence, name of the picture, and the sets of its block are those of the state the keys have led to."""
        caption = read(state).caption
        expect(explorer.locator("p[role=status]")).to_have_text(caption, timeout=10_000)
        expect(picture).to_have_attribute("aria-label", caption)
        sets = picture.locator("[data-set]").evaluate_all("all => all.map(e => Number(e.dataset.set))")
        assert set(sets) == set(range(2 * state.groups))
        loaded = "all => all.map(e => e.href.baseVal.slice(0, 22))"
        assert set(picture.locator("image").evaluate_all(loaded)) == {"data:image/png;base64,"}

    state = State()
    shows(state)
    for label, key, times, change in (
        ("groups G", "ArrowRight", 2, {"groups": 4}),
        ("“edge |” ×", "ArrowRight", 5, {"gain": 1.5}),
        ("brightness +", "ArrowLeft", 3, {"brightness": -0.1}),
        ("contrast ×", "ArrowRight", 1, {"contrast": 0.6}),
        ("groups G", "End", 1, {"groups": 8}),
    ):
        page.press(label, key, times=times)
        state = replace(state, **change)
        shows(state)
        page.screenshot(f"explore_groups-{theme}-{state.groups}", explorer)
    explorer.get_by_role("button", name="flower", exact=True).focus()
    page.page.keyboard.press("Enter")
    shows(replace(state, image="flower"))
    page.press("groups G", "Home")
    shows(replace(state, image="flower", groups=1))
    page.screenshot(f"explore_groups-{theme}-flower", explorer)
