"""What goes on inside during training: a few numbers per block, taken by hooks on the steps that are probed.

Outlier ratio: the longest token over the root-mean-square token length.  LayerNorm keeps it at 1.  After
BatchNorm over N tokens each feature has mean 0 and variance 1, so by Samuelson's inequality (Samuelson 1968)
no value exceeds √(N-1), and neither does the ratio: `outlier_bound`.
"""

from __future__ import annotations

import math
from contextlib import contextmanager

import torch
from torch import Tensor, nn

#: Columns of `History.probes`, one number per block each.
METRICS = {
    "norm1_outlier": "outlier ratio of the tokens that attention gets",
    "norm2_outlier": "outlier ratio of the tokens that the FFN gets",
    "stream_outlier": "outlier ratio of the residual stream behind the block",
    "hidden_rms": "root mean square of the FFN's hidden values, before FFN-BN",
    "hidden_max": "largest magnitude of the same",
    "ffn_rms": "root mean square of what the FFN adds to the stream",
    "attention_entropy": "mean entropy of the attention weights, in nats; ln T is uniform attention",
    "running_gap": "median over features of |ln(running / batch variance)| at norm2; NaN without BatchNorm",
    "grad_norm": "norm of the gradient of the block's parameters",
}


def outlier_bound(tokens: int) -> float:
    """√(N-1), the largest outlier ratio that BatchNorm over N tokens lets through."""
    return math.sqrt(tokens - 1)


def token_lengths(x: Tensor) -> Tensor:
    """Euclidean length of every token: (..., D) to float32 (...)."""
    # In float32 the square of a value beyond 1.8e19 is infinite, and evaluation does get there
    return x.detach().double().square().sum(-1).sqrt_().float()


def outlier_ratio(x: Tensor) -> Tensor:
    """Longest over root-mean-square token length of (..., D): a scalar, at least 1; NaN if any value is."""
    squares = x.detach().float().square().sum(-1)
    return (squares.max() / squares.mean()).sqrt_()


def attention_entropy(q: Tensor, k: Tensor) -> Tensor:
    """Mean entropy, in nats, of softmax(q·kᵀ/√d); q and k: (B, heads, T, d)."""
    q, k = q.detach().float(), k.detach().float()
    scores = q.mul(q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # (B, heads, T, T)
    logs = scores.log_softmax(-1)
    return torch.dot(logs.exp().flatten(), logs.flatten()).neg_() / logs[..., 0].numel()


def batch_norm_of(module: nn.Module) -> nn.BatchNorm1d | None:
    """The BatchNorm inside a norm slot, if there is one."""
    return next((m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)), None)


class Probe:
    """Records METRICS of a `ViT` into columns.

    with probe.watching():      # hooks are on for this forward pass only: an unprobed step pays nothing
        loss = ...
    loss.backward()
    probe.record(step)
    """

    def __init__(self, model: nn.Module, columns: dict[str, list] | None = None):
        self.model = model
        self.columns = {} if columns is None else columns
        for name in ("step", "grad_norm_total", *METRICS):
            self.columns.setdefault(name, [])
        self._seen: dict[str, list[Tensor]] = {}

    @contextmanager
    def watching(self):
        """Hooks on every block for as long as the context lasts."""
        self._seen = {name: [] for name in METRICS}
        handles = []
        for block in self.model.blocks:
            for module, hook in (
                (block.norm1, self._norm1),
                (block.attention.qkv, self._qkv(block.attention)),
                (block.norm2, self._norm2),
                (block.ffn.norm, self._hidden),
                (block.ffn, self._ffn),
                (block, self._block),
            ):
                handles.append(module.register_forward_hook(hook))
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def _norm1(self, module, inputs, output):
        self._seen["norm1_outlier"].append(outlier_ratio(output))

    def _qkv(self, attention):
        def hook(module, inputs, output):
            q, k, _ = attention.split(output)
            self._seen["attention_entropy"].append(attention_entropy(q, k))

        return hook

    def _norm2(self, module, inputs, output):
        self._seen["norm2_outlier"].append(outlier_ratio(output))
        norm = batch_norm_of(module)
        if norm is None:
            gap = output.new_full((), math.nan, dtype=torch.float32)
        else:
            x = inputs[0].detach().float().flatten(0, -2)  # (N, D)
            # Ten times as fast as x.var(0)
            batch = (x - x.mean(0)).square_().sum(0) / (len(x) - 1)
            gap = (norm.running_var / batch).log_().abs_().median()
        self._seen["running_gap"].append(gap)

    def _hidden(self, module, inputs, output):
        x = inputs[0].detach().float()
        self._seen["hidden_rms"].append(torch.linalg.vector_norm(x) / x.numel() ** 0.5)
        self._seen["hidden_max"].append(torch.stack(torch.aminmax(x)).abs_().max())

    def _ffn(self, module, inputs, output):
        x = output.detach().float()
        self._seen["ffn_rms"].append(torch.linalg.vector_norm(x) / x.numel() ** 0.5)

    def _block(self, module, inputs, output):
        self._seen["stream_outlier"].append(outlier_ratio(output))

    @torch.no_grad()
    def record(self, step: int) -> None:
        """Adds a row for `step`, with the gradients as they are now (unscaled, not yet clipped)."""
        norms = []
        for block in self.model.blocks:
            gradients = [p.grad for p in block.parameters() if p.grad is not None]
            norms.append(torch.stack(torch._foreach_norm(gradients)).norm())
        self._seen["grad_norm"] = norms
        total = [p.grad for p in self.model.parameters() if p.grad is not None]
        names = [name for name, values in self._seen.items() if values]
        rows = [torch.stack(self._seen[name]) for name in names]
        # One transfer from the device for everything
        flat = torch.cat([*rows, torch.stack(torch._foreach_norm(total)).norm()[None]]).tolist()
        depth = len(self.model.blocks)
        self.columns["step"].append(step)
        self.columns["grad_norm_total"].append(flat[-1])
        for i, name in enumerate(names):
            self.columns[name].append(flat[i * depth : (i + 1) * depth])
        self._seen = {}


@torch.no_grad()
def token_norms(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Length of every token at every site, in the mode that the model is in; running statistics stay.

    x: standardised images (B, C, H, W).  Returns {"norm1", "norm2", "stream"}: float32 (depth, B, T).
    """
    found: dict[str, list[Tensor]] = {"norm1": [], "norm2": [], "stream": []}
    handles = []
    for block in model.blocks:
        for site, module in (("norm1", block.norm1), ("norm2", block.norm2), ("stream", block)):
            keep = found[site].append
            hook = module.register_forward_hook(lambda m, i, out, keep=keep: keep(token_lengths(out)))
            handles.append(hook)
    try:
        with frozen_statistics(model):
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return {site: torch.stack(lengths) for site, lengths in found.items()}


@contextmanager
def frozen_statistics(model: nn.Module):
    """Within, a model in training mode normalizes by its batch without learning from it."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
