"""Notebook 02 in JupyterLab: run all cells, then turn both of its explorers with the keyboard."""

from dataclasses import replace

import pytest
from browser.explorer_checks import press_button, shows

from normviz.picture import batches, outlier

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_explorers_obey_the_keyboard(open_lab, theme):
    page = open_lab("02_batch_norm.ipynb", dark=theme == "dark")
    page.run_all()
    page.screenshot_notebook(f"02_batch_norm-{theme}")

    population = batches.population_of()
    state = batches.make_state(population, batch_size=4)
    explorer = page.page.locator(".widget-vbox").filter(has=page.widget("batch size")).first
    shows(explorer, batches.read(population, state).caption)
    for label, key, change in (
        ("batch size", "ArrowLeft", {"batch_size": 2}),
        ("batches", "ArrowRight", {"draws": 21}),
        ("momentum", "End", {"momentum": "None"}),
        ("channel", "Home", {"channel": 0}),
        ("image", "ArrowRight", {"image": 1}),
        ("seed", "ArrowRight", {"seed": 1}),
    ):
        page.press(label, key)
        state = replace(state, **change)
        shows(explorer, batches.read(population, state).caption)
    page.screenshot(f"explore_batches-{theme}-training", explorer)
    for button, change in (
        ("evaluation", {"evaluation": True}),
        ("one cell", {"scope": "cell"}),
        ("training", {"evaluation": False}),
    ):
        press_button(explorer, button)
        state = replace(state, **change)
        shows(explorer, batches.read(population, state).caption)
        page.screenshot(f"explore_batches-{theme}-{button}", explorer)
    page.press("batch size", "Home")
    assert "torch refuses" in batches.read(population, replace(state, batch_size=1)).caption
    shows(explorer, batches.read(population, replace(state, batch_size=1)).caption)
    page.screenshot(f"explore_batches-{theme}-refused", explorer)

    state = outlier.make_state(16, 10)
    explorer = page.page.locator(".widget-vbox").filter(has=page.widget("factor k")).first
    shows(explorer, outlier.read(state).caption)
    page.press("factor k", "End")
    page.press("samples N", "ArrowRight")
    shows(explorer, outlier.read(outlier.State(32, 1000)).caption)
    page.screenshot(f"explore_outlier-{theme}", explorer)
