"""The one torch module of ours among the norms."""

from __future__ import annotations

from torch import Tensor, nn


class Permuted(nn.Module):
    """A torch layer between two permutations of the axes, such as LayerNorm over the channels of an image.

    before, after: a tensor method with its arguments, as in `TorchCall`.  The layer itself is `.layer`; its `weight`
    and `bias` are within reach under their own names.
    """

    def __init__(self, layer: nn.Module, before: tuple[str, tuple], after: tuple[str, tuple]):
        super().__init__()
        self.layer, self.before, self.after = layer, before, after

    def forward(self, x: Tensor) -> Tensor:
        (before, there), (after, back) = self.before, self.after
        return getattr(self.layer(getattr(x, before)(*there)), after)(*back)

    weight = property(lambda self: self.layer.weight)
    bias = property(lambda self: getattr(self.layer, "bias", None))

    def extra_repr(self) -> str:
        return f"before={self.before}, after={self.after}"
