"""What readers reach: ten names and five namespaces, complete for an editor, and nothing from below in a notebook."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import jedi
import nbformat
import pytest

import normviz as nv

ROOT = Path(__file__).parents[1]
NAMESPACES = ("normviz", "normviz.draw", "normviz.explore", "normviz.lab", "normviz.samples", "normviz.clinic")


def completed(code: str) -> set[str]:
    """What JupyterLab's completer would offer: jedi, on a source that nobody has run."""
    return {completion.name for completion in jedi.Script(code).complete()}


@pytest.mark.parametrize("prefix", ["nv.", "nv.draw.", "nv.explore.", "nv.lab."])
def test_the_completer_knows_every_public_name(prefix):
    module = eval(prefix.rstrip("."))
    assert set(module.__all__) <= completed(f"import normviz as nv\n{prefix}")
    assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize(
    ("call", "parameters"),
    [
        ("nv.explore.axes(", {"x", "layout", "method"}),
        ("nv.explore.geometry(", {"tokens", "step", "azimuth"}),
        ("nv.draw.block(", {"x", "method", "cursor"}),
        ("nv.lab.preset(", {"name", "arm", "seed"}),
        ("nv.cut(", {"method", "shape", "num_groups", "layout"}),
    ],
)
def test_the_completer_knows_signatures(call, parameters):
    # In a kernel the completer asks the objects themselves
    (signature,) = jedi.Interpreter(call, [{"nv": nv}]).get_signatures()[:1]
    assert parameters <= {parameter.name for parameter in signature.params}


def test_there_are_ten_names_and_five_namespaces():
    namespaces = {name for name in nv.__all__ if inspect.ismodule(getattr(nv, name))}
    assert namespaces == {"clinic", "draw", "explore", "lab", "samples"} and len(nv.__all__) <= 10 + len(namespaces)
    for name in nv.__all__:
        assert name == "METHODS" or inspect.getdoc(getattr(nv, name)), name


def test_notebooks_import_nothing_from_below_a_public_namespace():
    for path in sorted((ROOT / "notebooks").rglob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                imported = re.findall(r"^\s*(?:from|import) (normviz[\w.]*)", cell.source, re.MULTILINE)
                assert set(imported) <= set(NAMESPACES), f"{path.name}: {set(imported) - set(NAMESPACES)}"


def test_an_explorers_first_scene_is_quick():
    code = (
        "import time; start = time.process_time(); import normviz as nv; nv.explore.axes().scene();"
        "print(time.process_time() - start)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    assert min(float(run.stdout) for run in runs) < 1.0  # 0.5 s on a quiet machine, see the benchmark
