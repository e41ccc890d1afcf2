"""One call of a norm layer: its time, predicted from what is counted and measured, and what decides it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from reprlib import repr as short
from typing import NamedTuple

import numpy as np

from normviz.arms import style_of
from normviz.costs import LAYERS, Machine, Prediction, predict
from normviz.explore.base import Explorer, Held, given
from normviz.fields import choice
from normviz.picture.chart import legend
from normviz.picture.color import GRID, INK, MUTED, PAPER
from normviz.picture.scene import Label, Scene, Shapes, Strokes, rects
from normviz.picture.text import amount, seconds

BATCHES, TOKENS, WIDTHS = (1, 2, 4, 8, 16, 32, 64), (16, 64, 197), (48, 96, 192, 384, 768)
ROUNDS = 9  # of a measurement made here
LOW = 1e-7  # seconds at the left end of the bars
LEFT, SPAN, TOP, ROW = 200.0, 300.0, 62.0, 52.0  # px: the scale's left end and length, the first row's top, a row
BOTTOM = TOP + ROW * len(LAYERS)
#: What decides a layer's time, by `Prediction.bound`
DECIDES = {
    "call": "decided by the call", "memory": "decided by memory", "arithmetic": "decided by arithmetic",
    "nothing": "gone: nothing is called",
}  # fmt: skip
COLUMNS = {"predicted": 516.0, "moves": 604.0, "computes": 682.0, "statistics": 766.0}  # their left ends


class Reading(NamedTuple):
    """By layer of `LAYERS`: bytes moved, operations, predicted time; measured seconds, None where nobody measured."""

    moved: dict[str, int]
    operations: dict[str, int]
    predicted: dict[str, Prediction]
    measured: Mapping[str, float] | None


@lru_cache
def frame(decades: int) -> list:
    """What hardly any control changes: headings, the layers' names, the scale of so many decades, the legend."""
    edges = LEFT + SPAN / decades * np.arange(decades + 1)
    items = [Label(x, 44, name, color=MUTED) for name, x in COLUMNS.items()]
    items.append(Label(COLUMNS["predicted"], 58, "measured", color=MUTED))
    for i, (kind, layer) in enumerate(LAYERS.items()):
        y = TOP + ROW * i
        items.append(Strokes(np.array([[(x, y), (x, y + ROW)] for x in edges]), GRID, name="grid"))
        items.append(Label(12, y + 17, layer.name, bold=kind in ("ln", "bn", "folded")))
    for k in range(0, decades + 1, 1 if decades < 7 else 2):
        items.append(Label(edges[k], BOTTOM + 16, seconds(LOW * 10**k), anchor="middle", color=MUTED))
    return items + legend([(PAPER, "predicted"), (MUTED, "measured")], LEFT, BOTTOM + 40)


@dataclass(frozen=True)
class Cost(Explorer):
    """What LN, BN in evaluation and folded BN cost on tokens of any size, predicted and measured.

    record: as `lab.measure_layers` gives it: a calibrated machine, and layers timed at some sizes.
    measure: `lab.time_layers`, or another function of (batch, tokens, width, rounds=, tell=) for the button.
    measured: {(batch, tokens, width): {layer: seconds}}; left open, what the record has.

    Raises ValueError, naming the argument, for a record without a machine or sizes that the controls do not have.
    """

    record: Held
    measure: Held | Callable[..., Mapping] | None = given()
    batch: int = choice(16, BATCHES, "batch")
    tokens: int = choice(64, TOKENS, "tokens")
    width: int = choice(192, WIDTHS, "width")
    measured: Held | None = given()

    def settle(self) -> None:
        record = self.record.value if self.record else None
        if not (isinstance(record, Mapping) and {"machine", "layers"} <= record.keys()):
            raise ValueError(f"record={short(record)} must be what lab.measure_layers gives, with a machine and layers")
        if self.measured is None:
            timed = {(row["batch"], row["tokens"], row["width"]): row["seconds"] for row in record["layers"]}
            self._set("measured", Held(timed))

    def actions(self) -> dict:
        return {"measure here": self._measure_here} if self.measure else {}

    def _measure_here(self, progress: Callable[[float], None]) -> Cost:
        """Times the sizes shown, in this kernel."""
        sizes, rounds = (self.batch, self.tokens, self.width), count(1)
        row = self.measure.value(*sizes, rounds=ROUNDS, tell=lambda line: progress(next(rounds) / ROUNDS))
        return replace(self, measured=Held({**self.measured.value, sizes: dict(row["seconds"])}))

    def read(self) -> Reading:
        n, machine = self.batch * self.tokens, Machine.from_dict(self.record.value["machine"])
        return Reading(
            {kind: layer.bytes(n, self.width) for kind, layer in LAYERS.items()},
            {kind: layer.operations(n, self.width) for kind, layer in LAYERS.items()},
            {kind: predict(kind, n, self.width, machine) for kind in LAYERS},
            self.measured.value.get((self.batch, self.tokens, self.width)),
        )

    def say(self, reading: Reading) -> str:
        times = reading.measured or {kind: prediction.seconds for kind, prediction in reading.predicted.items()}
        how = "Measured" if reading.measured else "Predicted (not measured at this size)"
        statistics = LAYERS["ln"].statistics * self.batch * self.tokens
        return (
            f"{self.batch} × {self.tokens} tokens of {self.width} features. {how}: LayerNorm {seconds(times['ln'])}, "
            f"BatchNorm in evaluation {seconds(times['bn'])}, folded BatchNorm 0. LayerNorm takes "
            f"{times['ln'] / times['bn']:.2f} times as long as BatchNorm and computes {statistics:,} statistics; the "
            f"Linear after it takes {times['linear'] / times['ln']:.1f} times as long as LayerNorm."
        )

    #: On a narrow screen a layer's numbers go below its bars
    parts = (
        (0, 0, 514, TOP - 6), (512, 0, 840, TOP),
        *(part for y in np.arange(TOP, BOTTOM, ROW) for part in ((0, y, 514, y + ROW), (512, y, 840, y + 42))),
        (0, BOTTOM, 514, 372),
    )  # fmt: skip

    def draw(self, reading: Reading) -> Scene:
        """Two bars a layer on a logarithmic scale, predicted above measured, and beside them what was counted."""
        predicted = {kind: prediction.seconds for kind, prediction in reading.predicted.items()}
        measured = reading.measured or {}
        decades = math.ceil(math.log10(max(*predicted.values(), *measured.values()) / LOW * 1.0001))
        step = SPAN / decades  # px
        items = [
            Label(12, 22, f"One call on {self.batch} × {self.tokens} tokens of {self.width}", 14, bold=True),
            Label(LEFT + 220, BOTTOM + 40, "" if measured else "not measured at this size yet", color=MUTED),
        ]
        for i, (kind, layer) in enumerate(LAYERS.items()):
            y, color = TOP + ROW * i, style_of(kind).color
            items.append(Label(12, y + 34, DECIDES[reading.predicted[kind].bound], color=MUTED))
            for name, times, top, fill, edge, look in (
                ("predicted", predicted, y + 4, PAPER, color, {"color": MUTED}),
                ("measured", measured, y + 22, color, INK, {"bold": True}),
            ):
                if kind in times:
                    text, long = seconds(times[kind]), step * math.log10(max(times[kind], LOW) / LOW)
                    items.append(Label(COLUMNS["predicted"], top + 13, text, **look))
                    if times[kind] > 0:
                        bar = rects(LEFT, top, LEFT + max(2.0, long), top + 15)
                        items.append(Shapes(bar, [fill], [text], stroke=edge, width=1.4, name=f"{name}-{kind}"))
            statistics = f"{layer.statistics * self.batch * self.tokens:,}"
            counted = (amount(reading.moved[kind], "B"), amount(reading.operations[kind]), statistics)
            items += [Label(x, y + 26, text) for x, text in zip([*COLUMNS.values()][1:], counted, strict=True)]
        return Scene(840, 372, items, backdrop=frame(decades))
