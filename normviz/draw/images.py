"""Photographs and digits: images in rows and columns, digits as sequences of ink, and what padding does to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from normviz.arms import GREY, style_of, styles_of
from normviz.draw.common import NOTEBOOK_WIDTH, arrays_of, as_array
from normviz.draw.runs import panel_chart
from normviz.picture.chart import Chart, legend
from normviz.picture.color import INK, MUTED, grey_pixels, photo_pixels, readable_on
from normviz.picture.scene import Box, Label, Raster, Scene, Strokes, grid_rects, rect, ring
from normviz.picture.text import number, percent, text_width
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


def numbered(box: Box, image: np.ndarray) -> list:
    """An image (h, w) in shades of grey, its ink pixels numbered in reading order."""
    pixels, (height, width) = grey_pixels(image), image.shape
    items: list = [Raster(box.x, box.y, box.width, box.height, pixels, "a digit"), Strokes(ring(rect(box)), GREY, 1.0)]
    for t, (row, column) in enumerate(np.argwhere(image > image.min()).tolist()):
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
    lengths = [str((image > image.min()).sum()) for image in images]
    for i, image in enumerate(images):
        scene.items.append(Label(panel * i + 10, 20, f"{lengths[i]} steps", 13, bold=True))
        scene.items += numbered(Box(panel * i + 10, 30, panel - 20, panel - 20), image)
    what = "their ink pixels numbered in reading order: sequences"
    scene.alt = f"{len(images)} digits, {what} of {', '.join(lengths)} steps."
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


def reading_scene(
    image, chances: Mapping[str, np.ndarray], curves: Mapping[str, np.ndarray], label: int, heading: str
) -> Scene:
    """One digit read step by step in several ways: what a network takes it for, and a measure of what it computes.

    image: (h, w), the digit, its ink pixels numbered.  chances: way -> (T, classes), how sure the network is of each
    class after each of the T steps.  curves: way -> (S,), the measure at each step, S ≥ T.  label: the true class,
    whose row is framed.  heading: what the measure is.

    Raises ValueError unless both name the same ways, with shapes that fit and a label among the classes.
    """
    image, chances, curves = as_array(image, "image"), arrays_of(chances, "chances"), arrays_of(curves, "curves")
    shapes = {values.shape for values in chances.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise ValueError(f"chances has shapes {sorted(shapes)}; every way takes the same one, (T, classes)")
    (T, classes), steps = next(iter(shapes)), {values.shape for values in curves.values()}
    if list(curves) != list(chances) or len(steps) != 1 or len(next(iter(steps))) != 1 or next(iter(steps))[0] < T:
        raise ValueError(f"curves has {list(curves)} of {sorted(steps)}; it takes {list(chances)} of (S,), S >= {T}")
    if not 0 <= label < classes:
        raise ValueError(f"label={label!r} must be a class from 0 to {classes - 1}")
    S, styles = next(iter(steps))[0], styles_of(chances)
    left, row, right = 300, 14, NOTEBOOK_WIDTH - 118
    step = (right - left) / S
    scene = Scene(NOTEBOOK_WIDTH, 84 + len(chances) * (44 + row * classes) + 150)
    scene.items = [Label(10, 28, f"A {label}, {T} steps", 13, bold=True), *numbered(Box(10, 40, 200, 200), image)]
    about = (
        "Numbers: the time steps.", "Each column on the right is a step,", "each row a digit; the darker, the surer.",
        "Framed: the right digit.",
    )  # fmt: skip
    scene.items += [Label(10, 264 + 17 * k, line, color=MUTED) for k, line in enumerate(about)]
    y, ends = 28.0, []
    for way, sure in chances.items():
        last = int(sure[-1].argmax())
        ends.append(f"{styles[way].name}: {last} ({percent(sure[-1, last])})")
        box = Box(left, y + 12, step * T, row * classes)
        pixels = photo_pixels(1 - sure.T)
        scene.items.append(Label(left, y, f"With {styles[way].name}", 13, color=styles[way].color, bold=True))
        scene.items.append(Raster(box.x, box.y, box.width, box.height, pixels, "a row a digit, a column a step"))
        scene.items.append(Strokes(ring(rect(box)), GREY, 1.0))
        scene.items.append(Strokes(ring(grid_rects(box, classes, 1)[label]), styles[way].color, 2.0, name="truth"))
        for digit in range(classes):
            middle = box.y + row * (digit + 0.5) + 4
            scene.items.append(Label(left - 8, middle, str(digit), anchor="end", bold=digit == label))
        middle = box.y + row * (last + 0.5) + 4
        words = f"{last}, {percent(sure[-1, last])} sure"
        scene.items.append(Label(box.right + 8, middle, words, color=styles[way].color, bold=True))
        y += 44 + row * classes
    top = max(float(np.nanmax(values)) for values in curves.values())
    scene.items += [Label(left, y, heading, 13, bold=True), *legend(styles.values(), left, y + 20)]
    chart = Chart(
        Box(left, y + 34, right - left, 110), (-0.5, S - 0.5), (0, 1.15 * top or 1.0), x_name="time step",
        x_ticks={t: str(t) for t in range(0, S, 5)},
    )  # fmt: skip
    for way, values in curves.items():
        chart.line(np.arange(S), values, styles[way], name=f"curve-{way}")
        chart.dots(np.arange(S), values, styles[way], 2.8, name=f"mark-{way}")
    chart.upright(T - 0.5, "this digit ends", color=INK)
    scene.items += chart.items
    some = sorted({min(1, T - 1), T // 2, T - 1})
    found = (f"{styles[way].name}: {', '.join(number(v, 2) for v in values[some])}" for way, values in curves.items())
    scene.alt = (
        f"A {label} of {T} steps, read step by step. What the network takes it for in the end: {', '.join(ends)}. "
        f"{heading} at steps {', '.join(map(str, some))}: {'; '.join(found)}."
    )
    return scene
