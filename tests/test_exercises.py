"""Every Python solution in the notebooks runs, after those of the notebook's own cells that it builds on.

A solution is a fenced block ```python within <details>.  Of the cells only those are executed whose names the block
needs, directly or through other cells: an explorer or a training that it does not use is left out.
"""

import ast
import builtins
import os
import re
import sys
from pathlib import Path

import matplotlib as mpl
import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import run_notebooks  # noqa: E402

SOLUTION = re.compile(r"<details>.*?</details>", re.DOTALL)
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
#: Too slow for every run (they train networks for minutes), by notebook and place among its solutions
SLOW = {
    ("02_batch_norm", 2): "trains a network of four convolutions",
    ("04_instance_and_group_norm", 1): "trains GN and BN for 4,800 steps of one image each",
    ("07_inside_the_vit", 0): "follows a vision transformer of 16 blocks",
    ("07_inside_the_vit", 1): "follows a vision transformer of 16 blocks",
    ("07_inside_the_vit", 2): "trains a vision transformer",
    ("pre_and_post_norm", 0): "trains six transformers",
}


def solutions(notebook) -> list[str]:
    """The Python blocks of all solutions, in order."""
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return [block for details in SOLUTION.findall(text) for block in PYTHON.findall(details)]


def names(source: str) -> tuple[set[str], set[str]]:
    """(bound, needed) names of a cell: what it defines, and what must have been there before it."""
    bound, needed = set(), set()
    for statement in ast.parse(source).body:
        inside, used = set(), set()
        for node in ast.walk(statement):
            match node:
                case ast.Name(id=name, ctx=ast.Load()):
                    used.add(name)
                case ast.Name(id=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
                    inside.add(name)
                case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                    inside.update((alias.asname or alias.name).split(".")[0] for alias in aliases)
        if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign) and statement.value:
            own = names(ast.unparse(statement.value))[1]  # x = x + 1 needs an x
            own |= names(ast.unparse(statement.target))[1] if isinstance(statement, ast.AugAssign) else set()
            needed |= own - bound
        needed |= used - inside - bound
        lone = isinstance(statement, ast.FunctionDef | ast.ClassDef)
        bound |= {statement.name} if lone else inside - {n.arg for n in ast.walk(statement) if isinstance(n, ast.arg)}
    return bound, needed


def needed(cells: list[str], block: str) -> list[int]:
    """Indices of the cells that a block at the end builds on, in order; the first, which imports, is always there."""
    tables = [names(cell) for cell in cells]
    chosen, open_ = {0}, [(len(cells), name) for name in names(block)[1]]
    while open_:
        before, name = open_.pop()
        at = next((i for i in reversed(range(before)) if name in tables[i][0]), None)
        if at is not None and at not in chosen:
            chosen.add(at)
            open_ += [(at, used) for used in tables[at][1]]
    return sorted(chosen)


def cases():
    for path in run_notebooks.notebooks():
        for k, block in enumerate(solutions(nbformat.read(path, as_version=4))):
            reason = SLOW.get((path.stem, k))
            long = os.environ.get("NORMVIZ_SOAK") == "long"
            marks = [pytest.mark.skipif(not long, reason=f"{reason}: make soak")] if reason else []
            yield pytest.param(path, block, id=f"{path.stem}-{k}", marks=marks)


@pytest.mark.parametrize(("path", "block"), list(cases()))
def test_solution_runs(path, block, monkeypatch):
    monkeypatch.chdir(path.parent)
    notebook = nbformat.read(path, as_version=4)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    space = {"__name__": "solution", "display": lambda *things: None}
    with mpl.rc_context({"backend": "agg"}):
        for i in needed(cells, block):
            exec(compile(cells[i], f"{path.stem}, code cell {i + 1}", "exec"), space)
        exec(compile(block, f"{path.stem}, solution", "exec"), space)


def test_a_solution_takes_the_cells_that_it_needs_and_no_other():
    cells = ["import math", "a = 1", "b = 5", "def f(x):\n    return a * x", "explorer(b)", "a = a + 1"]
    assert needed(cells, "print(f(2))") == [0, 1, 3]
    assert needed(cells, "print(a)") == [0, 1, 5]
    assert solutions(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("```python\nno\n```")])) == []


def test_wrong_solutions_fail(tmp_path, monkeypatch):
    assert not hasattr(builtins, "a_name_that_nothing_binds")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("a = 1")])
    nbformat.write(notebook, tmp_path / "n.ipynb")
    with pytest.raises(NameError):
        test_solution_runs(tmp_path / "n.ipynb", "print(a_name_that_nothing_binds)", monkeypatch)
    with pytest.raises(AssertionError):
        test_solution_runs(tmp_path / "n.ipynb", "assert a == 2", monkeypatch)


def test_every_slow_solution_exists():
    found = {(path.stem, k) for path in run_notebooks.notebooks()
             for k, _ in enumerate(solutions(nbformat.read(path, as_version=4)))}  # fmt: skip
    assert set(SLOW) <= found
