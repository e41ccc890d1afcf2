"""A counter that watches real calls: how many kernels run, how many bytes they touch, how much arithmetic they do.

It checks the formulas of `normviz.costs` against what torch does, rather than against themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

# Reductions: one operation for each cell that goes in
_REDUCTIONS = {"mean", "sum", "var", "var_mean", "amax"}


class Counted(NamedTuple):
    """calls: kernels run, views not counted; bytes: of the tensors that they read and write, each tensor once a call.

    elementwise: operations of the pointwise and reducing kernels (a fused norm kernel hides its own: 0);
    matmul: operations of the matrix products, by `torch.utils.flop_counter`.
    """

    calls: int
    bytes: int
    elementwise: int
    matmul: int


class _Watch(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = self.bytes = self.elementwise = 0

    def __torch_dispatch__(self, kernel, types, args=(), kwargs=None):
        out = kernel(*args, **(kwargs or {}))
        if kernel.is_view or kernel.overloadpacket is torch.ops.aten.detach:
            return out
        outputs = _tensors(out if isinstance(out, (tuple, list)) else [out])
        inputs = _tensors([*args, *(kwargs or {}).values()])
        touched = sum(t.numel() * t.element_size() for t in (*inputs, *outputs))
        self.calls += touched > 0  # an empty place holder is no kernel
        self.bytes += touched
        name = kernel.overloadpacket.__name__
        if torch.Tag.pointwise in kernel.tags:
            self.elementwise += outputs[0].numel() * (2 if name == "addcmul" else 1)
        elif name in _REDUCTIONS:
            self.elementwise += inputs[0].numel()
        return out


def _tensors(values) -> list[Tensor]:
    return [value for value in values if isinstance(value, Tensor)]


@torch.no_grad()
def count(call: Callable[[], object]) -> Counted:
    """What happens in `call()`, without gradients."""
    watch, products = _Watch(), FlopCounterMode(display=False)
    with products, watch:
        call()
    return Counted(watch.calls, watch.bytes, watch.elementwise, products.get_total_flops())
