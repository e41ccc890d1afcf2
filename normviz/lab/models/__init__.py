"""The networks that a recipe may train: a row each.

A model is a class that takes an arm, and the fields of the recipe that its row names, besides the channels, size and
classes of the images; on an instance, `tokens` is how many positions of one image share a statistic under BatchNorm.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import NamedTuple

from normviz.lab.data import DATA, Shape


class Row(NamedTuple):
    module: str
    cls: str
    fields: tuple[str, ...]  # of the recipe


#: By `Recipe.model`.
MODELS = MappingProxyType(
    {
        "vit": Row(
            "vit", "ViT",
            ("ffn", "patch", "depth", "width", "heads", "ffn_ratio", "bn_momentum", "ghost_tokens", "seed"),
        ),
        "conv": Row("conv", "ConvNet", ("depth", "width", "num_groups", "seed")),
        "gru": Row("gru", "InkGRU", ("width", "seed")),
    }
)  # fmt: skip


def build(recipe, images=None):
    """The model that a recipe describes, initialised from its seed, on the CPU.

    images: an `Images` that it is to fit; by default those that the recipe names.
    Raises ValueError where the model does not fit the images.
    """
    row = MODELS[recipe.model]
    shape: Shape = DATA[recipe.data].shape if images is None else images.shape
    cls = getattr(import_module(f"{__name__}.{row.module}"), row.cls)
    return cls(recipe.arm, **shape._asdict(), **{name: getattr(recipe, name) for name in row.fields})
