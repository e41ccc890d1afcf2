"""The torch module that a cut stands for.  torch itself is imported only when a module is built."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import nn

    from normviz.norms.cuts import Cut


class TorchCall(NamedTuple):
    """The torch module that a method stands for, and how the tensor is turned to suit it.

    `before` and `after` are a tensor method with its arguments, such as ("permute", (0, 2, 3, 1)), where it is turned.
    """

    name: str
    arguments: dict[str, Any]
    before: tuple[str, tuple] | None = None
    after: tuple[str, tuple] | None = None

    @property
    def constructor(self) -> str:
        return f"nn.{self.name}({', '.join(f'{k}={v!r}' for k, v in self.arguments.items())})"

    @property
    def forward(self) -> str:
        before, after = (turn and f".{turn[0]}({', '.join(map(repr, turn[1]))})" for turn in (self.before, self.after))
        return f"layer(x{before or ''}){after or ''}"

    def build(self, dtype=None, device=None) -> nn.Module:
        """The module, between the turns that it needs."""
        from torch import nn

        layer = getattr(nn, self.name)(**self.arguments, dtype=dtype, device=device)
        if not self.before:
            return layer
        from normviz.norms.permuted import Permuted

        return Permuted(layer, self.before, self.after)


def check_eps(eps) -> None:
    """Raises ValueError unless `eps` is a finite number of at least 0."""
    if isinstance(eps, bool) or not isinstance(eps, (int, float)) or not (0 <= eps < math.inf):
        raise ValueError(f"eps={eps!r} must be a finite number >= 0")


def check_momentum(momentum) -> None:
    """Raises ValueError unless `momentum` is a number from 0 to 1, or None for the plain average."""
    number = isinstance(momentum, (int, float)) and not isinstance(momentum, bool)
    if momentum is not None and not (number and 0 <= momentum <= 1):
        raise ValueError(f"momentum={momentum!r} must be a number from 0 to 1, or None for the average of all batches")


def torch_call(cut: Cut, *, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True) -> TorchCall:
    """How torch spells a cut: the row's module, its arguments, and the tensor's turns around it."""
    check_eps(eps)
    check_momentum(momentum)
    row, axes = cut.row, cut.axes
    rank, channel = len(axes.shape), axes.channel
    size = list(cut.affine_shape) if row.affine_per == "sample" else axes.channels
    arguments: dict[str, Any] = {"num_groups": cut.groups} if row.grouped else {}
    arguments |= {row.torch_size: size, "eps": eps} | ({"momentum": momentum} if row.running else {})
    arguments[row.torch_affine] = affine

    turns: tuple = ()
    if row.feature_axis == "last" and channel != rank - 1:
        last = (0, *axes.positions, channel)
        turns = ("permute", last), ("permute", tuple(map(last.index, range(rank))))
    elif row.feature_axis == "first" and channel != 1:
        turns = (("transpose", (1, 2)),) * 2
        if {"sample", "position"} <= row.over:
            # Samples and positions share a set, so tokens may be poured into one long batch: no transposed copy
            turns = ("flatten", (0, 1)), ("reshape", (-1, *axes.shape[1:]))
    elif "{d}" in row.torch_class and not axes.positions and "sample" not in row.over:
        turns = ("unsqueeze", (-1,)), ("squeeze", (-1,))  # torch would read (N, C) as one sample of shape (C, L)
    return TorchCall(row.torch_class.format(d=max(1, len(axes.positions))), arguments, *turns)
