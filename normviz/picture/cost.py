"""What chapter 06 shows, without any widget: the cost of one layer, predicted and measured; times of whole networks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from normviz.costs import LAYERS, Machine, Prediction, device_words, predict
from normviz.picture.colors import HUES, INK, MUTED, PAPER
from normviz.picture.curves import GRID, _drawn, key, marks, style_of, with_caption
from normviz.picture.scene import Label, Scene, Shapes, Strokes

WIDTH = 840  # as wide as a cell of JupyterLab on a small screen
FILLS = {"ln": HUES[4], "bn": HUES[5], "line": HUES[0], "folded": HUES[2], "linear": "#8A8A8A"}
BOUNDS = {"call": "the call", "memory": "memory", "arithmetic": "arithmetic", "nothing": "–"}
ARMS = ("bn", "bn+ffnbn", "folded")
NETWORKS = {"ours": "our ViT", "deit-s": "DeiT-S"}
#: Twenty percent more images a second
TWENTY = 1 / 1.2


@dataclass(frozen=True)
class State:
    """Sizes: `batch` images of `tokens` tokens of `width` features."""

    batch: int = 16
    tokens: int = 64
    width: int = 192


@dataclass(frozen=True)
class Reading:
    """Per layer of `LAYERS`: bytes moved, operations, predicted time; measured seconds, None where nobody measured."""

    moved: dict[str, int]
    operations: dict[str, int]
    predicted: dict[str, Prediction]
    measured: dict[str, float] | None
    caption: str


def read(state: State, machine: Machine, measured: Mapping[str, float] | None) -> Reading:
    """What one call of each layer costs at these sizes; `measured`: seconds of the layers, if they were timed."""
    n = state.batch * state.tokens
    moved = {kind: layer.bytes(n, state.width) for kind, layer in LAYERS.items()}
    operations = {kind: layer.operations(n, state.width) for kind, layer in LAYERS.items()}
    predicted = {kind: predict(kind, n, state.width, machine) for kind in LAYERS}
    seconds = measured or {kind: found.seconds for kind, found in predicted.items()}
    how = "Measured" if measured else "Predicted (not measured at this size)"
    caption = (
        f"{state.batch} × {state.tokens} tokens of {state.width} features. {how}: LayerNorm {_time(seconds['ln'])}, "
        f"BatchNorm in evaluation {_time(seconds['bn'])}, folded BatchNorm 0. LayerNorm takes "
        f"{seconds['ln'] / seconds['bn']:.2f} times as long as BatchNorm and computes {2 * n:,} statistics; the Linear "
        f"behind it takes {seconds['linear'] / seconds['ln']:.1f} times as long as LayerNorm."
    )
    return Reading(moved, operations, predicted, dict(measured) if measured else None, caption)


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns" if seconds else "0"


def _amount(value: float, unit: str = "") -> str:
    for letter, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {letter}{unit}"
    return f"{value:.3g} {unit}".strip()


def scene(state: State, reading: Reading, *, with_text: bool = False) -> Scene:
    """Two bars a layer on a logarithmic scale, predicted above measured, and beside them what was counted."""
    picture = Scene(WIDTH, 372, reading.caption)
    left, right, top, row = 200.0, 500.0, 62.0, 52.0
    shown = [p.seconds for p in reading.predicted.values()] + list((reading.measured or {}).values())
    low, high = 1e-7, 10.0 ** math.ceil(math.log10(max(shown) * 1.0001))

    def x(seconds: float) -> float:
        share = math.log10(max(seconds, low) / low) / math.log10(high / low)
        return left + share * (right - left)

    bottom = top + row * len(LAYERS)
    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        at = x(10.0**power)
        picture.items.append(Strokes(np.array([[(at, top - 6), (at, bottom)]]), GRID))
        picture.items.append(Label(at, bottom + 16, _time(10.0**power), anchor="middle", color=MUTED))
    picture.items += [
        Label(12, 22, f"One call on {state.batch} × {state.tokens} tokens of {state.width}", 14, bold=True)
    ]
    columns = {"time": (516, "predicted"), "moved": (604, "moves"), "operations": (682, "computes")}
    columns |= {"statistics": (766, "statistics")}
    for at, name in columns.values():
        picture.items.append(Label(at, 44, name, color=MUTED))
    picture.items.append(Label(516, 58, "measured", color=MUTED))
    for i, (kind, layer) in enumerate(LAYERS.items()):
        y = top + row * i
        picture.items.append(Label(12, y + 17, layer.name, bold=kind in ("ln", "bn", "folded")))
        found = reading.predicted[kind]
        why = "gone: nothing is called" if kind == "folded" else f"decided by {BOUNDS[found.bound]}"
        picture.items.append(Label(12, y + 34, why, color=MUTED))
        picture.items += _bar(x, y + 4, found.seconds, PAPER, f"predicted-{kind}", FILLS[kind], low)
        picture.items.append(Label(516, y + 17, _time(found.seconds), color=MUTED))
        if reading.measured is not None:
            seconds = reading.measured[kind]
            picture.items += _bar(x, y + 22, seconds, FILLS[kind], f"measured-{kind}", INK, low)
            picture.items.append(Label(516, y + 35, _time(seconds), bold=True))
        statistics = f"{2 * state.batch * state.tokens:,}" if kind == "ln" else "0"
        told = (_amount(reading.moved[kind], "B"), _amount(reading.operations[kind]), statistics)
        for (at, _), text in zip(list(columns.values())[1:], told, strict=True):
            picture.items.append(Label(at, y + 26, text))
    y = bottom + 40
    for at, fill, edge, text in ((left, PAPER, INK, "predicted"), (left + 108, MUTED, INK, "measured")):
        quad = np.array([[(at, y - 11), (at + 20, y - 11), (at + 20, y + 1), (at, y + 1)]])
        picture.items += [
            Shapes(quad, [fill], stroke=edge, width=1.2, name="legend"),
            Label(at + 26, y, text),
        ]
    if reading.measured is None:
        picture.items.append(Label(left + 220, y, "not measured at this size yet", color=MUTED))
    return with_caption(picture) if with_text else picture


def _bar(x, y: float, seconds: float, fill: str, name: str, edge: str, low: float) -> list:
    if seconds <= 0:
        return []
    a, b = x(low), max(x(seconds), x(low) + 2)
    quad = np.array([[(a, y), (b, y), (b, y + 15), (a, y + 15)]])
    return [Shapes(quad, [fill], [_time(seconds)], stroke=edge, width=1.4, name=name)]


def cost_ratios(records: Iterable[Mapping], *, limits: tuple[float, float] = (0.6, 1.5)) -> Scene:
    """Inference time of whole networks over that of the LayerNorm network: median and quartiles over paired rounds.

    records: as `lab.load_costs` gives them, one a device; limits: ends of the axis, where what lies beyond is drawn.
    Raises ValueError where no record holds a network.
    """
    records = [record for record in records if record["networks"]]
    if not records:
        raise ValueError("records holds no timed network; make one: python -m normviz bench")
    left, right, high = 226.0, 600.0, 58.0
    rows = sum(len(record["networks"]) for record in records)
    picture = Scene(WIDTH, 96 + high * rows + 26 * len(records) + 42, "")

    def x(ratio: float) -> float:
        return left + (min(max(ratio, limits[0]), limits[1]) - limits[0]) / (limits[1] - limits[0]) * (
            right - left
        )

    picture.items.append(Label(12, 22, "Time of a network over that of its LayerNorm twin", 14, bold=True))
    picture.items += key(ARMS, 12, 48)
    y, told, top = 84.0, [], 70.0
    for record in records:
        name = device_words(record["environment"])
        picture.items.append(Label(12, y, name, bold=True))
        y += 26
        for row in record["networks"]:
            title = f"{NETWORKS.get(row['network'], row['network'])}, batch {row['batch']}, {row['mode']}"
            picture.items += [
                Label(24, y + 22, title),
                Label(24, y + 38, f"LN: {_time(row['seconds']['ln'])}", color=MUTED),
            ]
            texts = []
            for i, arm in enumerate(ARMS):
                ratio, at = row["ratio_to_ln"][arm], y + 8 + 15 * i
                whisker = np.array([[(x(ratio["low"]), at), (x(ratio["high"]), at)]])
                picture.items.append(Strokes(whisker, style_of(arm).color, 3.0, name=f"spread-{arm}"))
                picture.items.append(marks([(x(ratio["median"]), at)], arm, 5))
                text = f"{ratio['median']:.3f} ({ratio['low']:.3f}–{ratio['high']:.3f})"
                picture.items += [
                    Label(right + 14, at + 4, text),
                    Label(right + 146, at + 4, style_of(arm).name, color=MUTED),
                ]
                texts.append(f"{style_of(arm).name} {ratio['median']:.2f}")
            told.append(f"{title}: {', '.join(texts)}")
            y += high
    for ratio, text, dashed in ((1.0, "as LN", False), (TWENTY, "20 % faster", True)):
        line = Strokes(np.array([[(x(ratio), top), (x(ratio), y)]]), INK, 1.3, dashed, "guide")
        picture.items += [line, Label(x(ratio), top - 4, text, anchor="middle")]
    for ratio in np.arange(limits[0], limits[1] + 1e-9, 0.1):
        picture.items.append(Label(x(ratio), y + 16, f"{ratio:.1f}", anchor="middle", color=MUTED))
    picture.items.append(
        Label((left + right) / 2, y + 34, "time / time of LN (left is faster)", anchor="middle")
    )
    picture.alt = f"Inference time over that of the LayerNorm network. {'; '.join(told)}."
    return picture


draw_cost_ratios = _drawn(cost_ratios)
