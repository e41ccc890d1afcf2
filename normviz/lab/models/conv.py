"""A small convolutional network with one norm slot after every convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normviz import METHODS, torch_layer
from normviz.lab.recipe import slots_of


class ConvNet(nn.Module):
    """Images (B, C, H, W), already standardised, to logits (B, classes).

    `depth` layers of 3×3 convolution, norm and ReLU; the second half works at half the resolution; then the mean
    over the positions and a linear layer.

    num_groups: of the arm "gn".  Raises ValueError for an unknown arm, or groups that do not divide the width.
    """

    def __init__(
        self, arm: str = "bn", *, channels: int = 1, size: int = 8, classes: int = 10,
        depth: int = 4, width: int = 32, num_groups: int = 8, seed: int | None = None,
    ):  # fmt: skip
        super().__init__()
        method = slots_of(arm, "conv")["norm"]
        self.tokens = size * size  # positions whose values the first norm layer sees
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for layer in range(depth):
            stride = 2 if layer and layer == depth // 2 else 1
            size = (size + stride - 1) // stride
            self.convs.append(nn.Conv2d(channels if layer == 0 else width, width, 3, stride, padding=1))
            groups = num_groups if method and METHODS[method].grouped else None
            shape = (1, width, size, size)
            self.norms.append(torch_layer(method, shape, groups) if method else nn.Identity())
        self.head = nn.Linear(width, classes)
        self.reset(seed)

    @torch.no_grad()
    def reset(self, seed: int | None = None) -> None:
        """He weights (He et al. 2015) and no biases; the same numbers for every arm, as norm layers draw none."""
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        for layer in (*self.convs, self.head):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))  # (B, width, H, W), then (B, width, H/2, W/2)
        return self.head(x.mean((2, 3)))  # (B, classes)
