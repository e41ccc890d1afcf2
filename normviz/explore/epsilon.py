"""What ε does: digits are squeezed towards 0 and normalized, until ε outweighs the variance that it is added to."""

from dataclasses import dataclass

import numpy as np

from normviz.arms import BLUE, GREY, Style
from normviz.explore.base import Explorer
from normviz.explore.hand import along
from normviz.fields import choice
from normviz.norms import METHODS, cut, normalize_steps
from normviz.picture.chart import Chart, legend
from normviz.picture.color import PAPER, mix, value_pixels
from normviz.picture.scene import Box, Label, Raster, Scene, Strokes, rect, ring
from normviz.picture.text import number, percent
from normviz.samples import FILTERS, digit_features


@dataclass(frozen=True)
class Epsilon(Explorer):
    """Digits are squeezed towards 0, then normalized: where does ε take over from the variance?"""

    method: str = choice("layer_token", {row.name: key for key, row in METHODS.items()}, "method")
    squeeze: float = choice(1e-3, {number(10.0**k): 10.0**k for k in range(-6, 1)}, "squeeze ×")
    eps: float = choice(1e-5, {number(10.0**k): 10.0**k for k in range(-8, 0)}, "ε")
    parts = ((0, 0, 480, 310), (480, 0, 840, 310))

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """The first digit's maps after the norm (C, H, W); the variance of every cell's set, blank paper's left out."""
        x = self.squeeze * digit_features(64).astype(float)  # (N, C, H, W)
        steps = normalize_steps(x, cut(self.method, x.shape, 2 if METHODS[self.method].grouped else None), eps=self.eps)
        return steps.scaled[0], steps.var[steps.var > 1e-9 * steps.var.max()]

    def say(self, reading) -> str:
        var = reading[1]
        return (
            f"{METHODS[self.method].name} of digits × {number(self.squeeze)} with ε = {number(self.eps)}: ε outweighs "
            f"the variance in {percent(np.mean(var < self.eps))} of the sets, and the median set comes out with a "
            f"spread of {number(np.median(var / (var + self.eps)) ** 0.5, 2)} instead of 1."
        )

    def draw(self, reading) -> Scene:
        (maps, var), style = reading, Style("the median set", BLUE)
        items = [Label(12, 22, "The maps of one digit after the norm: −2 blue, +2 orange", 13, bold=True)]
        for i, (name, values) in enumerate(zip(FILTERS, maps, strict=True)):
            x, y = 12 + 106 * (i % 4), 54 + 122 * (i // 4)
            outline = Strokes(ring(rect(Box(x, y, 94, 94))), GREY)
            items += [Label(x, y - 6, name), Raster(x, y, 94, 94, value_pixels(values, 2.0), name), outline]
        heading = "The spread of each set after the norm"
        chart = Chart(Box(512, 54, 312, 184), (1e-6, 1), (0, 1), log_x=True, x_name="squeeze", heading=heading)
        over = np.logspace(-6, 0, 61)  # (S,)
        some = np.quantile(var, (0.1, 0.5, 0.9))[:, None] * (over / self.squeeze) ** 2  # (3, S)
        low, median, high = np.sqrt(some / (some + self.eps))
        chart.band(over, low, high, BLUE)
        chart.line(over, median, style)
        chart.dots(self.squeeze, np.median(var / (var + self.eps)) ** 0.5, style, 6.0)
        chart.across(0.5**0.5, "variance = ε")
        chart.items += legend([style, (mix(BLUE, PAPER, 0.82), "four in five sets")], 512, 292)
        squeeze = along("squeeze", "squeeze", chart, 10.0 ** np.arange(-6, 1))
        return Scene(840, 310, [*items, *chart.items], handles=[squeeze])
