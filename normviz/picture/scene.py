"""Pure geometry: a tensor as polygons, strokes and labels.  What draws them (SVG, matplotlib) comes later.

A scene is a list of three kinds of items on a white sheet, measured in pixels with y pointing down.  numpy only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from normviz.methods import Axes
from normviz.picture.colors import (
    INK,
    MARK_NAMES,
    MARKS,
    MUTED,
    PAPER,
    SET_FILLS,
    VALUE_FILLS,
    hues_of,
    readable_on,
    value_fills,
)

TEXT = 12  # px, the smallest text of the project


@dataclass
class Shapes:
    """Polygons of one kind: points (F, K, 2), a fill for each; `data` holds (cell, set) pairs, `titles` hover texts."""

    points: np.ndarray
    fills: list[str]
    titles: list[str] | None = None
    data: list[tuple[str, int]] | None = None
    stroke: str | None = None
    width: float = 0.0
    opacity: float = 1.0
    name: str = ""


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
class Scene:
    """A picture of `width` × `height` px with its alt text.

    `backdrop` lies beneath `items`: what stays as it is while the rest changes.  An explorer sends it to the browser
    only when it is another list.
    """

    width: float
    height: float
    alt: str
    items: list = field(default_factory=list)
    backdrop: list = field(default_factory=list)

    @property
    def drawn(self) -> list:
        """All items, from the bottom to the top."""
        return [*self.backdrop, *self.items]


@dataclass
class Box:
    x: float
    y: float
    width: float
    height: float


#: The most steps of (N, C, positions) that a block draws; the rest is left out and said so
DRAWN = (8, 16, 64)


@dataclass
class Cells:
    """The part of a tensor that is drawn, as (N, C, P) arrays, with what it takes to name a cell.

    labels, values: (N, C, P); start: index of the first drawn cell along N, C, P; cursor: (n, c, p) in the window.
    """

    axes: Axes
    labels: np.ndarray
    values: np.ndarray
    start: tuple[int, int, int]
    cursor: tuple[int, int, int] | None
    hues: np.ndarray
    color: str = "set"
    limit: float = 1.0

    @classmethod
    def of(cls, axes: Axes, labels, values, *, cursor=None, color="set", limit=1.0, drawn=DRAWN) -> Cells:
        """Bring tensors of the layout's shape to (N, C, P) and cut the window that holds the cursor."""
        order = axes.to_ncp()
        whole = [np.transpose(a, order).reshape(axes.shape[0], axes.channels, -1) for a in (labels, values)]
        at = None
        if cursor is not None:
            position = [cursor[i] for i in axes.positions]
            sizes = [axes.shape[i] for i in axes.positions]
            p = int(np.ravel_multi_index(position, sizes)) if sizes else 0
            at = (cursor[0], cursor[axes.channel], p)
        start = []
        for i, most in enumerate(drawn):
            size, here = whole[0].shape[i], at[i] if at else 0
            start.append(min(max(0, here - most // 2), max(0, size - most)))
        window = tuple(slice(s, s + most) for s, most in zip(start, drawn, strict=True))
        hues = hues_of(whole[0])[window]
        at = at and tuple(a - s for a, s in zip(at, start, strict=True))
        return cls(axes, whole[0][window], whole[1][window], tuple(start), at, hues, color, limit)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.labels.shape

    @property
    def tile(self) -> tuple[int, int]:
        """Rows and columns of one channel of one sample, as an image: (H, W), (1, L) or (1, 1)."""
        sizes = [self.axes.shape[i] for i in self.axes.positions]
        return (sizes[0], sizes[1]) if len(sizes) == 2 else (1, sizes[0] if sizes else 1)

    def left_out(self) -> str:
        """A sentence on what the window does not show; empty when it shows all."""
        whole = (
            self.axes.shape[0],
            self.axes.channels,
            int(np.prod([self.axes.shape[i] for i in self.axes.positions])),
        )
        parts = [
            f"{name} {s}–{s + n - 1} of {total}"
            for name, s, n, total in zip(
                ("samples", "channels", "positions"), self.start, self.shape, whole, strict=True
            )
            if n < total
        ]
        return f"Too large to draw in full: shown are {', '.join(parts)}." if parts else ""

    def faces(
        self, points: np.ndarray, index: tuple[np.ndarray, ...], face: int, *, name: str, strong=False
    ) -> list:
        """Shapes (and their marks) for cells `index` = (n, c, p), drawn as polygons `points` (F, 4, 2).

        strong: in the full colours of their sets, as the cursor's set; by default so where there is no cursor.
        """
        labels, values = self.labels[index], self.values[index]
        marks = [""] * len(labels)
        if self.color == "value":
            fills, marks = value_fills(values, self.limit)
        else:
            shades = SET_FILLS[int(not strong and self.cursor is not None)][face]
            fills = [shades[hue] for hue in self.hues[index].tolist()]
        names = self.cell_names(index)
        title = " ".join(f"{letter.lower()}=%d" for letter in self.axes.letters) + ": %.4g · set %d"
        key = ",".join(["%d"] * len(self.axes.letters))
        numbers = labels.tolist()
        titles = [title % (*cell, v, k) for cell, v, k in zip(names, values.tolist(), numbers, strict=True)]
        data = [(key % cell, k) for cell, k in zip(names, numbers, strict=True)]
        items: list = [Shapes(points, fills, titles, data, name=name)]
        for i, mark in enumerate(marks):
            if mark:
                x, y = points[i].mean(axis=0)
                items.append(Label(x, y + 4, MARKS[mark], TEXT, "middle", readable_on(fills[i]), bold=True))
        return items

    def cell_names(self, index: tuple[np.ndarray, ...]) -> list[tuple[int, ...]]:
        """Indices of the cells in the tensor's own axes."""
        n, c, p = (i + s for i, s in zip(index, self.start, strict=True))
        sizes = [self.axes.shape[i] for i in self.axes.positions]
        columns = [n, c, *(np.unravel_index(p, sizes) if sizes else ())]
        order = self.axes.to_ncp()
        return list(zip(*(columns[order.index(i)].tolist() for i in range(len(order))), strict=True))


def legend(cells: Cells, x: float, y: float) -> list:
    """What the colours mean; the marks only where the picture has some."""
    if cells.color == "set":
        hue = int(cells.hues[cells.cursor or (0, 0, 0)])
        other = (hue + 3) % len(SET_FILLS[0][0])
        swatches = [(SET_FILLS[0][0][hue], "cursor's set")] if cells.cursor is not None else []
        swatches.append(
            (
                SET_FILLS[1 if swatches else 0][0][other],
                "other sets" if swatches else "one set: one bordered colour",
            )
        )
        items: list = []
        for fill, text in swatches:
            quad = np.array([[(x, y - 10), (x + 13, y - 10), (x + 13, y + 2), (x, y + 2)]])
            items.append(Shapes(quad, [fill], stroke=INK, width=1.0, name="legend"))
            items.append(Label(x + 18, y, text))
            x += 30 + 7.2 * len(text)
        if cells.cursor is not None:
            quad = np.array([[(x, y - 10), (x + 12, y - 10), (x + 12, y + 2), (x, y + 2)]])
            items += [Shapes(quad, [PAPER], stroke=INK, width=2.6, name="legend"), Label(x + 18, y, "cursor")]
        return items
    steps, wide = VALUE_FILLS[::5], 5.0
    left = x + 44
    quads = np.array([[(0, -10), (wide, -10), (wide, 2), (0, 2)]] * len(steps)) + [
        [[left + i * wide, y]] for i in range(len(steps))
    ]
    items = [Shapes(quads, list(steps), name="legend")]
    items.append(Label(left - 4, y, f"−{cells.limit:.3g}", anchor="end"))
    items.append(Label(left + wide * len(steps) + 4, y, f"+{cells.limit:.3g}"))
    _, marks = value_fills(cells.values.ravel(), cells.limit)
    seen = [name for name in MARKS if name in set(marks)]
    text = "   ".join(f"{MARKS[name]} {MARK_NAMES[name]}" for name in seen)
    if text:
        items.append(Label(left + wide * len(steps) + 52, y, text, color=MUTED))
    return items


def wrap(text: str, x: float, y: float, characters: int, **style) -> list[Label]:
    """A paragraph as labels, a line each 16 px."""
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > characters:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [Label(x, y + 16 * i, part, **style) for i, part in enumerate([*lines, line])]


def arrange(scenes: Iterable[Scene], columns: int = 1, gap: float = 0.0) -> Scene:
    """Several pictures as one, row by row, each row as high as its highest; `gap` px between them.

    The alt text is theirs, one after the other.
    """
    scenes = list(scenes)
    whole = Scene(0.0, 0.0, " ".join(scene.alt for scene in scenes))
    top = 0.0
    for first in range(0, len(scenes), columns):
        left, row = 0.0, scenes[first : first + columns]
        for scene in row:
            whole.items += [_moved(item, left, top) for item in scene.drawn]
            whole.width = max(whole.width, left + scene.width)
            left += scene.width + gap
        whole.height = top + max(scene.height for scene in row)
        top = whole.height + gap
    return whole


def _moved(item, dx: float, dy: float):
    if isinstance(item, (Label, Raster)):
        return replace(item, x=item.x + dx, y=item.y + dy)
    return replace(item, points=np.asarray(item.points) + (dx, dy))
