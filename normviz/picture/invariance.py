"""What a normalized output does not notice: its input scaled or shifted, its weights scaled.  Pure, no widgets.

Sixteen patches of a digit go through a linear layer without bias (the filter bank of `samples`) and then through a
norm.  The input of the norm is changed, and what the output moves by is shown cell by cell.
Source: Ba, Kiros & Hinton 2016 (arXiv:1607.06450), section 5.1 and table 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from normviz.functional import RunningStats, normalize
from normviz.methods import METHODS
from normviz.picture.colors import (
    INK,
    MARKS,
    MUTED,
    PAPER,
    VALUE_FILLS,
    readable_on,
    value_fills,
    value_limit,
)
from normviz.picture.curves import with_caption
from normviz.picture.png import figure
from normviz.picture.scene import Box, Label, Scene, Shapes, Strokes
from normviz.samples import digit_features

METHODS_SHOWN = (None, "layer_token", "rms", "batch")
SCOPES = {"token": "one token", "feature": "one feature", "all": "everything"}
TOKEN, FEATURE = 5, 2  # the ones that scope "token" and "feature" change
SCALES = (0.125, 0.25, 0.5, 0.8, 1.0, 1.25, 2.0, 4.0, 8.0)
SHIFTS = (-3.0, 3.0)
STILL = 0.01  # an output that moves by less than this share of its length is called still; what is left is ε
LIMIT = 2.0  # of the maps of differences, in units of a normalized feature
WIDTH = 840  # px, what JupyterLab shows beside its sidebar


@dataclass(frozen=True)
class State:
    """What is done to the norm's input.

    scale, shift: of the cells in `scope` (a key of SCOPES), x → scale · x + shift; weights: factor of the linear
    layer in front, which scales every cell; evaluation: BatchNorm has the statistics of the unchanged input stored.
    """

    scope: str = "token"
    scale: float = 1.0
    shift: float = 0.0
    weights: float = 1.0
    evaluation: bool = False


@dataclass(frozen=True)
class Reading:
    """before, after: (16, 8) input of the norm; changed: (16, 8) bool, the cells in the scope.

    moves: method (None: no norm) -> (16, 8) output after minus output before; inside, outside: method -> length of
    that difference over the length of the output before, in the scope and in the other cells (NaN if none).
    """

    before: np.ndarray
    after: np.ndarray
    changed: np.ndarray
    moves: dict[str | None, np.ndarray]
    inside: dict[str | None, float]
    outside: dict[str | None, float]


def check(state: State) -> State:
    """The state itself.  Raises ValueError, naming the field, for what no control could have set."""
    if state.scope not in SCOPES:
        raise ValueError(f"scope={state.scope!r} is unknown; it takes one of {', '.join(SCOPES)}")
    for name in ("scale", "weights"):
        if getattr(state, name) not in SCALES:
            raise ValueError(f"{name}={getattr(state, name)!r} must be one of {SCALES}")
    if not SHIFTS[0] <= state.shift <= SHIFTS[1]:
        raise ValueError(f"shift={state.shift!r} must be {SHIFTS[0]:g} to {SHIFTS[1]:g}")
    return state


@lru_cache(maxsize=1)
def summed_inputs() -> torch.Tensor:
    """The norm's input before any change: float64 (16 tokens, 8 features), from the patches of the first digit."""
    return torch.from_numpy(digit_features(1, 8, 4, 4)[0].reshape(8, -1).T.astype(float).copy())


def output(x: torch.Tensor, method: str | None, stored: torch.Tensor | None = None) -> torch.Tensor:
    """x (T, D) through a norm; `stored`: BatchNorm in evaluation, with the statistics of these tokens (T, D)."""
    if method is None:
        return x
    if stored is not None and METHODS[method].running:
        running = RunningStats(stored.mean(0), stored.var(0))
        return normalize(x[None], method, running=running, training=False, layout="BTD")[0]
    return normalize(x[None], method, layout="BTD")[0]


def read(state: State) -> Reading:
    """How far every method's output moves."""
    before = summed_inputs()
    changed = torch.zeros(before.shape, dtype=torch.bool)
    changed[{"token": TOKEN, "feature": (slice(None), FEATURE), "all": slice(None)}[state.scope]] = True
    after = state.weights * before
    after = torch.where(changed, state.scale * after + state.shift, after)
    moves, inside, outside = {}, {}, {}
    for method in METHODS_SHOWN:
        stored = before if state.evaluation else None
        old, new = output(before, method, stored), output(after, method, stored)
        move = new - old
        moves[method] = move.numpy()
        for part, cells in ((inside, changed), (outside, ~changed)):
            part[method] = float(move[cells].norm() / old[cells].norm()) if cells.any() else float("nan")
    return Reading(before.numpy(), after.numpy(), changed.numpy(), moves, inside, outside)


def name_of(method: str | None) -> str:
    return "no norm" if method is None else METHODS[method].name.removesuffix(" (per token)")


def percent(share: float) -> str:
    """`430 %`, `43 %`, `0.002 %`, `—` where there is nothing to measure."""
    if np.isnan(share) or share < 1e-12:
        return "—" if np.isnan(share) else "0 %"
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def is_still(reading: Reading, method: str | None) -> bool:
    """Whether the whole output moves by less than STILL of its length."""
    return not max(reading.inside[method], np.nan_to_num(reading.outside[method])) >= STILL


def describe(state: State, reading: Reading) -> str:
    """The caption and alt text."""
    where = {"token": f"token {TOKEN}", "feature": f"feature {FEATURE}", "all": "every cell"}[state.scope]
    parts = []
    for method in METHODS_SHOWN:
        told = f"{percent(reading.inside[method])} in {where}"
        if state.scope != "all":
            told += f", {percent(reading.outside[method])} elsewhere"
        parts.append(f"{name_of(method)}: {told}")
    mode = "evaluation" if state.evaluation else "training"
    shift = f" {'−' if state.shift < 0 else '+'} {abs(state.shift):g}" if state.shift else ""
    return (
        f"Weights × {state.weights:g}; {where} becomes {state.scale:g}·x{shift}; {mode}. "
        f"The output moves by: {'; '.join(parts)}."
    )


CELL = (15.5, 15.0)  # px, a feature wide, a token high


def invariance_scene(state: State, reading: Reading, *, with_text: bool = False) -> Scene:
    """The changed input, and for each method the difference that the change makes to its output."""
    picture = Scene(WIDTH, 398, describe(state, reading))
    tokens, features = reading.before.shape
    wide, top = features * CELL[0], 62.0
    box = Box(44, top, wide, tokens * CELL[1])
    limit = value_limit(reading.before)
    picture.items += _map(box, reading.after, reading.changed, limit, "x")
    picture.items += [Label(box.x, 20, "the norm's input x", 13, bold=True), Label(box.x, 40, "as changed")]
    for k in range(0, tokens, 5):
        picture.items.append(Label(box.x - 6, top + (k + 0.8) * CELL[1], str(k), anchor="end", color=MUTED))
    middle = box.y + box.height / 2
    picture.items.append(Label(16, middle, "tokens", anchor="middle", angle=90))
    picture.items.append(Label(box.x + wide / 2, box.y + box.height + 16, "features", anchor="middle"))
    for k, method in enumerate(METHODS_SHOWN):
        box = Box(206 + k * 161, top, wide, tokens * CELL[1])
        picture.items += _map(
            box, reading.moves[method], reading.changed, LIMIT, f"{name_of(method)}, moved by"
        )
        still = is_still(reading, method)
        picture.items.append(Label(box.x, 20, name_of(method), 13, bold=True))
        picture.items.append(Label(box.x, 40, "● stands still" if still else "moves", bold=still))
        picture.items += _bars(box.x, box.y + box.height + 16, reading, method, state.scope)
    picture.items += _scale(44, 374, limit)
    return with_caption(picture) if with_text else picture


def _map(box: Box, values: np.ndarray, changed: np.ndarray, limit: float, what: str) -> list:
    """Cells coloured by value, the changed ones framed."""
    rows, columns = values.shape
    row, column = (a.ravel() for a in np.indices(values.shape))
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
    points = np.array([box.x, box.y]) + (np.stack([column, row], 1)[:, None] + corners) * CELL
    fills, marked = value_fills(values.ravel(), limit)
    titles = [
        f"token {r}, feature {c}: {what} {v:.3g}" for r, c, v in zip(row, column, values.flat, strict=True)
    ]
    items: list = [Shapes(points, fills, titles, stroke=PAPER, width=0.5, name="difference")]
    for mark in ("high", "low"):
        for i in np.flatnonzero(np.array(marked) == mark):
            x, y = points[i].mean(axis=0)
            items.append(Label(x, y + 4, MARKS[mark], 12, "middle", readable_on(fills[i]), bold=True))
    at = np.argwhere(changed)
    (top, left), (bottom, right) = at.min(axis=0), at.max(axis=0) + 1
    frame = (
        np.array([box.x, box.y])
        + np.array([(left, top), (right, top), (right, bottom), (left, bottom)]) * CELL
    )
    whole = np.array([box.x, box.y]) + corners * np.array([columns, rows]) * CELL
    for ring, width in ((whole, 0.8), (frame, 2.2)):
        items.append(Strokes(np.stack([ring, np.roll(ring, -1, axis=0)], axis=1), INK, width, name="changed"))
    return items


def _bars(x: float, y: float, reading: Reading, method: str | None, scope: str) -> list:
    """How far the output moves, in the scope and elsewhere: full width is once its length, or more."""
    names = {"token": ("that token", "other tokens"), "feature": ("that feature", "other features")}
    rows = zip(names.get(scope, ("everything",)), (reading.inside, reading.outside), strict=False)
    items: list = []
    for i, (name, shares) in enumerate(rows):
        share, y0 = shares[method], y + 36 * i
        full = 8 * CELL[0]
        quad = np.array([(0, 5), (1, 5), (1, 13), (0, 13)], float)
        items.append(Shapes((quad * [full, 1] + [x, y0])[None], ["#EFEFEF"], name="bar-ground"))
        filled = quad * [full * min(share, 1.0), 1] + [x, y0]
        items.append(Shapes(filled[None], [INK], name="bar"))
        items.append(Label(x, y0, f"{name}: {percent(share)}"))
    return items


def _scale(x: float, y: float, limit: float) -> list:
    """What the colours mean: one map of colours, one limit for x and one for the differences."""
    items: list = [Label(x, y + 12, "colour: −limit")]
    x += 100
    quads = np.array([[(0, 2), (6, 2), (6, 14), (0, 14)]] * 21) + [[[x + 6 * i, y]] for i in range(21)]
    items.append(Shapes(quads, VALUE_FILLS[::5], name="legend"))
    text = (
        f"+limit; the limit is {limit:.3g} for x, {LIMIT:g} for what an output moves by (+ and – lie beyond)"
    )
    items.append(Label(x + 132, y + 12, text))
    return items


def draw_invariance(
    scope: str = "token", scale: float = 4.0, shift: float = 1.0, weights: float = 1.0, **options
):
    """What a change of its input does to LN, RMSNorm, BN and to no norm, as a matplotlib Figure with alt text.

    scope: "token", "feature" or "all", the cells that become scale · x + shift; weights: factor of the layer in
    front; evaluation: whether BatchNorm uses stored statistics.  Raises ValueError for values outside of `SCALES`,
    `SHIFTS` and `SCOPES`.
    """
    state = check(State(scope, scale, shift, weights, **options))
    return figure(invariance_scene(state, read(state), with_text=True))
