"""Hypothesis strategies shared by the tests: random methods on random shapes."""

import math

import torch
from hypothesis import strategies as st

from normviz.norms import LAYOUTS, METHODS, axes_of, divisors


@st.composite
def cases(draw, max_side=5, methods=tuple(METHODS)):
    """A method, a shape it takes, its number of groups and the layout, as a tuple."""
    layout = draw(st.sampled_from(sorted(LAYOUTS)))
    rank = draw(st.sampled_from(sorted(LAYOUTS[layout])))
    shape = tuple(draw(st.lists(st.integers(1, max_side), min_size=rank, max_size=rank)))
    method = draw(st.sampled_from(methods))
    groups = draw(st.sampled_from(divisors(axes_of(shape, layout).channels))) if METHODS[method].grouped else None
    return method, shape, groups, layout


def torch_refuses(method, shape, groups, layout):
    """Shapes that torch's own layer turns down: BN and IN with one value a set, GN with one value a group in all."""
    axes = axes_of(shape, layout)
    positions = math.prod(axes.shape[i] for i in axes.positions)
    if method == "batch":
        return shape[0] * positions == 1
    if method == "instance":
        return positions == 1
    return method == "group" and shape[0] * positions * axes.channels == groups


def random_tensor(shape, seed, dtype):
    """Values of unlike scales and offsets, so that a wrong axis shows."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=dtype)
    for axis in range(x.ndim):
        view = [1] * x.ndim
        view[axis] = -1
        x = x + torch.arange(x.shape[axis], dtype=dtype).reshape(view) * 0.7
    return x
