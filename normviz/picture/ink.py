"""Digits as sequences: ink pixels numbered in reading order, and what padding does to the outputs of a network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from normviz.picture.colors import GREY, readable_on
from normviz.picture.curves import Frame, key, marks, path, style_of, with_caption
from normviz.picture.figures import NOTEBOOK_WIDTH
from normviz.picture.png import figure
from normviz.picture.scene import Box, Label, Raster, Scene, Strokes
from normviz.samples import digit_images


def numbered(box: Box, image: np.ndarray, numbers: bool = True) -> list:
    """An image (H, W) in shades of grey, its ink pixels numbered in reading order."""
    side, size = image.shape[0], box.width / image.shape[0]
    shade = np.rint(255 - 215 * image / (image.max() or 1)).astype(np.uint8)
    items: list = [
        Raster(box.x, box.y, box.width, box.height, np.repeat(shade[..., None], 3, axis=2), "a digit")
    ]
    corner = np.array([(box.x, box.y), (box.x + box.width, box.y)])
    ring = np.array([*corner, *(corner[::-1] + (0, box.height))])
    items.append(Strokes(np.stack([ring, np.roll(ring, -1, axis=0)], axis=1), GREY, 1.0))
    if numbers:
        for t, at in enumerate(np.flatnonzero(image.ravel() > image.min())):
            row, column = divmod(int(at), side)
            ink = readable_on("#" + f"{int(shade[row, column]):02X}" * 3)
            x, y = box.x + size * (column + 0.5), box.y + size * (row + 0.5) + 4
            items.append(Label(x, y, str(t), anchor="middle", color=ink))
    return items


def ink_scene(images: np.ndarray) -> Scene:
    """Up to four images side by side, each ink pixel with its time step.

    images: (n, H, W).  Raises ValueError for more than four of them, or none.
    """
    if images.ndim != 3 or not 1 <= len(images) <= 4:
        raise ValueError(f"images has shape {images.shape}; it takes 1 to 4 images, (n, H, W)")
    panel = NOTEBOOK_WIDTH / 4
    picture = Scene(NOTEBOOK_WIDTH, panel + 34, "")
    lengths = [int((image > image.min()).sum()) for image in images]
    for i, image in enumerate(images):
        picture.items.append(Label(panel * i + 10, 20, f"{lengths[i]} steps", 13, bold=True))
        picture.items += numbered(Box(panel * i + 10, 30, panel - 20, panel - 20), image)
    picture.alt = (
        f"{len(images)} digits, their ink pixels numbered in reading order: sequences of "
        f"{', '.join(map(str, lengths))} steps."
    )
    return picture


def padding_scene(changes: Mapping[str, np.ndarray], padding: np.ndarray) -> Scene:
    """How far the outputs of real tokens move when the batch is padded further.

    changes: arm -> largest change (K,) of an output, in units of the outputs' root mean square; padding: (K,) steps.
    """
    top = max(float(np.max(values)) for values in changes.values())
    picture = Scene(NOTEBOOK_WIDTH, 330, "")
    frame = Frame(Box(72, 58, NOTEBOOK_WIDTH - 92, 216), (0, float(np.max(padding))), (0, 1.15 * top or 1.0))
    heading = "Change of the real tokens' outputs"
    picture.items += frame.axes("steps of padding added to every sequence", "largest change / rms", heading)
    for arm, values in changes.items():
        style = style_of(arm)
        picture.items.append(
            Strokes(path(frame, padding, values), style.color, 2.4, style.dashed, f"change-{arm}")
        )
        picture.items.append(marks(frame(padding, values), arm))
    picture.items += key(changes, 82 + 8.3 * len(heading), 48)
    told = ", ".join(f"{style_of(arm).name} {values[-1]:.2g}" for arm, values in changes.items())
    picture.alt = (
        f"Largest change of a real token's output, over the outputs' root mean square, "
        f"with {padding[-1]:g} steps of padding more: {told}."
    )
    return picture


def draw_ink(images=None):
    """Digits with the ink pixels numbered in reading order: a matplotlib Figure.  See `ink_scene`; None for four."""
    return figure(with_caption(ink_scene(digit_images(4) if images is None else np.asarray(images, float))))


def draw_padding(changes, padding):
    """`padding_scene` as a matplotlib Figure with alt text.

    Raises ValueError unless every arm has a value for each amount of padding.
    """
    padding = np.asarray(padding, float)
    changes = {arm: np.asarray(values, float) for arm, values in changes.items()}
    if not changes or any(values.shape != padding.shape or padding.ndim != 1 for values in changes.values()):
        shapes = {arm: values.shape for arm, values in changes.items()}
        raise ValueError(
            f"changes has shapes {shapes}; each takes one value per amount of padding, {padding.shape}"
        )
    return figure(with_caption(padding_scene(changes, padding)))
