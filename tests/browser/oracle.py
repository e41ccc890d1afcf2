"""Which cells share their statistics, asked of torch alone: cells that move each other's output are one set."""

import re

import numpy as np
import torch
from browser.driver import Driver
from torch import nn

from normviz.samples import digit_features


def torch_sets(method: str, shape: tuple[int, int, int, int], groups: int) -> np.ndarray:
    """Integer labels of the shape (N, C, H, W), numbered by first appearance, from torch's own layer.

    One cell belongs to another's set exactly when the derivative of the one's output by the other's input is
    not zero. Works for sets of at least two cells: a lone cell's output is constant.
    """
    _, c, h, w = shape
    along_last = {"layer_token": nn.LayerNorm, "rms": nn.RMSNorm}
    if method in along_last:
        layer = along_last[method](c, dtype=torch.float64)

        def forward(x):
            return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    else:
        forward = {
            "batch": nn.BatchNorm2d(c, dtype=torch.float64),
            "layer": nn.LayerNorm([c, h, w], dtype=torch.float64),
            "instance": nn.InstanceNorm2d(c),
            "group": nn.GroupNorm(groups, c, dtype=torch.float64),
        }[method]
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    jacobian = torch.autograd.functional.jacobian(forward, x, vectorize=True).reshape(x.numel(), x.numel())
    first_partner = (jacobian != 0).int().argmax(dim=1).numpy()  # a set is known by its first cell
    return np.unique(first_partner, return_inverse=True)[1].reshape(shape)


def drawn_sets(axes: Driver) -> dict[tuple[int, ...], int]:
    """Every visible cell (n, c, h, w) of a block and its set; a cell may show several faces."""
    faces = "all => all.map(face => [face.dataset.cell.split(',').map(Number), Number(face.dataset.set)])"
    sets: dict[tuple[int, ...], int] = {}
    for cell, label in axes.root.locator("[data-cell]").evaluate_all(faces):
        assert sets.setdefault(tuple(cell), label) == label, f"cell {cell} is drawn in two sets"
    return sets


def is_the_partition(axes: Driver) -> None:
    """The block drawn is cut as torch cuts it; the caption has size, mean and σ of the cursor's set."""
    state = axes.state
    labels, drawn = torch_sets(state.method, state.sizes, state.groups), drawn_sets(axes)
    assert tuple(len(set(axis)) for axis in zip(*drawn, strict=True)) == state.sizes
    assert all(labels[cell] == shown for cell, shown in drawn.items())
    members = digit_features(*state.sizes)[labels == labels[state.cursor]].astype(np.float64)
    said = axes.root.locator("p[role=status]").inner_text().replace("\N{MINUS SIGN}", "-")
    mean, sigma = map(float, re.search(r"μ=([-\d.e]+), σ=([-\d.e]+)[;.]", said).groups())
    np.testing.assert_allclose([mean, sigma], [members.mean(), members.std()], rtol=6e-3, atol=1e-6)
    assert int(re.search(r"with (\d+) other", said)[1]) == members.size - 1
