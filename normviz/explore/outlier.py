"""One extreme sample in a batch, after BatchNorm and after LayerNorm.

By Samuelson's inequality (Samuelson 1968) no value of N that were given mean 0 and variance 1 exceeds √(N−1).
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np

from normviz.arms import BLUE, VERMILION, Style
from normviz.explore.base import Explorer
from normviz.explore.hand import along
from normviz.fields import choice
from normviz.norms import METHODS, normalize
from normviz.picture.chart import Chart, legend
from normviz.picture.color import MUTED
from normviz.picture.scene import Box, Label, Scene
from normviz.samples import digit_features

FACTORS = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000)
SHOWN = ("batch", "layer_token")
FEATURE = 24  # the one shown: the blob filter in the upper left quarter
EXTREME = Style("the multiplied sample", VERMILION, "diamond", dashed=True)
OTHERS = Style("the others", BLUE, "circle")


class Reading(NamedTuple):
    """What the methods make of one feature, by method."""

    values: dict[str, np.ndarray]  # (N,) outputs of the feature
    peaks: dict[str, np.ndarray]  # magnitude of sample 0, for each of FACTORS
    spreads: dict[str, np.ndarray]  # standard deviation of the others, for each of FACTORS
    bound: float  # √(N−1)


@lru_cache
def outputs(samples: int) -> dict[str, np.ndarray]:
    """The feature of every sample after each method, (factors, N).  eps is 0: the bound is one of arithmetic."""
    x = digit_features(samples, 8, 2, 2).astype(float).reshape(samples, -1)  # (N, D): eight filters, four quarters
    batches = np.repeat(x[None], len(FACTORS), axis=0)
    batches[:, 0] *= np.array(FACTORS)[:, None]
    return {m: np.stack([normalize(batch, m, eps=0.0)[:, FEATURE] for batch in batches]) for m in SHOWN}


@dataclass(frozen=True)
class Outlier(Explorer):
    """One sample of a batch is multiplied: what BatchNorm and LayerNorm make of it and of the others."""

    size: int = choice(16, (4, 8, 16, 32, 64), "samples N")
    factor: int = choice(1, FACTORS, "factor k")

    def read(self) -> Reading:
        every, at = outputs(self.size), FACTORS.index(self.factor)
        return Reading(
            {m: y[at] for m, y in every.items()},
            {m: np.abs(y[:, 0]) for m, y in every.items()},
            {m: y[:, 1:].std(axis=1) for m, y in every.items()},
            (self.size - 1) ** 0.5,
        )

    def say(self, reading: Reading) -> str:
        at = FACTORS.index(self.factor)
        gives = "; ".join(
            f"{METHODS[m].family} gives it {reading.peaks[m][at]:.2f} and leaves the others a spread of "
            f"{reading.spreads[m][at]:.2g}"
            for m in SHOWN
        )
        said = f"One of {self.size} samples is multiplied by {self.factor}. In the feature shown {gives}"
        return f"{said}. The bound √(N−1) is {reading.bound:.2f}."

    parts = ((0, 0, 424, 270), (424, 0, 840, 270), (0, 270, 520, 486), (520, 270, 840, 486))

    def draw(self, reading: Reading) -> Scene:
        curves, top = self._curves(reading), 1.15 * max(reading.bound, 3.0)
        items, ticks = [*curves.items], {i: str(i) for i in range(0, self.size, max(1, self.size // 8))}
        for i, method in enumerate(SHOWN):
            heading, values = f"After {METHODS[method].family}", reading.values[method]
            chart = Chart(
                Box(62 + 422 * i, 40, 342, 170), (-0.7, self.size - 0.3), (-top, top), x_name="sample",
                y_name="output", heading=heading, x_ticks=ticks,
            )  # fmt: skip
            chart.across(0, dashed=False, color=MUTED, width=0.8)
            chart.dots(np.arange(1, self.size), values[1:], OTHERS, 4.0, name=f"others-{method}")
            chart.dots(0, values[0], EXTREME, 7.0, name=f"extreme-{method}")
            if METHODS[method].running:  # what a batch bounds
                chart.across(-reading.bound, name="bound")
                chart.across(reading.bound, f"√(N−1) = {reading.bound:.2f}", name="bound")
            items += chart.items
        return Scene(840, 486, items, handles=[along("factor k", "factor", curves, FACTORS)])

    def _curves(self, reading: Reading) -> Chart:
        """Magnitude of the extreme sample and spread of the others, over the factor, both logarithmic."""
        chart = Chart(
            Box(62, 296, 440, 140), (1, 1000), (1e-3, 20), log_x=True, log_y=True, heading="The same for every factor",
            x_name="the sample is multiplied by k", y_name="output",
            x_ticks={k: str(k) for k in (1, 3, 10, 30, 100, 300, 1000)},
        )  # fmt: skip
        chart.across(reading.bound, name="bound")
        chart.upright(self.factor, name="cursor", width=0.8)
        at, y = FACTORS.index(self.factor), 316
        kinds = (EXTREME, reading.peaks, EXTREME.name), (OTHERS, reading.spreads, "spread of the others")
        for method, (style, curves, what) in product(SHOWN, kinds):
            look = style._replace(name=f"{METHODS[method].short}, {what}", dashed=not METHODS[method].running)
            chart.line(FACTORS, curves[method], look, name="curve")
            chart.dots(self.factor, curves[method][at], look, 6.0, name="now")
            chart.items += legend([look], 540, y)
            chart.add(Label(828, y, f"{curves[method][at]:.3g}", anchor="end", bold=True))
            y += 30
        return chart
