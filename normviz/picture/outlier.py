"""One extreme sample in a batch, behind BatchNorm and behind LayerNorm: state -> reading -> scene, no widgets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from normviz.functional import normalize
from normviz.picture.colors import HUES, INK, MUTED
from normviz.picture.curves import MARKERS, Frame, Style, path, with_caption
from normviz.picture.png import figure
from normviz.picture.scene import Box, Label, Scene, Shapes, Strokes
from normviz.samples import digit_features

SIZES = (4, 8, 16, 32, 64)
FACTORS = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000)
METHODS = {"batch": "BatchNorm", "layer_token": "LayerNorm"}
FEATURE = 24  # the one shown: the blob filter in the upper left quarter
WIDTH = 840

EXTREME = Style("the multiplied sample", HUES[5], "diamond", dashed=True)
OTHERS = Style("the others", HUES[4], "circle")


@dataclass(frozen=True)
class State:
    """Sample 0 of `size` samples is multiplied by `factor`."""

    size: int = 16
    factor: int = 1


@dataclass(frozen=True)
class Reading:
    """What the methods make of one feature; everything by key of METHODS.

    values: (N,) outputs of the feature; peaks, spreads: one number for each of FACTORS, the magnitude of sample 0
    and the standard deviation of the others; bound: √(N−1).
    """

    values: dict[str, np.ndarray]
    peaks: dict[str, np.ndarray]
    spreads: dict[str, np.ndarray]
    bound: float
    caption: str


def samples(size: int, factor: float = 1.0) -> torch.Tensor:
    """`size` digits as vectors of 32 features (eight filters, four quarters), the first times `factor`: float64."""
    x = torch.from_numpy(digit_features(size, 8, 2, 2)).double().reshape(size, -1)  # (N, D)
    x[0] *= factor
    return x


@lru_cache(maxsize=len(SIZES))
def _outputs(size: int) -> dict[str, np.ndarray]:
    """The feature of every sample behind each method, (factors, N).  eps is 0: the bound is one of arithmetic."""
    batches = [samples(size, k) for k in FACTORS]
    return {
        method: np.stack([normalize(x, method, eps=0.0)[:, FEATURE].numpy() for x in batches])
        for method in METHODS
    }


def read(state: State) -> Reading:
    """Put the samples through both methods, for every factor."""
    every = _outputs(state.size)
    at, bound = FACTORS.index(state.factor), (state.size - 1) ** 0.5
    peaks = {method: np.abs(found[:, 0]) for method, found in every.items()}
    spreads = {method: found[:, 1:].std(axis=1) for method, found in every.items()}
    told = "; ".join(
        f"{name} gives it {peaks[method][at]:.2f} and leaves the others a spread of {spreads[method][at]:.2g}"
        for method, name in METHODS.items()
    )
    caption = (
        f"One of {state.size} samples is multiplied by {state.factor}. In the feature shown {told}. "
        f"The bound √(N−1) is {bound:.2f}."
    )
    return Reading({m: found[at] for m, found in every.items()}, peaks, spreads, bound, caption)


def _mark(points, style: Style, radius: float, name: str) -> Shapes:
    points = np.reshape(points, (-1, 2))
    outline = points[:, None] + radius * MARKERS[style.marker]
    return Shapes(outline, [style.color] * len(points), stroke=INK, width=0.7, name=name)


def scene(state: State, reading: Reading, *, with_text: bool = False) -> Scene:
    """The feature of every sample behind both methods; below, both numbers over all factors."""
    picture = Scene(WIDTH, 486, reading.caption)
    top = 1.15 * max(reading.bound, 3.0)
    ticks = {float(i): str(i) for i in range(0, state.size, max(1, state.size // 8))}
    for i, (method, name) in enumerate(METHODS.items()):
        frame = Frame(Box(62 + 422 * i, 40, 342, 170), (-0.7, state.size - 0.3), (-top, top))
        picture.items += frame.axes("sample", "output", f"Behind {name}", ticks)
        picture.items.append(Strokes(frame(list(frame.x), [0, 0])[None], MUTED, 0.8))
        values = reading.values[method]
        places = frame(np.arange(state.size), values)
        picture.items += [_mark(places[1:], OTHERS, 4.0, f"others-{method}")]
        picture.items += [_mark(places[:1], EXTREME, 7.0, f"extreme-{method}")]
        if method == "batch":
            for sign in (1, -1):
                line = frame(list(frame.x), [sign * reading.bound] * 2)
                picture.items.append(Strokes(line[None], INK, 1.4, dashed=True, name="bound"))
            text = f"√(N−1) = {reading.bound:.2f}"
            picture.items.append(Label(line[1, 0], frame(0, reading.bound)[1] + 15, text, anchor="end"))
    picture.items += _curves(state, reading)
    return with_caption(picture) if with_text else picture


def _curves(state: State, reading: Reading) -> list:
    """Magnitude of the extreme sample and spread of the others, over the factor, both logarithmic."""
    frame = Frame(Box(62, 296, 440, 140), (0, 3), (1e-3, 20), log=True)
    ticks = {float(np.log10(k)): str(k) for k in (1, 3, 10, 30, 100, 300, 1000)}
    items = frame.axes("the sample is multiplied by k", "output", "The same for every factor", ticks)
    x, at = np.log10(FACTORS), FACTORS.index(state.factor)
    line = frame(list(frame.x), [reading.bound] * 2)
    items.append(Strokes(line[None], INK, 1.4, dashed=True, name="bound"))
    items.append(Strokes(frame([x[at]] * 2, [1e-3, 20])[None], INK, 0.8, dashed=True, name="cursor"))
    rows = (
        ("BN, the multiplied sample", EXTREME, reading.peaks["batch"], False),
        ("BN, spread of the others", OTHERS, reading.spreads["batch"], False),
        ("LN, the multiplied sample", EXTREME, reading.peaks["layer_token"], True),
        ("LN, spread of the others", OTHERS, reading.spreads["layer_token"], True),
    )
    for i, (name, style, curve, dashed) in enumerate(rows):
        items.append(Strokes(path(frame, x, curve), style.color, 2.4, dashed, "curve"))
        items.append(_mark(frame(x[at], curve[at]), style, 6.0, "now"))
        y = 316 + 30 * i
        key = np.array([[(540, y - 4), (570, y - 4)]])
        items += [Strokes(key, style.color, 2.4, dashed), _mark([(555, y - 4)], style, 5.0, "legend")]
        items += [Label(580, y, name), Label(WIDTH - 12, y, f"{curve[at]:.3g}", anchor="end", bold=True)]
    return items


def make_state(size: int = 16, factor: int = 1) -> State:
    """A `State`.  Raises ValueError, naming the argument, for a size or factor that is not offered."""
    for name, value, allowed in (("size", size, SIZES), ("factor", factor, FACTORS)):
        if value not in allowed:
            raise ValueError(f"{name}={value!r} must be one of {allowed}")
    return State(size, factor)


def draw_outlier(size: int = 16, factor: int = 1):
    """What `explore_outlier` shows for these arguments, as a matplotlib Figure with alt text; errors as there."""
    state = make_state(size, factor)
    return figure(scene(state, read(state), with_text=True))
