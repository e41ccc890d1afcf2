"""Charts as scene items: histograms beside a block.  Like the block they become SVG or PNG unchanged."""

from __future__ import annotations

import numpy as np

from normviz.picture.colors import GREY, INK, MUTED, PAPER
from normviz.picture.scene import Box, Label, Shapes, Strokes

BINS = 32


def shares(values: np.ndarray, limit: float) -> np.ndarray:
    """The share of the finite values in each of `BINS` even bins over ±limit; what lies beyond counts at the rim."""
    values = np.ravel(values)
    values = np.clip(values[np.isfinite(values)], -limit, limit)
    # Ten times as fast as np.histogram, which looks at its bins first
    bins = np.minimum(((values + limit) * (BINS / (2 * limit))).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    return counts / max(1, values.size)


def histogram(
    box: Box, heading: str, everything: np.ndarray, chosen: np.ndarray, *, limit: float, top: float, fill: str
) -> list:
    """The distribution of a set (bars of colour `fill`) against that of all cells (outline) on one scale.

    limit: the axis runs from -limit to +limit; top: the share that fills the height.
    """
    base, high = box.y + box.height - 20, box.height - 44
    wide = box.width / BINS
    x = box.x + wide * np.arange(BINS)

    def bars(values):
        heights = np.minimum(shares(values, limit) / top, 1) * high
        some = heights > 0
        corners = [
            (x + dx * wide, base - k * heights) for dx, k in ((0.06, 0), (0.94, 0), (0.94, 1), (0.06, 1))
        ]
        return np.array(corners).transpose(2, 0, 1)[some]

    behind, front = bars(everything), bars(chosen)
    ground = np.array([[(box.x, base), (box.x + box.width, base)]])
    items: list = [
        Label(box.x, box.y + 11, heading, bold=True),
        Shapes(behind, [GREY] * len(behind), name="histogram-all"),
        Shapes(front, [fill] * len(front), stroke=INK, width=0.7, opacity=0.85, name="histogram-set"),
        Strokes(ground, INK, 1.0),
    ]
    for value, anchor in ((-limit, "start"), (0.0, "middle"), (limit, "end")):
        at = box.x + box.width * (value / limit + 1) / 2
        text = "0" if value == 0 else f"{value:+.3g}".replace("-", "−")
        items.append(Label(at, base + 15, text, anchor=anchor, color=MUTED))
    finite = chosen[np.isfinite(chosen)]
    if finite.size:
        mean, std = float(finite.mean()), float(finite.std())
        at = box.x + box.width * (np.clip(mean / limit, -1, 1) + 1) / 2
        items.append(Strokes(np.array([[(at, base), (at, base - high)]]), PAPER, 3.6))
        items.append(Strokes(np.array([[(at, base), (at, base - high)]]), INK, 1.6, dashed=True))
        text = f"μ={_short(mean)}  σ={_short(std)}"
        items.append(Label(box.x + box.width, box.y + 11, text, anchor="end", color=MUTED))
    return items


def _short(value: float) -> str:
    return f"{0.0 if abs(value) < 5e-4 else value:.3g}".replace("-", "−")


def before_after(
    box: Box,
    headings: tuple[str, str],
    arrays: tuple[np.ndarray, np.ndarray],
    inside: np.ndarray,
    *,
    limit,
    fill,
) -> list:
    """Two histograms with equal limits: a tensor before and after, and the set `inside` (a mask) in both."""
    half = (box.width - 24) / 2
    top = max(0.05, *(float(shares(a, limit).max()) for array in arrays for a in (array, array[inside])))
    items = []
    for i, (heading, array) in enumerate(zip(headings, arrays, strict=True)):
        panel = Box(box.x + i * (half + 24), box.y, half, box.height - 20)
        items += histogram(panel, heading, array, array[inside], limit=limit, top=top, fill=fill)
    y = box.y + box.height - 6
    quad = np.array([[(0, -9), (11, -9), (11, 2), (0, 2)]])
    for x, fill_, text in ((0, fill, "cursor's set"), (120, GREY, "all cells (share)   ┆ mean of the set")):
        items.append(Shapes(quad + np.array([box.x + x, y]), [fill_], stroke=INK, width=0.7))
        items.append(Label(box.x + x + 17, y, text))
    return items
