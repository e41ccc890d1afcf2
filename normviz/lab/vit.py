"""A vision transformer on one page, with its four norm slots in sight.

Pre-norm ViT (Dosovitskiy et al. 2021, arXiv:2010.11929) with mean pooling and no class token.  What differs
between two runs of the study is the row of `ARMS` that fills the slots, and nothing else.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normviz import torch_layer
from normviz.lab.layers import RBN, Cap, Derf, DyT, Gain, GhostBatchNorm, PRepBN, batch_norm_of, hidden_rms


class Arm(NamedTuple):
    """What fills each norm slot: a key of `normviz.METHODS` or of `LAYERS`, or None for an empty slot."""

    norm1: str | None  # before attention
    norm2: str | None  # before the FFN
    ffn_norm: str | None  # between the two linear layers of the FFN, after the activation
    final: str | None  # before pooling
    ffn_norm_before: str | None = None  # between the two linear layers of the FFN, before the activation
    embed: str | None = None  # after the patch embedding
    cap: float | None = None  # longest token that norm1 and norm2 let through, in units of √D
    about: str = ""


_BN = {"norm1": "batch", "norm2": "batch", "ffn_norm": None, "final": "batch"}


def _everywhere(method: str, about: str) -> Arm:
    return Arm(method, method, None, method, about=about)


#: Unless an arm says otherwise, "FFN-BN" stands after the activation, as `bn+ffnbn` has it.
ARMS = MappingProxyType(
    {
        "ln": _everywhere("layer_token", "LayerNorm everywhere, as usual"),
        "bn": _everywhere("batch", "every LayerNorm replaced by BatchNorm"),
        "bn+ffnbn": Arm(
            **_BN | {"ffn_norm": "batch"}, about="the cure: BatchNorm in the FFN too, after the activation"
        ),
        "rms": _everywhere("rms", "RMSNorm everywhere, as language models have it"),
        # Interventions: each takes away one suspect
        "bn+cap": Arm(**_BN, cap=3.0, about="BN; no token may be longer than 3√D"),
        "ffnbn": Arm(None, None, "batch", "batch", about="FFN-BN alone, nothing before the branches"),
        "ln+ffnbn": Arm("layer_token", "layer_token", "batch", "layer_token", about="LN with the cure added"),
        "attn-ln": Arm(**_BN | {"norm1": "layer_token"}, about="BN, but LN before attention"),
        "ffn-ln": Arm(**_BN | {"norm2": "layer_token"}, about="BN, but LN before the FFN"),
        # What the cure is made of: other things in the FFN's slot, or elsewhere
        "bn+ffnbn-before": Arm(**_BN, ffn_norm_before="batch", about="BN, and BN in the FFN before the activation"),
        "bn+ffnln": Arm(**_BN | {"ffn_norm": "layer_token"}, about="BN, and LN in the FFN after the activation"),
        "bn+ffnrms": Arm(**_BN | {"ffn_norm": "rms"}, about="BN, and RMSNorm in the FFN after the activation"),
        "bn+gain": Arm(**_BN | {"ffn_norm": "gain"}, about="BN, and FFN-BN's initial scale as a constant in its place"),
        "bn+embedln": Arm(**_BN, embed="layer_token", about="BN, and one LN after the patch embedding"),
        # What came after the article
        "dyt": _everywhere("dyt", "DyT everywhere: γ·tanh(αx) + β, no statistics"),
        "derf": _everywhere("derf", "Derf everywhere: γ·erf(αx + s) + β, no statistics"),
        "prepbn": _everywhere("prepbn", "PRepBN everywhere: from LN to BN(x) + ηx during training"),
        "rbn": _everywhere("rbn", "RBN everywhere: BN whose batch and running statistics are held together"),
    }
)


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


class PatchEmbedding(nn.Module):
    """Cuts images into patches, maps each to a token and adds where it was."""

    def __init__(self, channels: int, size: int, patch: int, width: int):
        super().__init__()
        if size % patch:
            raise ValueError(f"patch={patch} does not divide the image's {size} pixels a side")
        self.patch = patch
        self.tokens = (size // patch) ** 2
        self.linear = nn.Linear(channels * patch * patch, width)
        self.position = nn.Parameter(torch.empty(self.tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        p = self.patch
        x = x.view(n, c, h // p, p, w // p, p).permute(0, 2, 4, 1, 3, 5)  # (B, H/p, W/p, C, p, p)
        x = x.reshape(n, self.tokens, c * p * p)  # (B, T, C·p·p)
        return self.linear(x) + self.position  # (B, T, D)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        b, t, _ = qkv.shape
        qkv = qkv.view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (3, B, heads, T, D/heads)
        return qkv.unbind(0)

    def forward(self, x: Tensor) -> Tensor:
        x = F.scaled_dot_product_attention(*self.split(self.qkv(x)))  # (B, heads, T, D/heads)
        return self.out(x.transpose(1, 2).flatten(2))  # (B, T, D)


class FFN(nn.Module):
    """Two linear layers around a nonlinearity.

    "gelu" answers k times the token with about k times the output; "swiglu" (Shazeer 2020, arXiv:2002.05202)
    multiplies two images of the token, so it answers with about k².
    """

    def __init__(self, kind: str, width: int, hidden: int, norm: nn.Module, before: nn.Module | None = None):
        super().__init__()
        self.kind = kind
        self.fc1 = nn.Linear(width, self.outputs(kind, hidden))
        self.before = nn.Identity() if before is None else before
        self.norm = norm
        self.fc2 = nn.Linear(hidden, width)

    @staticmethod
    def outputs(kind: str, hidden: int) -> int:
        """How many features fc1 gives."""
        return hidden * (2 if kind == "swiglu" else 1)

    def hidden(self, x: Tensor) -> Tensor:
        x = self.before(self.fc1(x))
        if self.kind == "gelu":
            return F.gelu(x)  # (B, T, H)
        gate, value = x.chunk(2, -1)
        return F.silu(gate) * value  # (B, T, H)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.norm(self.hidden(x)))  # (B, T, D)


class Block(nn.Module):
    def __init__(self, arm: Arm, norms: Norms, tokens: int, width: int, heads: int, ffn: str, ffn_ratio: int):
        super().__init__()
        hidden = ffn_ratio * width
        self.norm1 = norms.slot(arm.norm1, tokens, width, arm.cap)
        self.attention = Attention(width, heads)
        self.norm2 = norms.slot(arm.norm2, tokens, width, arm.cap)
        before = norms.slot(arm.ffn_norm_before, tokens, FFN.outputs(ffn, hidden))
        self.ffn = FFN(ffn, width, hidden, norms.slot(arm.ffn_norm, tokens, hidden), before)

    @property
    def slots(self) -> dict[str, nn.Module]:
        """The block's norm slots by name."""
        slots = {"norm1": self.norm1, "norm2": self.norm2, "ffn_norm": self.ffn.norm}
        return slots if isinstance(self.ffn.before, nn.Identity) else slots | {"ffn_norm_before": self.ffn.before}

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class ViT(nn.Module):
    """Images (B, C, H, W), already standardised, to logits (B, classes)."""

    arms = ARMS

    def __init__(
        self, arm: str = "ln", *, ffn: str = "gelu", channels: int = 1, size: int = 8, classes: int = 10,
        patch: int = 2, depth: int = 16, width: int = 48, heads: int = 3, ffn_ratio: int = 4,
        bn_momentum: float = 0.1, ghost_tokens: int | None = None, seed: int | None = None,
    ):  # fmt: skip
        super().__init__()
        if arm not in ARMS:
            raise ValueError(f"arm={arm!r} is unknown; it takes one of {', '.join(ARMS)}")
        self.arm = ARMS[arm]
        self.embedding = PatchEmbedding(channels, size, patch, width)
        tokens = self.embedding.tokens
        norms = Norms(bn_momentum, ghost_tokens, 1 / hidden_rms(ffn, width, ffn_ratio * width))
        self.embed_norm = norms.slot(self.arm.embed, tokens, width)
        blocks = (Block(self.arm, norms, tokens, width, heads, ffn, ffn_ratio) for _ in range(depth))
        self.blocks = nn.ModuleList(blocks)
        self.final = norms.slot(self.arm.final, tokens, width)
        self.head = nn.Linear(width, classes)
        self.reset(seed)

    @property
    def tokens(self) -> int:
        """How many tokens an image becomes."""
        return self.embedding.tokens

    @classmethod
    def from_recipe(cls, recipe) -> ViT:
        """The model that a `Recipe` describes, initialised from its seed."""
        from normviz.lab.data import SHAPES

        channels, size, classes = SHAPES[recipe.data]
        names = (
            "ffn", "patch", "depth", "width", "heads", "ffn_ratio", "bn_momentum", "ghost_tokens", "seed",
        )  # fmt: skip
        options = {name: getattr(recipe, name) for name in names}
        return cls(recipe.arm, channels=channels, size=size, classes=classes, **options)

    @torch.no_grad()
    def reset(self, seed: int | None = None) -> None:
        """Xavier weights and no biases; the same numbers for every arm, as norm layers draw none."""
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.embedding.position, std=0.02, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed_norm(self.embedding(x))  # (B, T, D)
        for block in self.blocks:
            x = block(x)
        return self.head(self.final(x).mean(1))  # (B, classes)
