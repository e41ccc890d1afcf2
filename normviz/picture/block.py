"""A tensor cut into sets, in two views: the block of the Group Normalization paper, and every cell unfolded.

What the sets are, and what the axes are called, comes from the caller.  numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from normviz.norms.table import AXIS_NAMES, ROLES
from normviz.picture.chart import legend
from normviz.picture.color import (
    AXIS_COLORS,
    INK,
    MARK_NAMES,
    MARKS,
    MUTED,
    PAPER,
    SET_FILLS,
    VALUE_FILLS,
    hues_of,
    readable_on,
    set_fill,
    value_fills,
)
from normviz.picture.scene import TEXT, Box, Label, Shapes, Strokes, rects, ring
from normviz.picture.text import number, text_width

#: Lines over cells, and what sets them off: cells keep their colours on a dark page, so these do
EDGE, HALO = INK.lower(), PAPER.lower()
#: The most steps of (N, C, positions) that a block draws; the rest is left out and said so
DRAWN = (8, 16, 64)


@dataclass
class Cells:
    """The part of a tensor that is drawn, as (N, C, P) arrays, with what it takes to name a cell.

    axes: as of `normviz.norms` (shape, letters, channel, positions).
    labels, values, hues: (N, C, P); start: of the window along N, C, P; cursor: (n, c, p) in the window.
    """

    axes: Any
    labels: np.ndarray
    values: np.ndarray
    start: tuple[int, int, int]
    cursor: tuple[int, int, int] | None
    hues: np.ndarray
    color: str = "set"
    limit: float = 1.0
    panel: str = ""  # of its faces, see `Shapes`

    @classmethod
    def of(cls, axes, labels, values, *, cursor=None, color="set", limit=1.0, drawn=DRAWN) -> Cells:
        """Bring tensors of the layout's shape to (N, C, P) and cut the window that holds the cursor."""
        sizes = position_sizes(axes)
        labels, values = (
            np.transpose(a, axes.to_ncp()).reshape(axes.shape[0], axes.channels, -1) for a in (labels, values)
        )
        at = None
        if cursor is not None:
            p = int(np.ravel_multi_index([cursor[i] for i in axes.positions] or [0], sizes))
            at = np.array([cursor[0], cursor[axes.channel], p])
        room = np.maximum(0, np.subtract(labels.shape, drawn))
        start = np.clip((0 if at is None else at) - np.array(drawn) // 2, 0, room)
        window = tuple(slice(s, s + most) for s, most in zip(start, drawn, strict=True))
        inside = None if at is None else tuple((at - start).tolist())
        return cls(
            axes, labels[window], values[window], tuple(start.tolist()), inside, hues_of(labels)[window], color, limit
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.labels.shape

    @property
    def tile(self) -> tuple[int, int]:
        """Rows and columns of one channel of one sample, as an image: (H, W), (1, L) or (1, 1)."""
        return (1, *position_sizes(self.axes))[-2:]

    def left_out(self) -> str:
        """A sentence on what the window does not show; empty when it shows all."""
        whole = (self.axes.shape[0], self.axes.channels, math.prod(position_sizes(self.axes)))
        rows = zip(("samples", "channels", "positions"), self.start, self.shape, whole, strict=True)
        parts = [f"{name} {s}–{s + n - 1} of {total}" for name, s, n, total in rows if n < total]
        return f"Too large to draw in full: shown are {', '.join(parts)}." if parts else ""

    def faces(self, points: np.ndarray, index: tuple[np.ndarray, ...], face: int, *, name: str, strong=False) -> list:
        """Shapes (and their marks) for cells `index` = (n, c, p), drawn as polygons `points` (F, 4, 2).

        strong: in the full colours of their sets, as the cursor's set; by default so where there is no cursor.
        """
        numbers, values = self.labels[index].tolist(), self.values[index]
        if self.color == "value":
            fills, marks = value_fills(values, self.limit)
        else:
            shades = SET_FILLS[not strong and self.cursor is not None][face]
            fills, marks = [shades[hue] for hue in self.hues[index].tolist()], []
        n, c, p = (i + s for i, s in zip(index, self.start, strict=True))
        columns = zip(self.axes.to_ncp(), (n, c, *np.unravel_index(p, position_sizes(self.axes))), strict=False)
        cells = list(zip(*(column.tolist() for _, column in sorted(columns, key=lambda pair: pair[0])), strict=True))
        title = " ".join(f"{letter.lower()}=%d" for letter in self.axes.letters) + ": %.4g · set %d"
        place = ",".join(["%d"] * len(self.axes.letters))
        titles = [title % (*cell, v, k) for cell, v, k in zip(cells, values.tolist(), numbers, strict=True)]
        data = [(place % cell, k) for cell, k in zip(cells, numbers, strict=True)]
        items: list = [Shapes(points, fills, titles, data, PAPER, 0.6, name=name, panel=self.panel)]
        for i in np.flatnonzero(marks).tolist():
            x, y = points[i].mean(axis=0)
            items.append(Label(x, y + 4, MARKS[marks[i]], TEXT, "middle", readable_on(fills[i]), bold=True))
        return items


def position_sizes(axes) -> tuple[int, ...]:
    """Sizes of the position axes: (H, W), (L,), and (1,) where there is none."""
    return tuple(axes.shape[i] for i in axes.positions) or (1,)


def cells_legend(cells: Cells, x: float, y: float) -> list:
    """What the colours mean; the marks only where the picture has some."""
    if cells.color == "set":
        hue = int(cells.hues[cells.cursor or (0, 0, 0)])
        if cells.cursor is None:
            return legend([(set_fill(hue + 3), "one set: one bordered colour")], x, y)
        others = set_fill(hue + 3, faded=True)
        items = legend([(set_fill(hue), "cursor's set"), (others, "other sets"), (PAPER, "cursor")], x, y)
        items[-2].width = 2.6
        return items
    steps, end = VALUE_FILLS[::5], number(cells.limit)
    edges = x + max(44, 4 + text_width(f"−{end}")) + 5.0 * np.arange(len(steps) + 1)
    items: list = [Shapes(rects(edges[:-1], y - 10, edges[1:], y + 2), steps, name="legend")]
    items += [Label(edges[0] - 4, y, f"−{end}", anchor="end"), Label(edges[-1] + 4, y, f"+{end}")]
    seen = set(value_fills(cells.values.ravel(), cells.limit)[1])
    if text := "   ".join(f"{mark} {MARK_NAMES[name]}" for name, mark in MARKS.items() if name in seen):
        items.append(Label(edges[-1] + 16 + items[-1].width, y, text, color=MUTED))
    return items


def _grid(n, c, p):
    return tuple(a.ravel() for a in np.meshgrid(n, c, p, indexing="ij"))


class _Projection:
    """Oblique view of a block: C to the right, positions down, N into the depth (up and to the right)."""

    def __init__(self, shape: tuple[int, int, int], box: Box):
        box, (n, c, p) = Box(box.x + 26, box.y + 6, box.width - 60, box.height - 30), shape
        depth = min(17.0, 0.30 * box.width / n, 0.26 * box.height / n)
        into = np.array([0.80, -0.55]) * depth
        right, down = min(30.0, (box.width - n * into[0]) / c), min(26.0, (box.height + n * into[1]) / p)
        self.matrix = np.array([into, (right, 0.0), (0.0, down)])
        slack = np.array([box.width - (c * right + n * into[0]), box.height - (p * down - n * into[1])])
        self.origin = np.array([box.x, box.y]) + slack / 2 - [0, n * into[1]]

    def __call__(self, corners) -> np.ndarray:
        """Corners (…, 3) of the grid, as (n, c, p), as points (…, 2) of the sheet."""
        return self.origin + np.asarray(corners) @ self.matrix


#: Corners of the front (0), top (1) and right (2) side of a cell
_SIDES = np.array([
    ((0, 0, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1)),
    ((0, 0, 0), (0, 1, 0), (1, 1, 0), (1, 0, 0)),
    ((0, 1, 0), (1, 1, 0), (1, 1, 1), (0, 1, 1)),
])  # fmt: skip


def _sides(view: _Projection, low, high) -> Iterator[tuple[int, tuple[np.ndarray, ...], np.ndarray]]:
    """The three visible sides of the box of cells low … high-1: which, its cells (n, c, p), their corners (F, 4, 2)."""
    n, c, p = (np.arange(a, b) for a, b in zip(low, high, strict=True))
    for face, index in enumerate((_grid(n[:1], c, p), _grid(n, c, p[:1]), _grid(n, c[-1:], p))):
        yield face, index, view(np.stack(index, axis=1)[:, None, :] + _SIDES[face])


def _faces(view: _Projection, cells: Cells, low, high, **look) -> list:
    return [
        item for face, index, points in _sides(view, low, high) for item in cells.faces(points, index, face, **look)
    ]


def _borders(marks: np.ndarray) -> np.ndarray:
    """Segments (S, 2, 2) between unlike neighbours of a map (rows, columns), as (row, column) of its grid's corners."""
    flat = np.argwhere(marks[1:] != marks[:-1]) + (1, 0)
    upright = np.argwhere(marks[:, 1:] != marks[:, :-1]) + (0, 1)
    return np.concatenate([np.stack([flat, flat + (0, 1)], axis=1), np.stack([upright, upright + (1, 0)], axis=1)])


def _edges(view: _Projection, cells: Cells) -> np.ndarray:
    """Segments between neighbouring faces that belong to unlike sets."""
    labels, right = cells.labels, cells.shape[1]
    sides = (labels[0], 0, 0), (labels[:, :, 0], 2, 0), (labels[:, -1], 1, right)  # a map, and where its side lies
    return view(np.concatenate([np.insert(_borders(marks), axis, at, axis=-1) for marks, axis, at in sides]))


_CORNERS = np.array(list(np.ndindex(2, 2, 2)))  # of a box, bit by bit: low or high along n, c, p
_EDGES = np.array([(a, a | bit) for a in range(8) for bit in (4, 2, 1) if not a & bit])
_HIDDEN = (_EDGES == 0b101).any(axis=1)  # those that meet in the corner (deep, left, bottom)


def _frame(view: _Projection, low, high, hidden: bool = False) -> np.ndarray:
    """The nine visible edges of a box of cells, or the three hidden ones."""
    return view(np.where(_CORNERS, high, low))[_EDGES[hidden == _HIDDEN]]


def axis_label(axes, role: str) -> str:
    """`N=4 (batch)`, `C=8 (channel)`, `H·W=4·4 (height, width)`."""
    sizes = {letter: str(size) for letter, size in zip(axes.letters, axes.shape, strict=True) if ROLES[letter] == role}
    names = ", ".join(AXIS_NAMES[letter] for letter in sizes)
    return f"{'·'.join(sizes)}={'·'.join(sizes.values())} ({names})" if sizes else ""


def block(cells: Cells, box: Box) -> list:
    """The block of the Group Normalization paper (its figure 2): N into the depth, C to the right, positions down.

    Cells are coloured by set or by value.  The cursor's set is drawn as if the block were of glass: its own three
    sides and its outline lie on top, the cursor cell in bold.
    """
    cells = replace(cells, panel=f"{box.x:g},{box.y:g}")
    return [*block_backdrop(cells, box), *block_cursor(cells, box)]


def block_backdrop(cells: Cells, box: Box) -> list:
    """The part of `block` that does not depend on where the cursor is."""
    view, whole = _Projection(cells.shape, box), ((0, 0, 0), cells.shape)
    items = _faces(view, cells, *whole, name="cell")
    items.append(Strokes(_edges(view, cells), EDGE, 0.8, name="border"))
    items.append(Strokes(_frame(view, *whole), EDGE, 1.4, name="frame"))
    if cells.color == "set" and np.ptp(cells.labels) < 100:
        items += _set_numbers(view, cells)
    return items + _axis_labels(view, cells, box)


def block_cursor(cells: Cells, box: Box) -> list:
    """The part of `block` that shows the cursor and its set."""
    if cells.cursor is None:
        return []
    view, inside = _Projection(cells.shape, box), np.argwhere(cells.labels == cells.labels[cells.cursor])
    bounds = inside.min(axis=0), inside.max(axis=0) + 1  # a set is always a box
    one = cells.cursor, np.add(cells.cursor, 1)
    edges = _frame(view, *one)
    return [
        *_faces(view, cells, *bounds, name="set-cell", strong=True),
        Strokes(_frame(view, *bounds, hidden=True), EDGE, 1.2, dashed=True, name="set-outline"),
        Strokes(_frame(view, *bounds), EDGE, 2.4, name="set-outline"),
        *_faces(view, cells, *one, name="cursor", strong=True),
        Strokes(edges, HALO, 4.6, name="halo"),
        Strokes(edges, EDGE, 2.6, name="cursor-outline"),
    ]


def _axis_labels(view: _Projection, cells: Cells, box: Box) -> list:
    n, c, p = cells.shape
    below, left, (right, _) = view([(0, c / 2, p), (0, 0, p / 2), (n, c, 0)])
    words = {role: axis_label(cells.axes, role) for role in AXIS_COLORS}
    end, size = min(box.right, right + 60), {role: text_width(text, TEXT, True) for role, text in words.items()}
    middle = min(below[0], end - size["sample"] - 8 - size["channel"] / 2)  # the two share a line
    middle = max(middle, box.x + size["channel"] / 2)
    upright, line = left[1], below[1] + 17
    if middle - size["channel"] / 2 < left[0] - 4:  # a small block: the upright text ends above the other
        upright = max(min(upright, line - 12 - size["position"] / 2), box.y + size["position"] / 2)
        line = max(line, upright + size["position"] / 2 + 12)
    return [
        Label(x, y, words[role], TEXT, anchor, AXIS_COLORS[role], bold=True, angle=angle)
        for role, x, y, anchor, angle in (
            ("channel", middle, line, "middle", 0),
            ("position", left[0] - 9, upright, "middle", 90),
            ("sample", end, line, "end", 0),
        )
    ]


def _set_numbers(view: _Projection, cells: Cells) -> list:
    """The number of each set, once: on all the sets that a side shows first, or on none where one would not fit."""
    items, done = [], set()
    shades = SET_FILLS[int(cells.cursor is not None)]
    for face, index, quads in _sides(view, (0, 0, 0), cells.shape):
        if face == 1:
            continue  # the slanted top has no room for upright numbers
        labels, fresh = cells.labels[index], {}
        for k, first in zip(*(a.tolist() for a in np.unique(labels, return_index=True)), strict=True):
            if k not in done:
                corners = quads[labels == k].reshape(-1, 2)
                fresh[k] = shades[face][cells.hues[index][first]], corners.min(axis=0), corners.max(axis=0)
        if any((high - low < (text_width(str(k)) + 4, 13)).any() for k, (_, low, high) in fresh.items()):
            continue
        done |= {*fresh}
        for k, (fill, low, high) in fresh.items():
            x, y = ((low + high) / 2).tolist()
            items.append(Label(x, y + 4, str(k), TEXT, "middle", readable_on(fill)))
    return items


class _Tiles:
    """Where the unfolded cells lie: a row of tiles for each sample, a column for each channel."""

    def __init__(self, cells: Cells, box: Box):
        n, c, p = cells.shape
        rows, columns = cells.tile
        if rows * columns != p:  # the window cuts the positions: show them in one line
            rows, columns = 1, p
        head, left, gap = 18, 20, 5
        wide, high = box.width - left, box.height - head
        size = min(wide / c / (columns + gap / 14), high / n / (rows + gap / 14), 22.0)
        gap = min(gap, 0.36 * size * max(rows, columns))
        self.size = min((wide - c * gap) / c / columns, (high - n * gap) / n / rows, 22.0)
        self.shape = (n * c, rows, columns)
        self.step = np.array([columns, rows]) * self.size + gap
        self.corner = np.array([box.x + left, box.y + head])
        self.middle = np.array([columns, rows]) * self.size / 2

    def quads(self, n, c, p) -> np.ndarray:
        """Corners (F, 4, 2) of cells, given as arrays of one shape (F,)."""
        row, column = np.divmod(p, self.shape[2])
        corner = self.corner + np.stack([c, n], axis=1) * self.step + np.stack([column, row], axis=1) * self.size
        return corner[:, None, :] + np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * self.size

    def outline(self, mine: np.ndarray) -> np.ndarray:
        """Segments around the cells `mine` (N, C, P): their sides towards others and towards the rim of a tile."""
        _, rows, columns = self.shape
        n, c, _ = mine.shape
        spread = np.zeros((n, rows + 1, c, columns + 1), bool)  # the whole sheet, a gap after every tile
        spread[:, :rows, :, :columns] = mine.reshape(n, c, rows, columns).transpose(0, 2, 1, 3)
        sheet = np.pad(spread.reshape(n * (rows + 1), -1), ((1, 0), (1, 0)))
        tile, cell = np.divmod(_borders(sheet) - 1, (rows + 1, columns + 1))
        return self.corner + tile[..., ::-1] * self.step + cell[..., ::-1] * self.size

    def faces(self, cells: Cells, index, **look) -> list:
        items = cells.faces(self.quads(*index), index, 0, **look)
        items[0].stroke, items[0].width = PAPER, 0.5 if self.size > 5 else 0.0
        return items


def sheet_backdrop(cells: Cells, box: Box) -> list:
    """Every cell, unfolded: a row for each sample, a column for each channel, each tile an image of H × W.

    It is the part of the picture that does not depend on where the cursor is.
    """
    n, c, p = cells.shape
    tiles = _Tiles(cells, box)
    items = tiles.faces(cells, _grid(np.arange(n), np.arange(c), np.arange(p)), name="sheet-cell")
    columns = [f"{'c' if tiles.step[0] < 34 else 'c='}{k + cells.start[1]}" for k in range(c)]
    every = max(1, math.ceil((text_width(columns[-1]) + 3) / tiles.step[0]))  # no text runs into the next
    for k in range(0, c, every):
        x = tiles.corner[0] + k * tiles.step[0] + tiles.middle[0]
        items.append(Label(x, box.y + 11, columns[k], TEXT, "middle", AXIS_COLORS["channel"]))
    for k in range(0, n, max(1, math.ceil(13 / tiles.step[1]))):
        x, y = tiles.corner[0] - 5, tiles.corner[1] + k * tiles.step[1] + tiles.middle[1] + 4
        items.append(Label(x, y, str(k + cells.start[0]), TEXT, "end", AXIS_COLORS["sample"]))
    return items


def sheet_cursor(cells: Cells, box: Box) -> list:
    """The part of the unfolded picture that shows the cursor and its set."""
    if cells.cursor is None:
        return []
    tiles, items = _Tiles(cells, box), []
    mine = cells.labels == cells.labels[cells.cursor]
    if cells.color == "set":
        items += tiles.faces(cells, np.nonzero(mine), name="sheet-set-cell", strong=True)
    items.append(Strokes(tiles.outline(mine), EDGE, 1.8, name="set-outline"))
    (quad,) = tiles.quads(*(np.array([i]) for i in cells.cursor))
    items.append(Strokes(ring(quad), HALO, 4.6, name="halo"))
    items.append(Strokes(ring(quad), EDGE, 2.6, name="cursor-outline"))
    return items
