"""What the explorers of notebook 07 show, without any widget: a state of the controls -> a reading -> a scene."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F

from normviz.picture.colors import HUES, INK, MUTED, PAPER
from normviz.picture.curves import Frame, Style, marks, path, style_of, with_caption
from normviz.picture.scene import Box, Label, Scene, Shapes, Strokes

SITES = {
    "norm1": "what attention gets (behind norm1)",
    "norm2": "what the FFN gets (behind norm2)",
    "stream": "the residual stream behind the block",
}
#: Bins of token length over root-mean-square length, ten to a factor of ten
EDGES = np.logspace(-3, 2, 51)
WIDTH = 844  # px: what JupyterLab leaves of a laptop's screen beside its file browser


@dataclass(frozen=True)
class State:
    """Which look is shown: arm, block (from 0), site (a key of SITES), index of the recorded step."""

    arm: str
    block: int = 0
    site: str = "norm2"
    look: int = 0


@dataclass(frozen=True)
class Reading:
    """One block's tokens at one site and step.

    ratio: longest over root-mean-square length; bound: √(N−1), N tokens in the batch; counts: tokens in each bin
    of EDGES; longest: (image of the batch, patch, ratio) of the longest tokens; ratios: `ratio` of every block.
    """

    step: int
    tokens: int
    ratio: float
    bound: float
    counts: np.ndarray
    longest: list[tuple[int, int, float]]
    ratios: np.ndarray
    caption: str


def read(looks: dict[str, list[dict]], state: State, tokens: int) -> Reading:
    """looks: arm -> records of `lab.Inside`; tokens: N = images of a batch × patches of an image."""
    look = looks[state.arm][state.look]
    here, bound = look[state.site][state.block], float(np.sqrt(tokens - 1))
    longest = [(int(i), int(p), float(r)) for i, p, r in here["longest"]]
    caption = (
        f"{style_of(state.arm).name}, step {look['step']}, block {state.block}, {SITES[state.site]}: "
        f"the longest of {tokens} tokens is {here['ratio']:.3g} times the root-mean-square length"
    )
    if state.site == "stream":
        caption += "; nothing bounds it here, as no normalization follows."
    else:
        caption += f"; BatchNorm's bound √(N−1) is {bound:.4g}."
    if longest:
        caption += f" It is patch {longest[0][1]} of image {longest[0][0]} of the batch."
    ratios = np.array([block["ratio"] for block in look[state.site]], float)
    return Reading(
        look["step"], tokens, here["ratio"], bound, np.array(here["counts"]), longest, ratios, caption
    )


def scene(
    images: np.ndarray, look: dict, state: State, reading: Reading, *, patch: int, with_text=False
) -> Scene:
    """Histogram of lengths, the ratio of every block beside its bound, and the patches of the longest tokens.

    images: the training set (n, H, W), which `look["images"]` points into.
    """
    picture = Scene(WIDTH, 440, reading.caption)
    picture.items += _lengths(Box(62, 40, 370, 150), state, reading)
    picture.items += _blocks(Box(510, 40, 324, 150), state, reading)
    picture.items.append(
        Label(12, 256, "The longest tokens: their images, their patches framed", 13, bold=True)
    )
    for i, (image, place, ratio) in enumerate(reading.longest):
        box = Box(12 + 139 * i, 268, 112, 112)
        picture.items += framed_image(box, images[look["images"][image]], place, patch)
        factor = look["contrast"][image]
        text = f"{ratio:.3g} × rms"
        picture.items.append(Label(box.x, 398, text, bold=i == 0))
        picture.items.append(Label(box.x, 414, f"contrast × {factor:.3g}", color=MUTED))
        picture.items.append(Label(box.x, 430, f"image {image}, patch {place}", color=MUTED))
    return with_caption(picture) if with_text else picture


def _lengths(box: Box, state: State, reading: Reading) -> list:
    share = reading.counts / max(1, reading.counts.sum())
    frame = Frame(box, (-2, 2), (0.0, max(0.05, float(share.max()))))
    ticks = {-2.0: "0.01", -1.0: "0.1", 0.0: "1", 1.0: "10", 2.0: "100"}
    items = frame.axes(
        "token length over root-mean-square length", "share of tokens", "All tokens of the batch", ticks
    )
    left, right = np.log10(EDGES[:-1]), np.log10(EDGES[1:])
    corners = ((left, 0 * share), (right, 0 * share), (right, share), (left, share))
    bars = np.stack([frame(x, y) for x, y in corners], axis=1)
    shown = (share > 0) & (left >= -2)
    fills = [style_of(state.arm).color] * int(shown.sum())
    items.append(Shapes(bars[shown], fills, stroke=INK, width=0.5, name="lengths"))
    if np.isfinite(reading.ratio):
        x, y = frame(np.log10(reading.ratio), frame.y[1])
        items += [Strokes(np.array([[(x, y), (x, y + box.height)]]), INK, 1.6, name="longest")]
        items += [Label(x - 4, y + 12, "longest", anchor="end")]
    if state.site != "stream":
        x, y = frame(np.log10(reading.bound), frame.y[1])
        items += [Strokes(np.array([[(x, y), (x, y + box.height)]]), INK, 1.4, dashed=True, name="bound")]
        items += [Label(x + 4, y + 12, "bound")]
    return items


def _blocks(box: Box, state: State, reading: Reading) -> list:
    ratios, top = (
        reading.ratios,
        max(1.5 * reading.bound, 1.2 * float(np.nanmax(reading.ratios, initial=1.0))),
    )
    frame = Frame(box, (-0.5, len(ratios) - 0.5), (0.9, top), log=True)
    ticks = {float(i): str(i) for i in range(0, len(ratios), 1 if len(ratios) <= 10 else 4)}
    items = frame.axes("block", "outlier ratio", "Every block at this step", ticks)
    color = style_of(state.arm).color
    for i, ratio in enumerate(ratios):
        if np.isfinite(ratio):
            here = i == state.block
            points = frame([i - 0.35, i + 0.35, i + 0.35, i - 0.35], [0.9, 0.9, ratio, ratio])
            edge = {"stroke": INK, "width": 2.2 if here else 0.5}
            items.append(Shapes(points[None], [color], [f"block {i}: {ratio:.4g}"], name="ratio", **edge))
    if state.site != "stream":
        line = frame(list(frame.x), [reading.bound] * 2)
        items += [Strokes(line[None], INK, 1.4, dashed=True, name="bound")]
        items += [Label(line[1, 0], line[1, 1] - 5, f"√(N−1) = {reading.bound:.4g}", anchor="end")]
    return items


def framed_image(box: Box, image: np.ndarray, place: int, patch: int) -> list:
    """An image in grey, ink dark, with one of its patches framed."""
    side = image.shape[-1]
    step, grey = box.width / side, 255 - (image - image.min()) / (np.ptp(image) or 1) * 230
    rows, columns = np.divmod(np.arange(image.size), side)
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
    places = np.stack([columns, rows], 1)[:, None] + corners
    fills = ["#" + f"{round(v):02X}" * 3 for v in grey.ravel()]
    row, column = divmod(place, side // patch)
    frame = np.array([box.x, box.y]) + step * patch * (np.array([column, row]) + corners)
    ring = np.stack([frame, np.roll(frame, -1, axis=0)], axis=1)
    shapes = Shapes(np.array([box.x, box.y]) + step * places, fills, name="pixels")
    return [shapes, Strokes(ring, PAPER, 5.0), Strokes(ring, HUES[5], 3.0, name="patch")]


# Homogeneity: one token scaled k times in front of two FFNs ------------------------------------------------

FRONTS = {"none": "nothing", "ln": "LN", "bn": "BN"}
FACTORS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
TOKENS, FEATURES, HIDDEN = 256, 48, 192
FFN_STYLES = {
    "gelu": Style("GELU FFN", HUES[4], "circle"),
    "swiglu": Style("SwiGLU FFN", HUES[5], "square", True),
}


@dataclass(frozen=True)
class Scaling:
    """One token is multiplied by `factor`; `front` normalizes before the FFN, `ffn_bn` inside it.

    evaluation: BatchNorms use the statistics of the batch as it was before the token grew.
    """

    factor: int = 1
    front: str = "none"
    ffn_bn: bool = False
    evaluation: bool = False


def _batch_norm(x: torch.Tensor, usual: torch.Tensor, evaluation: bool) -> torch.Tensor:
    source = usual if evaluation else x
    return (x - source.mean(0)) / (source.var(0, correction=0) + 1e-5).sqrt()


@cache
def _drawn(kind: str, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Usual tokens and the weights of both layers; not to be written to."""
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    usual = draw(TOKENS, FEATURES)
    wide = HIDDEN * (2 if kind == "swiglu" else 1)
    return usual, draw(FEATURES, wide) * FEATURES**-0.5, draw(HIDDEN, FEATURES) * HIDDEN**-0.5


def ffn_output(kind: str, state: Scaling, factor: float, seed: int = 0) -> torch.Tensor:
    """What the FFN adds to each token: float64 (TOKENS, FEATURES), token 0 having been multiplied by `factor`."""
    usual, first, second = _drawn(kind, seed)

    def front(x):
        if state.front == "ln":
            return F.layer_norm(x, (FEATURES,))
        return _batch_norm(x, usual, state.evaluation) if state.front == "bn" else x

    def hidden(x):
        x = front(x) @ first
        if kind == "gelu":
            return F.gelu(x)
        gate, value = x.chunk(2, -1)
        return F.silu(gate) * value

    x = usual.clone()
    x[0] *= factor
    h = hidden(x)
    if state.ffn_bn:
        h = _batch_norm(h, hidden(usual), state.evaluation)
    return h @ second


def scaling_curves(state: Scaling) -> dict[str, np.ndarray]:
    """Length of token 0's output over its length at factor 1, for each of FACTORS."""
    return {kind: _growth(kind, replace(state, factor=1)) for kind in FFN_STYLES}


@cache
def _growth(kind: str, state: Scaling) -> np.ndarray:
    lengths = np.array([float(ffn_output(kind, state, k)[0].norm()) for k in FACTORS])
    return lengths / lengths[0]


def scaling_scene(state: Scaling, curves: dict[str, np.ndarray], *, with_text: bool = False) -> Scene:
    """Growth of the output over growth of the token, both logarithmic: slope 1 is linear, slope 2 quadratic."""
    at = FACTORS.index(state.factor)
    mode = "evaluation" if state.evaluation else "training"
    grown = ", ".join(f"{FFN_STYLES[k].name} × {c[at]:.3g}" for k, c in curves.items())
    inside = "FFN-BN inside" if state.ffn_bn else "no FFN-BN"
    alt = f"{FRONTS[state.front]} in front, {inside}, {mode}: token × {state.factor} gives output: {grown}."
    picture = Scene(WIDTH, 380, alt)
    frame = Frame(Box(72, 58, WIDTH - 262, 260), (0, 6), (0.5, 8192), log=True)
    ticks = {float(np.log2(k)): str(k) for k in FACTORS}
    x = np.log2(FACTORS)
    heading = "How much longer the FFN's output gets when one token grows"
    picture.items += frame.axes("the token is multiplied by k", "output, times that at k = 1", heading, ticks)
    for power, text in ((1, "k: linear"), (2, "k²: quadratic")):
        line = path(frame, x, np.array(FACTORS, float) ** power)
        picture.items.append(Strokes(line, MUTED, 1.0, dashed=True, name="guide"))
        picture.items.append(Label(line[-1, 1, 0] + 8, line[-1, 1, 1] + 4, text, color=MUTED))
    for i, (kind, curve) in enumerate(curves.items()):
        style = FFN_STYLES[kind]
        picture.items.append(Strokes(path(frame, x, curve), style.color, 2.6, style.dashed, f"curve-{kind}"))
        marker = "ln" if kind == "gelu" else "bn"  # the same circle and square, blue and orange
        picture.items.append(marks(frame(x[at], curve[at]), marker, 6.5))
        y = 214 + 58 * i
        picture.items += [
            marks([(WIDTH - 118, y - 4)], marker, 6),
            Label(WIDTH - 106, y, style.name, bold=True),
        ]
        picture.items.append(Label(WIDTH - 106, y + 18, f"× {curve[at]:.4g}", 14))
    line = frame([x[at]] * 2, [0.5, 8192])
    picture.items.append(Strokes(line[None], INK, 0.8, dashed=True, name="cursor"))
    return with_caption(picture) if with_text else picture
