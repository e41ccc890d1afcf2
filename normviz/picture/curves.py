"""Charts of training runs as scenes: loss, outlier ratio, maps of verdicts, accuracies.  numpy only.

Runs come as plain data: a history with `.recipe.arm` and `.loss`, or a dict of arm -> list of arrays.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from normviz.picture.colors import GREY, HUES, INK, MUTED, PAPER, readable_on
from normviz.picture.figures import NOTEBOOK_WIDTH
from normviz.picture.png import figure
from normviz.picture.scene import Box, Label, Scene, Shapes, Strokes, wrap

GRID = "#E4E4E4"
CHANCE = math.log(10)  # the loss of a model that says the same for every image of ten classes


class Style(NamedTuple):
    """How an arm looks in every chart: never by colour alone."""

    name: str
    color: str
    marker: str  # a key of MARKERS
    dashed: bool = False


ARM_STYLES = {
    "ln": Style("LN", HUES[4], "circle"),
    "bn": Style("BN", HUES[5], "square", dashed=True),
    "bn+ffnbn": Style("BN + FFN-BN", HUES[2], "triangle"),
    "rms": Style("RMSNorm", HUES[6], "diamond", dashed=True),
    "folded": Style("folded", HUES[0], "diamond"),
    "none": Style("no norm", MUTED, "star"),
    "in": Style("IN", HUES[6], "diamond"),
    "gn": Style("GN", HUES[2], "triangle"),
    "post-norm": Style("post-norm", HUES[5], "square", dashed=True),
    "pre-norm": Style("pre-norm", HUES[4], "circle"),
    "post-norm+warmup": Style("post-norm, warm-up", HUES[0], "triangle"),
    "pre-norm+warmup": Style("pre-norm, warm-up", HUES[2], "diamond"),
    "bn-input": Style("BN on input", HUES[0], "triangle"),
    "bn-step": Style("BN per step", HUES[6], "diamond", dashed=True),
    "bn-padded": Style("BN with padding", HUES[1], "square"),
}


def _polygon(corners: int, turn: float) -> np.ndarray:
    angles = 2 * np.pi * (np.arange(corners) / corners + turn)
    return np.stack([np.sin(angles), -np.cos(angles)], axis=1)


MARKERS = {
    "circle": _polygon(12, 0.0), "square": 1.1 * _polygon(4, 0.125), "triangle": 1.2 * _polygon(3, 0.0),
    "diamond": 1.15 * _polygon(4, 0.0), "star": _polygon(12, 0.0) * np.tile([1.25, 0.55], 6)[:, None],
}  # fmt: skip

#: Each verdict has a letter as well as a colour
KINDS = {
    "trained": ("T", HUES[2]), "delayed": ("D", HUES[3]), "stalled": ("S", GREY),
    "diverged": ("X", HUES[5]), "crashed": ("C", HUES[6]),
}  # fmt: skip


def style_of(arm: str) -> Style:
    """The look of an arm; arms outside of the four main ones share grey and a star, and are told by name."""
    return ARM_STYLES.get(arm, Style(arm, MUTED, "star", dashed=True))


def marks(points, arm: str, radius: float = 4.0) -> Shapes:
    """The arm's marker at points (K, 2)."""
    points = np.reshape(points, (-1, 2))
    style = style_of(arm)
    outline = points[:, None] + radius * MARKERS[style.marker]
    return Shapes(outline, [style.color] * len(points), stroke=INK, width=0.7, name=f"mark-{arm}")


class Frame:
    """Axes: from data to pixels, with grid, ticks and names.  What lies beyond the limits is drawn at the rim."""

    def __init__(self, box: Box, x: tuple[float, float], y: tuple[float, float], *, log: bool = False):
        self.box, self.x, self.log = box, x, log
        self.y = tuple(map(math.log10, y)) if log else y

    def __call__(self, x, y) -> np.ndarray:
        x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        if self.log:
            y = np.log10(np.maximum(y, 1e-300))
        across = (x - self.x[0]) / (self.x[1] - self.x[0] or 1)
        up = np.clip((y - self.y[0]) / (self.y[1] - self.y[0] or 1), 0, 1)
        return np.stack([self.box.x + across * self.box.width, self.box.y + (1 - up) * self.box.height], -1)

    def axes(
        self, x_name: str, y_name: str, heading: str = "", x_ticks: dict[float, str] | None = None
    ) -> list:
        box, left, bottom = self.box, self.box.x, self.box.y + self.box.height
        items: list = [Label(left, box.y - 10, heading, 13, bold=True)] if heading else []
        for value in self._ticks(self.y, self.log):
            real = 10**value if self.log else value
            at = self(self.x[0], real)[1]
            items.append(Strokes(np.array([[(left, at), (left + box.width, at)]]), GRID))
            items.append(Label(left - 6, at + 4, _number(real), anchor="end", color=MUTED))
        for value, text in (x_ticks or {v: _number(v) for v in self._ticks(self.x, False)}).items():
            items.append(Label(self(value, 1.0)[0], bottom + 17, text, anchor="middle", color=MUTED))
        corner = [[(left, box.y), (left, bottom)], [(left, bottom), (left + box.width, bottom)]]
        items.append(Strokes(np.array(corner), INK, 1.0))
        items.append(Label(left + box.width / 2, bottom + 34, x_name, anchor="middle"))
        items.append(Label(left - 42, box.y + box.height / 2, y_name, anchor="middle", angle=90))
        return items

    @staticmethod
    def _ticks(span, log: bool) -> np.ndarray:
        low, high = span
        if log and high - low >= 1:
            every = max(1, math.ceil((high - low) / 8))  # powers of ten, or of so many tens
            return np.arange(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1.0, every)
        if log:  # less than a factor of ten: 1, 2, 5
            steps = np.log10(np.outer(10.0 ** np.arange(-6, 7), (1, 2, 5)).ravel())
            return steps[(steps >= low - 1e-9) & (steps <= high + 1e-9)]
        raw = (high - low) / 5 or 1.0
        base = 10 ** math.floor(math.log10(raw))
        step = next(k * base for k in (1, 2, 5, 10) if k * base >= raw * 0.999)
        return np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1) * step


def _number(value: float) -> str:
    if value >= 1e5 and (power := round(math.log10(value), 6)).is_integer():
        return "10" + str(int(power)).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{0.0 if abs(value) < 1e-12 else value:.6g}".replace("-", "−")


def path(frame: Frame, x, y) -> np.ndarray:
    """Segments (S, 2, 2) of a curve; a value that is not finite leaves a gap."""
    points = frame(x, np.where(np.isfinite(y), y, 1.0))
    sound = np.isfinite(y)
    whole = sound[:-1] & sound[1:]
    return np.stack([points[:-1], points[1:]], axis=1)[whole]


def key(arms: Iterable[str], x: float, y: float) -> list:
    """What the curves are called."""
    items: list = []
    for arm in arms:
        style = style_of(arm)
        items.append(Strokes(np.array([[(x, y - 4), (x + 26, y - 4)]]), style.color, 2.4, style.dashed))
        items += [marks([(x + 13, y - 4)], arm), Label(x + 32, y, style.name)]
        x += 56 + 7.5 * len(style.name)
    return items


def by_arm(runs) -> dict[str, list[np.ndarray]]:
    """Loss curves by arm from histories or from a dict of arm -> one array or several.  Raises ValueError if empty."""
    found: dict[str, list[np.ndarray]] = {}
    if isinstance(runs, Mapping):
        for arm, curves in runs.items():
            one = len(curves) and np.ndim(curves[0]) == 0
            found[arm] = [np.asarray(c, float) for c in ([curves] if one else curves)]
    else:
        for run in runs:
            found.setdefault(run.recipe.arm, []).append(np.asarray(run.loss, float))
    if not any(len(c) for curves in found.values() for c in curves):
        raise ValueError(f"runs={runs!r} holds no curve; it takes histories, or a dict of arm -> arrays")
    return found


def smooth(curve: np.ndarray, window: int) -> np.ndarray:
    """Means over a trailing window, shorter at the beginning; NaN where the window holds a value that is not finite."""
    total = np.concatenate([[0.0], np.cumsum(np.where(np.isfinite(curve), curve, 0.0))])
    bad = np.concatenate([[0], np.cumsum(~np.isfinite(curve))])
    end = np.arange(1, len(curve) + 1)
    start = np.maximum(0, end - window)
    return np.where(bad[end] > bad[start], np.nan, (total[end] - total[start]) / (end - start))


def loss_curves(
    runs,
    *,
    log: bool = False,
    chance: float = CHANCE,
    heading: str = "Training loss",
    steps: int | None = None,
    keyed: bool = True,
    size=(NOTEBOOK_WIDTH, 330),
) -> Scene:
    """Training loss over steps: every seed a thin line, the median of an arm's seeds a thick one, NaN a cross.

    runs: see `by_arm`.  steps: how far the axis reaches; by default to the end of the longest run.
    keyed: with the names of the arms; several panels need them once only.
    Curves are smoothed over a fiftieth of the steps; the numbers in the alt text are not.
    """
    arms = by_arm(runs)
    known = max(len(c) for curves in arms.values() for c in curves)
    low = min((float(np.nanmin(c)) for cs in arms.values() for c in cs if np.isfinite(c).any()), default=0.1)
    limits = (max(1e-4, min(low, 0.5)), 2 * chance) if log else (0.0, 1.35 * chance)
    width, height = size
    frame = Frame(Box(62, 58, width - 82, height - 104), (0, max(steps or known, 2)), limits, log=log)
    scene = Scene(width, height, "", frame.axes("step", "training loss", heading))
    line = frame([0, frame.x[1]], [chance, chance])
    scene.items += [Strokes(line[None], MUTED, 1.2, dashed=True, name="chance")]
    scene.items += [Label(line[1, 0], line[1, 1] - 5, f"chance {chance:.2f}", anchor="end", color=MUTED)]
    told, window = [], max(1, known // 50)
    for arm, curves in arms.items():
        style = style_of(arm)
        even = np.full((len(curves), known), np.nan)
        for row, curve in zip(even, curves, strict=True):
            row[: len(curve)] = smooth(curve, window)
            scene.items.append(
                Strokes(path(frame, np.arange(len(curve)), row[: len(curve)]), style.color, 0.7)
            )
            if (bad := np.flatnonzero(~np.isfinite(curve))).size:
                x, y = frame(bad[0], limits[1])
                scene.items.append(Label(x, y + 12, "× NaN", anchor="middle", bold=True))
        at = np.flatnonzero(np.isfinite(even).any(axis=0))
        middle = np.nanmedian(even[:, at], axis=0)
        scene.items.append(Strokes(path(frame, at, middle), style.color, 2.6, style.dashed, f"median-{arm}"))
        places = np.linspace(len(at) * 0.06, len(at) - 1, 9).astype(int)[: len(at)]
        scene.items.append(marks(frame(at[places], middle[places]), arm))
        told.append(_tell_loss(style.name, curves))
    scene.items += key(arms, 62 + 9 * len(heading), 48) if keyed else []
    scene.alt = f"Training loss over {known} steps. {' '.join(told)} Chance is {chance:.2f}."
    return scene


def _tell_loss(name: str, curves) -> str:
    ends = np.array([c[-max(1, len(c) // 10) :].mean() for c in curves if len(c)])
    finite = ends[np.isfinite(ends)]
    lost = f", {ends.size - finite.size} not finite" if finite.size < ends.size else ""
    if not finite.size:
        return f"{name}: loss not finite in {ends.size} of {ends.size} runs."
    runs = f"{ends.size} run{'s' if ends.size > 1 else ''}"
    span = f", from {finite.min():.2f} to {finite.max():.2f}" if finite.size > 1 else ""
    return f"{name} ({runs}): mean loss of the last tenth {np.median(finite):.2f}{span}{lost}."


def outlier_ratios(runs, probe: str = "norm2_outlier") -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Steps and outlier ratios by arm, each the largest over the blocks: what `ratio_curves` draws.

    runs: histories with probes; one without is left out.  A step whose ratios are all NaN gives NaN.
    """
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for run in runs:
        if run.probes.get("step"):
            largest = np.fmax.reduce(np.asarray(run.probes[probe], float), axis=1)
            found.setdefault(run.recipe.arm, []).append((np.asarray(run.probes["step"], float), largest))
    return found


def ratio_curves(
    runs: Mapping[str, tuple],
    bound: float,
    *,
    heading: str = "Longest token over root-mean-square length",
    steps: int | None = None,
    size=(NOTEBOOK_WIDTH, 330),
) -> Scene:
    """Outlier ratio over steps beside its bound √(N−1), on a logarithmic axis.

    runs: arm -> (steps, ratios), or a list of such pairs, one a seed; `outlier_ratios` makes them of histories.
    steps: how far the axis reaches; by default to the last one recorded.
    """
    width, height = size
    pairs = {arm: [found] if np.ndim(found[0][0]) == 0 else list(found) for arm, found in runs.items()}
    last = max(float(np.max(at)) for found in pairs.values() for at, _ in found)
    frame = Frame(
        Box(62, 58, width - 82, height - 104), (0, max(steps or last, 1)), (0.9, 1.6 * bound), log=True
    )
    scene = Scene(width, height, "", frame.axes("step", "outlier ratio", heading))
    line = frame([0, frame.x[1]], [bound, bound])
    scene.items += [Strokes(line[None], INK, 1.4, dashed=True, name="bound")]
    scene.items += [Label(line[0, 0] + 6, line[0, 1] - 5, f"bound √(N−1) = {bound:.4g}")]
    told = []
    for arm, found in pairs.items():
        style = style_of(arm)
        for at, ratios in found:
            at, ratios = np.asarray(at, float), np.asarray(ratios, float)
            scene.items.append(
                Strokes(path(frame, at, ratios), style.color, 2.0, style.dashed, f"ratio-{arm}")
            )
            some = np.arange(0, len(at), max(1, len(at) // 9))
            some = some[np.isfinite(ratios[some])]
            scene.items.append(marks(frame(at[some], ratios[some]), arm))
        peak = max((float(np.nanmax(r)) for _, r in found if np.isfinite(r).any()), default=math.nan)
        told.append(f"{style.name} reaches {peak:.3g}")
    scene.items += key(pairs, 62 + 8.3 * len(heading), 48)
    scene.alt = f"Outlier ratio over {last:.0f} steps: {', '.join(told)}; the bound is {bound:.4g}."
    return scene


def phase_map(
    verdicts: Mapping[str, Mapping[tuple, list[str]]],
    *,
    x_name: str,
    y_name: str,
    heading: str = "",
    width: float = NOTEBOOK_WIDTH,
) -> Scene:
    """Verdicts over two settings, one panel an arm, one square a run: colour and letter say its kind.

    verdicts: arm -> {(x, y): kinds of the runs there}; kinds are keys of `KINDS`.
    """
    xs = list(dict.fromkeys(x for cells in verdicts.values() for x, _ in cells))
    ys = list(dict.fromkeys(y for cells in verdicts.values() for _, y in cells))
    most = max(len(kinds) for cells in verdicts.values() for kinds in cells.values())
    panel = (width - 90) / len(verdicts)
    cell, high = (panel - 24) / len(xs), 44.0
    side = min(28.0, (cell - 6) / most)
    top = 70.0 if heading else 44.0
    scene = Scene(width, top + high * len(ys) + 78, "")
    if heading:
        scene.items.append(Label(12, 20, heading, 14, bold=True))
    told = []
    for p, (arm, cells) in enumerate(verdicts.items()):
        left = 84 + p * panel
        scene.items.append(
            Label(left + (panel - 24) / 2, top - 12, style_of(arm).name, 13, "middle", bold=True)
        )
        counts = dict.fromkeys(KINDS, 0)
        for (x, y), kinds in cells.items():
            x0, y0 = left + xs.index(x) * cell, top + ys.index(y) * high
            for i, kind in enumerate(kinds):
                letter, fill = KINDS[kind]
                counts[kind] += 1
                x1, y1 = x0 + (cell - side * len(kinds)) / 2 + i * side, y0 + (high - side) / 2
                square = [[(x1, y1), (x1 + side, y1), (x1 + side, y1 + side), (x1, y1 + side)]]
                title = [f"{style_of(arm).name}, {x_name}={x}, {y_name}={y}: {kind}"]
                scene.items.append(
                    Shapes(np.array(square), [fill], title, stroke=PAPER, width=1.5, name="verdict")
                )
                ink = readable_on(fill)
                scene.items.append(
                    Label(x1 + side / 2, y1 + side / 2 + 4, letter, 12, "middle", ink, bold=True)
                )
        bottom = top + high * len(ys)
        for i, x in enumerate(xs):
            scene.items.append(
                Label(left + (i + 0.5) * cell, bottom + 16, str(x), anchor="middle", color=MUTED)
            )
        scene.items.append(Label(left + (panel - 24) / 2, bottom + 34, x_name, anchor="middle"))
        told.append(f"{style_of(arm).name}: {', '.join(f'{n} {kind}' for kind, n in counts.items() if n)}")
    for i, y in enumerate(ys):
        scene.items.append(Label(76, top + (i + 0.5) * high + 4, str(y), anchor="end", color=MUTED))
    scene.items.append(Label(12, top - 12, y_name))
    x = 84.0
    for kind, (letter, fill) in KINDS.items():
        y = scene.height - 12
        square = np.array([[(x, y - 13), (x + 17, y - 13), (x + 17, y + 4), (x, y + 4)]])
        scene.items += [
            Shapes(square, [fill]),
            Label(x + 8.5, y, letter, 12, "middle", readable_on(fill), bold=True),
        ]
        scene.items.append(Label(x + 23, y, kind))
        x += 48 + 7.2 * len(kind)
    scene.alt = f"Verdicts over {x_name} ({', '.join(map(str, xs))}) and {y_name}. {'; '.join(told)}."
    return scene


def accuracy_chart(
    accuracies: Mapping[str, Mapping[str, Iterable[float]]], *, heading: str = "Test accuracy", size=None
) -> Scene:
    """One dot a seed, a bar at the mean: regime -> arm -> accuracies between 0 and 1."""
    rows = sum(len(arms) for arms in accuracies.values())
    width, height = size or (NOTEBOOK_WIDTH, 100 + 24 * rows + 14 * len(accuracies))
    frame = Frame(Box(250, 40, width - 430, height - 90), (0, 1), (0, 1))
    grid = frame.axes("test accuracy", "", heading)
    # The vertical axis is a list of names, not a scale
    grid = [i for i in grid if getattr(i, "anchor", "") != "end" and getattr(i, "color", "") != GRID]
    scene = Scene(width, height, "", grid)
    told, y = [], 52.0
    for regime, arms in accuracies.items():
        scene.items.append(Label(12, y + 6, regime, bold=True))
        for arm, values in arms.items():
            values = np.asarray(list(values), float)
            mean, std = (
                statistics.mean(values.tolist()),
                float(values.std(ddof=1)) if values.size > 1 else math.nan,
            )
            x = frame(values, 0.5)[:, 0]
            at = frame(mean, 0.5)[0]
            scene.items.append(Label(242, y + 6, style_of(arm).name, anchor="end"))
            scene.items.append(Strokes(np.array([[(at, y - 7), (at, y + 11)]]), INK, 2.4, name="mean"))
            scene.items.append(marks(np.stack([x, np.full(x.shape, y + 2)], axis=1), arm))
            text = f"{100 * mean:.1f}" + ("" if math.isnan(std) else f" ± {100 * std:.1f}") + " %"
            scene.items.append(Label(width - 12, y + 6, f"{text} (n={values.size})", anchor="end"))
            told.append(f"{regime}, {style_of(arm).name}: {text}")
            y += 24
        y += 14
    scene.alt = f"Test accuracy, mean ± standard deviation over seeds. {'; '.join(told)}."
    return scene


def with_caption(scene: Scene) -> Scene:
    """The scene with its alt text written below it; changes and returns it."""
    foot = wrap(scene.alt, 12, scene.height + 14, int(scene.width / 7.1), color=MUTED)
    scene.items += foot
    scene.height += 16 * len(foot) + 6
    return scene


def _drawn(make):
    def draw(*args, **options):
        return figure(with_caption(make(*args, **options)))

    draw.__doc__ = f"`{make.__name__}` as a matplotlib Figure with alt text: {make.__doc__}"
    return draw


draw_loss = _drawn(loss_curves)
draw_ratios = _drawn(ratio_curves)
draw_phase_map = _drawn(phase_map)
draw_accuracies = _drawn(accuracy_chart)
