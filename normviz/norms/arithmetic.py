"""Normalization from scratch: the arithmetic that `torch.nn` hides, on one page, for numpy arrays and torch tensors.

View the tensor with its channels in groups, take each set's mean, centre, take the mean square, divide, scale and
shift.  Which axes a set spans is all that tells the methods apart (`Cut.dims`).
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np

from normviz.norms.cuts import Cut, cut
from normviz.norms.layers import check_eps, check_momentum


class RunningStats(NamedTuple):
    """Running mean and variance of BatchNorm, updated in place: `mean` and `var` of shape (C,), `count` a scalar."""

    mean: Any
    var: Any
    count: Any = None

    @classmethod
    def fresh(cls, num_features: int, *, like=None) -> RunningStats:
        """Mean 0 and variance 1, as a new `nn.BatchNorm2d` starts.

        like: a tensor or array whose kind, dtype and device they take; by default float32 torch tensors.
        """
        if isinstance(like, np.ndarray):
            return cls(np.zeros(num_features, like.dtype), np.ones(num_features, like.dtype), np.zeros((), np.int64))
        import torch

        like = torch.empty(0, dtype=torch.float32) if like is None else like
        return cls(like.new_zeros(num_features), like.new_ones(num_features), like.new_zeros((), dtype=torch.long))


class Steps:
    """A tensor on its way through a normalization: raw, centred, scaled, affine, all of the input's shape.

    `mean` and `var` hold at every cell the statistics of its set; `var` is the biased variance, for RMSNorm the mean
    square (its `mean` is zero).
    """

    def __init__(self, cut: Cut, raw, centred, scaled, affine, mean, var):
        self.cut, self.raw, self.affine = cut, raw, affine
        self._centred, self._scaled, self._mean, self._var = centred, scaled, mean, var

    centred = property(lambda self: self._centred.reshape(self.cut.shape))
    scaled = property(lambda self: self._scaled.reshape(self.cut.shape))
    mean = property(lambda self: _spread(self._mean, self.cut))
    var = property(lambda self: _spread(self._var, self.cut))


def is_tensor(x) -> bool:
    """Whether x is a torch tensor; torch is not imported to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def _spread(statistic, cut: Cut):
    """A statistic of every set, at every cell."""
    whole = statistic.expand(cut.view) if is_tensor(statistic) else np.broadcast_to(statistic, cut.view)
    return whole.reshape(cut.shape)


def normalize_steps(
    x, method: str | Cut, num_groups=None, eps=1e-5, weight=None, bias=None, running=None, training=True,
    momentum=0.1, layout="NCHW",
) -> Steps:  # fmt: skip
    """`normalize`, with every intermediate kept.  method: a `Cut` of x's shape, too.  Arguments and errors as there."""
    _check_tensor(x)
    if isinstance(method, Cut) and method.shape != tuple(x.shape):
        raise ValueError(f"x has shape {tuple(x.shape)}; the cut is one of {method.shape}")
    c = cut(method, tuple(x.shape), num_groups, layout)
    _check_options(c, x, eps, weight, bias, running, training, momentum)

    view = _wide(x).reshape(c.view)  # (N, G, C/G, H, W), or (B, T, G, D/G)
    if running is not None and not training:
        per_channel = [size if i in (c.axes.channel, c.axes.channel + 1) else 1 for i, size in enumerate(c.view)]
        mean, var = (_as(s, view).reshape(per_channel) for s in running[:2])
    else:
        _refuse_single_values(c)
        mean = view.mean(axis=c.dims, keepdims=True) if c.row.centred else view[(slice(1),) * view.ndim] * 0
        # Not E[x²] − E[x]², which cancels when the mean is large
        var = ((view - mean) ** 2).mean(axis=c.dims, keepdims=True)
        if running is not None:
            _update(running, mean, var, c.set_size, momentum)

    centred = view - mean
    scaled = centred * (var + eps) ** -0.5
    y = scaled.reshape(c.shape)
    if c.row.affine_per == "channel":
        per_channel = [-1 if i == c.axes.channel else 1 for i in range(x.ndim)]
        weight, bias = (p if p is None else p.reshape(per_channel) for p in (weight, bias))
    y = y if weight is None else y * weight
    y = y if bias is None else y + bias
    return Steps(c, x, centred, scaled, _as(y, x), mean, var)


def normalize(
    x, method: str | Cut, num_groups=None, eps=1e-5, weight=None, bias=None, running=None, training=True,
    momentum=0.1, layout="NCHW",
):  # fmt: skip
    """`x` normalized by a method of the table: (x − mean) / √(var + eps) · weight + bias, set by set.

    RMSNorm ("rms") takes the mean as 0 and the mean square as var.

    x: floating-point tensor or array, (N, C), (N, C, L) or (N, C, H, W) for layout "NCHW", (B, T, D) for "BTD".
    method: a key of `METHODS`; "group" needs `num_groups`, a divisor of C.
    weight, bias: shape (C,); for "layer" the shape of one sample.
    running: for "batch", a `RunningStats` (or a pair mean, var of shape (C,)).  In training it is updated in place,
        `momentum` being the weight of the new batch (None: the plain average over all batches); with `training=False`
        it is used instead of the batch's statistics.  As in torch, the batch is normalized by its biased variance while
        the running variance takes the unbiased one.

    Returns a tensor or array of x's shape and dtype; a tensor is differentiable in x, weight and bias.
    Raises TypeError for what is no floating-point tensor or array; ValueError, naming the argument, for an unknown
    method or layout, a wrong rank, an empty axis, groups that do not divide C, weights of a wrong shape, eps below 0 or
    not finite (0 is taken: a set without variance then gives NaN), a momentum outside of 0 to 1, or a single value per
    set where torch refuses it too.
    Sources: `METHODS[method].source`.
    """
    return normalize_steps(x, method, num_groups, eps, weight, bias, running, training, momentum, layout).affine


def is_floating(x) -> bool:
    """Whether x is a floating-point tensor or array."""
    return x.is_floating_point() if is_tensor(x) else isinstance(x, np.ndarray) and x.dtype.kind == "f"


def _check_tensor(x) -> None:
    if is_floating(x):
        return
    got, advice = type(x).__name__, "torch.as_tensor(x).float() or np.asarray(x, float)"
    if is_tensor(x):
        got, advice = f"a tensor of {x.dtype}", "x.float()"
    elif isinstance(x, np.ndarray):
        got, advice = f"an array of {x.dtype}", "x.astype(float)"
    raise TypeError(f"x must be a floating-point tensor or array, got {got}; convert it with {advice}")


def _wide(x):
    """Half precision is summed up in float32, as torch does."""
    return x if x.dtype.itemsize >= 4 else x.float() if is_tensor(x) else x.astype(np.float32)


def _as(values, like):
    """`values` in the dtype of `like`."""
    if values.dtype == like.dtype:
        return values
    return values.to(like.dtype) if is_tensor(values) else values.astype(like.dtype)


def _refuse_single_values(c: Cut) -> None:
    refused = {"zero": False, "alone": c.shape[0] == 1, "refuse": True}[c.row.single_value]
    if c.set_size == 1 and refused:
        per = "group" if c.row.grouped else "channel"
        raise ValueError(
            f"x of shape {c.shape} gives {c.row.key!r} a single value per {per} to average over; "
            f"it takes at least 2{' in training' if c.row.running else ''}"
        )


def _check_options(c: Cut, x, eps, weight, bias, running, training, momentum) -> None:
    check_eps(eps)
    check_momentum(momentum)
    named = [("weight", weight, c.affine_shape), ("bias", bias, c.affine_shape)]
    if running is not None:
        if not c.row.running:
            raise ValueError(f"running= does not go with method {c.row.key!r}, which keeps no running statistics")
        if not isinstance(running, (tuple, list)) or len(running) not in (2, 3):
            raise TypeError(f"running must be a RunningStats or a pair (mean, var), got {type(running).__name__}")
        named += zip(("running mean", "running var"), running, [(c.axes.channels,)] * 2, strict=False)
        if training and momentum is None and (len(running) < 3 or running[2] is None):
            raise ValueError("momentum=None averages over all batches and needs running= with a count (RunningStats)")
    elif c.row.running and not training:
        raise ValueError(f"training=False needs running= for method {c.row.key!r}: the statistics that it is to use")
    for name, value, expected in named:
        if value is None:
            continue
        if is_tensor(value) != is_tensor(x) or not hasattr(value, "shape"):
            kind = "Tensor" if is_tensor(x) else type(x).__name__
            raise TypeError(f"{name} must be a {kind}, as x is, got {type(value).__name__}")
        if tuple(value.shape) != expected:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}; {c.row.key!r} takes {expected} for x of {c.shape}"
            )


def _update(running, mean, var, size: int, momentum: float | None) -> None:
    """running ← (1 − momentum) · running + momentum · batch, with the unbiased variance of the batch."""
    if is_tensor(mean):
        mean, var = mean.detach(), var.detach()
    count = running[2] if len(running) > 2 else None
    if count is not None:
        count += 1
    if momentum is None:
        momentum = 1.0 / float(count)
    for stored, batch in zip(running, (mean, var * (size / (size - 1))), strict=False):
        stored += momentum * (_as(batch.reshape(-1), stored) - stored)
