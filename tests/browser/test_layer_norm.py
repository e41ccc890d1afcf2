"""Notebook 03 in JupyterLab: run all cells, turn both of its explorers with the keyboard, look at them in the dark."""

from dataclasses import replace

import pytest
from browser.explorer_checks import press_button, shows

from normviz.picture import geometry, invariance

pytestmark = [pytest.mark.browser, pytest.mark.slow]
DARK = "jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"


def test_both_explorers_obey_the_keyboard(open_lab):
    page = open_lab("03_layer_norm.ipynb")
    page.run_all()
    page.screenshot_notebook("03_layer_norm")

    def located(state):
        return geometry.describe(state, geometry.read(state))

    state = geometry.State()
    space = page.page.locator(".widget-vbox").filter(has=page.widget("tilt")).first
    shows(space, located(state))
    assert space.locator("[data-cell]").count() == 3 * 16 * state.images  # a token in each of three panels
    for label, key, change in (
        ("step", "ArrowLeft", {"step": 1.9}),
        ("turn", "ArrowRight", {"turn": 75.0}),
        ("tilt", "ArrowLeft", {"tilt": 10.0}),
        ("token", "End", {"token": 15}),
        ("images", "Home", {"images": 1}),
        ("ε", "End", {"eps": 1.0}),
        ("step", "End", {"step": 3.0}),
        ("γ₁ (affine)", "End", {"gamma": 2.0}),
        ("β₁ (affine)", "ArrowRight", {"beta": 0.1}),
    ):
        page.press(label, key)
        state = replace(state, **change)
        shows(space, located(state))
    assert space.locator("[data-cell]").count() == 3 * 16
    press_button(space, "three pixels")
    shows(space, located(replace(state, tokens="pixels")))
    page.screenshot("explore_geometry-light", space)

    def moved(state):
        return invariance.describe(state, invariance.read(state))

    state = invariance.State("token", 4.0, 1.0)
    cells = page.page.locator(".widget-vbox").filter(has=page.widget("scale x")).first
    shows(cells, moved(state))
    page.screenshot("explore_invariance-light", cells)
    for label, key, change in (
        ("scale x", "ArrowRight", {"scale": 8.0}),
        ("shift x", "ArrowLeft", {"shift": 0.75}),
        ("weights ×", "Home", {"weights": 0.125}),
    ):
        page.press(label, key)
        state = replace(state, **change)
        shows(cells, moved(state))
    for button, change in (
        ("one feature", {"scope": "feature"}),
        ("evaluation", {"evaluation": True}),
        ("everything", {"scope": "all"}),
    ):
        press_button(cells, button)
        state = replace(state, **change)
        shows(cells, moved(state))

    page.page.evaluate(DARK)
    page.screenshot("explore_geometry-dark", space)
    page.screenshot("explore_invariance-dark", cells)
