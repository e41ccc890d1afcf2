"""The one torch module of ours among the norms."""

from __future__ import annotations

from torch import Tensor, nn

from normviz.norms.layers import TorchCall


class Permuted(nn.Module):
    """A torch layer between two permutations of the axes, such as LayerNorm over the channels of an image.

    The layer itself is `.layer`; its `weight` and `bias` are within reach under their own names.
    """

    def __init__(self, layer: nn.Module, call: TorchCall):
        super().__init__()
        self.layer = layer
        self.before, self.after = call.before, call.after

    def forward(self, x: Tensor) -> Tensor:
        for name, arguments in self.before:
            x = getattr(x, name)(*arguments)
        x = self.layer(x)
        for name, arguments in self.after:
            x = getattr(x, name)(*arguments)
        return x

    @property
    def weight(self):
        return self.layer.weight

    @property
    def bias(self):
        return getattr(self.layer, "bias", None)

    def extra_repr(self) -> str:
        return f"before={self.before}, after={self.after}"
