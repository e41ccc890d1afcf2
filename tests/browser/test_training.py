"""A training in JupyterLab, ended by the Stop button of its live chart while the cell runs."""

import pytest
from browser.servers import write_notebook
from browser.training_checks import CELLS, stop_by_keyboard

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_stop_ends_the_training_and_keeps_its_record(open_lab, lab):
    page = open_lab(write_notebook(lab[1], "training.ipynb", *CELLS))
    stop_by_keyboard(page, "lab")
    train, check = ("".join(output.get("text", "") for output in cell["outputs"]) for cell in page.cells())
    assert "said by the training's cell" in train
    assert check.startswith("kept ")
