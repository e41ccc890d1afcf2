"""A training in JupyterLab, ended by the Stop button of its live chart while the cell runs."""

import pytest
from browser.training_checks import stop_by_keyboard, write_training

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_stop_ends_the_training_and_keeps_its_record(open_lab, lab):
    _, notebooks, _ = lab
    page = open_lab(write_training(notebooks))
    stop_by_keyboard(page, "lab")
    train, check = ("".join(output.get("text", "") for output in cell["outputs"]) for cell in page.cells())
    assert "said by the training's cell" in train
    assert check.startswith("kept ")
