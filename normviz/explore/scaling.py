"""Homogeneity: what GELU and SwiGLU FFNs make of one token that grows, with norms before and inside them.

A GELU FFN is nearly homogeneous of degree 1.  SwiGLU, SiLU(gate) × value (Shazeer 2020, arXiv:2002.05202), multiplies
two linear images of the token: degree 2.
"""

import math
from copy import copy
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from normviz.arms import BLUE, VERMILION, Style, style_of
from normviz.explore.base import Explorer
from normviz.explore.hand import along
from normviz.fields import choice, flag
from normviz.norms import normalize
from normviz.picture.chart import Chart, marker
from normviz.picture.color import MUTED
from normviz.picture.scene import Box, Label, Scene
from normviz.picture.text import number

FACTORS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
TOKENS, FEATURES, HIDDEN = 256, 48, 192
FFNS = {"gelu": Style("GELU FFN", BLUE), "swiglu": Style("SwiGLU FFN", VERMILION, "square", True)}
GUIDE = Style("", MUTED, dashed=True)


class Reading(NamedTuple):
    """Length of the token's output over that at factor 1, by FFN."""

    curves: dict[str, np.ndarray]  # (12,), a number for each of FACTORS
    growth: dict[str, float]  # the one of this state's factor


def torch_randn(words: "np.random.RandomState", *shape: int) -> np.ndarray:
    """What `torch.randn(*shape, dtype=torch.float64)` draws on a CPU, without torch; shape: a multiple of 16 values.

    Both generators are the Mersenne Twister; torch makes 53 bits of two words, and normal values by Box and Muller
    (1958) in blocks of 16.
    """
    high, low = np.frombuffer(words.bytes(8 * math.prod(shape)), "<u4").astype(np.uint64).reshape(-1, 2).T
    uniform = ((high << np.uint64(32) | low) & np.uint64(2**53 - 1)) * 2.0**-53
    one, two = uniform.reshape(-1, 2, 8).transpose(1, 0, 2)
    radius, angle = np.sqrt(-2 * np.log1p(-one)), 2 * np.pi * two
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(shape)


@cache
def drawn(kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Usual tokens (TOKENS, FEATURES) and the weights of both layers; not to be written to."""
    words, wide = np.random.RandomState(0), HIDDEN * (2 if kind == "swiglu" else 1)
    usual, first = torch_randn(words, TOKENS, FEATURES), torch_randn(words, FEATURES, wide)
    return usual, first * FEATURES**-0.5, torch_randn(words, HIDDEN, FEATURES) * HIDDEN**-0.5


def erf(x: np.ndarray) -> np.ndarray:
    """The error function, to 1.5e-7 (Abramowitz & Stegun 1964, 7.1.26): numpy has none."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    series = t * np.polyval((1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592), t)
    return np.sign(x) * (1 - series * np.exp(-x * x))


def activation(kind: str, x: np.ndarray) -> np.ndarray:
    """GELU(x), or SiLU(gate) × value of the two halves of x; over the last axis."""
    if kind == "gelu":
        return 0.5 * x * (1 + erf(x * 0.5**0.5))
    gate, value = np.split(x, 2, axis=-1)
    return gate / (1 + np.exp(-gate)) * value


def batch_norm(x: np.ndarray, usual: np.ndarray, evaluation: bool) -> np.ndarray:
    """BatchNorm by x's own statistics, or in evaluation by those of the usual values."""
    running = (usual.mean(axis=0), usual.var(axis=0)) if evaluation else None
    return normalize(x, "batch", running=running, training=not evaluation)


def hidden(kind: str, x: np.ndarray, front: str, evaluation: bool, tokens: int = TOKENS) -> np.ndarray:
    """The first tokens of x (N, FEATURES) after the norm before the FFN, its first layer and its activation."""
    usual, first, _ = drawn(kind)
    if front != "none":
        x = batch_norm(x, usual, evaluation) if front == "bn" else normalize(x, "layer_token")
    return activation(kind, x[:tokens] @ first)  # (tokens, HIDDEN)


@cache
def curve(kind: str, front: str, ffn_bn: bool, evaluation: bool) -> np.ndarray:
    """Length of what the FFN adds to token 0 over that at factor 1, for each of FACTORS.

    In evaluation both BatchNorms take the statistics of the tokens before one of them grew.
    """
    (usual, _, second), lengths = drawn(kind), []
    before = hidden(kind, usual, front, evaluation) if ffn_bn else None
    for factor in FACTORS:
        x = usual.copy()
        x[0] *= factor
        # The other tokens' outputs matter only to a BatchNorm that takes its statistics from them
        h = hidden(kind, x, front, evaluation, TOKENS if ffn_bn and not evaluation else 1)
        if ffn_bn:
            h = batch_norm(h, before, evaluation)
        lengths.append(np.linalg.norm(h[0] @ second))
    return np.array(lengths) / lengths[0]


@cache
def axes() -> Chart:
    """Growth of the output over growth of the token, both logarithmic: slope 1 is linear, slope 2 quadratic."""
    chart = Chart(
        Box(72, 40, 578, 264), (1, 64), (0.5, 8192), log_x=True, log_y=True, x_ticks={k: str(k) for k in FACTORS},
        x_name="the token is multiplied by k", y_name="output, times that at k = 1",
        heading="How much longer the FFN's output gets when one token grows",
    )  # fmt: skip
    for power, text in ((1, "k: linear"), (2, "k²: quadratic")):
        chart.line(FACTORS, np.power(FACTORS, power), GUIDE, 1.0, "guide")
        chart.write(64, 64**power, text, dx=8, dy=4, color=MUTED)
    return chart


@dataclass(frozen=True)
class Scaling(Explorer):
    """One of 256 tokens is multiplied by k: how much longer gets what GELU and SwiGLU FFNs answer?"""

    factor: int = choice(8, FACTORS, "k")
    front: str = choice("none", {"nothing": "none", "LN": "ln", "BN": "bn"}, "before the FFN")
    ffn_bn: bool = flag(False, "FFN-BN inside")
    evaluation: bool = choice(False, {"training": False, "evaluation": True}, "mode")

    def read(self) -> Reading:
        curves = {kind: curve(kind, self.front, self.ffn_bn, self.evaluation) for kind in FFNS}
        return Reading(curves, {kind: float(c[FACTORS.index(self.factor)]) for kind, c in curves.items()})

    def say(self, reading: Reading) -> str:
        front = "Nothing" if self.front == "none" else style_of(self.front).name
        inside, mode = "FFN-BN inside" if self.ffn_bn else "no FFN-BN", "evaluation" if self.evaluation else "training"
        grown = ", ".join(f"{FFNS[kind].name} × {number(times)}" for kind, times in reading.growth.items())
        return f"{front} before the FFN, {inside}, {mode}: token × {self.factor} gives output: {grown}."

    parts = ((0, 0, 708, 360), (708, 180, 844, 300))

    def draw(self, reading: Reading) -> Scene:
        chart = copy(axes())
        backdrop, chart.items = chart.items, []
        for i, (kind, style) in enumerate(FFNS.items()):
            chart.line(FACTORS, reading.curves[kind], style, 2.6, f"curve-{kind}")
            chart.dots(self.factor, reading.growth[kind], style, 6.5, name="now")
            x, y = 722, 196 + 58 * i
            chart.items += [marker([(x, y - 4)], style, 6.0, "legend"), Label(x + 12, y, style.name, bold=True)]
            chart.add(Label(x + 12, y + 18, f"× {number(reading.growth[kind], 4)}", 14))
        chart.upright(self.factor, name="cursor", width=0.8)
        return Scene(844, 360, chart.items, backdrop=backdrop, handles=[along("factor k", "factor", chart, FACTORS)])
