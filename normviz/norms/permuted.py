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
        for name, arguments in (*self.before, ("layer", ()), *self.after):
            x = self.layer(x) if name == "layer" else getattr(x, name)(*arguments)
        return x

    weight = property(lambda self: self.layer.weight)
    bias = property(lambda self: getattr(self.layer, "bias", None))

    def extra_repr(self) -> str:
        return f"before={self.before}, after={self.after}"
