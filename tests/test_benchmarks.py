"""The benchmarks compare the same network; the README holds the table of what was recorded.  Nothing is timed."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from benchmarks import table  # noqa: E402
from benchmarks.peers import BUILDERS, CASES, SHAPES, installed  # noqa: E402
from normviz.lab import count  # noqa: E402


def test_every_case_is_of_a_known_shape():
    assert {case[0] for case in CASES} <= set(SHAPES) and next(iter(BUILDERS)) == "normviz"


@pytest.mark.parametrize("name", list(BUILDERS))
def test_a_peer_is_the_same_network(name):
    if name not in installed():
        pytest.skip(f"{name} is not installed: it comes with the extra 'bench'")
    if find_spec("torchvision"):
        try:
            import torchvision  # noqa: F401  (both peers load it)
        except RuntimeError as error:
            pytest.skip(f"this torchvision does not go with this torch: {error}")
    ours, theirs = (BUILDERS[each](**SHAPES["ours"]).eval() for each in ("normviz", name))
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert ours(x).shape == theirs(x).shape
    weights = [sum(p.numel() for p in model.parameters()) for model in (ours, theirs)]
    assert weights[1] == pytest.approx(weights[0], rel=0.01)
    products = [count(lambda model=model: model(x)).matmul for model in (ours, theirs)]
    assert products[1] == pytest.approx(products[0], rel=0.06)  # vit-pytorch's attention is seen by the counter


def test_the_package_needs_no_peer():
    for file in (ROOT / "normviz").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert not any(f"import {name}" in text for name in ("transformers", "timm", "vit_pytorch")), file


def test_the_readme_holds_the_table_of_the_records():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert table.insert(text, ROOT / "results") == text, "run `python -m benchmarks.table --write README.md`"


def test_the_table_says_what_is_recorded(tmp_path):
    assert "Nothing is recorded yet" in table.markdown(tmp_path)
    ratio = {"median": 0.5, "low": 0.4, "high": 0.75}
    environment = {"name": "Abacus", "threads": 1, "versions": {"torch": "2"}}
    case = {"shape": "ours", "batch": 64, "what": "training", "mode": "eager", "ours_to": {"timm": ratio}}
    (tmp_path / "bench_peers.json").write_text(json.dumps({"environment": environment, "cases": [case]}))
    (tmp_path / "bench_limit.json").write_text(json.dumps({"environment": environment, "ours, batch 1": ratio}))
    text = table.markdown(tmp_path)
    assert "| our ViT, batch 64, training, eager | – | 0.50 (0.40–0.75) | – |" in text
    assert "ours, batch 1 0.50 (0.40–0.75)" in text and "Abacus" in text
    with pytest.raises(ValueError, match="it needs the line"):
        table.insert("no marker", tmp_path)
