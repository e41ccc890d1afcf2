"""Which cells share statistics, asked of a norm layer itself by its gradients."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def computed_sets(layer: nn.Module, shape) -> int:
    """The number of sets of cells whose statistics a norm `layer` computes from its input, in the mode that it is in.

    Two cells share statistics exactly when the one's output changes with the other's input.  So the derivative of every
    output by every input is taken at a random input of `shape` (float64, fixed seed): cells with the same non-zero
    derivatives form a set, and a cell that depends on itself alone is in none.  A layer that normalizes by stored
    statistics computes 0 sets.  The layer itself is left as it is.

    Meant for small shapes: it takes one backward pass a cell.
    """
    layer = copy.deepcopy(layer).double()
    x = torch.randn(tuple(shape), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    derivative = torch.autograd.functional.jacobian(layer, x).reshape(x.numel(), x.numel())
    partners = derivative != 0
    return len(torch.unique(partners[partners.sum(1) > 1], dim=0))


@torch.no_grad()
def moved_by_neighbours(layer: nn.Module, x: Tensor, others: Tensor) -> float:
    """The largest change of the first sample's output when the other samples of the batch are exchanged.

    x, others: (N, …) of one shape; the batch is x, then x[0] among others[1:].  0.0 means: to the last bit.  The layer
    itself is left as it is, running statistics included.  Raises ValueError for unequal shapes.
    """
    if x.shape != others.shape:
        raise ValueError(f"others has shape {tuple(others.shape)}; it takes that of x, {tuple(x.shape)}")
    outputs = [copy.deepcopy(layer)(batch)[0] for batch in (x, torch.cat([x[:1], others[1:]]))]
    return float((outputs[0] - outputs[1]).abs().max())
