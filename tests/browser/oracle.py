"""Which cells share their statistics, asked of torch alone: cells that move each other's output are one set."""

import numpy as np
import torch
from torch import nn


def torch_sets(method: str, shape: tuple[int, int, int, int], groups: int) -> np.ndarray:
    """Integer labels of the shape (N, C, H, W), numbered by first appearance, from torch's own layer.

    One cell belongs to another's set exactly when the derivative of the one's output by the other's input is
    not zero. Works for sets of at least two cells: a lone cell's output is constant.
    """
    _, c, h, w = shape
    along_last = {"layer_token": nn.LayerNorm, "rms": nn.RMSNorm}
    if method in along_last:
        layer = along_last[method](c, dtype=torch.float64)

        def forward(x):
            return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    else:
        forward = {
            "batch": nn.BatchNorm2d(c, dtype=torch.float64),
            "layer": nn.LayerNorm([c, h, w], dtype=torch.float64),
            "instance": nn.InstanceNorm2d(c),
            "group": nn.GroupNorm(groups, c, dtype=torch.float64),
        }[method]
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    jacobian = torch.autograd.functional.jacobian(forward, x, vectorize=True).reshape(x.numel(), x.numel())
    first_partner = (jacobian != 0).int().argmax(dim=1).numpy()  # a set is known by its first cell
    return np.unique(first_partner, return_inverse=True)[1].reshape(shape)
