"""Pure geometry: a picture as polygons, strokes, labels and rasters.  What draws them (SVG, matplotlib) comes later.

A scene is a list of these four kinds of items on a white sheet, measured in pixels with y pointing down.  numpy only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from normviz.picture.color import INK, MUTED
from normviz.picture.text import text_width

TEXT = 12  # px, the smallest text of the project


@dataclass
class Shapes:
    """Polygons of one kind: points (F, K, 2), a fill for each; `data` holds (cell, set) pairs, `titles` hover texts.

    panel: sets with one number are lit together within a panel; a cell is lit in every panel.
    """

    points: np.ndarray
    fills: list[str]
    titles: list[str] | None = None
    data: list[tuple[str, int]] | None = None
    stroke: str | None = None
    width: float = 0.0
    opacity: float = 1.0
    name: str = ""
    panel: str = ""


@dataclass
class Strokes:
    """Line segments of one style: points (S, 2, 2)."""

    points: np.ndarray
    color: str = INK
    width: float = 1.0
    dashed: bool = False
    name: str = ""


@dataclass
class Label:
    """One line of text; `anchor` is start, middle or end, (x, y) the baseline."""

    x: float
    y: float
    text: str
    size: float = TEXT
    anchor: str = "start"
    color: str = INK
    bold: bool = False
    angle: float = 0.0  # degrees, counter-clockwise

    @property
    def width(self) -> float:
        """Pixels along the line of text, as measured in DejaVu Sans."""
        return text_width(self.text, self.size, self.bold)

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the text; its angle must be a multiple of 90°."""
        start = -self.width * {"start": 0.0, "middle": 0.5, "end": 1.0}[self.anchor]
        box = start, -0.75 * self.size, start + self.width, 0.2 * self.size
        for _ in range(round(self.angle / 90) % 4):  # a quarter turn against the clock takes (x, y) to (y, −x)
            box = box[1], -box[2], box[3], -box[0]
        return self.x + box[0], self.y + box[1], self.x + box[2], self.y + box[3]


@dataclass
class Raster:
    """A picture in a box: `pixels` uint8 (rows, columns, 3), every pixel a sharp rectangle; `title` is hover text."""

    x: float
    y: float
    width: float
    height: float
    pixels: np.ndarray
    title: str = ""


@dataclass
class Handle:
    """What a hand can take hold of in a picture, and the controls of the explorer that it sets.

    fields: names of controls; box: the part of the picture that it is, which shows the focus.  It is one of three:

    a cursor    cells=True: faces with `data` are its places, the numbers of a cell's name the values of `fields` (of a
                longer name the last ones, where the first are `only`); sets: the picture knows the cursor by its set
                alone, but for items named as in CURSOR.
    a scale     at: field → (axis "x" or "y", [(px, value), …]): a place means the nearest of the values
    a ball      drag: field → (by px to the right, by px down): what is dragged adds to the value; wraps: fields that
                go round

    Of a choice the value is its index.  keys: arrow key, also "Shift+…" → (field, by how many steps); left out, the
    arrows step the first field to and fro.
    """

    name: str
    fields: tuple[str, ...]
    box: Box
    cells: bool = False
    only: str = ""
    sets: bool = False
    at: dict[str, tuple[str, list[tuple[float, float]]]] = field(default_factory=dict)
    drag: dict[str, tuple[float, float]] = field(default_factory=dict)
    wraps: tuple[str, ...] = ()
    keys: dict[str, tuple[str, int]] = field(default_factory=dict)

    def __post_init__(self):
        if not self.keys:
            ways = {"ArrowRight": 1, "ArrowUp": 1, "ArrowLeft": -1, "ArrowDown": -1}
            self.keys = {key: (self.fields[0], by) for key, by in ways.items()}


#: Names of the items that mark a cursor's cell, which a page without a kernel draws itself
CURSOR = ("cursor", "halo", "cursor-outline")


def arrows(right: str, down: str = "", shift_right: str = "", shift_down: str = "") -> dict[str, tuple[str, int]]:
    """Keys of a handle: which field each pair of arrows steps, alone and with Shift."""
    pairs = {"ArrowRight ArrowLeft": right, "ArrowDown ArrowUp": down,
             "Shift+ArrowRight Shift+ArrowLeft": shift_right, "Shift+ArrowDown Shift+ArrowUp": shift_down}  # fmt: skip
    return {
        key: (name, by) for both, name in pairs.items() if name for key, by in zip(both.split(), (1, -1), strict=True)
    }


@dataclass
class Scene:
    """A picture of `width` × `height` px with its alt text.

    `backdrop` lies beneath `items`: what stays as it is while the rest changes.  An explorer sends it to the browser
    only when it is another list.  handles: what a hand can take hold of.  numbers: what tells a cell's value and its
    set's statistics under the pointer, see `normviz.explore.hand.cell_numbers`; the same object while it is the same.
    """

    width: float
    height: float
    items: list = field(default_factory=list)
    alt: str = ""
    backdrop: list = field(default_factory=list)
    handles: list[Handle] = field(default_factory=list)
    numbers: dict | None = None

    @property
    def drawn(self) -> list:
        """All items, from the bottom to the top."""
        return [*self.backdrop, *self.items]

    @property
    def labels(self) -> list[Label]:
        """All texts that show something."""
        return [item for item in self.drawn if isinstance(item, Label) and item.text.strip()]

    def labels_outside(self) -> list[Label]:
        """Labels that leave the sheet by more than 1 px."""
        left, top, right, bottom = np.reshape([label.extent for label in self.labels], (-1, 4)).T
        out = (np.minimum(left, top) < -1) | (right > self.width + 1) | (bottom > self.height + 1)
        return [label for label, leaves in zip(self.labels, out, strict=True) if leaves]

    def overlaps(self) -> list[tuple[Label, Label]]:
        """Pairs of labels that lie over each other by more than 1 px.  The same text twice at one place is a halo."""
        labels = self.labels
        left, top, right, bottom = np.reshape([label.extent for label in labels], (-1, 4)).T
        wide = np.minimum.outer(right, right) - np.maximum.outer(left, left)
        high = np.minimum.outer(bottom, bottom) - np.maximum.outer(top, top)
        pairs = [(labels[i], labels[j]) for i, j in np.argwhere(np.triu((wide > 1) & (high > 1), 1))]
        return [(a, b) for a, b in pairs if a.text != b.text or abs(a.x - b.x) + abs(a.y - b.y) > 3]


@dataclass
class Box:
    """A rectangle of the sheet, by its upper left corner."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def center(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2


def rect(box: Box) -> np.ndarray:
    """The corners (4, 2) of a box, clockwise from the upper left."""
    return rects(box.x, box.y, box.right, box.bottom)[0]


def rects(left, top, right, bottom) -> np.ndarray:
    """The corners (F, 4, 2) of rectangles, clockwise from the upper left; numbers or arrays (F,)."""
    if not all(isinstance(side, (int, float)) for side in (left, top, right, bottom)):
        left, top, right, bottom = np.broadcast_arrays(left, top, right, bottom)
    return np.array([left, top, right, top, right, bottom, left, bottom], float).T.reshape(-1, 4, 2)


def grid_rects(box: Box, rows: int, columns: int) -> np.ndarray:
    """The cells (rows·columns, 4, 2) of a box cut into rows and columns, row by row."""
    x = box.x + box.width / columns * np.arange(columns + 1)
    y = box.y + box.height / rows * np.arange(rows + 1)
    i, j = (a.ravel() for a in np.indices((rows, columns)))
    return rects(x[j], y[i], x[j + 1], y[i + 1])


def ring(points) -> np.ndarray:
    """The closed outline of corners (K, 2), or of several (F, K, 2), as segments (S, 2, 2) for `Strokes`."""
    points = np.asarray(points, float)
    return np.stack([points, np.roll(points, -1, axis=-2)], axis=-2).reshape(-1, 2, 2)


def open_path(points) -> np.ndarray:
    """A line through points (K, 2) as segments (K-1, 2, 2); one at a point that is not finite is left out."""
    points = np.asarray(points, float)
    segments = np.stack([points[:-1], points[1:]], axis=1)
    return segments[np.isfinite(segments).all(axis=(1, 2))]


def paragraph(text: str, x: float, y: float, width: float, color: str = INK) -> list[Label]:
    """Text as lines no wider than `width` px, 16 px apart, the first with its baseline at y."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return [Label(x, y + 16 * i, line, color=color) for i, line in enumerate(lines)]


def with_caption(scene: Scene) -> Scene:
    """The scene with its alt text written below it; changes and returns it."""
    foot = paragraph(scene.alt, 12, scene.height + 14, scene.width - 24, color=MUTED)
    scene.items += foot
    scene.height += 16 * len(foot) + 6
    return scene


def arrange(scenes: Iterable[Scene], columns: int = 1, gap: float = 0.0) -> Scene:
    """Several pictures as one, row by row, each row as high as its highest; `gap` px between them.

    The alt text is theirs, one after the other.
    """
    scenes = list(scenes)
    whole = Scene(0.0, 0.0, alt=" ".join(scene.alt for scene in scenes))
    top = 0.0
    for first in range(0, len(scenes), columns):
        left, row = 0.0, scenes[first : first + columns]
        for scene in row:
            whole.items += [moved(item, left, top) for item in scene.drawn]
            whole.width = max(whole.width, left + scene.width)
            left += scene.width + gap
        whole.height = top + max(scene.height for scene in row)
        top = whole.height + gap
    return whole


def moved(item, dx: float, dy: float):
    """The item elsewhere on the sheet."""
    if isinstance(item, (Label, Raster)):
        return replace(item, x=item.x + dx, y=item.y + dy)
    return replace(item, points=np.asarray(item.points) + (dx, dy))
