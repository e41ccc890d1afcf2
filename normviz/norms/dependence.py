"""Which cells share statistics, asked of a norm layer itself by its gradients."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
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


@dataclass(frozen=True)
class Sharing:
    """The sets of cells that share statistics, as blocks of one size.

    shape: of the tensor.  spans: how many neighbouring cells a set spans along each axis: 1 where every index has sets
    of its own, the axis' size where all indices share, something between for groups.  centred: whether the mean is
    subtracted (RMSNorm: no).  regular: whether the sets are such blocks at all.
    """

    shape: tuple[int, ...]
    spans: tuple[int, ...]
    centred: bool = True
    regular: bool = True

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes along which cells share."""
        return tuple(i for i, span in enumerate(self.spans) if span > 1)

    @property
    def set_size(self) -> int:
        return math.prod(self.spans)

    @property
    def labels(self) -> np.ndarray:
        """Equal numbers for cells of one set: int64, of `shape`."""
        labels = np.zeros((), dtype=np.int64)
        for size, span in zip(self.shape, self.spans, strict=True):
            blocks = np.arange(size) // span
            labels = labels[..., None] * (blocks[-1] + 1) + blocks
        return labels

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x, of `shape`, in blocks; mean and biased variance of every set, float32 and broadcastable to the blocks."""
        split = [(size // span, span) for size, span in zip(self.shape, self.spans, strict=True)]
        view = x.detach().float().reshape(sum(split, ()))
        within = tuple(range(1, 2 * len(split), 2))
        mean = view.mean(within, keepdim=True)
        return view, mean, (view - mean).square_().mean(within, keepdim=True)


def asked(layer: Callable[[Tensor], Tensor], shape, *, device=None) -> Sharing | None:
    """The sets whose statistics `layer` computes from its input; None if it is no norm layer.

    A norm layer gives the same for 4x as for x (one with a gate, x·σ(x)/std(x), if x is large), and its outputs depend
    on more cells than their own.  The cells that share with one cell are those where the gradient of its output, one
    vector–Jacobian product, is not zero.  Where an output depends on no cell but its own the sets hold one cell each.
    layer: takes and gives float32 tensors of `shape`; it should have random weights, as weights of 0 hide everything.
    Whatever `layer` raises is passed on.
    """
    generator = torch.Generator(device or "cpu").manual_seed(0)
    x = torch.randn(tuple(shape), device=device, generator=generator)
    with torch.no_grad():
        scaled, gated = layer(4 * x), False
        if not _same(scaled, layer(x)):
            x, gated = 256 * x, True
            scaled = layer(4 * x)
            if not _same(scaled, layer(x)):
                return None
    with torch.enable_grad():
        x.requires_grad_()
        y = layer(x)
        if not y.requires_grad:
            return None
        # The largest output: an activation in the layer lets it pass
        (gradient,) = torch.autograd.grad(y.flatten()[y.argmax()], x, allow_unused=True)
    if gradient is None or (gated and (gradient * x).abs().max() < 1e-3 * y.abs().max()):
        return None  # a softmax, which has come to its end
    touched, alone = gradient != 0, (1,) * x.ndim
    if int(touched.sum()) < 2:
        return Sharing(tuple(x.shape), alone)
    index = touched.nonzero()
    seen = [index[:, axis].unique() for axis in range(x.ndim)]
    spans = tuple(map(len, seen))
    blocks = all(
        size % span == 0 and int(at[-1] - at[0]) == span - 1 and int(at[0]) % span == 0
        for size, span, at in zip(x.shape, spans, seen, strict=True)
    )
    # A gradient that happens to be zero is no hole
    regular = blocks and len(index) > 0.98 * math.prod(spans)
    with torch.no_grad():
        centred = _same(layer(x.detach() + 3 * (256 if gated else 1)), scaled)
    return Sharing(tuple(x.shape), spans, centred, regular)


def _same(one: Tensor, two: Tensor) -> bool:
    """Whether two outputs are equal but for a layer's eps."""
    return bool((one - two).square().mean() <= 1e-4 * two.square().mean() + 1e-9)


def resized(sharing: Sharing, shape: tuple[int, ...]) -> Sharing:
    """The same sets on another shape: whatever spans an axis spans it whole, groups keep their number of cells."""
    spans = (
        size if span == old else min(span, size)
        for span, old, size in zip(sharing.spans, sharing.shape, shape, strict=True)
    )
    return replace(sharing, shape=shape, spans=tuple(spans))
