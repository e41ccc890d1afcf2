"""What a reader on Colab meets: the setup cell, every notebook, and the explorer under ipywidgets 7."""

import json
import os
import subprocess
import sys

import nbformat
import pytest
from browser.driver import explorers
from browser.oracle import is_the_partition
from browser.servers import OPEN, ROOT, environment, write_notebook
from browser.training_checks import CELLS, stop_by_keyboard
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from normviz.explore import EXPLORERS

pytestmark = pytest.mark.colab
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PIP = [sys.executable, "-m", "pip"]


def run(notebook: nbformat.NotebookNode, folder, monkeypatch, home, **changes: str | None) -> None:
    """Execute `notebook` in a fresh kernel; `changes` to the environment, None removes a variable."""
    for name, value in (environment(home) | changes).items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=resources).execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_runs(path, monkeypatch, tmp_path):
    run(nbformat.read(path, as_version=4), tmp_path, monkeypatch, tmp_path)


@pytest.mark.browser
def test_the_explorers_obey_the_keyboard_in_the_classic_page(classic, tmp_path):
    cells = [f"start({name!r})" for name in EXPLORERS]
    page = classic(write_notebook(tmp_path / "notebooks", "explorers.ipynb", OPEN, *cells))
    page.run_all()
    shown = {driver.name: driver for driver in explorers(page)}
    assert set(shown) == set(EXPLORERS)
    for driver in shown.values():
        driver.screenshot("classic")
        driver.walk()
        driver.grasp()
        driver.is_legible()
        driver.is_accessible()
    is_the_partition(shown["axes"])


@pytest.mark.browser
def test_stop_ends_a_training_in_the_classic_page(classic, tmp_path):
    page = classic(write_notebook(tmp_path / "notebooks", "training.ipynb", *CELLS))
    stop_by_keyboard(page, "classic")
    said = page.page.locator(".output_stdout").all_inner_texts()
    assert "said by the training's cell" in said[0] and said[1].startswith("kept ")


@pytest.fixture
def without_normviz():
    """normviz is not installed before the test, nor after it."""
    uninstall = [*PIP, "uninstall", "--quiet", "--yes", "normviz"]
    subprocess.run(uninstall, check=True)
    yield
    subprocess.run(uninstall, check=True)


def test_installing_normviz_would_add_nothing_else(without_normviz):
    command = [*PIP, "install", "--quiet", "--dry-run", "--report", "-", str(ROOT)]
    report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert [item["metadata"]["name"] for item in report["install"]] == ["normviz"]


def installed() -> dict[str, str]:
    """Name and version of every package of this environment, as it is on the disk now."""
    listing = subprocess.run([*PIP, "list", "--format=json"], check=True, capture_output=True)
    return {row["name"]: row["version"] for row in json.loads(listing.stdout)}


def setup_alone() -> nbformat.NotebookNode:
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "setup" in cell.metadata.get("tags", [])]
    return notebook


def test_a_setup_cell_that_cannot_install_says_what_helps(without_normviz, monkeypatch, tmp_path):
    missing = os.fspath(tmp_path / "no clone")
    with pytest.raises(CellExecutionError, match="no clone; without a connection set NORMVIZ_SOURCE to the folder"):
        run(setup_alone(), tmp_path, monkeypatch, tmp_path, PYTHONPATH=None, NORMVIZ_SOURCE=missing)


def test_the_setup_cell_installs_normviz_and_touches_nothing(without_normviz, monkeypatch, tmp_path):
    before = installed()
    assert "normviz" not in before
    # The folder is empty and nothing of the checkout is on the path: the cell has to install, from this checkout.
    changes = {"PYTHONPATH": None, "PIP_NO_INDEX": None, "NORMVIZ_SOURCE": os.fspath(ROOT)}
    run(setup_alone(), tmp_path, monkeypatch, tmp_path, **changes)
    after = installed()
    assert after.pop("normviz")
    assert after == before
