"""What a normalized output does not notice: its input scaled or shifted, its weights scaled.

Sixteen patches of a digit go through a linear layer without bias (the filter bank of `samples`) and then through a
norm.  The input of the norm is changed, and what the output moves by is shown cell by cell.
Source: Ba, Kiros & Hinton 2016 (arXiv:1607.06450), section 5.1 and table 1.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar, NamedTuple

import numpy as np

from normviz.explore.base import Explorer
from normviz.fields import choice, number
from normviz.norms import METHODS, normalize
from normviz.picture.color import GROUND, INK, MARKS, MUTED, PAPER, VALUE_FILLS, readable_on, value_fills, value_limit
from normviz.picture.scene import Box, Handle, Label, Scene, Shapes, Strokes, arrows, grid_rects, rect, rects, ring
from normviz.picture.text import percent
from normviz.samples import digit_features

#: What the output comes from, and its name
SHOWN = {None: "no norm"} | {method: METHODS[method].family for method in ("layer_token", "rms", "batch")}
TOKENS, FEATURES = 16, 8
TOKEN, FEATURE = 5, 2  # the ones that are changed
SCALES = {f"{scale:g}": scale for scale in (0.125, 0.25, 0.5, 0.8, 1.0, 1.25, 2.0, 4.0, 8.0)}
STILL = 0.01  # an output that moves by less than this share of its length is called still; what is left is ε
LIMIT = 2.0  # of the maps of differences, in units of a normalized feature
CELL = (15.5, 15.0)  # px, a feature wide, a token high


#: What a scope of the change is called, where it is, and the cells themselves
SCOPES = {
    "token": ("one token", f"token {TOKEN}", np.s_[TOKEN : TOKEN + 1, :]),
    "feature": ("one feature", f"feature {FEATURE}", np.s_[:, FEATURE : FEATURE + 1]),
    "all": ("everything", "every cell", np.s_[:, :]),
}


class Reading(NamedTuple):
    """What the change does to the norm's input, and by method (None: no norm) to the outputs."""

    after: np.ndarray  # (16, 8), the changed input
    moves: dict[str | None, np.ndarray]  # (16, 8) output after minus output before
    inside: dict[str | None, float]  # length of that over the length of the output before, in the scope
    outside: dict[str | None, float]  # the same of the other cells, NaN if there are none

    def is_still(self, method: str | None) -> bool:
        """Whether the whole output moves by less than STILL of its length."""
        return max(self.inside[method], np.nan_to_num(self.outside[method])) < STILL


@lru_cache(maxsize=1)
def summed_inputs() -> np.ndarray:
    """The norm's input before any change: float64 (16 tokens, 8 features), from the patches of the first digit."""
    return digit_features(1, FEATURES, 4, 4)[0].reshape(FEATURES, TOKENS).T.astype(float)


def output(x: np.ndarray, method: str | None, evaluation: bool) -> np.ndarray:
    """x (T, D) through a norm.  evaluation: BatchNorm has the statistics of the unchanged input stored."""
    if method is None:
        return x
    stored = summed_inputs() if evaluation and METHODS[method].running else None
    running = None if stored is None else (stored.mean(0), stored.var(0, ddof=1))
    return normalize(x, method, running=running, training=running is None)


def share(move: np.ndarray, old: np.ndarray) -> float:
    """Length of a difference over the length of the output before."""
    return float(np.linalg.norm(move) / np.linalg.norm(old)) if move.size else float("nan")


@dataclass(frozen=True)
class Invariance(Explorer):
    """How far an output moves when the norm's input changes, or the weights before it.

    scope: the cells that become scale · x + shift; weights: factor of the linear layer before the norm, which scales
    every cell; evaluation: BatchNorm has the statistics of the unchanged input stored.
    """

    stops: ClassVar = {"scale": (0.25, 0.5, 1.0, 2.0, 4.0)}
    parts = (
        *((left, 0, right, 372) for left, right in pairwise((0, 188, 348, 508, 670, 840))),
        *((0, 372, 272, 398), (272, 372, 800, 416)),
    )

    scope: str = choice("token", {name: key for key, (name, *_) in SCOPES.items()}, "change")
    scale: float = choice(4.0, SCALES, "scale x")
    shift: float = number(1.0, least=-3, most=3, step=0.25, label="shift x")
    weights: float = choice(1.0, SCALES, "weights ×")
    evaluation: bool = choice(False, {"training": False, "evaluation": True}, "mode")

    def read(self) -> Reading:
        before = summed_inputs()
        changed = np.zeros(before.shape, bool)
        changed[SCOPES[self.scope][2]] = True
        after = self.weights * before
        after[changed] = self.scale * after[changed] + self.shift
        reading = Reading(after, {}, {}, {})
        for method in SHOWN:
            old = output(before, method, self.evaluation)
            move = reading.moves[method] = output(after, method, self.evaluation) - old
            reading.inside[method] = share(move[changed], old[changed])
            reading.outside[method] = share(move[~changed], old[~changed])
        return reading

    def say(self, reading: Reading) -> str:
        where, moves = SCOPES[self.scope][1], []
        for method, name in SHOWN.items():
            rest = "" if self.scope == "all" else f", {percent(reading.outside[method])} elsewhere"
            moves.append(f"{name}: {percent(reading.inside[method])} in {where}{rest}")
        shift = f" {'−' if self.shift < 0 else '+'} {abs(self.shift):g}" if self.shift else ""
        mode = "evaluation" if self.evaluation else "training"
        becomes = f"Weights × {self.weights:g}; {where} becomes {self.scale:g}·x{shift}; {mode}"
        return f"{becomes}. The output moves by: {'; '.join(moves)}."

    def draw(self, reading: Reading) -> Scene:
        """The changed input, and for each method the difference that the change makes to its output."""
        limit, wide, high = value_limit(summed_inputs()), FEATURES * CELL[0], TOKENS * CELL[1]
        box, swatches = Box(44, 62, wide, high), 144 + 6 * np.arange(len(VALUE_FILLS[::5]))
        ends = f"+limit; the limit is {limit:.3g} for x, {LIMIT:g} for what an output moves by (+ and – lie beyond)"
        items = [
            *self._map(box, reading.after, limit, "x"),
            Label(box.x, 20, "the norm's input x", 13, bold=True), Label(box.x, 40, "as changed"),
            Label(16, box.center[1], "tokens", anchor="middle", angle=90),
            Label(box.center[0], box.bottom + 16, "features", anchor="middle"),
            *(Label(box.x - 6, 62 + (k + 0.8) * CELL[1], str(k), anchor="end", color=MUTED) for k in range(0, 16, 5)),
            Label(44, 386, "colour: −limit"), Label(276, 386, ends),
            Shapes(rects(swatches, 376, swatches + 6, 388), VALUE_FILLS[::5], name="legend"),
        ]  # fmt: skip
        for k, (method, name) in enumerate(SHOWN.items()):
            box, still = Box(206 + k * 161, 62, wide, high), reading.is_still(method)
            items += [
                *self._map(box, reading.moves[method], LIMIT, f"{name}, moved by"),
                Label(box.x, 20, name, 13, bold=True),
                Label(box.x, 40, "● stands still" if still else "moves", bold=still),
                *self._bars(box, reading.inside[method], reading.outside[method]),
            ]
        change = Handle(
            "change of x", ("scale", "shift"), Box(44, 62, wide, high),
            drag={"scale": (0.0, -1 / 40), "shift": (0.02, 0.0)},
            keys=arrows("shift") | {"ArrowUp": ("scale", 1), "ArrowDown": ("scale", -1)},
        )  # fmt: skip
        return Scene(840, 398, items, handles=[change])

    def _map(self, box: Box, values: np.ndarray, limit: float, what: str) -> list:
        """Cells coloured by value, the changed ones framed."""
        points = grid_rects(box, TOKENS, FEATURES)
        fills, marks = value_fills(values.ravel(), limit)
        titles = [f"token {r}, feature {c}: {what} {v:.3g}" for (r, c), v in np.ndenumerate(values)]
        signs = [
            Label(*(corners.mean(axis=0) + (0, 4)).tolist(), MARKS[mark], 12, "middle", readable_on(fill), bold=True)
            for corners, fill, mark in zip(points, fills, marks, strict=True)
            if mark
        ]
        changed = points.reshape(TOKENS, FEATURES, 4, 2)[SCOPES[self.scope][2]]
        return [
            Shapes(points, fills, titles, stroke=PAPER, width=0.5, name="difference"), *signs,
            Strokes(ring(rect(box)), INK, 0.8, name="edge"),
            Strokes(ring(rects(*changed[0, 0, 0], *changed[-1, -1, 2])), INK, 2.2, name="changed"),
        ]  # fmt: skip

    def _bars(self, box: Box, *shares: float) -> list:
        """How far the output moves, in the scope and elsewhere: full width is once its length, or more."""
        items, y = [], box.bottom + 16
        bars = ("everything",) if self.scope == "all" else (f"that {self.scope}", f"other {self.scope}s")
        for name, moved in zip(bars, shares, strict=False):
            for full, fill, kind in ((1.0, GROUND, "bar-ground"), (min(moved, 1.0), INK, "bar")):
                items.append(Shapes(rects(box.x, y + 5, box.x + box.width * full, y + 13), [fill], name=kind))
            items.append(Label(box.x, y, f"{name}: {percent(moved)}"))
            y += 36
        return items
