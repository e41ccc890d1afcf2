"""Colours: Okabe–Ito hues for sets, a diverging map for values.  numpy only."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

#: Okabe & Ito, "Color Universal Design" (2008), without black
HUES = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
INK, MUTED, PAPER, GREY = "#1A1A1A", "#595959", "#FFFFFF", "#B8B8B8"
#: One colour for each axis, used in text, controls and pictures alike; each has a contrast above 4.5:1 on white
AXIS_COLORS = {"sample": "#9C4A00", "channel": "#005A8F", "position": "#006B4E"}

LOW, HIGH = "#0072B2", "#D55E00"  # negative and positive values
LEVELS = 101


def rgb(color: str) -> np.ndarray:
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)], dtype=float)


def mix(color: str, other: str, share: float) -> str:
    """`color` with a `share` (0 to 1) of `other` in it."""
    return "#" + "".join(f"{round(v):02X}" for v in rgb(color) * (1 - share) + rgb(other) * share)


def contrast(color: str, other: str) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.1)."""

    def luminance(c):
        v = rgb(c) / 255
        v = np.where(v <= 0.03928, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
        return float(v @ [0.2126, 0.7152, 0.0722])

    high, low = sorted((luminance(color), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@lru_cache
def readable_on(color: str) -> str:
    """Black or paper, whichever reads better on `color`: one of them always has 4.5:1, ink and paper do not."""
    return max(("#000000", PAPER), key=lambda text: contrast(text, color))


_SHADES = (0.0, 0.22, 0.14)  # front, top, side: share of white or black
_FADED = 0.62
#: _SET_FILLS[faded][face][hue]
SET_FILLS = [
    [
        [
            mix(mix(hue, INK if face == 2 else PAPER, _SHADES[face]), PAPER, _FADED if faded else 0.0)
            for hue in HUES
        ]
        for face in range(3)
    ]
    for faded in (False, True)
]
VALUE_FILLS = [
    mix("#F7F7F7", HIGH if level > LEVELS // 2 else LOW, abs(level / (LEVELS // 2) - 1))
    for level in range(LEVELS)
]
MARKS = {"nan": "×", "+inf": "▲", "-inf": "▼", "high": "+", "low": "–"}
MARK_NAMES = {
    "nan": "NaN",
    "+inf": "+Inf",
    "-inf": "−Inf",
    "high": "above the scale",
    "low": "below the scale",
}


def hues_of(labels: np.ndarray) -> np.ndarray:
    """A hue index for every cell of labels (N, C, P): one a set, unlike for neighbouring sets.

    Sets are products of steps along the three axes, so a step along any one of them changes the hue by 3, 1 or 2
    (mod 7), never by 0.
    """
    ranks = [
        np.unique(line, return_inverse=True)[1]
        for line in (labels[:, 0, 0], labels[0, :, 0], labels[0, 0, :])
    ]
    n, c, p = np.ix_(*ranks)
    return (3 * n + c + 2 * p) % len(HUES)


def value_fills(values: np.ndarray, limit: float) -> tuple[list[str], list[str]]:
    """Fill and mark ("" for none) of each value in a flat array; the map is symmetric about 0 up to ±limit."""
    finite = np.isfinite(values)
    scaled = np.where(finite, values, 0.0) / (limit or 1.0)
    level = np.rint((np.clip(scaled, -1, 1) + 1) * (LEVELS // 2)).astype(int)
    fills = [VALUE_FILLS[k] if ok else GREY for k, ok in zip(level.tolist(), finite.tolist(), strict=True)]
    marks = [""] * len(fills)
    tests = {
        "nan": np.isnan(values), "+inf": np.isposinf(values), "-inf": np.isneginf(values),
        "high": finite & (scaled > 1 + 1e-6), "low": finite & (scaled < -1 - 1e-6),
    }  # fmt: skip
    for name, hit in tests.items():
        for i in np.flatnonzero(hit):
            marks[i] = name
    return fills, marks


def value_limit(*arrays: np.ndarray) -> float:
    """One symmetric limit for several pictures of the same cells.

    The largest magnitude, unless a few outliers would bleach the rest: then the 99th percentile, and the outliers
    are marked as clipped.
    """
    values = np.abs(np.concatenate([np.ravel(a) for a in arrays]))
    values = values[np.isfinite(values)]
    if not values.size or values.max() == 0:
        return 1.0
    usual = float(np.quantile(values, 0.99))
    return float(values.max()) if values.max() <= 2.5 * usual else usual
