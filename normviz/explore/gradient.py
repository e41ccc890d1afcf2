"""The gradient before any training: its norm at step 0 over the depth of the network, by what is in the norm slots."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from normviz.arms import style_of
from normviz.explore.base import Control, Explorer, Held
from normviz.explore.hand import along
from normviz.fields import choice, integer
from normviz.picture.chart import Chart, marker
from normviz.picture.color import MUTED
from normviz.picture.scene import Box, Label, Scene
from normviz.picture.text import amount, fixed, plural

THREE = ("ln", "bn", "bn+ffnbn")


class Curve(NamedTuple):
    """One arm's gradient norms: of the networks of each depth (K,) the least, the median and the largest, (3, K).

    here: the median at the state's depth, or NaN; growth: what a further block multiplies the median by, as a fit.
    """

    depths: np.ndarray
    spread: np.ndarray
    here: float
    growth: float


@lru_cache
def axes(runs: Held) -> Chart:
    """The bare axes: the depth across; the norm up to the largest of all settings, so that they can be compared."""
    norms, depths = runs.value
    logs = np.floor(np.log10(np.concatenate([*norms.values()])))
    return Chart(
        Box(72, 40, 450, 264), (0, depths[-1]), 10 ** np.array([logs.min(), logs.max() + 1]), log_y=True,
        x_ticks={depth: str(depth) for depth in depths}, x_name="blocks", y_name="gradient norm",
        heading="Norm of the whole gradient before the first step",
    )  # fmt: skip


@dataclass(frozen=True)
class Gradient(Explorer):
    """Networks that nobody has trained: how long is the gradient at step 0, and how does it grow with the depth?

    runs: histories that have `grad_norm`, or rows (arm, ffn, sigma, depth, gradient norm), one a network.
    """

    runs: Any
    ffn: str = choice("swiglu", {"GELU": "gelu", "SwiGLU": "swiglu"}, "FFN")
    sigma: float = choice(0.0, {"none": 0.0, "σ = 1": 1.0}, "contrast jitter")
    depth: int = integer(16, 1, label="blocks")
    arms: str = choice("three", {"LN, BN, FFN-BN": "three", "all": "all"}, "arms")

    def hold(self, name: str, value: Any) -> Held:
        norms: dict[tuple, list[float]] = {}
        try:
            for run in value:
                of = None if isinstance(run, tuple) else run.recipe
                *kind, norm = (of.arm, of.ffn, of.sigma, of.depth, run.grad_norm[0]) if of else run
                math.floor(math.log10(norm))  # refuses what is not positive and finite
                norms.setdefault(tuple(kind), []).append(norm)
            return Held((norms, tuple(sorted({depth for _, _, _, depth in norms} or norms[()]))))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            takes = "histories with grad_norm, or rows (arm, ffn, sigma, depth, gradient norm)"
            raise ValueError(f"runs has what is no run, or none ({error!r}); it takes {takes}") from None

    def offer(self) -> dict[str, Control]:
        offered = super().offer()
        return offered | {"depth": offered["depth"].among(self.runs.value[1])}

    def read(self) -> dict[str, Curve]:
        """By arm; one that was not measured in this setting is left out."""
        curves, (norms, depths) = {}, self.runs.value
        for arm in dict.fromkeys(arm for arm, *_ in norms) if self.arms == "all" else THREE:
            if of := {d: norms[at] for d in depths if (at := (arm, self.ffn, self.sigma, d)) in norms}:
                spread = np.array([(min(row), np.median(row), max(row)) for row in of.values()]).T
                slope = np.polyfit([*of], np.log(spread[1]), 1)[0] if len(of) > 1 else math.nan
                curves[arm] = Curve(np.array([*of]), spread, np.median(of.get(self.depth, math.nan)), math.exp(slope))
        return curves

    def say(self, reading: dict[str, Curve]) -> str:
        words = (f"{style_of(a).name} {amount(c.here)}, × {fixed(c.growth)} a block" for a, c in reading.items())
        return (
            f"{'GELU' if self.ffn == 'gelu' else 'SwiGLU'}, {'contrast jitter σ = 1' if self.sigma else 'no jitter'}: "
            f"median gradient norm of untrained networks of {plural(self.depth, 'block')}, and its growth with the "
            f"depth: {'; '.join(words) or 'none'}."
        )

    parts = ((0, 0, 540, 360), (540, 0, 844, 300))

    def draw(self, reading: dict[str, Curve]) -> Scene:
        chart, right = copy(axes(self.runs)), {"anchor": "end", "color": MUTED}
        backdrop, chart.items = chart.items, [Label(574, 34, f"{plural(self.depth, 'block')}:", bold=True)]
        chart.items += [Label(754, 34, "norm", **right), Label(832, 34, "× a block", **right)]
        chart.upright(self.depth, name="cursor", width=0.8)
        for i, (arm, c) in enumerate(sorted(reading.items(), key=lambda item: -np.nan_to_num(item[1].here))):
            y, style = 62 + 29 * i, style_of(arm)
            if self.arms == "three":
                chart.band(c.depths, *c.spread[::2], style.color, name=f"band-{arm}")
            chart.line(c.depths, c.spread[1], style, name=f"line-{arm}")
            chart.dots(c.depths, c.spread[1], style, name=f"dots-{arm}")
            chart.items += [marker([(560, y - 4)], style, 6.0, "legend"), Label(574, y, style.name)]
            chart.add(Label(754, y, amount(c.here), 14, "end", bold=True))
            chart.add(Label(832, y, fixed(c.growth), **right))
        blocks = along("blocks", "depth", chart, self.runs.value[1])
        return Scene(844, 360, chart.items, backdrop=backdrop, handles=[blocks])
