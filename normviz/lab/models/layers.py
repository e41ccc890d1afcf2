"""Norm slots of the ViT: what can fill one beside the methods of `normviz.METHODS`.  Each takes and gives (B, T, D).

Layers of the interventions (`Gain`, `Cap`, `GhostBatchNorm`), and what came after the article: `DyT` and `Derf`, which
compute no statistics at all, and `PRepBN` and `RBN`, which mend BatchNorm.  `short` is a layer's name in pictures.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normviz import torch_layer


def batch_norm_of(module: nn.Module) -> nn.BatchNorm1d | None:
    """The BatchNorm inside a norm slot, if there is one."""
    return next((m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)), None)


class Cap(nn.Module):
    """Shortens tokens of more than `limit`·√D to that length; the others pass untouched."""

    def __init__(self, limit: float):
        super().__init__()
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        rms = x.square().mean(-1, keepdim=True).sqrt()  # (B, T, 1); a token's length is this times √D
        return x * (self.limit / rms.clamp_min(self.limit))


class Gain(nn.Module):
    """Multiplies by a constant: what a norm does to the scale, without any statistics."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor
        self.short = f"× {factor:.2g}"

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def hidden_rms(kind: str, width: int, hidden: int) -> float:
    """Root mean square of an FFN's hidden values at initialisation, for tokens of independent N(0, 1) features.

    With Xavier weights fc1's outputs are N(0, 2·width/(width + outputs)); the rest is Gauss–Hermite quadrature.
    """
    outputs = 2 * hidden if kind == "swiglu" else hidden
    spread = math.sqrt(2 * width / (width + outputs))
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(60))
    act = F.silu if kind == "swiglu" else F.gelu
    square = (weights * act(spread * nodes).square()).sum().item() / math.sqrt(2 * math.pi)
    return math.sqrt(square) * (spread if kind == "swiglu" else 1.0)


class GhostBatchNorm(nn.BatchNorm1d):
    """BatchNorm over groups of `tokens` consecutive tokens instead of the whole batch (Hoffer et al. 2017,
    arXiv:1705.08741); the running statistics learn from the mean over the groups.  What is left over at the end
    of a batch is a group of its own."""

    def __init__(self, num_features: int, tokens: int, momentum: float = 0.1):
        super().__init__(num_features, momentum=momentum)
        self.tokens = tokens
        self.short = f"BN over {tokens} tokens"

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2)  # (N, D)
        if not self.training:
            return super().forward(rows).view_as(x)
        whole = len(rows) // self.tokens * self.tokens
        parts = [part for part in (rows[:whole], rows[whole:]) if len(part)]
        return torch.cat([self._grouped(part) for part in parts]).view_as(x)

    def _grouped(self, rows: Tensor) -> Tensor:
        groups, width = max(1, len(rows) // self.tokens), self.num_features
        view = rows.view(groups, -1, width).transpose(0, 1).flatten(1)  # (n, G·D): a feature of its own each
        learns = self.track_running_stats
        mean, var = (s.repeat(groups) for s in (self.running_mean, self.running_var))
        y = F.batch_norm(
            view, mean if learns else None, var if learns else None,
            self.weight.repeat(groups), self.bias.repeat(groups), True, self.momentum, self.eps,
        )  # fmt: skip
        if learns:
            with torch.no_grad():
                self.running_mean.copy_(mean.view(groups, width).mean(0))
                self.running_var.copy_(var.view(groups, width).mean(0))
        return y.view(-1, groups, width).transpose(0, 1).reshape(-1, width)


class DyT(nn.Module):
    """γ·tanh(αx) + β: squashes instead of normalizing (Zhu et al. 2025, arXiv:2503.10622); α starts at 0.5."""

    short = "DyT"
    squash = staticmethod(torch.tanh)

    def __init__(self, width: int, alpha: float = 0.5):
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), alpha))
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * self.squash(self.alpha * x) + self.bias


class Derf(DyT):
    """γ·erf(αx + s) + β (Chen et al. 2025, arXiv:2512.10938); s starts at 0."""

    short = "Derf"
    squash = staticmethod(torch.erf)

    def __init__(self, width: int, alpha: float = 0.5):
        super().__init__(width, alpha)
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * self.squash(self.alpha * x + self.shift) + self.bias


class PRepBN(nn.Module):
    """λ·LN(x) + (1 − λ)·(BN(x) + ηx), with λ taken from 1 to 0 during training (Guo et al., SLAB, ICML 2024,
    arXiv:2405.11582); η is learned and starts at 1.  `ln_weight` is λ; the trainer sets it."""

    short = "PRepBN"

    def __init__(self, width: int, momentum: float = 0.1):
        super().__init__()
        self.ln_weight = 1.0
        self.ln = nn.LayerNorm(width)
        self.bn = nn.BatchNorm1d(width, momentum=momentum)
        self.eta = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        if self.ln_weight == 1 and not self.training:
            return self.ln(x)
        # While λ = 1 too, so that the running statistics learn
        rep = self.bn(x.flatten(0, -2)).view_as(x) + self.eta * x
        return self.ln_weight * self.ln(x) + (1 - self.ln_weight) * rep if self.ln_weight else rep


class RBN(nn.BatchNorm1d):
    """BatchNorm that is punished for batch statistics far from its running ones (Wang et al., NeurIPS 2022,
    arXiv:2210.05153).

    `penalty`, of the last batch in training: the mean over the features of (μ_B − μ)²/σ² + (σ_B/σ − 1)², with μ and σ
    the running statistics before that batch, so that it has no unit.
    """

    short = "RBN"
    penalty: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2)  # (N, D)
        if self.training:
            var, mean = torch.var_mean(rows.float(), 0, correction=0)
            scale = (self.running_var + self.eps).sqrt()
            off = (mean - self.running_mean) / scale
            self.penalty = (off.square() + ((var + self.eps).sqrt() / scale - 1).square()).mean()
        return super().forward(rows).view_as(x)


class Norms(NamedTuple):
    """How the slots of one model are filled."""

    momentum: float = 0.1  # of every BatchNorm
    ghost: int | None = None  # tokens that share BatchNorm's statistics; None: the whole batch
    gain: float = 1.0  # of "gain"

    def slot(self, method: str | None, tokens: int, width: int, cap: float | None = None) -> nn.Module:
        """The module for a norm slot that sees (B, tokens, width)."""
        if method is None:
            return nn.Identity()
        if method in LAYERS:
            layer = LAYERS[method](self, width)
        elif method == "batch" and self.ghost is not None:
            layer = GhostBatchNorm(width, self.ghost, self.momentum)
        else:
            layer = torch_layer(method, (1, tokens, width), layout="BTD")
            if norm := batch_norm_of(layer):
                norm.momentum = self.momentum
        return layer if cap is None else nn.Sequential(layer, Cap(cap))


#: What a slot may hold beside the methods of the table.
LAYERS = MappingProxyType(
    {
        "gain": lambda norms, width: Gain(norms.gain),
        "dyt": lambda norms, width: DyT(width),
        "derf": lambda norms, width: Derf(width),
        "prepbn": lambda norms, width: PRepBN(width, norms.momentum),
        "rbn": lambda norms, width: RBN(width, momentum=norms.momentum),
    }
)
