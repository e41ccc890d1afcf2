"""Photographs and digits: images in rows and columns, digits as sequences of ink, and what padding does to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from normviz.arms import GREY, style_of
from normviz.draw.common import NOTEBOOK_WIDTH, arrays_of, as_array, drawn
from normviz.draw.runs import panel_chart
from normviz.picture.color import MUTED, grey_pixels, photo_pixels, readable_on
from normviz.picture.scene import Box, Label, Raster, Scene, Strokes, rect, ring
from normviz.picture.text import number, text_width
from normviz.samples import digit_images


def photos_scene(
    images: Sequence[Sequence], rows: Sequence[str], columns: Sequence[str], alt: str, *, low: float = 0.0,
    high: float = 1.0, notes: Sequence[Sequence[str]] | None = None, width: float = NOTEBOOK_WIDTH,
) -> Scene:  # fmt: skip
    """Images in rows and columns with their headings, one scale for all: `low` is black, `high` is white.

    images: a list of rows, each a list of arrays (3, h, w) or (h, w), all of one size; None leaves a place empty.
    rows, columns: a heading each.  notes: a line of text beneath each image.  alt: what the picture shows, in words.

    Raises TypeError for an image that is not numeric; ValueError for rows of unlike length, headings that do not go
    with the images, an image of another rank or without a pixel, or `low` that is not below `high`.
    """
    if len(rows) != len(images) or any(len(row) != len(columns) for row in images) or not len(columns):
        shape = [len(row) for row in images]
        raise ValueError(
            f"images has rows of {shape}; with {len(rows)} row and {len(columns)} column headings it takes "
            f"{len(rows)} rows of {len(columns)}, at least one"
        )
    if not low < high:
        raise ValueError(f"low={low!r} must be below high={high!r}")
    arrays = [[None if image is None else as_array(image, "images") for image in row] for row in images]
    there = [image for row in arrays for image in row if image is not None]
    for image in there:
        if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[0] != 3) or not image.size:
            raise ValueError(f"images holds one of shape {image.shape}; it takes (3, h, w) or (h, w), not empty")
    tall, across = there[0].shape[-2:] if there else (2, 3)
    lines = [row.split("\n") for row in rows]
    left = 22 + max((text_width(line, bold=k == 0) for row in lines for k, line in enumerate(row)), default=0)
    wide = (width - left - 8) / len(columns)
    high_px = (wide - 10) * tall / across
    step = high_px + (26 if notes else 10)
    scene = Scene(width, 30 + step * len(rows), alt=alt)
    for j, name in enumerate(columns):
        scene.items.append(Label(left + j * wide + (wide - 10) / 2, 18, name, 13, "middle", bold=True))
    for i, row in enumerate(arrays):
        y = 28 + i * step
        for k, line in enumerate(lines[i]):
            place = y + high_px / 2 + 4 + 16 * (k - (len(lines[i]) - 1) / 2)
            scene.items.append(Label(left - 10, place, line, anchor="end", bold=k == 0))
        for j, image in enumerate(row):
            x = left + j * wide
            if image is not None:
                pixels = photo_pixels(image, low, high)
                scene.items.append(Raster(x, y, wide - 10, high_px, pixels, f"{lines[i][0]}, {columns[j]}"))
            if notes:
                middle = x + (wide - 10) / 2
                scene.items.append(Label(middle, y + high_px + 15, notes[i][j], anchor="middle", color=MUTED))
    return scene


def numbered(box: Box, image: np.ndarray, numbers: bool = True) -> list:
    """An image (h, w) in shades of grey, its ink pixels numbered in reading order."""
    pixels, (height, width) = grey_pixels(image), image.shape
    items: list = [Raster(box.x, box.y, box.width, box.height, pixels, "a digit"), Strokes(ring(rect(box)), GREY, 1.0)]
    for t, at in enumerate(np.flatnonzero(image.ravel() > image.min()).tolist() if numbers else ()):
        row, column = divmod(at, width)
        ink = readable_on("#{:02X}{:02X}{:02X}".format(*pixels[row, column]))
        x, y = box.x + box.width / width * (column + 0.5), box.y + box.height / height * (row + 0.5) + 4
        items.append(Label(x, y, str(t), anchor="middle", color=ink))
    return items


def ink_scene(images: np.ndarray | None = None) -> Scene:
    """Up to four images side by side, their ink pixels numbered in reading order: each pixel's time step.

    images: (n, h, w); None for the first four digits.  Raises ValueError for more than four of them, or none.
    """
    images = as_array(digit_images(4) if images is None else images, "images")
    if images.ndim != 3 or not 1 <= len(images) <= 4 or not images.size:
        raise ValueError(f"images has shape {images.shape}; it takes 1 to 4 images, (n, h, w)")
    panel = NOTEBOOK_WIDTH / 4
    scene = Scene(NOTEBOOK_WIDTH, panel + 34)
    lengths = [int((image > image.min()).sum()) for image in images]
    for i, image in enumerate(images):
        scene.items.append(Label(panel * i + 10, 20, f"{lengths[i]} steps", 13, bold=True))
        scene.items += numbered(Box(panel * i + 10, 30, panel - 20, panel - 20), image)
    steps = ", ".join(map(str, lengths))
    scene.alt = f"{len(images)} digits, their ink pixels numbered in reading order: sequences of {steps} steps."
    return scene


def padding_scene(changes: Mapping[str, np.ndarray], padding: np.ndarray) -> Scene:
    """How far the outputs of real tokens move when the batch is padded further.

    changes: arm -> largest change (K,) of an output, in units of the outputs' root mean square; padding: (K,) steps.
    Raises ValueError unless every arm has a value for each amount of padding.
    """
    padding, changes = as_array(padding, "padding"), arrays_of(changes, "changes")
    if any(values.shape != padding.shape or padding.ndim != 1 for values in changes.values()):
        shapes = {arm: values.shape for arm, values in changes.items()}
        raise ValueError(f"changes has shapes {shapes}; each takes one value per amount of padding, {padding.shape}")
    finite = np.concatenate([values[np.isfinite(values)] for values in changes.values()])
    top, styles = 1.15 * float(finite.max(initial=0.0)) or 1.0, [style_of(arm) for arm in changes]
    scene = Scene(NOTEBOOK_WIDTH, 330)
    chart = panel_chart(
        scene, "Change of the real tokens' outputs", styles, (0, float(padding.max())), (0, top), left=72,
        x_name="steps of padding added to every sequence", y_name="largest change / rms",
    )  # fmt: skip
    for style, (arm, values) in zip(styles, changes.items(), strict=True):
        chart.line(padding, values, style, name=f"change-{arm}")
        chart.dots(padding, values, style, name=f"mark-{arm}")
    words = ", ".join(f"{style.name} {number(v[-1], 2)}" for style, v in zip(styles, changes.values(), strict=True))
    what = "Largest change of a real token's output, over the outputs' root mean square"
    scene.alt = f"{what}, with {padding[-1]:g} steps of padding more: {words}."
    return scene


photos = drawn(photos_scene)
ink = drawn(ink_scene)
padding = drawn(padding_scene)
