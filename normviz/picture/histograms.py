"""Distributions side by side on one scale, each over the first: what a shift of the data does."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from normviz.picture.charts import histogram, shares
from normviz.picture.colors import GREY, HUES, INK, MUTED, value_limit
from normviz.picture.curves import with_caption
from normviz.picture.figures import NOTEBOOK_WIDTH, as_array
from normviz.picture.png import figure
from normviz.picture.scene import Box, Label, Scene, Shapes


def histogram_row(panels: Mapping[str, np.ndarray], *, size=(NOTEBOOK_WIDTH, 210)) -> Scene:
    """One histogram for each of `panels` (heading -> values of any shape), all on one scale, the first in grey behind.

    Raises TypeError if values are not numeric, ValueError for no panel or one without a finite value.
    """
    found = {name: as_array(values).ravel() for name, values in panels.items()}
    found = {name: values[np.isfinite(values)] for name, values in found.items()}
    if not found or not all(values.size for values in found.values()):
        raise ValueError(
            f"panels={list(panels)} must hold at least one finite value each, and be at least one"
        )
    width, height = size
    limit = value_limit(*found.values())
    first = next(iter(found.values()))
    top = max(0.05, *(float(shares(values, limit).max()) for values in found.values()))
    wide = (width - 24 - 28 * (len(found) - 1)) / len(found)
    told = [f"{name}: mean {v.mean():.2f}, σ {v.std():.2f}".replace("-", "−") for name, v in found.items()]
    scene = Scene(width, height, f"Histograms on one scale. {'; '.join(told)}.")
    for i, (name, values) in enumerate(found.items()):
        box = Box(12 + i * (wide + 28), 26, wide, height - 58)
        scene.items.append(Label(box.x, 16, name, 13, bold=True))
        # The statistics go under the heading: a panel is too narrow for both in a line
        scene.items += histogram(box, "", first, values, limit=limit, top=top, fill=HUES[1])
    y = height - 12
    quad = np.array([[(0, -9), (11, -9), (11, 2), (0, 2)]])
    for x, fill, text in ((12, HUES[1], "the values"), (112, GREY, "those of the first panel   ┆ mean")):
        scene.items.append(Shapes(quad + np.array([x, y]), [fill], stroke=INK, width=0.7))
        scene.items.append(Label(x + 17, y, text, color=MUTED))
    return scene


def draw_histograms(panels: Mapping[str, np.ndarray], *, size=(NOTEBOOK_WIDTH, 210)):
    """`histogram_row` as a matplotlib Figure with alt text; arguments and errors as there."""
    return figure(with_caption(histogram_row(panels, size=size)))
