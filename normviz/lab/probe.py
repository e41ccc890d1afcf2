"""What goes on inside during training: a few numbers per block, taken by hooks on the steps that are probed.

Outlier ratio: the longest token over the root-mean-square token length.  LayerNorm keeps it at 1.  After
BatchNorm over N tokens each feature has mean 0 and variance 1, so by Samuelson's inequality (Samuelson 1968)
no value exceeds √(N-1), and neither does the ratio: `outlier_bound`.
"""

from __future__ import annotations

import math
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from normviz.lab.models.layers import batch_norm_of

#: Columns of `History.probes`, one number per block each.
METRICS = {
    "norm1_outlier": "outlier ratio of the tokens that attention gets",
    "norm2_outlier": "outlier ratio of the tokens that the FFN gets",
    "stream_outlier": "outlier ratio of the residual stream after the block",
    "hidden_rms": "root mean square of the FFN's hidden values, before FFN-BN",
    "hidden_max": "largest magnitude of the same",
    "ffn_rms": "root mean square of what the FFN adds to the stream",
    "attention_entropy": "mean entropy of attention over the batch's first 16 images, in nats; ln T is uniform",
    "running_gap": "median over features of |ln(running / batch variance)| at norm2; NaN without BatchNorm",
    "grad_norm": "norm of the gradient of the block's parameters",
    "update": "root mean square step of the block's parameters over the learning rate, weight decay left out",
}

ENTROPY_IMAGES = 16


def outlier_bound(tokens: int) -> float:
    """√(N-1), the largest outlier ratio that BatchNorm over N tokens lets through."""
    return math.sqrt(tokens - 1)


def token_lengths(x: Tensor) -> Tensor:
    """Euclidean length of every token: (..., D) to float32 (...)."""
    # In float32 the square of a value beyond 1.8e19 is infinite, and evaluation does get there
    return x.detach().double().square().sum(-1).sqrt_().float()


def attention_entropy(q: Tensor, k: Tensor) -> Tensor:
    """Mean entropy, in nats, of softmax(q·kᵀ/√d); q and k: (…, B, heads, T, d), the mean is over B, heads and T."""
    q, k = q.detach().float(), k.detach().float()
    scores = q.mul(q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # (…, B, heads, T, T)
    logs = scores.log_softmax(-1)
    return logs.exp().mul_(logs).sum(-1).mean((-3, -2, -1)).neg_()


class Probe:
    """Records METRICS of a `ViT` into columns.

    with probe.watching():      # hooks are on for this forward pass only: an unprobed step pays nothing
        loss = ...
    loss.backward()
    probe.record(step)
    optimizer.step()
    probe.record_update(optimizer)

    A hook takes down as little as it can; `record` makes the numbers of all blocks at once.  What a probe costs is
    mostly the number of its operations, each of which is small.
    """

    def __init__(self, model: nn.Module, columns: dict[str, list] | None = None):
        self.model = model
        self.columns = {} if columns is None else columns
        for name in ("step", "grad_norm_total", *METRICS):
            self.columns.setdefault(name, [])
        self._seen: dict[str, list] = {}
        self._before: list[list[Tensor]] = []
        norm = batch_norm_of(model)
        self.momentum = norm.momentum if norm and norm.momentum else math.nan

    @contextmanager
    def watching(self):
        """Hooks on every block for as long as the context lasts."""
        names = ("norm1", "norm2", "stream", "hidden", "ffn", "q", "k", "before", "after")
        self._seen = seen = {name: [] for name in names}

        def keep(site, measure):
            return lambda module, inputs, output: seen[site].append(measure(output))

        def norm2(module, inputs, output):
            seen["norm2"].append(_token_squares(output))
            seen["after"].append(_running_variance(module, output))

        def before_norm2(module, inputs):
            seen["before"].append(_running_variance(module, inputs[0]))

        def hidden(module, inputs, output):
            x = inputs[0].detach().float()
            seen["hidden"].append((_mean_square(x), *torch.aminmax(x)))

        def qkv(attention):
            def hook(module, inputs, output):
                q, k, _ = attention.split(output.detach()[:ENTROPY_IMAGES])
                seen["q"].append(q)
                seen["k"].append(k)

            return hook

        with ExitStack() as held:
            for block in self.model.blocks:
                held.enter_context(block.norm2.register_forward_pre_hook(before_norm2))
                for module, hook in (
                    (block.norm1, keep("norm1", _token_squares)), (block.attention.qkv, qkv(block.attention)),
                    (block.norm2, norm2), (block.ffn.norm, hidden), (block.ffn, keep("ffn", _mean_square)),
                    (block, keep("stream", _token_squares)),
                ):  # fmt: skip
                    held.enter_context(module.register_forward_hook(hook))
            yield self

    @torch.no_grad()
    def record(self, step: int) -> None:
        """Adds a row for `step`, with the gradients as they are now (unscaled, not yet clipped)."""
        seen, self._seen, values = self._seen, {}, {}
        for site in ("norm1", "norm2", "stream"):
            squares = torch.stack(seen[site]).flatten(1)  # (depth, N)
            values[f"{site}_outlier"] = (squares.amax(1) / squares.mean(1)).sqrt_()
        square, low, high = (torch.stack(column) for column in zip(*seen["hidden"], strict=True))
        values["hidden_rms"], values["hidden_max"] = square.sqrt_(), torch.maximum(-low, high)
        values["ffn_rms"] = torch.stack(seen["ffn"]).sqrt_()
        values["attention_entropy"] = attention_entropy(torch.stack(seen["q"]), torch.stack(seen["k"]))
        # BatchNorm worked out the batch's variance already: running = (1 − m)·before + m·batch
        before, running = torch.stack(seen["before"]), torch.stack(seen["after"])  # (depth, D)
        batch = ((running - (1 - self.momentum) * before) / self.momentum).clamp_min_(1e-30)
        values["running_gap"] = (running / batch).log_().abs_().median(1).values
        values["grad_norm"] = torch.stack([gradient_norm(block.parameters()) for block in self.model.blocks])
        in_blocks = set(map(id, self.model.blocks.parameters()))
        rest = [p.grad for p in self.model.parameters() if id(p) not in in_blocks and p.grad is not None]
        total = torch.cat([values["grad_norm"], torch.stack(torch._foreach_norm(rest))]).norm()
        # One transfer from the device for everything
        flat = torch.cat([*values.values(), total[None]]).tolist()
        depth = len(self.model.blocks)
        self.columns["step"].append(step)
        self.columns["grad_norm_total"].append(flat[-1])
        for i, name in enumerate(values):
            self.columns[name].append(flat[i * depth : (i + 1) * depth])
        self._before = [[p.detach().clone() for p in block.parameters()] for block in self.model.blocks]

    @torch.no_grad()
    def record_update(self, optimizer: torch.optim.Optimizer) -> None:
        """Adds how far the optimizer has moved the parameters since `record`, in units of its learning rate."""
        # AdamW: θ ← (1 − lr·decay)·θ − lr·u, and u is asked for
        decay = {
            id(p): group["weight_decay"] * isinstance(optimizer, torch.optim.AdamW)
            for group in optimizer.param_groups
            for p in group["params"]
        }
        lr, rows = optimizer.param_groups[0]["lr"], []
        for block, before in zip(self.model.blocks, self._before, strict=True):
            steps = [b * (1 - lr * decay[id(p)]) - p for p, b in zip(block.parameters(), before, strict=True)]
            count = sum(step.numel() for step in steps)
            rows.append(torch.stack(torch._foreach_norm(steps)).norm() / (lr * math.sqrt(count)))
        self._before = []
        self.columns["update"].append(torch.stack(rows).tolist())


def gradient_norm(parameters) -> Tensor:
    """Norm of all gradients together, a scalar on their device."""
    return torch.stack(torch._foreach_norm([p.grad for p in parameters if p.grad is not None])).norm()


def _token_squares(x: Tensor) -> Tensor:
    """Squared length of every token: (..., D) to float32 (...)."""
    return x.detach().float().square().sum(-1)


def _mean_square(x: Tensor) -> Tensor:
    x = x.detach().float().flatten()
    return torch.dot(x, x) / x.numel()


def _running_variance(module: nn.Module, x: Tensor) -> Tensor:
    """A copy of what a slot's BatchNorm keeps, float32 (D,); NaN where none learns from the batch x, (..., D)."""
    norm = batch_norm_of(module)
    if norm is None or not norm.training:
        return x.new_full(x.shape[-1:], math.nan, dtype=torch.float32)
    return norm.running_var.float().clone()


@torch.no_grad()
def token_norms(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Length of every token at every site, in the mode that the model is in; running statistics stay.

    x: standardised images (B, C, H, W).  Returns {"norm1", "norm2", "stream"}: float32 (depth, B, T).
    """
    lengths: dict[str, list[Tensor]] = {"norm1": [], "norm2": [], "stream": []}
    with ExitStack() as held, frozen_statistics(model):
        for block in model.blocks:
            for site, module in (("norm1", block.norm1), ("norm2", block.norm2), ("stream", block)):
                keep = lengths[site].append
                held.enter_context(module.register_forward_hook(lambda m, i, out, keep=keep: keep(token_lengths(out))))
        model(x)
    return {site: torch.stack(values) for site, values in lengths.items()}


@contextmanager
def in_mode(model: nn.Module, training: bool):
    """Within, the model trains or evaluates; then it is in its own mode again."""
    before = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(before)


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
