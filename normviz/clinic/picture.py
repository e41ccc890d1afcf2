"""A tensor cut into the sets of a layer that may be no method of ours."""

from __future__ import annotations

import numpy as np

from normviz.norms import AXIS_NAMES, Axes
from normviz.picture.block import Cells, block, cells_legend
from normviz.picture.color import MUTED
from normviz.picture.scene import Box, Label, Scene, moved, paragraph
from normviz.picture.text import plural


def sets_scene(axes: Axes, labels: np.ndarray, heading: str) -> Scene:
    """The tensor as a block coloured by `labels`, which are equal for cells that share statistics."""
    sets = int(labels.max()) + 1
    named = ", ".join(f"{letter}={n} ({AXIS_NAMES[letter]})" for n, letter in zip(*axes, strict=True))
    cells = Cells.of(axes, labels, np.zeros(labels.shape))
    alt = f"{heading}; tensor {named}; {plural(sets, 'set')} of {labels.size // sets} cells. {cells.left_out()}"
    width, height = 430, 400
    foot = paragraph(alt.strip(), 12, 0, width - 24, color=MUTED)
    top = height - 16 * len(foot) - 14
    drawing = [*block(cells, Box(8, 28, width - 16, top - 48)), *cells_legend(cells, 14, top)]
    title = heading if len(heading) < 52 else f"…{heading[-50:]}"
    items = [Label(12, 20, title, 15, bold=True), *drawing, *(moved(line, 0, top + 22) for line in foot)]
    return Scene(width, height, items, alt.strip())
