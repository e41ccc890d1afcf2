"""A tensor cut into sets by any method: as a block, with every cell unfolded, before and after the normalization."""

import math
import operator
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from normviz.draw.common import as_array
from normviz.draw.tensors import methods_scene, set_statistics
from normviz.explore.base import Code, Control, Explorer, Held, given
from normviz.explore.hand import cell_numbers
from normviz.fields import check, choice, flag, integer, number
from normviz.norms import AXIS_NAMES, LAYOUTS, METHODS, Cut, axes_of, cut, divisors, normalize, normalize_steps
from normviz.norms.cuts import Axes as TensorAxes
from normviz.picture.block import Cells, block_backdrop, block_cursor, cells_legend, sheet_backdrop, sheet_cursor
from normviz.picture.chart import before_after
from normviz.picture.color import set_fill, value_limit
from normviz.picture.scene import Box, Handle, Label, Scene, arrows
from normviz.picture.text import number as words
from normviz.picture.text import plural
from normviz.samples import digit_features

STEPS = ("raw", "centred", "scaled", "affine")
#: ε from 1e-8 to 1, two values to a factor of ten
EPS = {f"{value:.2g}": value for value in (float(f"{10 ** (k / 2):.2g}") for k in range(-16, 1))}
#: The most cells along an axis that sliders reach; a larger tensor is explored by its first part
REACH = {"sample": 8, "channel": 16, "position": 8}
WIDTH, HEIGHT = 930, 452
BLOCK, SHEET = Box(8, 26, 404, 388), Box(430, 28, WIDTH - 440, 232)
SHEET_CELLS = 2048  # that the unfolded view can show so that the eye still tells them apart


class Part(NamedTuple):
    """What is normalized, and how: all that the numbers depend on."""

    x: Held | None  # of the reader's, or None for the digits
    sets: Cut  # the method, bound to the sizes of the part shown
    eps: float
    gamma: float
    beta: float

    def snippet(self, dtype) -> str:
        """The same in torch."""
        return self.sets.snippet(self.eps, self.gamma, self.beta, double=dtype == np.float64)

    def affine(self, dtype) -> dict[str, np.ndarray | None]:
        """γ and β everywhere; RMSNorm has no bias in torch, nor here."""
        weight, bias = (np.full(self.sets.affine_shape, value, dtype) for value in (self.gamma, self.beta))
        return {"weight": weight, "bias": bias if self.sets.row.centred else None}


class Reading(NamedTuple):
    """What there is to know of one tensor under one method."""

    x: np.ndarray  # the part shown, float32 or float64, of the shape `sets.shape`
    sets: Cut  # which has labels, count and title
    steps: dict[str, np.ndarray]  # raw, centred, scaled, affine: float64 of x's shape
    refusal: str  # why the method cannot be computed on x, or ""
    size: int  # of the cursor's set, as are the next
    mean: float  # for RMSNorm 0
    std: float  # for RMSNorm the root mean square


@lru_cache(maxsize=32)
def tensor(x: Held | None, sizes: tuple[int, ...]) -> np.ndarray:
    """The first part of the reader's tensor, or of the digits."""
    return digit_features(*sizes) if x is None else np.ascontiguousarray(x.value[tuple(map(slice, sizes))])


@lru_cache(maxsize=32)
def steps_of(part: Part) -> tuple[dict[str, np.ndarray], float, str]:
    """The four steps in float64, their scale's limit, and why there are none: a method may refuse, as torch does."""
    x = tensor(part.x, part.sets.shape).astype(float)
    try:
        with np.errstate(all="ignore"):  # NaN and Inf are the reader's own
            steps = normalize_steps(x, part.sets, eps=part.eps, **part.affine(float))
    except ValueError as error:
        return dict.fromkeys(STEPS, x), value_limit(x), str(error)
    return {name: getattr(steps, name) for name in STEPS}, value_limit(x, steps.affine), ""


@lru_cache(maxsize=64)
def deviation(part: Part) -> float:
    """The largest difference between torch's module, run as the snippet, and `normalize`; NaN if but one has NaN."""
    import torch

    x, threads = tensor(part.x, part.sets.shape), torch.get_num_threads()
    names = {"nn": torch.nn, "x": torch.from_numpy(x)}
    torch.set_num_threads(1)  # for a few hundred numbers, waking a second thread costs more than the sum
    try:
        exec(part.snippet(x.dtype), names)
    finally:
        torch.set_num_threads(threads)
    theirs = names["y"].detach().numpy()
    with np.errstate(all="ignore"):
        ours = normalize(x, part.sets, eps=part.eps, **part.affine(x.dtype))
        agreed = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        return float(np.where(agreed, 0.0, np.abs(ours - theirs)).max())


@lru_cache(maxsize=16)
def still(part: Part, color: str, step: str, sample: int) -> tuple[Cells, Cells, list]:
    """What a cursor leaves as it is: the cells of the block, those of the unfolded view, and the backdrop of both, the
    same list whenever it is the same picture.

    sample: the middle one of those in the unfolded view.
    """
    axes, (steps, limit, _) = part.sets.axes, steps_of(part)
    look = {"cursor": (sample, *(0 for _ in axes.shape[1:])), "color": color, "limit": limit}
    cells = Cells.of(axes, part.sets.labels, steps[step], **look)
    small = Cells.of(axes, part.sets.labels, steps[step], **look, drawn=(rows_of(axes), *cells.shape[1:]))
    heading = f"Every cell, unfolded ({f'{step} values' if color == 'value' else 'coloured by set'})"
    if small.shape != cells.shape:
        heading += f": samples {small.start[0]}–{small.start[0] + small.shape[0] - 1} only"
    labels = [Label(12, 18, part.sets.title, 15, bold=True), Label(SHEET.x, 18, heading, bold=True)]
    return cells, small, [*labels, *block_backdrop(cells, BLOCK), *sheet_backdrop(small, SHEET)]


@lru_cache(maxsize=256)
def histograms(part: Part, step: str, number: int, hue: int) -> list:
    """The set with this number among all cells, before and after."""
    steps, limit, refusal = steps_of(part)
    headings, box = ("before: raw", "not defined" if refusal else f"after: {step}"), Box(SHEET.x, 276, SHEET.width, 172)
    arrays, inside = (steps["raw"], steps[step]), part.sets.labels == number
    return before_after(box, headings, arrays, inside, limit=limit, fill=set_fill(hue))


@lru_cache(maxsize=16)
def numbers_of(part: Part, step: str) -> dict:
    """What the picture tells of a cell under the pointer: its value before and after, and its set's statistics."""
    steps, _, refusal = steps_of(part)
    bias = part.beta if part.sets.row.centred else 0.0  # RMSNorm has none
    after = {"step": step, "eps": part.eps, "weight": part.gamma, "bias": bias}
    return cell_numbers(steps["raw"], part.sets, None if refusal or step == "raw" else after)


def cursor_keys(axes: TensorAxes) -> dict[str, tuple[str, int]]:
    """Which arrows step which axis: within a tile the positions, with Shift to another tile; tiles alone for (N, C)."""
    letters = axes.letters.lower()
    at, tile = [letters[i] for i in axes.positions], (letters[axes.channel], letters[0])
    return arrows(at[-1], at[0] if len(at) > 1 else "", *tile) if at else arrows(*tile)


def rows_of(axes: TensorAxes) -> int:
    """How many samples the unfolded view has room for."""
    return max(1, min(axes.shape[0], SHEET_CELLS * axes.shape[0] // math.prod(axes.shape)))


@dataclass(frozen=True)
class Axes(Explorer):
    """Which cells of a tensor share a mean and a variance, under every method, and what that makes of them.

    x: floating-point or integer tensor or array, (N, C), (N, C, L), (N, C, H, W), or (B, T, D) with layout "BTD"; None
    for handwritten digits through a bank of edge and blob filters.  A tensor larger than the sliders reach is explored
    by its first part, and the notes say so.
    num_groups: those that were asked for; where they do not divide C, the nearest divisor below is taken (`groups`).
    sizes, cursor: one integer for each axis.

    Raises TypeError if x is not numeric; ValueError for a wrong rank or an empty axis, too.
    """

    ahead = ("method", "groups", "color", "step")

    x: Held | None = given()
    layout: str = choice("NCHW", tuple(LAYOUTS))
    method: str = choice("batch", {row.name: key for key, row in METHODS.items()}, "method")
    num_groups: int | None = integer(None, 1, none="for two, or C where C is odd")
    color: str = choice("value", ("set", "value"), "colour by")
    step: str = choice("scaled", STEPS, "step")
    eps: float = choice(1e-5, EPS, "ε")
    gamma: float = number(1.0, least=-3, most=3, step=0.1, label="γ (affine)")
    beta: float = number(0.0, least=-3, most=3, step=0.1, label="β (affine)")
    compare: bool = flag(False, "all methods side by side")
    sizes: tuple[int, ...] | None = given()
    cursor: tuple[int, ...] | None = given()

    def hold(self, name: str, value: Any) -> Any:
        if name == "x":
            double = str(getattr(value, "dtype", "")).endswith("float64")
            return Held(as_array(value).astype(np.float64 if double else np.float32))
        try:
            return tuple(map(operator.index, value))
        except TypeError:
            raise ValueError(f"{name}={value!r} must be integers, one for each axis of x") from None

    def settle(self) -> None:
        check(self)
        if self.x is None and self.layout != "NCHW":
            raise ValueError(f"layout={self.layout!r} needs a tensor x of your own; the digits are in layout 'NCHW'")
        roles = self.whole.roles
        if self.sizes is None:
            wanted = {"sample": 4, "channel": 8, "position": 4 if len(roles) == 4 else 6}
            self._set("sizes", tuple(min(most, wanted[role]) for most, role in zip(self.largest, roles, strict=True)))
        if self.cursor is None:
            self._set("cursor", tuple((size - 1) // 2 for size in self.sizes))
        ends = {"sizes": ((1,) * len(roles), self.largest), "cursor": ((0,) * len(roles), [n - 1 for n in self.sizes])}
        for name, (low, high) in ends.items():
            value = getattr(self, name)
            if len(value) != len(roles) or any(not a <= v <= b for a, v, b in zip(low, value, high, strict=True)):
                raise ValueError(f"{name}={value} must be from {low} to {tuple(high)}")
        if self.num_groups is None:
            channels = self.sizes[self.whole.channel]
            self._set("num_groups", channels if channels % 2 else 2)

    @cached_property
    def whole(self) -> TensorAxes:
        """The axes of the whole tensor."""
        return axes_of((8, 8, 8, 8) if self.x is None else self.x.value.shape, self.layout)

    @cached_property
    def largest(self) -> tuple[int, ...]:
        """How far the sliders reach."""
        axes = self.whole
        reach = REACH | ({"position": 64} if len(axes.positions) == 1 else {})  # one alone has room for more
        return tuple(min(size, reach[role]) for size, role in zip(axes.shape, axes.roles, strict=True))

    @cached_property
    def groups(self) -> int:
        """The divisor of C nearest to what was asked for, from below: C may be moved back and forth."""
        return max(g for g in divisors(self.sizes[self.whole.channel]) if g <= self.num_groups)

    def offer(self) -> dict[str, Control]:
        axes, plain = self.whole, super().offer()
        used = METHODS[self.method].grouped or self.compare
        groups = Control("groups", "choice", "groups G", self.groups, useful=used)
        groups = groups.among(divisors(self.sizes[axes.channel]))
        offered = {"method": plain["method"], "groups": groups, "compare": plain["compare"]}
        for letter, most, size, at in zip(axes.letters, self.largest, self.sizes, self.cursor, strict=True):
            small = letter.lower()
            offered[letter] = Control(letter, "integer", f"{letter} ({AXIS_NAMES[letter]})", size, low=1, high=most)
            offered[small] = Control(small, "integer", small, at, low=0, high=size - 1, hand=True)
        return offered | {name: plain[name] for name in ("color", "step", "eps", "gamma", "beta")}

    def turn(self, **changes: Any) -> Explorer:
        if not changes.keys() <= self.controls().keys():
            return super().turn(**changes)  # which refuses it
        letters, groups = self.whole.letters, changes.pop("groups", None)
        sizes = [changes.pop(letter, size) for letter, size in zip(letters, self.sizes, strict=True)]
        rows = zip(letters, self.cursor, sizes, strict=True)
        cursor = [changes.pop(letter.lower(), min(at, size - 1)) for letter, at, size in rows]
        state = replace(self, sizes=sizes, cursor=cursor, num_groups=groups or self.num_groups, **changes)
        if groups not in (None, state.groups):
            raise ValueError(f"groups={groups!r} must be one of {state.controls()['groups'].values}")
        return state

    def part(self, method: str) -> Part:
        """The part of the tensor that is shown, under some method."""
        sets = cut(method, self.sizes, self.groups if METHODS[method].grouped else None, self.layout)
        return Part(self.x, sets, self.eps, self.gamma, self.beta)

    def read(self) -> Reading:
        part = self.part(self.method)
        steps, _, refusal = steps_of(part)
        known = set_statistics(steps["raw"], part.sets, self.cursor)
        return Reading(tensor(self.x, self.sizes), part.sets, steps, refusal, **known)

    def say(self, reading: Reading) -> str:
        raw, every = reading.steps["raw"], [reading.sets]
        if self.compare:
            every = [self.part(method).sets for method in METHODS]
        return " ".join(sets.caption(**set_statistics(raw, sets, self.cursor)) for sets in every)

    def notes(self, reading: Reading) -> list[str]:
        sets, whole, part, var = reading.sets, self.whole.shape, self.part(self.method), reading.std**2
        known = f"mean square = {var:.4g}; RMSNorm subtracts no mean"
        if sets.row.centred:
            known = f"μ = {reading.mean:.4g}, σ² = {var:.4g}"
        texts = [
            f"The cursor's set has {plural(reading.size, 'cell')}: {known}.",
            f"{plural(sets.count.sets, 'set')}, {sets.count.formula} = {sets.count.values} statistics.",
            *(f"On this shape the sets are those of {METHODS[o].name}: the two coincide." for o in sets.same_as),
        ]
        if reading.refusal:
            texts.append(f"Refused by torch: {reading.refusal}")
        notes, ran = [" ".join(texts)], "was not run here"
        if self.largest != whole:
            reach = f"x[{', '.join(f':{size}' for size in self.largest)}], and the numbers are those of the part shown"
            notes.append(f"Your tensor has shape {whole}; the sliders reach {reach}.")
        if not reading.refusal and "torch" in sys.modules:
            ran = f"ran just now: on this tensor it is within {words(deviation(part), 2)} of nv.normalize"
        return [*notes, Code(part.snippet(reading.x.dtype)), f"The code above {ran}."]

    def live(self):
        with suppress(ImportError):
            import torch  # noqa: F401 (which runs the code that is shown)
        return super().live()

    @property
    def parts(self) -> list[tuple[float, ...]]:
        if self.compare:
            return []
        return [(0, 0, 418, 452), (422, 0, 930, 262), (422, 262, 674, 452), (678, 262, 928, 452)]

    def draw(self, reading: Reading) -> Scene:
        axes, part, n = reading.sets.axes, self.part(self.method), self.cursor[0]
        whole = Box(BLOCK.x, BLOCK.y, WIDTH - 2 * BLOCK.x, SHEET.bottom - BLOCK.y)
        cursor = Handle("cursor", (*axes.letters.lower(),), whole, cells=True, sets=True, keys=cursor_keys(axes))
        if self.compare:
            values = {method: steps_of(self.part(method))[0][self.step] for method in METHODS}
            scene = methods_scene(
                reading.x, tuple(METHODS), self.groups, cursor=self.cursor, color=self.color, layout=self.layout,
                values=values, panel=(WIDTH / 3, 300),
            )  # fmt: skip
            scene.handles = [replace(cursor, box=Box(0, 0, scene.width, scene.height), sets=False)]
            return scene
        half = rows_of(axes) // 2
        middle = min(max(n, half), axes.shape[0] - rows_of(axes) + half)
        cells, small, backdrop = still(part, self.color, self.step, middle)
        at = Cells.of(axes, reading.sets.labels, reading.x, cursor=self.cursor).cursor
        cells, small = replace(cells, cursor=at), replace(small, cursor=(n - small.start[0], *at[1:]))
        items = [*block_cursor(cells, BLOCK), *sheet_cursor(small, SHEET), *cells_legend(cells, 14, HEIGHT - 10)]
        items += histograms(part, self.step, int(cells.labels[at]), int(cells.hues[at]))
        return Scene(WIDTH, HEIGHT, items, backdrop=backdrop, handles=[cursor], numbers=numbers_of(part, self.step))
