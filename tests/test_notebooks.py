"""Notebook hygiene: every notebook keeps every rule, and every rule catches the notebook that breaks it."""

import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from notebook_rules import RULES, file_is_small, tagged

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import badges  # noqa: E402  (a script of tools/, not of the package)
import run_notebooks  # noqa: E402

NOTEBOOKS = [path for path in run_notebooks.notebooks() if "solutions" not in path.parts]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_notebook_keeps_the_rule(path, rule):
    problems = list(rule(nbformat.read(path, as_version=4)))
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_file_is_valid_small_and_has_its_badges(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not list(file_is_small(path))
    rows = tagged(notebook, "badges")
    assert len(rows) == 1 and rows[0] is notebook.cells[0]
    assert rows[0].source == badges.badge_row(path.relative_to(ROOT).as_posix()), "run `make badges`"


def test_there_are_notebooks():
    assert NOTEBOOKS


PNG = {"image/png": "iVBORw0KGgo=", "text/plain": "a figure"}
TEXT = """You will be able to count.

> **Predict.** How many?

## Check yourself

## Exercises

<details><summary>Solution</summary> Two. </details>

## What the article says
"""


def good() -> nbformat.NotebookNode:
    figure = new_output("display_data", data=dict(PNG), metadata={"image/png": {"alt": "a figure of two cells"}})
    return new_notebook(
        cells=[
            new_markdown_cell(TEXT),
            new_code_cell("import normviz", metadata={"tags": ["setup"]}, execution_count=1),
            new_code_cell("draw()", execution_count=2, outputs=[figure]),
        ]
    )


def broken(rule: str, how: str) -> nbformat.NotebookNode:
    """A good notebook with one thing wrong."""
    notebook = good()
    text, setup, figure = notebook.cells
    stdout = new_output("stream", name="stdout", text="")
    match how:
        case "out of order":
            figure.execution_count = 7
        case "not executed":
            figure.execution_count = None
        case "error":
            figure.outputs = [new_output("error", ename="E", evalue="e", traceback=[])]
        case "state":
            notebook.metadata["widgets"] = {}
        case "view":
            figure.outputs[0].data["application/vnd.jupyter.widget-view+json"] = {"model_id": "0"}
        case "png":
            figure.outputs[0].metadata = {}
        case "markdown image":
            text.source += "\n![](a.png)"
        case "img":
            text.source += '\n<img src="a.png" alt="">'
        case "html output":
            figure.outputs = [new_output("display_data", data={"text/html": "<img src='a.png'>"})]
        case "no setup":
            setup.metadata.tags = []
        case "late setup":
            setup.metadata.tags, figure.metadata["tags"] = [], ["setup"]
        case "path":
            stdout.text = "saved /" + "home/ada/run.json"
            figure.outputs = [stdout]
        case "path in source":
            figure.source = 'open("/' + 'tmp/x")'
        case "long":
            figure.source = "x = 1\n" * 26
        case section:
            assert section in text.source
            text.source = text.source.replace(section, "")
    return notebook


BREAKS = [
    ("executed_in_order", "out of order"),
    ("executed_in_order", "not executed"),
    ("no_errors", "error"),
    ("no_widget_state", "state"),
    ("no_dead_widget_views", "view"),
    ("images_have_alt_text", "png"),
    ("images_have_alt_text", "markdown image"),
    ("images_have_alt_text", "img"),
    ("images_have_alt_text", "html output"),
    ("has_setup_cell", "no setup"),
    ("has_setup_cell", "late setup"),
    ("no_machine_paths", "path"),
    ("no_machine_paths", "path in source"),
    ("short_cells", "long"),
    *[
        ("has_its_sections", section)
        for section in (
            "You will be able to",
            "**Predict",
            "## Check yourself",
            "## Exercises",
            "<summary>Solution",
            "## What the article says",
        )
    ],
]


def test_a_good_notebook_breaks_no_rule():
    assert [problem for rule in RULES for problem in rule(good())] == []


@pytest.mark.parametrize(("rule", "how"), BREAKS)
def test_the_rule_catches(rule, how):
    found = {each.__name__ for each in RULES if list(each(broken(rule, how)))}
    assert rule in found


def test_every_rule_is_seen_to_catch_something():
    assert {rule.__name__ for rule in RULES} == {rule for rule, _ in BREAKS}


def test_a_large_file_is_caught(tmp_path):
    path = tmp_path / "large.ipynb"
    path.write_bytes(b" " * 1_000_000)
    assert list(file_is_small(path))


def test_normalising_drops_what_two_equal_runs_do_not_share():
    notebook = broken("no_dead_widget_views", "view")
    notebook.metadata["widgets"] = {"state": {}}
    notebook.cells[1].metadata["execution"] = {"iopub.execute_input": "now"}
    run_notebooks.normalise(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert set(notebook.cells[2].outputs[0].data) == set(PNG)
    assert "execution" not in notebook.cells[1].metadata
