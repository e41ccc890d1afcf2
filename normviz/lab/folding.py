"""BatchNorm in evaluation folded into the Linear after it: the network that is left normalizes nothing.

In evaluation BatchNorm's mean μ and variance σ² are stored numbers, so it maps each feature by a fixed straight line,

    y = s ⊙ x + t,    s = γ / √(σ² + ε),    t = β − s ⊙ μ,

and a Linear that takes y can take x instead, with other numbers (Ioffe & Szegedy 2015, arXiv:1502.03167, sect. 3.1):

    W y + b  =  (W diag(s)) x + (b + W t).

Per-token layers stay: LayerNorm and RMSNorm compute s and t from the token itself, which no constant can stand for.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from normviz.lab.models.layers import Cap, Gain, PRepBN
from normviz.lab.models.vit import ViT

_PER_TOKEN = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
_BATCH = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fold(model: ViT) -> ViT:
    """A copy of `model` in evaluation mode, without normalization and with the same answers.

    norm1 goes into qkv, norm2 into the FFN's first Linear, ffn_norm into its second, and final, past the mean over
    tokens, into the head; what stands before the activation goes back into the first Linear, and what stands after the
    patch embedding back into that.  `model` itself stays as it is, its mode too.

    Raises TypeError for anything but a `normviz.lab.ViT`; ValueError, naming the slot, where one does not hold a
    BatchNorm with running statistics (LayerNorm, RMSNorm, a Cap after the BatchNorm).
    """
    if not isinstance(model, ViT):
        raise TypeError(f"model={type(model).__name__} cannot be folded as a whole; it takes a normviz.lab.ViT")
    folded = copy.deepcopy(model).eval()
    embedding = folded.embedding
    folded.embed_norm = _absorb_back(folded.embed_norm, embedding.linear, "embed_norm", embedding.position)
    for i, block in enumerate(folded.blocks):
        block.norm1 = _absorb(block.norm1, block.attention.qkv, f"blocks[{i}].norm1")
        block.norm2 = _absorb(block.norm2, block.ffn.fc1, f"blocks[{i}].norm2")
        block.ffn.before = _absorb_back(block.ffn.before, block.ffn.fc1, f"blocks[{i}].ffn.before")
        block.ffn.norm = _absorb(block.ffn.norm, block.ffn.fc2, f"blocks[{i}].ffn.norm")
    # s and t are the same for every token: they may wait until the tokens have been averaged
    folded.final = _absorb(folded.final, folded.head, "final")
    return folded


@torch.no_grad()
def fold_into(linear: nn.Linear, norm: nn.Module) -> nn.Linear:
    """A new Linear that does to x what `linear(norm(x))` does in evaluation.  Both arguments stay as they are.

    linear: takes D features; norm: a BatchNorm over D features with running statistics.
    Raises ValueError for any other normalization or number of features.
    """
    scale, shift = _scale_and_shift(norm, "norm")
    if scale.ndim == 0:
        scale, shift = scale.expand(linear.in_features), shift.expand(linear.in_features)
    if len(scale) != linear.in_features:
        raise ValueError(f"norm has {len(scale)} features, linear takes {linear.in_features}: they must agree")
    weight = linear.weight.double()  # (out, D); rounded once, at the end
    bias = weight @ shift if linear.bias is None else linear.bias.double() + weight @ shift
    folded = copy.deepcopy(linear)
    folded.weight.copy_(weight * scale)
    folded.bias = nn.Parameter(bias.to(linear.weight.dtype))
    return folded


def _absorb(norm: nn.Module, linear: nn.Linear, name: str) -> nn.Module:
    """Folds into `linear` itself; returns what stays in the slot, which does nothing."""
    if not isinstance(norm, nn.Identity):
        _scale_and_shift(norm, name)  # an error names the slot
        merged = fold_into(linear, norm)
        linear.weight, linear.bias = merged.weight, merged.bias
    return nn.Identity()


@torch.no_grad()
def _absorb_back(norm: nn.Module, linear: nn.Linear, name: str, added: nn.Parameter | None = None) -> nn.Module:
    """Folds into the `linear` before it, y = s ⊙ (W x + b) + t; `added`, to its outputs, is scaled too."""
    if not isinstance(norm, nn.Identity):
        scale, shift = _scale_and_shift(norm, name)
        kind = linear.weight.dtype
        weight, bias = linear.weight.double() * scale[:, None], linear.bias.double() * scale + shift
        linear.weight, linear.bias = nn.Parameter(weight.to(kind)), nn.Parameter(bias.to(kind))
        if added is not None:
            added.copy_(added.double() * scale)
    return nn.Identity()


@torch.no_grad()
def _scale_and_shift(norm: nn.Module, name: str) -> tuple[Tensor, Tensor]:
    """s and t of a BatchNorm in evaluation, float64 (D,) each; of a Gain, which has no features of its own, scalars."""
    layer = getattr(norm, "layer", norm)  # of a layer between two permutations of the axes
    if isinstance(layer, Gain):
        return torch.tensor(layer.factor, dtype=torch.double), torch.tensor(0.0, dtype=torch.double)
    if isinstance(layer, PRepBN) and layer.ln_weight == 0:  # BN(x) + ηx is a straight line too
        scale, shift = _scale_and_shift(layer.bn, name)
        return scale + layer.eta.double(), shift
    part = next((part for part in layer.modules() if isinstance(part, Cap)), layer)
    why = {
        Cap: "which shortens a token by its own length: that is not linear in x, and a Linear cannot take it over",
        **dict.fromkeys(_PER_TOKEN, "whose statistics depend on the token: no constant weights can stand for them"),
    }.get(type(part))
    if why:
        raise ValueError(f"{name} holds {type(part).__name__}, {why}; only BatchNorm in evaluation can be folded")
    if not isinstance(layer, _BATCH):
        raise ValueError(f"{name} holds {type(layer).__name__}; only BatchNorm in evaluation can be folded")
    if layer.running_mean is None:
        raise ValueError(
            f"{name} holds a BatchNorm with track_running_stats=False: in evaluation too its statistics are those "
            f"of the batch, which no constant weights can stand for"
        )
    scale = (layer.running_var.double() + layer.eps).rsqrt()
    if layer.weight is not None:
        scale = scale * layer.weight.double()
    shift = -scale * layer.running_mean.double()
    return scale, shift if layer.bias is None else shift + layer.bias.double()
