"""The explorer of ε, which CONTRIBUTING.md shows as the model of one, against torch's own layers."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import normviz as nv
from normviz.explore import epsilon
from normviz.samples import digit_features


@pytest.mark.parametrize("method", nv.METHODS)
@pytest.mark.parametrize(("squeeze", "eps"), [(1.0, 1e-8), (1e-3, 1e-5), (1e-6, 0.1)])
def test_it_agrees_with_torch(method, squeeze, eps):
    state = epsilon(method, squeeze, eps)
    maps, var = state.read()
    x = torch.from_numpy(digit_features(64)).double() * squeeze
    groups = 2 if nv.METHODS[method].grouped else None
    layer = nv.torch_layer(method, tuple(x.shape), num_groups=groups, eps=eps, dtype=torch.float64)
    np.testing.assert_allclose(maps, layer(x)[0].detach(), rtol=1e-6, atol=1e-12)

    labels = nv.partition(method, tuple(x.shape), groups)
    sets = [x.numpy()[labels == k] for k in range(labels.max() + 1)]
    sizes = np.array([len(s) for s in sets])
    spread = np.array([np.mean(s**2) if method == "rms" else s.var() for s in sets])
    inked = spread > 1e-9 * spread.max()
    assert var.size == sizes[inked].sum()
    assert np.unique(var).size <= inked.sum() and var.sum() == pytest.approx((spread * sizes)[inked].sum())
    said = re.search(r"variance in (\S+) % of the sets", state.scene().alt)[1]
    assert float(said) == pytest.approx(100 * np.mean(spread[inked] < eps), abs=0.6)


def test_the_less_the_variance_the_less_the_spread():
    spreads = [np.ptp(epsilon(squeeze=10.0**-k).read()[0]) for k in range(7)]
    assert spreads == sorted(spreads, reverse=True) and spreads[-1] < 0.01 * spreads[0]


ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_a_whole_explorer_takes_sixty_lines_and_the_guide_points_at_it():
    assert len((ROOT / "normviz/explore/epsilon.py").read_text(encoding="utf-8").splitlines()) <= 60
    links = re.findall(r"\]\(([^)#]+)\)", GUIDE.split("## Add a chapter")[0])
    assert "normviz/explore/epsilon.py" in links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("diff", re.findall(r"```diff\n(\+\+\+ .*?)```", GUIDE, re.DOTALL), ids=lambda d: d.split()[1])
def test_the_guides_changes_are_those_of_the_repository(diff):
    for part in diff.split("+++ ")[1:]:
        path, *lines = part.splitlines()
        text = (ROOT / path).read_text(encoding="utf-8")
        assert [line for line in lines if line[1:].strip() not in text] == [], path
