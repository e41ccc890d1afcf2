"""Pictures of one tensor: as a block cut into sets, by several methods side by side, as histograms."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence

import numpy as np

from normviz.arms import GREY, SKY
from normviz.draw.common import NOTEBOOK_WIDTH, arrays_of, as_array
from normviz.fields import unknown
from normviz.norms import METHODS, Cut, axes_of, cut
from normviz.picture.block import Cells, cells_legend
from normviz.picture.block import block as block_items
from normviz.picture.chart import histogram, legend, mean_and_std, shares
from normviz.picture.color import MUTED, PAPER, value_fills, value_limit
from normviz.picture.scene import Box, Label, Scene, Shapes, Strokes, grid_rects, moved, paragraph, rect, ring
from normviz.picture.text import fixed, number, plural

CLASSIC = ("batch", "layer", "instance", "group")


def check_color(color) -> None:
    """Raises ValueError unless it is "set" or "value"."""
    if color not in ("set", "value"):
        raise ValueError(unknown("color", color, ("set", "value")))


def check_cursor(cursor, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The cursor, where there is one, as indices.  Raises ValueError if it is no cell of a tensor of `shape`."""
    if cursor is None:
        return None
    try:
        cell = tuple(operator.index(i) for i in cursor)
    except TypeError:
        cell = ()
    if len(cell) != len(shape) or not all(0 <= i < n for i, n in zip(cell, shape, strict=True)):
        first, last = (0,) * len(shape), tuple(n - 1 for n in shape)
        raise ValueError(f"cursor={cursor!r} is no cell of the tensor; it takes indices from {first} to {last}")
    return cell


def set_statistics(x: np.ndarray, sets: Cut, cursor: tuple[int, ...] | None) -> dict[str, float]:
    """`size`, `mean` and `std` of the cursor's set, as `Cut.caption` takes them: none without a cursor.

    Of a method that does not centre they are 0 and the root mean square.
    """
    if cursor is None:
        return {}
    values = x[sets.labels == sets.labels[cursor]]
    top = float(np.abs(values).max())
    scale = top if np.isfinite(top) and not 1e-140 < top < 1e140 and top else 1.0  # whose square would be lost
    with np.errstate(invalid="ignore", over="ignore"):
        values = values / scale
        mean = float(values.mean()) if sets.row.centred else 0.0
        return {"size": values.size, "mean": scale * mean, "std": scale * float(np.sqrt(np.mean((values - mean) ** 2)))}


def block_scene(
    x, method: str | None = None, num_groups: int | None = None, *, cursor=None, color: str = "set",
    layout: str = "NCHW", size: tuple[float, float] = (430, 400), maps: bool = False,
) -> Scene:  # fmt: skip
    """The tensor as a block, its cells coloured by the sets of a method, or by value.

    x: tensor or array of numbers, (N, C), (N, C, L), (N, C, H, W), or (B, T, D) with layout "BTD".
    method: a key of `METHODS`; None shows the bare tensor, by value.  num_groups: for methods with groups.
    cursor: index of one cell; its set is outlined, and the caption tells its statistics.
    color: "set" or "value" (diverging map, symmetric about 0; NaN, ±Inf and clipped cells carry marks).
    A block too large to draw is cut to a window around the cursor, and the caption says what was left out.
    maps: show before the block what it is folded from: every channel of every sample as a map H × W, then the maps of
    the first sample drawn as columns, which are the front of the block.  By value; it takes no method.

    Raises TypeError if x is not numeric; ValueError, naming the argument, for an unknown method, layout or colour,
    groups that do not divide C, a wrong rank, an empty axis, a cursor outside of the tensor.
    """
    check_color(color)
    x = as_array(x)
    if maps and method is not None:
        raise ValueError(f"maps={maps!r} needs method=None, got {method!r}: the maps are drawn by value")
    if method is None:
        if cursor is not None:
            raise ValueError(f"cursor={cursor!r} needs a method: without one no cell has a set")
        axes, color, heading, finite = axes_of(x.shape, layout), "value", "The tensor", x[np.isfinite(x)]
        labels = np.zeros(x.shape, dtype=np.int64)
        span = f"from {finite.min():.3g} to {finite.max():.3g}" if finite.size else "none of them finite"
        alt = f"Tensor {axes}; values {span}."
    else:
        sets = cut(method, x.shape, num_groups, layout)
        cursor = check_cursor(cursor, x.shape)
        axes, labels, heading = sets.axes, sets.labels, sets.title
        alt = sets.caption(**set_statistics(x, sets, cursor))
    cells = Cells.of(axes, labels, x, cursor=cursor, color=color, limit=value_limit(x))
    width, height = size
    alt = f"{alt} {cells.left_out()}".strip()
    foot = paragraph(alt, 12, 0, width - 24, color=MUTED)
    top = height - 16 * len(foot) - 14
    drawing = [*block_items(cells, Box(8, 28, width - 16, top - 48)), *cells_legend(cells, 14, top)]
    foot = [moved(line, 0, top + 22) for line in foot]
    scene = Scene(width, height, [Label(12, 20, heading, 15, bold=True), *drawing, *foot], alt)
    return _folded(cells, scene) if maps else scene


def _folded(cells: Cells, block: Scene) -> Scene:
    """Three stages from left to right: maps as images, one sample's maps as columns, the block of all."""
    samples, channels, positions = cells.shape
    rows, columns = cells.tile if np.prod(cells.tile) == positions else (positions, 1)  # a window is no whole map
    scene, middle = Scene(NOTEBOOK_WIDTH, block.height, alt=block.alt), (NOTEBOOK_WIDTH - block.width) * 0.76
    limit, tall = cells.limit, block.height - 110
    step = min((middle - 56) / channels, tall / samples / (rows / columns))
    tile_width, tile_height = step - 4, (step - 4) * rows / columns

    def grid(values: np.ndarray, box: Box, name: str) -> None:
        scene.items.append(Shapes(grid_rects(box, *values.shape), value_fills(values.ravel(), limit)[0], name=name))
        scene.items.append(Strokes(ring(rect(box)), GREY, 0.8))

    scene.items.append(Label(12, 20, f"1  {samples} × {channels} maps", 15, bold=True))
    for n in range(samples):
        y = 42 + n * (tile_height + 9)
        scene.items.append(Label(12, y + tile_height / 2 + 4, f"n={n}", color=MUTED))
        for c in range(channels):
            box = Box(46 + c * step, y, tile_width, tile_height)
            grid(cells.values[n, c].reshape(rows, columns), box, "map")
    wide = NOTEBOOK_WIDTH - block.width - middle - 20
    front = Box(middle + 14, 42, wide, min(tall, positions * 19.0))
    scene.items.append(Label(front.x, 20, "2  Unrolled", 15, bold=True))
    grid(cells.values[0].T, front, "front")  # (P, C)
    for c in range(1, channels):
        x = front.x + front.width * c / channels
        scene.items.append(Strokes(np.array([[[x, front.y], [x, front.bottom]]]), PAPER, 2.0))
    below = 42 + samples * (tile_height + 9) + 14
    scene.items.append(Label(46, below, "each map: left to right, row after row", color=MUTED))
    scene.items.append(Label(front.x, front.bottom + 18, "n=0: a column a map", color=MUTED))
    block.items[0] = Label(26, 20, f"3  {plural(samples, 'such table')}, stacked", 15, bold=True)
    scene.items += [moved(item, NOTEBOOK_WIDTH - block.width, 0) for item in block.items]
    scene.alt = (
        f"{f'{samples} times ' if samples > 1 else ''}{plural(channels, 'map')} of {rows} × {columns}; those of sample "
        f"0 unrolled into columns; {plural(samples, 'table')} stacked to a block. {block.alt}"
    )
    return scene


def methods_scene(
    x, methods: Sequence[str] = CLASSIC, num_groups: int | None = None, *, cursor=None, color: str = "set",
    layout: str = "NCHW", panel: tuple[float, float] = (NOTEBOOK_WIDTH / 4, 270), values: Mapping | None = None,
) -> Scene:  # fmt: skip
    """Several methods on the same tensor side by side, with one cursor.

    methods: keys of `METHODS`.  num_groups: for those with groups; None for two, or one where C is odd.
    values: what to colour instead of x, an array of x's shape for each method (a step of the normalization).
    panel: width and height of one picture.  The other arguments and the errors are those of `block`.
    """
    check_color(color)
    if not methods:
        raise ValueError(f"methods={methods!r} is empty; it takes some of {', '.join(map(repr, METHODS))}")
    x = as_array(x)
    if num_groups is None:
        num_groups = 2 - axes_of(x.shape, layout).channels % 2
    grouped = {method for method, row in METHODS.items() if row.grouped}
    cuts = [cut(m, x.shape, num_groups if m in grouped else None, layout) for m in methods]
    cursor = check_cursor(cursor, x.shape)
    columns = min(4, len(cuts)) if len(cuts) != 6 else 3
    width, height = columns * panel[0], -(-len(cuts) // columns) * panel[1]
    scene = Scene(width, height + 24)
    shown = values or dict.fromkeys(methods, x)
    limit, alts = value_limit(x, *shown.values()), []
    for i, (method, sets) in enumerate(zip(methods, cuts, strict=True)):
        known = set_statistics(x, sets, cursor)
        alts.append(sets.caption(**known))
        cells = Cells.of(sets.axes, sets.labels, shown[method], cursor=cursor, color=color, limit=limit)
        left, top = (i % columns) * panel[0], (i // columns) * panel[1]
        middle, lines = left + panel[0] / 2, [alts[-1].rsplit("; ", 1)[1].rstrip(".")]
        if known:
            lines.insert(0, f"{known['size']} cells: {sets.statistics_text(known['mean'], known['std'])}")
        scene.items.append(Label(middle, top + 19, sets.title, 14, "middle", bold=True))
        scene.items += block_items(cells, Box(left + 4, top + 26, panel[0] - 8, panel[1] - 66))
        for k, line in enumerate(lines):
            scene.items.append(Label(middle, top + panel[1] - 22 + 16 * k, line, anchor="middle", color=MUTED))
    scene.items += cells_legend(cells, 14, height + 14)
    if left_out := cells.left_out():
        alts.append(left_out)
        scene.items += paragraph(left_out, 14, height + 36, width - 28, color=MUTED)
        scene.height = scene.items[-1].y + 8
    scene.alt = " ".join(alts)
    return scene


def histograms_scene(panels: Mapping[str, np.ndarray]) -> Scene:
    """One histogram for each of `panels` (heading -> values of any shape), all on one scale, the first in grey behind.

    Raises TypeError if values are not numeric, ValueError for no panel or one without a finite value.
    """
    values = {name: array[np.isfinite(array)] for name, array in arrays_of(panels, "panels").items()}
    if not all(array.size for array in values.values()):
        raise ValueError(f"panels={list(panels)} must hold at least one finite value each")
    limit, first = value_limit(*values.values()), next(iter(values.values()))
    top = max(0.05, *(float(shares(array, limit).max()) for array in values.values()))
    wide = (NOTEBOOK_WIDTH - 24 - 28 * (len(values) - 1)) / len(values)
    scene, words = Scene(NOTEBOOK_WIDTH, 210), []
    for i, (name, array) in enumerate(values.items()):
        mean, std = mean_and_std(array)
        word = fixed if 0.005 <= max(std, abs(mean)) < 1e6 else number
        words.append(f"{name}: mean {word(mean)}, σ {word(std)}")
        box = Box(12 + i * (wide + 28), 26, wide, 152)
        # The statistics go under the heading: a panel is too narrow for both in a line
        scene.items.append(Label(box.x, 16, name, 13, bold=True))
        scene.items += histogram(box, "", first, array, limit=limit, top=top, fill=SKY)
    entries = [(SKY, "the values"), (GREY, "those of the first panel"), ("", "┆ mean")]
    scene.items += legend(entries, 12, 198, color=MUTED)
    scene.alt = f"Histograms on one scale. {'; '.join(words)}."
    return scene
