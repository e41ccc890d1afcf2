"""Colours: Okabe–Ito hues for sets, a diverging map for values, shades of grey for images.  numpy only."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from normviz.arms import BLUE, GREY, HUES, SLATE, VERMILION

INK, MUTED, PAPER, GRID, GROUND = "#1A1A1A", SLATE, "#FFFFFF", "#E4E4E4", "#EFEFEF"
#: One colour for each axis, used in text, controls and pictures alike; each has a contrast above 4.5:1 on white
AXIS_COLORS = {"sample": "#9C4A00", "channel": "#005A8F", "position": "#006B4E"}
#: The host's own colours, where it has any: on a dark page ink is light.  What must stay as it is, such as lines over
#: cells, is written in small letters: `#1a1a1a`
THEMED = {
    color: f"var(--nv-{name},{color})" for name, color in
    {"ink": INK, "muted": MUTED, "paper": PAPER, "grid": GRID, "ground": GROUND, "grey": GREY, **AXIS_COLORS}.items()
}  # fmt: skip
LOW, HIGH, LEVELS = BLUE, VERMILION, 101  # negative and positive values, and the steps of the map


def rgb(color: str) -> np.ndarray:
    """`#RRGGBB` as three numbers from 0 to 255."""
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)], dtype=float)


def mix(color: str, other: str, share: float) -> str:
    """`color` with a `share` (0 to 1) of `other` in it."""
    return "#" + "".join(f"{round(v):02X}" for v in rgb(color) * (1 - share) + rgb(other) * share)


def contrast(color: str, other: str) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.1)."""
    v = np.array([rgb(color), rgb(other)]) / 255
    low, high = sorted(np.where(v <= 0.03928, v / 12.92, ((v + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])
    return float((high + 0.05) / (low + 0.05))


@lru_cache
def readable_on(color: str) -> str:
    """Black or white, whichever reads better on `color`: one of them always has 4.5:1, ink and paper do not."""
    return max(("#000000", "#ffffff"), key=lambda text: contrast(text, color))


# Sets ------------------------------------------------------------------------------------------------------

_SHADES = ((PAPER, 0.0), (PAPER, 0.22), (INK, 0.14))  # front, top, side of a block: what is mixed in, and how much
#: SET_FILLS[faded][face][hue]: a set's colour, in full or faded, on the front (0), top (1) and side (2) of a block
SET_FILLS = [
    [[mix(mix(hue, *shade), PAPER, 0.62 if faded else 0.0) for hue in HUES] for shade in _SHADES]
    for faded in (False, True)
]


def set_fill(hue: int, face: int = 0, faded: bool = False) -> str:
    """The colour of a set with a hue index (any integer), on one face of a block."""
    return SET_FILLS[int(faded)][face][hue % len(HUES)]


def hues_of(labels: np.ndarray) -> np.ndarray:
    """A hue index for every cell of labels (N, C, P): one a set, unlike for neighbouring sets.

    Sets are products of steps along the three axes, so a step along any one of them changes the hue by 3, 1 or 2
    (mod 7), never by 0.
    """
    lines = labels[:, 0, 0], labels[0, :, 0], labels[0, 0, :]
    n, c, p = np.ix_(*(np.unique(line, return_inverse=True)[1] for line in lines))
    return (3 * n + c + 2 * p) % len(HUES)


# Values ----------------------------------------------------------------------------------------------------

VALUE_FILLS = [
    mix("#F7F7F7", HIGH if level > LEVELS // 2 else LOW, abs(level / (LEVELS // 2) - 1)) for level in range(LEVELS)
]
_VALUE_RGB = np.array([rgb(fill) for fill in VALUE_FILLS], dtype=np.uint8)  # (101, 3)
MARKS = {"nan": "×", "+inf": "▲", "-inf": "▼", "high": "+", "low": "–"}
MARK_NAMES = dict(zip(MARKS, ("NaN", "+Inf", "−Inf", "above the scale", "below the scale"), strict=True))


def _levels(values: np.ndarray, limit: float) -> np.ndarray:
    """Steps of the map, 0 … LEVELS-1, symmetric about 0 up to ±limit."""
    with np.errstate(over="ignore"):
        return np.rint((np.clip(values / (limit or 1.0), -1, 1) + 1) * (LEVELS // 2)).astype(int)


def value_fills(values: np.ndarray, limit: float) -> tuple[list[str], list[str]]:
    """Fill and mark ("" for none) of each value in a flat array; the map is symmetric about 0 up to ±limit."""
    fills = [VALUE_FILLS[k] for k in _levels(np.nan_to_num(values), limit).tolist()]
    marks = [""] * len(fills)
    for i in np.flatnonzero(~(np.abs(values) <= (limit or 1.0) * (1 + 1e-6))).tolist():  # NaN is among them
        v = float(values[i])
        if np.isfinite(v):
            marks[i] = "high" if v > 0 else "low"
        else:
            marks[i], fills[i] = "nan" if v != v else f"{v:+}", GREY
    return fills, marks


def value_limit(*arrays: np.ndarray) -> float:
    """One symmetric limit for several pictures of the same cells.

    The largest magnitude, unless a few outliers would bleach the rest: then the 99th percentile, and the outliers
    are marked as clipped.
    """
    values = np.abs(np.concatenate([np.ravel(a) for a in arrays]))
    values = values[np.isfinite(values)]
    if not values.any():
        return 1.0
    ordered = np.sort(values)  # np.quantile would load numpy.ma, which takes longer than the first picture
    usual, most = float(np.interp(0.99 * (len(ordered) - 1), np.arange(len(ordered)), ordered)), float(ordered[-1])
    return most if most <= 2.5 * usual else usual


# Images ----------------------------------------------------------------------------------------------------


def value_pixels(values: np.ndarray, limit: float) -> np.ndarray:
    """A map (h, w) of values in the colours of `value_fills`, as uint8 (h, w, 3); clipped at ±limit."""
    pixels = _VALUE_RGB[_levels(np.nan_to_num(values), limit)]
    pixels[~np.isfinite(values)] = rgb(GREY)
    return pixels


def photo_pixels(image: np.ndarray, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """An image (3, h, w), or (h, w) in grey, as uint8 (h, w, 3): `low` is black, `high` is white, beyond is clipped."""
    levels = np.rint(255 * np.clip((np.nan_to_num(image) - low) / (high - low), 0, 1)).astype(np.uint8)
    return np.stack([levels] * 3 if levels.ndim == 2 else levels, axis=-1)


def grey_pixels(image: np.ndarray) -> np.ndarray:
    """An image (h, w) in shades of grey, ink (the largest value) dark, as uint8 (h, w, 3)."""
    grey = 255 - (image - image.min()) / (np.ptp(image) or 1) * 230
    return np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=2)


def grey_fills(image: np.ndarray) -> list[str]:
    """The colours of `grey_pixels`, a fill for each pixel in reading order."""
    return ["#" + 3 * f"{level:02X}" for level in grey_pixels(image)[..., 0].ravel().tolist()]
