"""The second table: what fills each norm slot of a network, and how that looks in every chart.

An arm is a row of `ARMS`.  Models read its slots, charts its name, colour, marker and dash, the ledger its words.
The kinds of a verdict and the regimes of the study are named here too, so that nobody else has to.
Plain Python: everything may import this module, and it imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

#: Okabe & Ito, "Color Universal Design" (2008), without black, and one grey
ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
HUES = (ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE)
GREY, SLATE = "#B8B8B8", "#595959"


class Style(NamedTuple):
    """How a curve or a mark looks, never by colour alone.  An `Arm` can stand wherever a style is asked for."""

    name: str
    color: str
    marker: str = "circle"  # circle, square, triangle, diamond, star
    dashed: bool = False


class Arm(NamedTuple):
    """What fills the norm slots of a network.

    slots: model (`Recipe.model`) → {slot: what is in it}; a key of `METHODS`, of `lab.models.layers.LAYERS`, or None
    for an empty slot.  A model lacks an arm that has no slots for it.
    """

    key: str
    name: str
    color: str
    marker: str
    dashed: bool = False
    about: str = ""
    slots: Mapping[str, Mapping[str, Any]] = MappingProxyType({})


def _everywhere(method: str | None) -> dict:
    return {"norm1": method, "norm2": method, "final": method}


_BN = _everywhere("batch")
_ROWS = (
    Arm("ln", "LN", BLUE, "circle", False, "LayerNorm everywhere, as usual", {
        "vit": _everywhere("layer_token"), "conv": {"norm": "layer"},
        "gru": {"input": "layer_token", "hidden": "layer_token"},
    }),
    Arm("bn", "BN", VERMILION, "square", True, "every LayerNorm replaced by BatchNorm", {
        "vit": _BN, "conv": {"norm": "batch"}, "gru": {"input": "batch", "hidden": "batch"},
    }),
    Arm("bn+ffnbn", "BN + FFN-BN", GREEN, "triangle", False,
        "the cure: BatchNorm in the FFN too, after the activation", {"vit": _BN | {"ffn_norm": "batch"}}),
    Arm("rms", "RMSNorm", PURPLE, "diamond", True, "RMSNorm everywhere, as language models have it",
        {"vit": _everywhere("rms")}),
    # Interventions: each takes away one suspect
    Arm("bn+cap", "BN, tokens capped", ORANGE, "star", True, "BN; no token may be longer than 3√D",
        {"vit": _BN | {"cap": 3.0}}),  # longest token that norm1 and norm2 let through, in units of √D
    Arm("ffnbn", "FFN-BN alone", YELLOW, "triangle", True, "FFN-BN alone, nothing before the branches",
        {"vit": {"ffn_norm": "batch", "final": "batch"}}),
    Arm("ln+ffnbn", "LN + FFN-BN", SKY, "triangle", False, "LN with the cure added",
        {"vit": _everywhere("layer_token") | {"ffn_norm": "batch"}}),
    Arm("attn-ln", "BN, LN before attention", SKY, "square", True, "BN, but LN before attention",
        {"vit": _BN | {"norm1": "layer_token"}}),
    Arm("ffn-ln", "BN, LN before the FFN", SKY, "diamond", True, "BN, but LN before the FFN",
        {"vit": _BN | {"norm2": "layer_token"}}),
    # What the cure is made of: other things in the FFN's slot, or elsewhere
    Arm("bn+ffnbn-before", "BN + FFN-BN before", GREEN, "square", True,
        "BN, and BN in the FFN before the activation", {"vit": _BN | {"ffn_norm_before": "batch"}}),
    Arm("bn+ffnln", "BN + FFN-LN", BLUE, "triangle", True, "BN, and LN in the FFN after the activation",
        {"vit": _BN | {"ffn_norm": "layer_token"}}),
    Arm("bn+ffnrms", "BN + FFN-RMS", PURPLE, "triangle", True, "BN, and RMSNorm in the FFN after the activation",
        {"vit": _BN | {"ffn_norm": "rms"}}),
    Arm("bn+gain", "BN + FFN gain", ORANGE, "diamond", True,
        "BN, and FFN-BN's initial scale as a constant in its place", {"vit": _BN | {"ffn_norm": "gain"}}),
    Arm("bn+embedln", "BN + embedding LN", BLUE, "star", False, "BN, and one LN after the patch embedding",
        {"vit": _BN | {"embed": "layer_token"}}),
    # What came after the article
    Arm("dyt", "DyT", ORANGE, "circle", False, "DyT everywhere: γ·tanh(αx) + β, no statistics",
        {"vit": _everywhere("dyt")}),
    Arm("derf", "Derf", YELLOW, "diamond", False, "Derf everywhere: γ·erf(αx + s) + β, no statistics",
        {"vit": _everywhere("derf")}),
    Arm("prepbn", "PRepBN", PURPLE, "square", True, "PRepBN everywhere: from LN to BN(x) + ηx during training",
        {"vit": _everywhere("prepbn")}),
    Arm("rbn", "RBN", VERMILION, "star", False,
        "RBN everywhere: BN whose batch and running statistics are held together", {"vit": _everywhere("rbn")}),
    # Networks other than the ViT
    Arm("none", "no norm", SLATE, "star", False, "no normalization", {
        "conv": {"norm": None}, "gru": {"input": None, "hidden": None},
    }),
    Arm("in", "IN", PURPLE, "diamond", False, "InstanceNorm", {"conv": {"norm": "instance"}}),
    Arm("gn", "GN", GREEN, "triangle", False, "GroupNorm", {"conv": {"norm": "group"}}),
    Arm("bn-step", "BN per step", PURPLE, "diamond", True,
        "BatchNorm, statistics of every step, as in Cooijmans et al. 2016",
        {"gru": {"input": "step", "hidden": "step"}}),
    Arm("bn-input", "BN on input", ORANGE, "triangle", False,
        "BatchNorm on the input alone, as in Laurent et al. 2015", {"gru": {"input": "batch", "hidden": None}}),
    Arm("bn-padded", "BN with padding", SKY, "square", False, "BatchNorm that counts the padding as data",
        {"gru": {"input": "batch", "hidden": "batch", "masked": False}}),
    # What the timings and chapter 03 compare, beside networks of the lab
    Arm("folded", "folded", ORANGE, "diamond", False, "BN whose norms are folded into the linear layers after them"),
    Arm("removed", "no norms at all", SLATE, "star", False, "the same network with its norms taken out"),
    Arm("pre-norm", "pre-norm", BLUE, "circle", False, "x + f(LN(x))"),
    Arm("post-norm", "post-norm", VERMILION, "square", True, "LN(x + f(x))"),
    Arm("pre-norm+warmup", "pre-norm, warm-up", GREEN, "diamond"),
    Arm("post-norm+warmup", "post-norm, warm-up", ORANGE, "triangle"),
)  # fmt: skip
ARMS: Mapping[str, Arm] = MappingProxyType({row.key: row for row in _ROWS})


def arms_of(model: str) -> dict[str, Arm]:
    """The arms that a model of the lab has slots for, in the order of the table."""
    return {key: row for key, row in ARMS.items() if model in row.slots}


def style_of(key: str) -> Arm:
    """The row of an arm.  What is no arm (a setting, say) is told by its name, in grey with a star."""
    return ARMS.get(key) or Arm(str(key), str(key), SLATE, "star", True)


#: Looks of what is no arm, in the order in which they are given out
_HUES, _MARKERS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY), ("circle", "square", "triangle", "diamond")


def styles_of(
    keys: Iterable[str], hues: Sequence[str] = _HUES, markers: Sequence[str] = _MARKERS, least: int = 2
) -> dict[str, Arm]:
    """The rows of several arms that stand in one chart, and for what is no arm hues and markers that they have not.

    Fewer than `least` names that are no arms stay grey.
    """
    styles = {key: style_of(key) for key in keys}
    known, others = [styles[key] for key in styles if key in ARMS], [key for key in styles if key not in ARMS]
    if len(others) >= least:
        hues = [hue for hue in hues if hue not in {style.color for style in known}] or hues
        markers = [shape for shape in markers if shape not in {style.marker for style in known}] or markers
        for k, key in enumerate(others):
            look = {"color": hues[k % len(hues)], "marker": markers[k % len(markers)], "dashed": False}
            styles[key] = styles[key]._replace(**look)
    return styles


class Kind(NamedTuple):
    """How the verdict on a run is told and shown: a letter as well as a colour."""

    word: str
    letter: str
    color: str
    about: str


#: The verdicts on a run; `lab.verdict` has the rule.
KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "trained": Kind("trained", "T", GREEN, "learned what there is to learn"),
        "delayed": Kind("slow", "…", YELLOW, "still on its way at the end"),  # records know it as "delayed"
        "stalled": Kind("stalled", "S", GREY, "stayed at the loss of a guess"),
        "diverged": Kind("diverged", "X", VERMILION, "ended worse than a guess, or not finite"),
        "crashed": Kind("crashed", "C", PURPLE, "had learned and lost it again"),
    }
)

#: The regimes of the crash in words, in the order in which they are told.  All on digits.
REGIMES: Mapping[str, str] = MappingProxyType(
    {
        "tame": "GELU",
        "heavy": "GELU with jitter",
        "deep": "GELU with jitter at depth 32",
        "swiglu": "SwiGLU",
        "swiglu-deep": "SwiGLU at depth 24",
        "midrun": "SwiGLU with jitter from half time",
    }
)
#: The same on photographs.
PHOTOGRAPHS: Mapping[str, str] = MappingProxyType(
    {"cifar10-tame": "GELU on CIFAR-10", "cifar10-swiglu": "SwiGLU on CIFAR-10"}
)
