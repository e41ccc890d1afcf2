"""The table of normalization methods: a row says all that the project needs to know of a method.

A method is a partition of the tensor's cells: the cells of one set share one mean and one variance.  A row names the
axes that a set spans; labels, counts, captions, arithmetic, pictures and torch layers follow (see `cuts.py`).
The index-set view is that of Wu & He, "Group Normalization" (ECCV 2018), equations 1 to 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from normviz.arms import BLUE, GREEN, PURPLE, VERMILION
from normviz.fields import unknown

#: Letters of the axes by layout and rank.  "NCHW" also takes (N, C) and (N, C, L).
LAYOUTS = MappingProxyType({"NCHW": {2: "NC", 3: "NCL", 4: "NCHW"}, "BTD": {3: "BTD"}})
#: What an axis is, whatever the layout calls it.
_ROLES = {"NB": "sample", "CD": "channel", "HWLT": "position"}
ROLES = MappingProxyType({letter: role for letters, role in _ROLES.items() for letter in letters})
AXIS_NAMES = MappingProxyType(
    {"N": "batch", "B": "batch", "C": "channel", "D": "width", "H": "height", "W": "width", "L": "length", "T": "time"}
)


@dataclass(frozen=True)
class Method:
    """One row: how a method cuts the tensor, and the torch module that does the same."""

    key: str
    short: str
    name: str
    over: frozenset[str]  # roles that one set spans
    torch_class: str  # "{d}" stands for the number of position axes
    torch_size: str  # the module's size argument
    torch_affine: str  # the module's name for `affine`
    feature_axis: str  # where the module expects the channels: "first", "last" or "any"
    color: str  # in diagrams
    family: str = ""  # the name without what tells two rows of one family apart; by default `name`
    grouped: bool = False  # the channel axis is cut into groups, a set spans one of them
    centred: bool = True  # the mean is subtracted (RMSNorm only divides)
    running: bool = False  # keeps running statistics for evaluation, so its outputs are bounded by its batch alone
    single_value: str = "zero"  # of a set of one cell the bias is left; or torch will "refuse" it, always or "alone"
    affine_per: str = "channel"  # weight and bias: one per "channel", or one per cell of a "sample"
    aim: str = ""  # where it takes tokens of three features, in a few words
    used_in: str = ""
    source: str = ""


def _row(key: str, short: str, name: str, over: str, **columns: Any) -> Method:
    return Method(key, short, name, frozenset(over.split()), **{"family": name} | columns)


#: What torch's modules of one kind are told alike
_FIRST = {"torch_size": "num_features", "torch_affine": "affine", "feature_axis": "first"}
_LAST = {"torch_size": "normalized_shape", "torch_affine": "elementwise_affine", "feature_axis": "last"}
_ROWS = (
    _row(
        "batch", "BN", "BatchNorm", "sample position", color=VERMILION, torch_class="BatchNorm{d}d", **_FIRST,
        running=True, single_value="refuse",
        aim="the ellipsoid of all, √3·σ, made round",
        used_in="convolutional networks with large batches (ResNet)",
        source="Ioffe & Szegedy 2015, arXiv:1502.03167",
    ),
    _row(
        "layer", "LN", "LayerNorm (whole sample)", "channel position", color=BLUE, family="LayerNorm",
        torch_class="LayerNorm", **_LAST | {"feature_axis": "any"}, affine_per="sample",
        used_in="recurrent networks; the LN cube of the Group Normalization paper",
        source="Ba, Kiros & Hinton 2016, arXiv:1607.06450",
    ),
    _row(
        "layer_token", "LN", "LayerNorm (per token)", "channel", color=BLUE, family="LayerNorm",
        torch_class="LayerNorm", **_LAST,
        aim="where plane and sphere meet: a circle",
        used_in="transformers, ViT, ConvNeXt",
        source="Ba, Kiros & Hinton 2016, arXiv:1607.06450; Vaswani et al. 2017, arXiv:1706.03762",
    ),
    _row(
        "instance", "IN", "InstanceNorm", "position", color=PURPLE, torch_class="InstanceNorm{d}d", **_FIRST,
        single_value="refuse",
        used_in="style transfer, image generation",
        source="Ulyanov, Vedaldi & Lempitsky 2016, arXiv:1607.08022",
    ),
    _row(
        "group", "GN", "GroupNorm", "channel position", color=GREEN,
        torch_class="GroupNorm", **_FIRST | {"torch_size": "num_channels"}, grouped=True, single_value="alone",
        used_in="detection, segmentation and diffusion models, where batches are small",
        source="Wu & He 2018, arXiv:1803.08494",
    ),
    _row(
        "rms", "RMS", "RMSNorm", "channel", color=PURPLE, torch_class="RMSNorm", **_LAST, centred=False,
        aim="the whole sphere of radius √3",
        used_in="large language models (Llama)",
        source="Zhang & Sennrich 2019, arXiv:1910.07467",
    ),
)  # fmt: skip
METHODS: Mapping[str, Method] = MappingProxyType({row.key: row for row in _ROWS})


def method_row(method: str | Method) -> Method:
    """The row of a method's key.  Raises ValueError for a key that the table lacks, TypeError for no string."""
    if isinstance(method, Method):
        return method
    if not isinstance(method, str):
        raise TypeError(f"method={method!r} must be a string, one of {', '.join(map(repr, METHODS))}")
    if method not in METHODS:
        raise ValueError(unknown("method", method, METHODS))
    return METHODS[method]
