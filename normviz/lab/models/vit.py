"""A vision transformer on one page, with its norm slots in sight.

Pre-norm ViT (Dosovitskiy et al. 2021, arXiv:2010.11929) with mean pooling and no class token.  What differs
between two runs of the study is the row of `normviz.arms` that fills the slots, and nothing else:

    norm1             before attention
    norm2             before the FFN
    ffn_norm          between the two linear layers of the FFN, after the activation
    ffn_norm_before   the same, before the activation
    final             before pooling
    embed             after the patch embedding
    cap               longest token that norm1 and norm2 let through, in units of √D
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normviz.fields import unknown, whole
from normviz.lab.models.layers import Norms, hidden_rms
from normviz.lab.recipe import slots_of


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

    KINDS = ("gelu", "swiglu")

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
    def __init__(self, slots: Mapping, norms: Norms, tokens: int, width: int, heads: int, ffn: str, ffn_ratio: int):
        super().__init__()
        hidden, cap = ffn_ratio * width, slots.get("cap")
        self.norm1 = norms.slot(slots.get("norm1"), tokens, width, cap)
        self.attention = Attention(width, heads)
        self.norm2 = norms.slot(slots.get("norm2"), tokens, width, cap)
        before = norms.slot(slots.get("ffn_norm_before"), tokens, FFN.outputs(ffn, hidden))
        self.ffn = FFN(ffn, width, hidden, norms.slot(slots.get("ffn_norm"), tokens, hidden), before)

    @property
    def slots(self) -> dict[str, nn.Module]:
        """The block's norm slots by name; `ffn_norm_before` only where something is in it."""
        slots = {"norm1": self.norm1, "norm2": self.norm2, "ffn_norm": self.ffn.norm}
        return slots if isinstance(self.ffn.before, nn.Identity) else slots | {"ffn_norm_before": self.ffn.before}

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class ViT(nn.Module):
    """Images (B, C, H, W), already standardised, to logits (B, classes).

    Raises ValueError for an arm that is not there, and for sizes that do not go together.
    """

    def __init__(
        self, arm: str = "ln", *, ffn: str = "gelu", channels: int = 1, size: int = 8, classes: int = 10,
        patch: int = 2, depth: int = 16, width: int = 48, heads: int = 3, ffn_ratio: int = 4,
        bn_momentum: float = 0.1, ghost_tokens: int | None = None, seed: int | None = None,
    ):  # fmt: skip
        super().__init__()
        if ffn not in FFN.KINDS:
            raise ValueError(unknown("ffn", ffn, FFN.KINDS))
        for name, value in {"depth": depth, "width": width, "heads": heads, "patch": patch}.items():
            whole(name, value)
        if width % heads:
            raise ValueError(f"heads={heads!r} does not divide width={width!r}")
        slots = slots_of(arm, "vit")
        self.embedding = PatchEmbedding(channels, size, patch, width)
        tokens = self.embedding.tokens
        norms = Norms(bn_momentum, ghost_tokens, 1 / hidden_rms(ffn, width, ffn_ratio * width))
        self.embed_norm = norms.slot(slots.get("embed"), tokens, width)
        blocks = (Block(slots, norms, tokens, width, heads, ffn, ffn_ratio) for _ in range(depth))
        self.blocks = nn.ModuleList(blocks)
        self.final = norms.slot(slots.get("final"), tokens, width)
        self.head = nn.Linear(width, classes)
        self.reset(seed)

    @property
    def tokens(self) -> int:
        """How many tokens an image becomes."""
        return self.embedding.tokens

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
