"""Static pictures of one tensor: `draw_block`, `draw_methods`, and the files of `images/`."""

from __future__ import annotations

import numpy as np

from normviz.methods import (
    METHODS,
    axes_of,
    caption,
    method_row,
    partition,
    sizes_text,
    statistics_text,
    title,
)
from normviz.picture.block import block
from normviz.picture.colors import MUTED, value_limit
from normviz.picture.png import figure
from normviz.picture.scene import Box, Cells, Label, Scene, legend, wrap


def as_array(x) -> np.ndarray:
    """A tensor or array-like of real numbers as float64 numpy.  Raises TypeError for anything else."""
    if hasattr(x, "detach"):
        # float() first: numpy has no bfloat16
        x = x.detach().cpu()
        x = x.float() if str(x.dtype) == "torch.bfloat16" else x
    try:
        return np.asarray(x).astype(
            np.float64, casting="same_kind" if np.asarray(x).dtype.kind != "b" else "unsafe"
        )
    except (TypeError, ValueError):
        got = f"{type(x).__name__} of {x.dtype}" if hasattr(x, "dtype") else type(x).__name__
        raise TypeError(f"x must be a tensor or array of real numbers, got {got}") from None


def check_color(color) -> None:
    """Raises ValueError unless it is "set" or "value"."""
    if color not in ("set", "value"):
        raise ValueError(f"color={color!r} is unknown; it takes 'set' or 'value'")


def check_cursor(cursor, axes) -> tuple[int, ...]:
    """The cursor as a tuple of indices.  Raises ValueError if it is outside of the tensor."""
    try:
        cell = tuple(int(i) for i in cursor)
    except TypeError:
        cell = ()
    if len(cell) != len(axes.shape) or not all(0 <= i < n for i, n in zip(cell, axes.shape, strict=True)):
        last = tuple(n - 1 for n in axes.shape)
        raise ValueError(
            f"cursor={cursor!r} is no cell of the tensor; it takes indices from {(0,) * len(last)} to {last}"
        )
    return cell


def set_statistics(x: np.ndarray, labels: np.ndarray, cursor, centred: bool) -> tuple[int, float, float]:
    """Size, mean and standard deviation (RMSNorm: 0 and the root mean square) of the cursor's set."""
    values = x[labels == labels[cursor]]
    with np.errstate(invalid="ignore", over="ignore"):
        mean = float(values.mean()) if centred else 0.0
        return values.size, mean, float(np.sqrt(np.mean((values - mean) ** 2)))


def _plain(x: np.ndarray, axes, cursor) -> tuple[np.ndarray, str, str]:
    """Labels, alt text and heading of a tensor that no method has cut yet."""
    if cursor is not None:
        raise ValueError(f"cursor={cursor!r} needs a method: without one no cell has a set")
    finite = x[np.isfinite(x)]
    span = f"from {finite.min():.3g} to {finite.max():.3g}" if finite.size else "none of them finite"
    return np.zeros(x.shape, dtype=np.int64), f"Tensor {sizes_text(axes)}; values {span}.", "The tensor"


def block_scene(
    x, method, num_groups=None, *, cursor=None, color="set", layout="NCHW", size=(430, 400)
) -> Scene:
    """One block with heading, legend and caption.  Errors as in `draw_block`."""
    check_color(color)
    x = as_array(x)
    axes = axes_of(x.shape, layout)
    if method is None:
        labels, alt, heading = _plain(x, axes, cursor)
        color = "value"
    else:
        row = method_row(method)
        labels = partition(method, x.shape, num_groups, layout)
        known = {}
        if cursor is not None:
            cursor = check_cursor(cursor, axes)
            statistics = set_statistics(x, labels, cursor, row.centred)
            known = dict(zip(("size", "mean", "std"), statistics, strict=True))
        alt = caption(method, x.shape, num_groups, layout, **known)
        heading = title(method, num_groups)
    cells = Cells.of(axes, labels, x, cursor=cursor, color=color, limit=value_limit(x))
    alt = " ".join(filter(None, (alt, cells.left_out())))
    width, height = size
    scene = Scene(width, height, alt)
    scene.items.append(Label(12, 20, heading, 15, bold=True))
    foot = wrap(alt, 12, 0, int(width / 7.1), color=MUTED)
    for i, line in enumerate(foot):
        line.y = height - 8 - 16 * (len(foot) - 1 - i)
    top = height - 16 * len(foot) - 14
    scene.items += block(cells, Box(8, 28, width - 16, top - 28 - 20))
    scene.items += legend(cells, 14, top)
    scene.items += foot
    return scene


def draw_block(x, method=None, num_groups=None, *, cursor=None, color="set", layout="NCHW"):
    """The tensor as a block, its cells coloured by the sets of a method, or by value: a matplotlib Figure.

    x: tensor or array of numbers, (N, C), (N, C, L), (N, C, H, W), or (B, T, D) with layout "BTD".
    method: a key of `METHODS`; None shows the bare tensor, by value.  num_groups: for methods with groups.
    cursor: index of one cell; its set is outlined, and the caption tells its statistics.
    color: "set" or "value" (diverging map, symmetric about 0; NaN, ±Inf and clipped cells carry marks).
    A block too large to draw is cut to a window around the cursor, and the caption says what was left out.

    The figure's alt text is its attribute `alt`; a notebook stores it with the picture.
    Raises TypeError if x is not numeric; ValueError, naming the argument, for an unknown method, layout or colour,
    groups that do not divide C, a wrong rank, an empty axis, a cursor outside of the tensor.
    """
    return figure(block_scene(x, method, num_groups, cursor=cursor, color=color, layout=layout))


NOTEBOOK_WIDTH = 944  # px, of a picture that JupyterLab shows unscaled on a laptop
CLASSIC = ("batch", "layer", "instance", "group")


def methods_scene(
    x,
    methods=CLASSIC,
    num_groups=None,
    *,
    cursor=None,
    color="set",
    layout="NCHW",
    panel=(300, 300),
    values=None,
) -> Scene:
    """The same tensor under several methods side by side, one cursor.

    values: what to colour instead of x, an array of x's shape for each method (a step of the normalization).
    """
    check_color(color)
    if not methods:
        raise ValueError(f"methods={methods!r} is empty; it takes some of {', '.join(map(repr, METHODS))}")
    x = as_array(x)
    axes = axes_of(x.shape, layout)
    if cursor is not None:
        cursor = check_cursor(cursor, axes)
    columns = min(4, len(methods)) if len(methods) != 6 else 3
    width, height = columns * panel[0], -(-len(methods) // columns) * panel[1]
    scene = Scene(width, height + 24, "")
    shown = values or dict.fromkeys(methods, x)
    alts, limit, cells = [], value_limit(x, *shown.values()), None
    for i, method in enumerate(methods):
        row = method_row(method)
        groups = num_groups if row.grouped else None
        labels = partition(method, x.shape, groups, layout)
        known = {}
        if cursor is not None:
            known = dict(
                zip(("size", "mean", "std"), set_statistics(x, labels, cursor, row.centred), strict=True)
            )
        alts.append(caption(method, x.shape, groups, layout, **known))
        cells = Cells.of(axes, labels, shown[method], cursor=cursor, color=color, limit=limit)
        left, top = (i % columns) * panel[0], (i // columns) * panel[1]
        scene.items.append(
            Label(left + panel[0] / 2, top + 19, title(method, groups), 14, "middle", bold=True)
        )
        scene.items += block(cells, Box(left + 4, top + 26, panel[0] - 8, panel[1] - 66))
        sets = alts[-1].rsplit("; ", 1)[1].rstrip(".")
        line = (
            sets
            if cursor is None
            else f"{known['size']} cells: {statistics_text(row, known['mean'], known['std'])}"
        )
        scene.items.append(
            Label(left + panel[0] / 2, top + panel[1] - 22, line, anchor="middle", color=MUTED)
        )
        if cursor is not None:
            scene.items.append(
                Label(left + panel[0] / 2, top + panel[1] - 6, sets, anchor="middle", color=MUTED)
            )
    scene.items += legend(cells, 14, height + 14)
    if left_out := cells.left_out():
        alts.append(left_out)
        scene.items += wrap(left_out, 14, height + 36, int(width / 7.1), color=MUTED)
        scene.height = scene.items[-1].y + 8
    scene.alt = " ".join(alts)
    return scene


def draw_methods(x, methods=CLASSIC, num_groups=None, *, cursor=None, color="set", layout="NCHW"):
    """Several methods on the same tensor side by side: a matplotlib Figure.

    methods: keys of `METHODS`.  num_groups: for those with groups; None for two, or one where C is odd.
    The other arguments and the errors are those of `draw_block`.
    """
    if num_groups is None and any(method_row(method).grouped for method in methods):
        num_groups = 2 if axes_of(as_array(x).shape, layout).channels % 2 == 0 else 1
    # Four panels fill the width of a notebook's cell without being scaled down
    return figure(
        methods_scene(
            x, methods, num_groups, cursor=cursor, color=color, layout=layout, panel=(NOTEBOOK_WIDTH / 4, 270)
        )
    )
