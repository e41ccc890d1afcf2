"""Photographs in a scene: rasters with headings, and the colours of values that are no photograph.  numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from normviz.picture.colors import MUTED, VALUE_FILLS, rgb
from normviz.picture.curves import with_caption
from normviz.picture.figures import NOTEBOOK_WIDTH, as_array
from normviz.picture.png import figure
from normviz.picture.scene import Label, Raster, Scene

_VALUE_COLORS = np.array([rgb(fill) for fill in VALUE_FILLS], dtype=np.uint8)  # (101, 3)


def photo_pixels(image: np.ndarray, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """An image (3, h, w), or (h, w) in grey, as uint8 (h, w, 3): `low` is black, `high` is white, beyond is clipped."""
    shares = np.clip((np.nan_to_num(image) - low) / (high - low), 0, 1)
    bytes_ = np.rint(255 * shares).astype(np.uint8)
    return np.stack([bytes_] * 3, axis=-1) if bytes_.ndim == 2 else bytes_.transpose(1, 2, 0).copy()


def value_pixels(values: np.ndarray, limit: float) -> np.ndarray:
    """A map (h, w) of values in the colours of `value_fills`, as uint8 (h, w, 3); clipped at ±limit."""
    middle = len(_VALUE_COLORS) // 2
    levels = np.rint((np.clip(values / (limit or 1.0), -1, 1) + 1) * middle).astype(int)
    return _VALUE_COLORS[levels]


def photo_grid(
    images: Sequence[Sequence],
    rows: Sequence[str],
    columns: Sequence[str],
    alt: str,
    *,
    low: float = 0.0,
    high: float = 1.0,
    notes: Sequence[Sequence[str]] | None = None,
    width: float = NOTEBOOK_WIDTH,
) -> Scene:
    """Images in rows and columns with their headings, one scale for all: `low` is black, `high` is white.

    images: a list of rows, each a list of arrays (3, h, w) or (h, w), all of one size; None leaves a place empty.
    rows, columns: a heading each.  notes: a line of text beneath each image.  alt: what the picture shows, in words.

    Raises TypeError for an image that is not numeric; ValueError for rows of unlike length, headings that do not go
    with the images, an image of another rank, or `low` that is not below `high`.
    """
    if len(rows) != len(images) or any(len(row) != len(columns) for row in images) or not len(columns):
        shape = [len(row) for row in images]
        raise ValueError(
            f"images has rows of {shape}; with {len(rows)} row and {len(columns)} column headings it takes "
            f"{len(rows)} rows of {len(columns)}, at least one"
        )
    if not low < high:
        raise ValueError(f"low={low!r} must be below high={high!r}")
    arrays = [[None if image is None else as_array(image) for image in row] for row in images]
    for image in (image for row in arrays for image in row if image is not None):
        if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[0] != 3):
            raise ValueError(f"images holds one of shape {image.shape}; it takes (3, h, w) or (h, w)")
    first = next((image for row in arrays for image in row if image is not None), np.zeros((2, 3)))
    left = 16 + 8.8 * max((len(line) for row in rows for line in row.split("\n")), default=0)
    wide = (width - left - 8) / len(columns)
    high_px = (wide - 10) * first.shape[-2] / first.shape[-1]
    step = high_px + (26 if notes else 10)
    scene = Scene(width, 30 + step * len(rows), alt)
    for j, name in enumerate(columns):
        scene.items.append(Label(left + j * wide + (wide - 10) / 2, 18, name, 13, "middle", bold=True))
    for i, row in enumerate(arrays):
        y = 28 + i * step
        lines = rows[i].split("\n")
        for k, line in enumerate(lines):
            place = y + high_px / 2 + 4 + 16 * (k - (len(lines) - 1) / 2)
            scene.items.append(Label(left - 10, place, line, anchor="end", bold=k == 0))
        for j, image in enumerate(row):
            x = left + j * wide
            if image is not None:
                pixels = photo_pixels(image, low, high)
                scene.items.append(Raster(x, y, wide - 10, high_px, pixels, f"{lines[0]}, {columns[j]}"))
            if notes:
                at = x + (wide - 10) / 2
                scene.items.append(Label(at, y + high_px + 15, notes[i][j], anchor="middle", color=MUTED))
    return scene


def draw_photos(images, rows, columns, alt, **options):
    """`photo_grid` as a matplotlib Figure with its alt text beneath; arguments and errors as there."""
    return figure(with_caption(photo_grid(images, rows, columns, alt, **options)))
