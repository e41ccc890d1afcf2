"""A batch cut over K devices: which samples share statistics, and how far the outputs are from those of one device.

Gradient accumulation is the same cut, in time: its statistics are those of the micro-batch.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from normviz.arms import BLUE, GREEN, ORANGE, VERMILION, Style
from normviz.explore.base import Explorer
from normviz.explore.groups import rms
from normviz.fields import choice
from normviz.norms import cut, normalize
from normviz.picture.chart import Chart, legend
from normviz.picture.color import AXIS_COLORS, MUTED, grey_pixels, readable_on, set_fill
from normviz.picture.scene import Box, Label, Raster, Scene, Shapes, Strokes, grid_rects, rect, ring
from normviz.picture.text import number, plural
from normviz.samples import FILTERS, digit_features, digit_images, digits

N, C, SIDE = 16, 4, 2  # samples of the whole batch, channels, rows and columns of positions
SHARES = (1, 2, 4, 8)  # into how many parts the batch is cut
ORDERS = {"mixed": "mixed", "sorted": "sorted by digit"}
MAPS = tuple(FILTERS)[:C]
WATCHED = MAPS.index("edge —")  # the channel whose means are charted
LEFT, TOP, ROW, GAP = 84.0, 100.0, 38.0, 10.0  # px: of the first part, of the first channel, from row to row, of parts


class Way(NamedTuple):
    """A norm on several devices: its method, whether these exchange statistics, what a part of the batch is called."""

    style: Style
    method: str
    exchanged: bool = False
    part: str = "device"


WAYS = {
    "batch": Way(Style("BatchNorm", VERMILION, "square"), "batch"),
    "sync": Way(Style("SyncBatchNorm", GREEN, "triangle"), "batch", exchanged=True),
    "accumulate": Way(Style("BatchNorm, accumulated", ORANGE, "diamond", True), "batch", part="micro-batch"),
    "layer": Way(Style("LayerNorm (per token)", BLUE, "circle", True), "layer_token"),
}


class Reading(NamedTuple):
    """The batch in the order in which it was dealt, its sets and what becomes of it."""

    index: np.ndarray  # (N,) which digit each sample is
    x: np.ndarray  # (N, C, H, W), as what follows
    labels: np.ndarray  # int, equal where statistics are shared
    outputs: np.ndarray
    apart: dict[str, list[float]]  # way → for each of SHARES, rms difference from the outputs of one device


@lru_cache
def dealt(order: str) -> tuple[np.ndarray, np.ndarray]:
    """Which digit each sample is (N,), and the batch (N, C, H, W) in float64."""
    index = np.argsort(digits()[1][:N], kind="stable") if order == "sorted" else np.arange(N)
    return index, digit_features(N, C, SIDE, SIDE).astype(float)[index]


@lru_cache
def cut_over(way: str, devices: int, order: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels and outputs (N, C, H, W) of a batch on so many devices."""
    row, parts = WAYS[way], 1 if WAYS[way].exchanged else devices
    xs = np.split(dealt(order)[1], parts)
    labels = cut(row.method, xs[0].shape).labels
    labels = [labels + k * (labels.max() + 1) for k in range(parts)]
    return np.concatenate(labels), np.concatenate([normalize(x, row.method) for x in xs])


def means(way: str, devices: int, order: str) -> list[np.ndarray]:
    """For each device, the means of the sets that the watched channel of its samples belongs to."""
    labels, x = cut_over(way, devices, order)[0], dealt(order)[1]
    return [np.array([x[labels == k].mean() for k in np.unique(p[:, WATCHED])]) for p in np.split(labels, devices)]


@dataclass(frozen=True)
class Devices(Explorer):
    """Sixteen digits on K devices, normalized there: who shares statistics with whom, and what does it change?"""

    way: str = choice("batch", {row.style.name: key for key, row in WAYS.items()}, "norm")
    devices: int = choice(4, SHARES, "devices K")
    order: str = choice("mixed", {text: key for key, text in ORDERS.items()}, "samples")

    def read(self) -> Reading:
        y = {(way, k): cut_over(way, k, self.order)[1] for way in WAYS for k in SHARES}
        apart = {way: [float(rms(y[way, k] - y[way, 1])) for k in SHARES] for way in WAYS}
        return Reading(*dealt(self.order), *cut_over(self.way, self.devices, self.order), apart)

    def say(self, reading: Reading) -> str:
        row, sets = WAYS[self.way], reading.labels.max() + 1
        mates = np.unique(np.argwhere(reading.labels == 0)[:, 0]).size
        parts = plural(self.devices, row.part).replace("chs", "ches")
        return (
            f"{row.style.name}: {N} digits, {ORDERS[self.order]}, on {parts} of {N // self.devices}. {sets} sets, each "
            f"of {reading.x.size // sets} values from {plural(mates, 'sample')}. Difference (rms) from the outputs of "
            f"one device with all digits: {number(reading.apart[self.way][SHARES.index(self.devices)], 2)}."
        )

    @property
    def parts(self) -> list[tuple[float, ...]]:
        if self.devices == 1:
            return []
        upper, lower = [(0, 0, 455, 270), (455, 0, 840, 270)], [(0, 270, 455, 455), (455, 270, 840, 455)]
        return [*upper, *lower, (0, 455, 348, 480), (348, 455, 840, 480)]

    def draw(self, reading: Reading) -> Scene:
        """Every sample a column in the panel of its device, its channels below it, coloured by set; two charts."""
        row, each = WAYS[self.way], N // self.devices
        wide = (834 - LEFT - GAP * (self.devices - 1)) / N
        items = [Label(12, 20, f"{row.style.name}: one colour and number, one mean and σ", 15, bold=True)]
        items += [Label(12, TOP + ROW * c + 20, name, color=AXIS_COLORS["channel"]) for c, name in enumerate(MAPS)]
        for i, labels in enumerate(reading.labels):
            k, x = i // each, LEFT + i * wide + i // each * GAP
            if i % each == 0:
                panel = Box(x - 3, 50, each * wide + 4, TOP + C * ROW - 50)
                items.append(Label(x, 44, f"{row.part} {k}", color=AXIS_COLORS["sample"]))
                items.append(Strokes(ring(rect(panel)), MUTED, 1.2, name="device"))
            items.append(Raster(x + 1, 54, wide - 4, 40, grey_pixels(digit_images(N)[reading.index[i]]), f"sample {i}"))
            items += _column(i, labels, reading.labels[k * each : i], x, wide)
        return Scene(840, TOP + C * ROW + 228, [*items, *self._charts(TOP + C * ROW + 56, reading)])

    def _charts(self, y: float, reading: Reading) -> list:
        """What each device takes for the mean of one channel; how far from one device that leads, for every K."""
        row, names = WAYS[self.way], {k: str(k) for k in range(self.devices)}
        alike = next(key for key in WAYS if WAYS[key].method == row.method)  # one axis for every K and order
        ends = np.concatenate([m for order in ORDERS for m in means(alike, SHARES[-1], order)])
        box, heading = Box(92, y, 300, 110), f"The mean that is taken from “{MAPS[WATCHED]}”"
        across, up = (-0.5, self.devices - 0.5), (ends.min() - 0.1, ends.max() + 0.1)
        chart = Chart(box, across, up, x_name=row.part, x_ticks=names, heading=heading)
        for k, some in enumerate(means(self.way, self.devices, self.order)):
            chart.dots(np.full(some.size, k), some, row.style, 4.5, name="mean")
        chart.across(float(reading.x[:, WATCHED].mean()), "whole batch")
        items, heading, names = chart.items, "Difference from one device (rms)", {k: str(k) for k in SHARES}
        box, ends = Box(500, y, 320, 110), (0, 1.15 * max(map(max, reading.apart.values())))
        chart = Chart(box, (1, SHARES[-1]), ends, log_x=True, x_name="devices K", x_ticks=names, heading=heading)
        for i, (way, values) in enumerate(reading.apart.items()):
            chart.line(SHARES, values, WAYS[way].style)
            chart.dots(SHARES, values, WAYS[way].style, 7.0 - 1.2 * i)  # those that coincide are all seen
        chart.upright(self.devices)
        return items + chart.items + legend([row.style for row in WAYS.values()], 92, y + 164)


def _column(i: int, labels: np.ndarray, before: np.ndarray, x: float, wide: float) -> list:
    """The cells (C, H, W) of sample i; a set's number where it comes first, after the samples `before`."""
    boxes = [grid_rects(Box(x + 1, TOP + ROW * c, wide - 4, ROW - 6), SIDE, SIDE) for c in range(C)]
    points, sets, fills = np.concatenate(boxes), labels.ravel().tolist(), [set_fill(k) for k in labels.flat]
    data = [(f"{i},{c},{h},{w}", k) for (c, h, w), k in zip(np.ndindex(C, SIDE, SIDE), sets, strict=True)]
    items: list = [Shapes(points, fills, [f"set {k}" for k in sets], data, "#ffffff", 0.6, name="cell")]
    for at in {sets.index(k) for k in set(sets) - set(before.flat)}:
        middle, y = points[at].mean(axis=0)
        items.append(Label(middle, y + 4, str(sets[at]), anchor="middle", color=readable_on(fills[at])))
    return items
