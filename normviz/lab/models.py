"""The architectures that a recipe may train: a row each.

A model is a class with `arms` (arm → what fills its norm slots), `from_recipe(recipe)`, and on an instance `tokens`:
how many positions of one image share a statistic under BatchNorm.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType

#: Key of `Recipe.model` → (module, class): loaded when used, since a recipe alone needs no torch.
MODELS = MappingProxyType({"vit": ("vit", "ViT"), "conv": ("convnet", "ConvNet"), "gru": ("rnn", "InkGRU")})


def model_class(name: str) -> type:
    """The class of an architecture.  Raises ValueError for an unknown one."""
    if name not in MODELS:
        raise ValueError(f"model={name!r} is unknown; it takes one of {', '.join(MODELS)}")
    module, cls = MODELS[name]
    return getattr(import_module(f"normviz.lab.{module}"), cls)


def build(recipe):
    """The model that a recipe describes, initialised from its seed, on the CPU."""
    return model_class(recipe.model).from_recipe(recipe)
