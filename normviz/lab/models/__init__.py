"""The networks that a recipe may train.

A model is a class that takes channels, size and classes of the images, and besides them an arm and other fields of the
recipe by their names; on an instance, `tokens` is how many positions of one image share a statistic under BatchNorm.
"""

from __future__ import annotations

from inspect import signature
from types import MappingProxyType

from normviz.lab.data import DATA
from normviz.lab.models.conv import ConvNet
from normviz.lab.models.gru import InkGRU
from normviz.lab.models.vit import ViT

#: By `Recipe.model`.
MODELS = MappingProxyType({"vit": ViT, "conv": ConvNet, "gru": InkGRU})


def build(recipe, images=None):
    """The model that a recipe describes, initialised from its seed, on the CPU.

    images: an `Images` that it is to fit; by default those that the recipe names.
    Raises ValueError where the model does not fit the images.
    """
    model = MODELS[recipe.model]
    shape = (DATA[recipe.data] if images is None else images).shape._asdict()
    return model(**shape, **{name: getattr(recipe, name) for name in signature(model).parameters if name not in shape})
