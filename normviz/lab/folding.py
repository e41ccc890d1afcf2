"""BatchNorm in evaluation folded into the Linear or Conv beside it: what is left normalizes nothing.

In evaluation BatchNorm's mean μ and variance σ² are stored numbers, so it maps each feature by a fixed straight line,

    y = s ⊙ x + t,    s = γ / √(σ² + ε),    t = β − s ⊙ μ,

and a Linear that takes y can take x instead, with other numbers (Ioffe & Szegedy 2015, arXiv:1502.03167, sect. 3.1):

    W y + b  =  (W diag(s)) x + (b + W t).

The layer before it can take it over too: s ⊙ (W x + b) + t = (diag(s) W) x + (s ⊙ b + t).
Per-token layers stay: LayerNorm and RMSNorm compute s and t from the token itself, which no constant can stand for.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call

from normviz.lab.models.layers import Cap, Gain, PRepBN
from normviz.lab.models.vit import ViT

_WHY_NOT = {
    Cap: ", which shortens a token by its own length: that is not linear in x, and a Linear cannot take it over",
    **dict.fromkeys(
        (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm),
        ", whose statistics depend on the token: no constant weights can stand for them",
    ),
}
_BATCH = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@torch.no_grad()
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
    if not isinstance(folded.embed_norm, nn.Identity):  # it scales the positions too
        embedding.position.copy_(embedding.position.double() * _scale_and_shift(folded.embed_norm, "embed_norm")[0])
    folded.embed_norm = _absorb(folded.embed_norm, embedding.linear, "embed_norm", back=True)
    for i, block in enumerate(folded.blocks):
        block.norm1 = _absorb(block.norm1, block.attention.qkv, f"blocks[{i}].norm1")
        block.norm2 = _absorb(block.norm2, block.ffn.fc1, f"blocks[{i}].norm2")
        block.ffn.before = _absorb(block.ffn.before, block.ffn.fc1, f"blocks[{i}].ffn.before", back=True)
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
    folded = copy.deepcopy(linear)
    _absorb(norm, folded, "norm")
    return folded


def _absorb(norm: nn.Module, linear: nn.Linear, name: str, back: bool = False) -> nn.Module:
    """Folds into the `linear` after it, or `back` into that before it; returns what stays: nothing that does anything.

    name: of the slot, for messages.
    """
    if not isinstance(norm, nn.Identity):
        features = linear.out_features if back else linear.in_features
        scale, shift = _scale_and_shift(norm, name)
        if scale.ndim == 0:  # a Gain has no features of its own
            scale, shift = (value.to(linear.weight.device).expand(features) for value in (scale, shift))
        if len(scale) != features:
            does = "gives" if back else "takes"
            raise ValueError(f"{name} has {len(scale)} features, linear {does} {features}: they must agree")
        (absorb_output if back else absorb_input)(linear, scale, shift)
    return nn.Identity()


def _scale_and_shift(norm: nn.Module, name: str) -> tuple[Tensor, Tensor]:
    """s and t of a BatchNorm in evaluation, float64 (D,) each; of a Gain scalars."""
    layer = getattr(norm, "layer", norm)  # of a layer between two permutations of the axes
    if isinstance(layer, Gain):
        return torch.tensor(layer.factor, dtype=torch.double), torch.tensor(0.0, dtype=torch.double)
    if isinstance(layer, PRepBN) and layer.ln_weight == 0:  # BN(x) + ηx is a straight line too
        scale, shift = _scale_and_shift(layer.bn, name)
        return scale + layer.eta.double(), shift
    part = next((part for part in layer.modules() if isinstance(part, Cap)), layer)
    why = _WHY_NOT.get(type(part), "")
    if why or not isinstance(layer, _BATCH):
        raise ValueError(f"{name} holds {type(part).__name__}{why}; only BatchNorm in evaluation can be folded")
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


@torch.no_grad()
def absorb_input(layer: nn.Module, scale: Tensor, shift: Tensor) -> None:
    """Changes a Linear or Conv so that it does to x what it did to scale ⊙ x + shift.  Its parameters are new ones.

    scale, shift: float64, one for each input feature.  Raises ValueError where a shift cannot be told from the zeros of
    a padding, or the number of features is another.
    """
    weight, axis, _ = _grouped(layer)
    scale = _along(scale, weight, axis, "takes")
    if pads_with_zeros(layer) and shift.any():
        raise ValueError(f"{type(layer).__name__} pads with zeros, which a shift before it would have moved")
    bias = layer.bias
    if not getattr(layer, "transposed", False):  # of a transposed Conv the shift is 0
        more = (weight * _along(shift, weight, axis, "takes")).flatten(2).sum(2).flatten()
        bias = more if bias is None else bias.double() + more
    _store(layer, weight * scale, bias)


@torch.no_grad()
def absorb_output(layer: nn.Module, scale: Tensor, shift: Tensor) -> None:
    """Changes a Linear, Conv or transposed Conv so that it gives scale ⊙ y + shift where it gave y.

    scale, shift: float64, one for each output feature.  Raises ValueError where their number is another.
    """
    weight, _, axis = _grouped(layer)
    weight = weight * _along(scale, weight, axis, "gives")
    _store(layer, weight, shift if layer.bias is None else layer.bias.double() * scale + shift)


def pads_with_zeros(layer: nn.Module) -> bool:
    """Whether a Linear or Conv reads zeros beside its input; of a transposed Conv the border counts as such."""
    padding = getattr(layer, "padding", 0)
    some = (padding == "same" and max(layer.kernel_size) > 1) or (isinstance(padding, tuple) and any(padding))
    return getattr(layer, "transposed", False) or (some and layer.padding_mode == "zeros")


def _grouped(layer: nn.Module) -> tuple[Tensor, int, int]:
    """A layer's weight in float64, to be rounded once, with its groups as an axis of their own; the axes of in and out.

    (groups, out / groups, in / groups, …), of a transposed Conv (groups, in / groups, out / groups, …).
    """
    weight = layer.weight.double().unflatten(0, (getattr(layer, "groups", 1), -1))
    return (weight, 1, 2) if getattr(layer, "transposed", False) else (weight, 2, 1)


def _along(values: Tensor, weight: Tensor, axis: int, does: str) -> Tensor:
    """One value for each feature, to be multiplied with the weight of `_grouped`, whose features are on that axis."""
    features = weight.shape[0] * weight.shape[axis]
    if len(values) != features:
        raise ValueError(f"scale has {len(values)} features, the layer {does} {features}: they must agree")
    return values.view([size if i in (0, axis) else 1 for i, size in enumerate(weight.shape)])


def _store(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    """Rounds the weight of `_grouped` and a bias to the layer's precision and puts them into it."""
    kind, learns = layer.weight.dtype, layer.weight.requires_grad
    layer.weight = nn.Parameter(weight.flatten(0, 1).to(kind), learns)
    if bias is not None and bias is not layer.bias:
        layer.bias = nn.Parameter(bias.to(kind), learns)


@torch.no_grad()
def straight_line(layer: nn.Module, shape, channel: int) -> tuple[Tensor, Tensor, nn.Module]:
    """What a layer in evaluation does, as s ⊙ x + t and what is left to do after it (an activation, or nothing).

    s and t, float64 and one a channel, are read off its outputs, not off its class; an activation that is part of a
    BatchNorm's class is told apart by its attributes.  Either is put to the test on random numbers of `shape`.
    Raises ValueError for a layer that draws no straight line, in the mode that it is in.
    """
    state = {k: v.double() if v.is_floating_point() else v for k, v in layer.state_dict(keep_vars=True).items()}
    place, size = next(iter(state.values())).device, shape[channel]
    of_channels = [-1 if i == channel else 1 for i in range(len(shape))]

    def f(x: Tensor) -> Tensor:
        return functional_call(layer, {k: v.clone() for k, v in state.items()}, (x,))

    def of_channel(y: Tensor) -> Tensor:
        return y.movedim(channel, 0).reshape(size, -1)[:, 0]

    x = torch.randn(tuple(shape), dtype=torch.double, generator=torch.Generator().manual_seed(0)).to(place)
    zero, one = of_channel(f(torch.zeros_like(x))), of_channel(f(torch.ones_like(x)))
    tries = [(one - zero, zero, nn.Identity())]
    if isinstance(layer, _BATCH) and layer.running_mean is not None and list(layer.children()):
        tries.append((*_scale_and_shift(layer, "layer"), nn.Sequential(*layer.children())))
    for scale, shift, rest in tries:
        line = rest(x * scale.view(of_channels) + shift.view(of_channels))
        if torch.allclose(line, f(x), rtol=1e-6, atol=1e-8):
            return scale, shift, rest
    raise ValueError(f"{type(layer).__name__} is no straight line in each channel")
