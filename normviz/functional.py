"""Normalization from scratch: the arithmetic that `torch.nn` hides, in a page, and torch's own layers to check it.

Every method does the same four steps on the sets of its row (see `methods.py`): take the values, subtract the set's
mean, divide by its standard deviation, scale and shift.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from normviz.methods import (
    Axes,
    Method,
    TorchCall,
    affine_shape,
    axes_of,
    check_groups,
    method_row,
    torch_call,
)


class RunningStats(NamedTuple):
    """Running mean and variance of BatchNorm, updated in place: `mean` and `var` of shape (C,), `count` a scalar."""

    mean: Tensor
    var: Tensor
    count: Tensor | None = None

    @classmethod
    def fresh(cls, num_features: int, *, dtype=torch.float32, device=None) -> RunningStats:
        """Mean 0 and variance 1, as a new `nn.BatchNorm2d` starts."""
        return cls(
            torch.zeros(num_features, dtype=dtype, device=device),
            torch.ones(num_features, dtype=dtype, device=device),
            torch.zeros((), dtype=torch.long, device=device),
        )


class Steps(NamedTuple):
    """A tensor on its way through a normalization; all six have the input's shape.

    `mean` and `var` hold at every cell the statistics of its set; `var` is the biased variance, for RMSNorm the
    mean square (its `mean` is zero).
    """

    raw: Tensor
    centred: Tensor
    scaled: Tensor
    affine: Tensor
    mean: Tensor
    var: Tensor


def _view(x: Tensor, row: Method, axes: Axes, groups: int) -> tuple[Tensor, tuple[int, ...]]:
    """x as (N, G, C/G, P) with all positions on one axis, and the dimensions of it that one set spans."""
    n, c = axes.shape[0], axes.channels
    view = x.permute(axes.to_ncp()).reshape(n, groups, c // groups, -1)  # (N, G, C/G, P)
    dims = tuple(
        dim
        for dim, role in enumerate(("sample", "group", "channel", "position"))
        if role in row.over or (role == "group" and "channel" in row.over and not row.grouped)
    )
    return view, dims


def _unview(view: Tensor, axes: Axes) -> Tensor:
    """Back from (N, G, C/G, P) to the tensor's own layout."""
    order = axes.to_ncp()
    x = view.reshape([axes.shape[i] for i in order])
    return x.permute([order.index(i) for i in range(len(order))])


def normalize_steps(
    x: Tensor,
    method: str,
    num_groups: int | None = None,
    eps: float = 1e-5,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    running: RunningStats | None = None,
    training: bool = True,
    momentum: float | None = 0.1,
    layout: str = "NCHW",
) -> Steps:
    """`normalize`, with every intermediate kept.  Arguments, errors and sources as there."""
    row = method_row(method)
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = f"a tensor of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        advice = "x.float()" if isinstance(x, Tensor) else "torch.as_tensor(x).float()"
        raise TypeError(f"x must be a floating-point tensor, got {got}; convert it with {advice}")
    axes = axes_of(x.shape, layout)
    groups = check_groups(row, axes.channels, num_groups)
    _check_options(row, axes, eps, weight, bias, running, training)

    # Half precision is summed up in float32, as torch does
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    view, dims = _view(wide, row, axes, groups)

    if running is not None and not training:
        mean, var = (s.to(view.dtype).reshape(1, groups, -1, 1) for s in running[:2])
    else:
        size = view.numel() // _number_of_sets(view, dims)
        if size == 1 and row.single_value == "refuse":
            raise ValueError(
                f"x of shape {tuple(x.shape)} gives {row.key!r} a single value per channel to average over; "
                f"it takes at least 2{' in training' if row.running else ''}"
            )
        mean = view.mean(dims, keepdim=True) if row.centred else view.new_zeros(1, 1, 1, 1)
        # Not E[x²]-E[x]², which cancels when the mean is large
        var = (view - mean).square().mean(dims, keepdim=True)
        if running is not None:
            _update(running, mean.detach().flatten(), var.detach().flatten(), size, momentum)

    centred = view - mean
    scaled = centred * torch.rsqrt(var + eps)
    affine = _unview(scaled, axes)
    per_channel = [1] * x.ndim
    per_channel[axes.channel] = -1
    if weight is not None:
        affine = affine * (weight.view(per_channel) if row.affine_per == "channel" else weight)
    if bias is not None:
        affine = affine + (bias.view(per_channel) if row.affine_per == "channel" else bias)
    mean, var = (_unview(s.expand_as(view), axes) for s in (mean, var))
    return Steps(x, _unview(centred, axes), _unview(scaled, axes), affine.to(x.dtype), mean, var)


def normalize(
    x: Tensor,
    method: str,
    num_groups: int | None = None,
    eps: float = 1e-5,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    running: RunningStats | None = None,
    training: bool = True,
    momentum: float | None = 0.1,
    layout: str = "NCHW",
) -> Tensor:
    """Normalize `x` by a method of the table: (x - mean) / sqrt(var + eps) · weight + bias, set by set.

    RMSNorm ("rms") takes the mean as 0 and the mean square as var.

    x: floating-point tensor, (N, C), (N, C, L) or (N, C, H, W) for layout "NCHW", (B, T, D) for "BTD".
    method: a key of `METHODS`; "group" needs `num_groups`, a divisor of C.
    weight, bias: shape (C,); for "layer" the shape of one sample.
    running: for "batch", a `RunningStats` (or a pair of tensors mean, var of shape (C,)).  In training it is
        updated in place, `momentum` being the weight of the new batch (None: the plain average over all batches);
        with `training=False` it is used instead of the batch's statistics.  As in torch, the batch is normalized
        by its biased variance while the running variance takes the unbiased one.

    Returns a tensor of x's shape and dtype, differentiable in x, weight and bias.
    Raises TypeError for a tensor that is not floating-point; ValueError, naming the argument, for an unknown method
    or layout, a wrong rank, an empty axis, groups that do not divide C, weights of a wrong shape, eps that is not
    positive, or a single value per channel where torch refuses it too.
    Sources: `METHODS[method].source`.
    """
    return normalize_steps(
        x, method, num_groups, eps, weight, bias, running, training, momentum, layout
    ).affine


def _number_of_sets(view: Tensor, dims: tuple[int, ...]) -> int:
    sets = 1
    for dim, size in enumerate(view.shape):
        sets *= 1 if dim in dims else size
    return sets


def _check_options(row, axes, eps, weight, bias, running, training) -> None:
    if not eps >= 0:
        raise ValueError(f"eps={eps!r} must be a number of at least 0")
    expected = affine_shape(row, axes)
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None and tuple(value.shape) != expected:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}; {row.key!r} takes {expected} for x of {axes.shape}"
            )
    if running is not None and not row.running:
        raise ValueError(
            f"running= does not go with method {row.key!r}: only 'batch' keeps running statistics"
        )
    if running is None and row.running and not training:
        raise ValueError(
            f"training=False needs running= for method {row.key!r}: the statistics that it is to use"
        )
    if running is not None:
        for name, value in zip(("mean", "var"), running[:2], strict=True):
            if tuple(value.shape) != (axes.channels,):
                raise ValueError(
                    f"running {name} has shape {tuple(value.shape)}; it takes ({axes.channels},)"
                )


@torch.no_grad()
def _update(running: RunningStats, mean: Tensor, var: Tensor, size: int, momentum: float | None) -> None:
    """running ← (1 - momentum) · running + momentum · batch, with the unbiased variance of the batch."""
    count = running[2] if len(running) > 2 else None
    if count is not None:
        count += 1
    if momentum is None:
        if count is None:
            raise ValueError(
                "momentum=None averages over all batches and needs running= with a count (RunningStats)"
            )
        momentum = 1.0 / float(count)
    running[0].lerp_(mean.to(running[0].dtype), momentum)
    running[1].lerp_((var * (size / (size - 1))).to(running[1].dtype), momentum)


class Turned(nn.Module):
    """A torch layer between two turns of the tensor, such as LayerNorm over the channels of an image.

    The layer itself is `.layer`; its `weight` and `bias` are within reach under their own names.
    """

    def __init__(self, layer: nn.Module, call: TorchCall):
        super().__init__()
        self.layer = layer
        self.before, self.after = call.before, call.after

    def forward(self, x: Tensor) -> Tensor:
        for name, arguments in self.before:
            x = getattr(x, name)(*arguments)
        x = self.layer(x)
        for name, arguments in self.after:
            x = getattr(x, name)(*arguments)
        return x

    @property
    def weight(self):
        return self.layer.weight

    @property
    def bias(self):
        return getattr(self.layer, "bias", None)

    def extra_repr(self) -> str:
        return f"before={self.before}, after={self.after}"


def torch_layer(
    method: str,
    shape,
    num_groups: int | None = None,
    *,
    eps: float = 1e-5,
    momentum: float | None = 0.1,
    affine: bool = True,
    layout: str = "NCHW",
    dtype=None,
    device=None,
) -> nn.Module:
    """The `torch.nn` module that agrees with `normalize` on tensors of `shape`, wrapped where torch wants other axes.

    Raises ValueError as `normalize` does.
    """
    call = torch_call(method, shape, num_groups, eps=eps, momentum=momentum, affine=affine, layout=layout)
    layer = getattr(nn, call.name)(**call.arguments, dtype=dtype, device=device)
    return Turned(layer, call) if call.before else layer
