"""What the axes explorer shows, without any widget: a state of its controls -> a reading -> a scene."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

from normviz.functional import normalize_steps
from normviz.methods import (
    METHODS,
    Statistics,
    affine_shape,
    axes_of,
    caption,
    coincides_with,
    count_statistics,
    method_row,
    partition,
    title,
    torch_call,
)
from normviz.picture.block import block_backdrop, block_cursor, sheet_backdrop, sheet_cursor
from normviz.picture.charts import before_after
from normviz.picture.colors import MUTED, SET_FILLS, value_limit
from normviz.picture.figures import methods_scene, set_statistics
from normviz.picture.scene import Box, Cells, Label, Scene, legend, wrap

STEPS = ("raw", "centred", "scaled", "affine")
WIDTH, HEIGHT = 940, 452


@dataclass(frozen=True)
class State:
    """The controls of the explorer.  `num_groups` counts only for methods with groups."""

    method: str
    cursor: tuple[int, ...]
    num_groups: int = 1
    color: str = "set"
    step: str = "raw"
    eps: float = 1e-5
    gamma: float = 1.0
    beta: float = 0.0
    compare: bool = False
    layout: str = "NCHW"

    def groups(self, method: str | None = None) -> int | None:
        return self.num_groups if method_row(method or self.method).grouped else None


@dataclass
class Reading:
    """All that the explorer says about one tensor in one state.

    labels: int64, x's shape.  steps: the four steps as float64 arrays of x's shape.  size, mean, var: of the
    cursor's set (RMSNorm: var is the mean square).  same_as: methods with the very same statistics.
    snippet: PyTorch code that does the same; deviation: its largest difference from `normalize`, just computed.
    refusal: why the method can't be computed on this tensor, or None.
    backdrops: what was drawn already that any cursor leaves as it is.
    """

    labels: np.ndarray
    steps: dict[str, np.ndarray]
    size: int
    mean: float
    var: float
    count: Statistics
    same_as: list[str]
    caption: str
    snippet: str
    deviation: float | None = None
    refusal: str | None = None
    backdrops: dict = field(default_factory=dict, repr=False)


def _affine(x: torch.Tensor, method: str, state: State) -> dict[str, torch.Tensor | None]:
    """γ and β everywhere; RMSNorm has no bias in torch, nor here."""
    row = method_row(method)
    shape = affine_shape(row, axes_of(x.shape, state.layout))
    weight = torch.full(shape, state.gamma, dtype=x.dtype)
    return {"weight": weight, "bias": torch.full(shape, state.beta, dtype=x.dtype) if row.centred else None}


def all_steps(
    x: torch.Tensor, method: str, state: State
) -> tuple[dict[str, np.ndarray], torch.Tensor | None, str | None]:
    """The four steps as arrays, the output, and why there is none: a method may refuse a tensor, as torch does."""
    try:
        steps = normalize_steps(
            x, method, state.groups(method), state.eps, layout=state.layout, **_affine(x, method, state)
        )
    except ValueError as error:
        raw = x.double().numpy()
        return dict.fromkeys(STEPS, raw), None, str(error)
    return {name: getattr(steps, name).double().numpy() for name in STEPS}, steps.affine, None


def snippet(x: torch.Tensor, state: State) -> str:
    """PyTorch code for the state: the row's module, the turns around it, γ and β."""
    shape = tuple(x.shape)
    call = torch_call(state.method, shape, state.groups(), eps=state.eps, layout=state.layout)
    # Layers are made in float32 and turn other tensors down
    lines = [f"layer = {call.constructor}" + (".double()" if x.dtype == torch.float64 else "")]
    if state.gamma != 1:
        lines.append(f"nn.init.constant_(layer.weight, {state.gamma:g})")
    if state.beta != 0 and method_row(state.method).centred:
        lines.append(f"nn.init.constant_(layer.bias, {state.beta:g})")
    letters = ", ".join(axes_of(shape, state.layout).letters)
    return "\n".join([*lines, f"y = {call.forward}  # ({letters}) = {shape}"])


def run_snippet(code: str, x: torch.Tensor) -> torch.Tensor:
    """Run the code that the reader is shown, on the reader's tensor."""
    names = {"nn": nn, "torch": torch, "x": x}
    # Constructors may draw numbers; the reader's seed is the reader's
    with torch.random.fork_rng(devices=[]):
        exec(code, names)
    return names["y"].detach()


@contextmanager
def _one_thread():
    """For a few hundred numbers, waking a second thread costs more than the sum (20 ms on a busy machine)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _at_cursor(state: State, raw: np.ndarray, labels: np.ndarray) -> dict:
    """What a reading says of the cursor's set."""
    centred = method_row(state.method).centred
    size, mean, std = set_statistics(raw, labels, state.cursor, centred)
    words = caption(state.method, raw.shape, state.groups(), state.layout, size, mean, std)
    return {"size": size, "mean": mean, "var": std**2, "caption": words}


@_one_thread()
def read(x: torch.Tensor, state: State, known: Reading | None = None) -> Reading:
    """Everything there is to say of tensor x (floating-point, CPU) in this state.

    known: a reading of the same tensor in a state that differs by the cursor alone, which is most of the work.
    """
    if known is not None:
        return replace(known, **_at_cursor(state, known.steps["raw"], known.labels))
    shape, groups = tuple(x.shape), state.groups()
    labels = partition(state.method, shape, groups, state.layout)
    steps, y, refusal = all_steps(x, state.method, state)
    code = snippet(x, state)
    deviation = None
    if y is not None:
        try:
            difference = (run_snippet(code, x) - y).abs()
            # NaN where both are NaN is agreement
            deviation = float(torch.where(torch.isnan(difference) & torch.isnan(y), 0.0, difference).max())
        except ValueError as error:  # nn.GroupNorm alone turns down a tensor whose every group is one cell
            refusal = str(error)
    return Reading(
        labels=labels,
        steps=steps,
        count=count_statistics(state.method, shape, groups, state.layout),
        same_as=coincides_with(state.method, shape, groups, state.layout),
        snippet=code,
        deviation=deviation,
        refusal=refusal,
        **_at_cursor(state, steps["raw"], labels),
    )


def scene(x: torch.Tensor, state: State, reading: Reading, *, with_caption: bool = False) -> Scene:
    """The explorer's picture: block, every cell unfolded, histograms; or all methods side by side.

    with_caption: write the caption into the picture too (for the static twin; the widget shows it as text).
    """
    picture = _comparison(x, state) if state.compare else _single(x, state, reading)
    if with_caption:
        foot = wrap(picture.alt, 12, picture.height + 14, int(picture.width / 7.1), color=MUTED)
        picture.items += foot
        picture.height += 16 * len(foot) + 6
    return picture


@_one_thread()
def _comparison(x: torch.Tensor, state: State) -> Scene:
    values = {method: all_steps(x, method, state)[0][state.step] for method in METHODS}
    return methods_scene(
        x, tuple(METHODS), state.num_groups, cursor=state.cursor, color=state.color, layout=state.layout,
        values=values, panel=(WIDTH / 3, 300),
    )  # fmt: skip


def _single(x: torch.Tensor, state: State, reading: Reading) -> Scene:
    axes = axes_of(x.shape, state.layout)
    values = reading.steps[state.step]
    limit = value_limit(reading.steps["raw"], reading.steps["affine"])
    cells = Cells.of(axes, reading.labels, values, cursor=state.cursor, color=state.color, limit=limit)
    picture = Scene(WIDTH, HEIGHT, " ".join(filter(None, (reading.caption, cells.left_out()))))
    right, wide = 430, WIDTH - 440
    left_box, right_box = Box(8, 26, 404, 388), Box(right, 28, wide, 232)
    small = Cells.of(
        axes,
        reading.labels,
        values,
        cursor=state.cursor,
        color=state.color,
        limit=limit,
        drawn=sheet_window(cells),
    )
    where = (cells.start, small.start)  # what is drawn of a large tensor follows the cursor
    if where not in reading.backdrops:
        colors = f"{state.step} values" if state.color == "value" else "coloured by set"
        heading = f"Every cell, unfolded ({colors})"
        if small.shape != cells.shape:
            heading += f": samples {small.start[0]}–{small.start[0] + small.shape[0] - 1} only"
        reading.backdrops[where] = [
            Label(12, 18, title(state.method, state.groups()), 15, bold=True),
            Label(right, 18, heading, bold=True),
            *block_backdrop(cells, left_box),
            *sheet_backdrop(small, right_box),
        ]
    picture.backdrop = reading.backdrops[where]
    picture.items = [
        *block_cursor(cells, left_box),
        *sheet_cursor(small, right_box),
        *legend(cells, 14, HEIGHT - 10),
    ]
    inside = reading.labels == reading.labels[state.cursor]
    hue = int(cells.hues[cells.cursor])
    picture.items += before_after(
        Box(right, 276, wide, 172), ("before: raw", "not defined" if reading.refusal else f"after: {state.step}"),
        (reading.steps["raw"], values), inside, limit=limit, fill=SET_FILLS[0][0][hue],
    )  # fmt: skip
    return picture


SHEET_CELLS = 2048


def sheet_window(cells: Cells) -> tuple[int, int, int]:
    """As many samples as the unfolded view can show with cells that the eye still tells apart."""
    n, c, p = cells.shape
    return (max(1, min(n, SHEET_CELLS // (c * p))), c, p)


def default_state(shape, layout: str = "NCHW", method: str = "batch") -> State:
    """A cursor inside the block, half the channels a group where they halve."""
    axes = axes_of(shape, layout)
    channels = axes.channels
    groups = 2 if channels % 2 == 0 else channels
    return State(method, tuple((size - 1) // 2 for size in axes.shape), groups, layout=layout)


def reading_text(reading: Reading, state: State) -> list[str]:
    """The reading as short sentences: the set, the count, what it coincides with, what is refused."""
    row = method_row(state.method)
    cells = f"{reading.size} cell{'s' if reading.size > 1 else ''}"
    if row.centred:
        first = f"The cursor's set has {cells}: μ = {reading.mean:.4g}, σ² = {reading.var:.4g}."
    else:
        first = f"The cursor's set has {cells}: mean square = {reading.var:.4g}; RMSNorm subtracts no mean."
    count = reading.count
    texts = [first, f"{count.sets} sets, {count.formula} = {count.values} statistics."]
    for other in reading.same_as:
        texts.append(f"On this shape the sets are those of {title(other)}: the two coincide.")
    if reading.refusal:
        texts.append(f"Refused by torch: {reading.refusal}")
    return texts
