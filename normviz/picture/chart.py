"""Charts: from data to pixels, with axes, lines, dots, bars, bands, reference lines and legends.  numpy only.

A style is anything with `.name`, `.color`, `.marker` and `.dashed`, such as a row of `normviz.arms.ARMS`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from normviz.picture.color import GREY, GRID, INK, MUTED, PAPER, readable_on
from normviz.picture.scene import TEXT, Box, Label, Shapes, Strokes, open_path, rects
from normviz.picture.text import number, signed, text_width


def _polygon(corners: int, turn: float = 0.0) -> np.ndarray:
    angles = 2 * np.pi * (np.arange(corners) / corners + turn)
    return np.stack([np.sin(angles), -np.cos(angles)], axis=1)


MARKERS = {
    "circle": _polygon(12), "square": 1.1 * _polygon(4, 0.125), "triangle": 1.2 * _polygon(3),
    "diamond": 1.15 * _polygon(4), "star": _polygon(12) * np.tile([1.25, 0.55], 6)[:, None],
}  # fmt: skip


def marker(points, style, radius: float = 4.0, name: str = "") -> Shapes:
    """A style's marker at points (K, 2) of the sheet."""
    points = np.reshape(points, (-1, 1, 2)) + radius * MARKERS[style.marker]
    return Shapes(points, [style.color] * len(points), stroke=INK, width=0.7, name=name)


class Chart:
    """Axes in a box of the sheet: `chart(x, y)` is where a value lies, `chart.items` what has been drawn so far.

    x, y: the ends of the axes (low, high); of a logarithmic one both positive.  What lies beyond is drawn at the rim.
    x_ticks, y_ticks: {value: text}, False for none, None for round values, three or more on a logarithmic axis.
    Grid, ticks and names lie in `items` from the start.  The methods that draw append to it and return their item.
    """

    def __init__(
        self, box: Box, x: tuple[float, float], y: tuple[float, float], *, x_name: str = "", y_name: str = "",
        heading: str = "", log_x: bool = False, log_y: bool = False,
        x_ticks: Mapping[float, str] | bool | None = None, y_ticks: Mapping[float, str] | bool | None = None,
    ):  # fmt: skip
        self.box, self.x, self.y, self.log_x, self.log_y = box, x, y, log_x, log_y
        self.items: list = []
        wide, taken, bottom = 0.0, -math.inf, box.bottom
        if marks := ticks(y, log_y, y_ticks):
            grid = np.stack([self(end, list(marks)) for end in x], axis=1)
            self.items.append(Strokes(grid, GRID, name="grid"))
            for at, text in zip(grid[:, 0, 1].tolist(), marks.values(), strict=True):
                self.items.append(Label(box.x - 6, at + 4, text, anchor="end", color=MUTED))
            wide = max(map(text_width, marks.values()))
        marks = ticks(x, log_x, x_ticks)
        for at, text in zip(self(list(marks), y[0])[:, 0].tolist(), marks.values(), strict=True):
            half = text_width(text) / 2
            if at - half >= taken:  # a text that would run into its neighbour is left out
                self.items.append(Label(at, bottom + 17, text, anchor="middle", color=MUTED))
                taken = at + half + 4
        corners = np.array([(box.x, box.y), (box.x, bottom), (box.right, bottom)])
        self.items.append(Strokes(open_path(corners[y_ticks is False :]), INK, 1.0))
        names = [
            Label(box.center[0], bottom + (34 if taken > -math.inf else 18), x_name, anchor="middle"),
            Label(box.x - max(42, wide + 16), box.center[1], y_name, anchor="middle", angle=90),
            Label(box.x, box.y - 10, heading, 13, bold=True),
        ]
        self.items += [label for label in names if label.text]

    def __call__(self, x, y) -> np.ndarray:
        """Points (…, 2) of the sheet; NaN stays NaN."""
        x, y = _along(x, self.x, self.log_x), _along(y, self.y, self.log_y)
        points = np.empty((*np.broadcast(x, y).shape, 2))
        points[..., 0] = self.box.x + x * self.box.width
        points[..., 1] = self.box.bottom - y * self.box.height
        return points

    def add(self, item):
        """Append an item of one's own, and return it."""
        self.items.append(item)
        return item

    def line(self, x, y, style, width: float = 2.4, name: str = "") -> Strokes:
        """A curve; a value that is not finite leaves a gap."""
        points = self(x, np.where(np.isfinite(y), y, np.nan))
        return self.add(Strokes(open_path(points), style.color, width, style.dashed, name))

    def dots(self, x, y, style, radius: float = 4.0, *, hollow=None, name: str = "") -> Shapes:
        """A marker for each finite value.  hollow: a mask of those that are only outlined."""
        points = self(x, np.where(np.isfinite(y), y, np.nan)).reshape(-1, 2)
        some = np.flatnonzero(np.isfinite(points).all(axis=1))
        item = marker(points[some], style, radius, name)
        if hollow is not None:
            item.fills, item.width = [PAPER if hollow[i] else style.color for i in some], 1.2
        return self.add(item)

    def bars(
        self, x, heights, width: float, fill: str, *, titles=None, stroke: str | None = INK, stroke_width: float = 0.5,
        opacity: float = 1.0, name: str = "",
    ) -> Shapes:  # fmt: skip
        """Bars from 0 (on a logarithmic axis from its end), `width` wide in data units; one not finite is left out."""
        x, heights = np.atleast_1d(x), np.atleast_1d(heights)
        some = np.flatnonzero(np.isfinite(heights))
        low, high = self(x[some] - width / 2, heights[some]), self(x[some] + width / 2, 0)
        titles = [titles[i] for i in some] if titles else None
        look = {"stroke": stroke, "width": stroke_width, "opacity": opacity, "name": name}
        return self.add(Shapes(rects(*low.T, *high.T), [fill] * len(some), titles, **look))

    def band(self, x, low, high, color: str, opacity: float = 0.18, name: str = "") -> Shapes:
        """The area between two curves, where both are finite."""
        x, low, high = np.broadcast_arrays(*(np.asarray(v, float) for v in (x, low, high)))
        some = np.isfinite(low) & np.isfinite(high)
        outline = np.concatenate([self(x[some], low[some]), self(x[some], high[some])[::-1]])
        return self.add(Shapes(outline[None], [color], opacity=opacity, name=name))

    def across(self, y: float, text: str = "", **look) -> Strokes:
        """A horizontal line with its text above or below it, at whichever end has most room.  Draw it last."""
        (left, at), (right, _) = ends = self(self.x, y)
        places = [(x, at + dy, anchor) for dy in (-5, 14) for x, anchor in ((right - 2, "end"), (left + 6, "start"))]
        return self._guide(ends, text, places, **look)

    def upright(self, x: float, text: str = "", **look) -> Strokes:
        """A vertical line with its text beside its upper or lower end, where most room is.  Draw it last."""
        (at, bottom), (_, top) = ends = self(x, self.y)
        places = [(at + dx, y, anchor) for y in (top + 12, bottom - 6) for dx, anchor in ((5, "start"), (-5, "end"))]
        return self._guide(ends, text, places, **look)

    def _guide(self, ends, text, places, *, dashed=True, color: str = INK, name="", width=1.4) -> Strokes:
        """The line, and its text at the place where it hides least of what is drawn already."""
        line = Strokes(ends[None], color, width, dashed, name)
        if not text:
            return self.add(line)
        drawn = [item.points for item in self.items if not isinstance(item, Label) and item.name != "grid"]
        points = np.concatenate([part for p in drawn for part in (p.reshape(-1, 2), p.mean(axis=1))])
        taken = np.reshape([item.extent for item in self.items if isinstance(item, Label)], (-1, 4))

        def hidden(label: Label) -> float:
            left, top, right, bottom = label.extent
            inside = (points >= (left - 2, top - 2)) & (points <= (right + 2, bottom + 2))
            over = (taken[:, :2] < (right, bottom)) & (taken[:, 2:] > (left, top))
            leaves = left < self.box.x - 1 or right > self.box.right + 1
            return inside.all(axis=1).sum() + 100 * over.all(axis=1).sum() + 1000 * leaves

        self.items.append(min((Label(x, y, text, anchor=end, color=color) for x, y, end in places), key=hidden))
        return self.add(line)

    def write(self, x, y, text: str, *, dx: float = 0.0, dy: float = 0.0, **style) -> Label:
        """Text at a value, moved by (dx, dy) pixels."""
        at_x, at_y = self(x, y).tolist()
        return self.add(Label(at_x + dx, at_y + dy, text, **style))


def _along(values, ends: tuple[float, float], log: bool) -> np.ndarray:
    """Values as a share of the axis, 0 to 1."""
    values, (low, high) = np.asarray(values, float), ends
    if log:
        values, low, high = np.log10(np.maximum(values, 1e-320)), math.log10(low), math.log10(high)
    half, span = low / 2, high / 2 - low / 2 or 1.0  # by halves, which the largest floats need
    if not values.ndim:  # most are single numbers, which Python is quicker with
        return min(max((float(values) / 2 - half) / span, 0.0), 1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.minimum(np.maximum((values / 2 - half) / span, 0.0), 1.0)


def ticks(ends: tuple[float, float], log: bool, wanted: Mapping[float, str] | bool | None = None) -> dict[float, str]:
    """Where an axis is labelled, and how: as wanted, or at five to eight round values; never fewer than three."""
    if wanted is not None:
        return dict(wanted) if wanted else {}
    low, high = ends
    values = _round_decades(low, high) if log else _round_values(low, high)
    return {value: number(value, 6) for value in values.tolist()}


def _round_decades(low: float, high: float) -> np.ndarray:
    """Powers of ten, or of so many tens; where there are less than three, round values between them too."""
    least, most = math.log10(low), math.log10(high)
    decades = np.arange(math.ceil(least - 1e-9), math.floor(most + 1e-9) + 1)
    if len(decades) >= 3:
        return 10.0 ** decades[:: max(1, math.ceil((len(decades) - 1) / 8))]
    around = 10.0 ** np.arange(math.floor(least), math.floor(most) + 1)
    for digits in ((1, 2, 5), (1, 1.5, 2, 3, 5, 7), ()):
        values = np.outer(around, digits).ravel() if digits else _round_values(low, high)
        values = values[(values >= low * (1 - 1e-9)) & (values <= high * (1 + 1e-9))]
        if len(values) >= 3:
            break
    return values


def _round_values(low: float, high: float) -> np.ndarray:
    """At least three multiples of 1, 2 or 5 times a power of ten between two ends, five of them where they fit."""
    raw = (high / 5 - low / 5) or 1.0
    base = 10.0 ** math.floor(math.log10(raw))
    first = next(k for k in (1, 2, 5, 10) if k * base >= raw * 0.999)
    for factor in (k for k in (10, 5, 2, 1, 0.5) if k <= first):
        step = factor * base
        values = np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1) * step
        if len(values) >= 3 or low == high:
            break
    return np.where(np.abs(values) < 1e-9 * step, 0.0, values)


def legend(entries: Iterable[Any], x: float, y: float, width: float = math.inf, color: str = INK) -> list:
    """What curves and fills are called, side by side from (x, y), in further lines 18 px apart where `width` is short.

    entries: styles; or (fill, text) for a swatch, (fill, text, letter) for one with a letter, ("", text) for words.
    """
    items: list = []
    left, right = x, x + width
    for entry in entries:
        is_style = hasattr(entry, "marker")
        fill, text = (entry.color, entry.name) if is_style else entry[:2]
        sign = 32 if is_style else 20 if fill else 0
        if left > x and left + sign + text_width(text) > right:
            left, y = x, y + 18
        if is_style:
            items.append(Strokes(np.array([[(left, y - 4), (left + 26, y - 4)]]), fill, 2.4, entry.dashed, "legend"))
            items.append(marker([(left + 13, y - 4)], entry, name="legend"))
        elif fill:
            more = len(entry) - 2  # a letter needs one more pixel
            swatch = rects(left, y - 10 - more, left + 13 + more, y + 2 + more)
            items.append(Shapes(swatch, [fill], stroke=INK, width=1.0, name="legend"))
            items += [Label(left + 7, y, letter, TEXT, "middle", readable_on(fill), bold=True) for letter in entry[2:]]
        items.append(Label(left + sign, y, text, color=color))
        left += sign + items[-1].width + 20
    return items


# Histograms ------------------------------------------------------------------------------------------------

BINS = 32


def shares(values: np.ndarray, limit: float) -> np.ndarray:
    """The share of the finite values in each of `BINS` even bins over ±limit; what lies beyond counts at the rim."""
    values = np.ravel(values)
    with np.errstate(over="ignore"):
        scaled = np.clip(values[np.isfinite(values)] / limit, -1, 1)
    # Ten times as fast as np.histogram, which looks at its bins first
    bins = np.minimum(((scaled + 1) * (BINS / 2)).astype(int), BINS - 1)
    return np.bincount(bins, minlength=BINS) / max(1, scaled.size)


def histogram(
    box: Box, heading: str, everything: np.ndarray, chosen: np.ndarray, *, limit: float, top: float, fill: str
) -> list:
    """The distribution of a set (bars of colour `fill`) over that of all cells (grey), on one scale.

    limit: the axis runs from -limit to +limit; top: the share that fills the height.
    """
    title, finite, statistics = Label(box.x, box.y + 11, heading, bold=True), chosen[np.isfinite(chosen)], []
    if finite.size:
        mean, std = mean_and_std(finite)
        text = f"μ={number(mean)}  σ={number(std)}"
        statistics = [Label(box.right, box.y + 11, text, anchor="end", color=MUTED)]
        if title.width + statistics[0].width > box.width - 8:
            statistics[0].y += 15
    top_y = 13 + max(label.y for label in (title, *statistics))
    area = Box(box.x, top_y, box.width, box.bottom - 20 - top_y)
    chart = Chart(area, (-limit, limit), (0, top), x_ticks=False, y_ticks=False)
    chart.items += [*statistics, *([title] if heading else [])]
    centres, wide = limit * (2 * (np.arange(BINS) + 0.5) / BINS - 1), 0.88 * 2 * limit / BINS
    heights, inner = (np.where(part > 0, part, np.nan) for part in (shares(everything, limit), shares(chosen, limit)))
    chart.bars(centres, heights, wide, GREY, stroke=None, name="histogram-all")
    chart.bars(centres, inner, wide, fill, stroke_width=0.7, opacity=0.85, name="histogram-set")
    for value, text, anchor in ((-limit, signed(-limit), "start"), (0, "0", "middle"), (limit, signed(limit), "end")):
        chart.write(value, 0, text, dy=15, anchor=anchor, color=MUTED)
    if finite.size:
        at = chart([mean, mean], [0, top])[None]
        chart.items += [Strokes(at, PAPER, 3.6), Strokes(at, INK, 1.6, dashed=True, name="mean")]
    return chart.items


def mean_and_std(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of finite values of any magnitude; a mean that is mere rounding is 0."""
    scale = float(np.abs(values).max()) or 1.0
    mean, std = scale * float((values / scale).mean()), scale * float((values / scale).std())
    return (0.0 if abs(mean) < 1e-6 * std else mean), std


def before_after(
    box: Box, headings: tuple[str, str], arrays: tuple[np.ndarray, np.ndarray], inside: np.ndarray, *,
    limit: float, fill: str,
) -> list:  # fmt: skip
    """Two histograms with equal limits: a tensor before and after, and the set `inside` (a mask) in both."""
    half = (box.width - 24) / 2
    top = max(0.05, *(float(shares(a, limit).max()) for array in arrays for a in (array, array[inside])))
    items = []
    for i, (heading, array) in enumerate(zip(headings, arrays, strict=True)):
        panel = Box(box.x + i * (half + 24), box.y, half, box.height - 20)
        items += histogram(panel, heading, array, array[inside], limit=limit, top=top, fill=fill)
    entries = [(fill, "cursor's set"), (GREY, "all cells (share)"), ("", "┆ mean of the set")]
    return items + legend(entries, box.x, box.bottom - 6, box.width)
