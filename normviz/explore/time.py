"""Digits as sequences of ink pixels: BatchNorm's statistics over time, as fewer and fewer sequences are left."""

from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from normviz.arms import BLUE, GREY, SKY, VERMILION, Style, style_of
from normviz.explore.base import Explorer
from normviz.explore.hand import along
from normviz.fields import choice, integer
from normviz.picture.chart import Chart, legend
from normviz.picture.color import INK, PAPER, grey_pixels, mix, rgb
from normviz.picture.scene import Box, Label, Raster, Scene, Shapes, Strokes, grid_rects, rect, rects, ring
from normviz.picture.text import fixed, number
from normviz.samples import digit_images, digits, ink_sequences

#: The numbers of a step, and where their axis ends; it begins at 0
FEATURES = {"row": 7.0, "column": 7.0, "ink": 1.0}
SIZES = (2, 4, 8, 16, 32, 64, 128)
STEPS = 42  # ink pixels of the fullest digit
DRAWS = 100  # batches that tell how noisy a mean is
EPS = 1e-5

LEFT, ACROSS = 62, 520  # of the three panels over time
BATCH, EVERYONE = style_of("bn")._replace(name="this batch", dashed=False), Style("all digits", INK, dashed=True)
LIGHT, DARK, PADDING = "#EAF3FA", mix(BLUE, INK, 0.25), "#D8D8D8"


class Reading(NamedTuple):
    """A batch of B sequences, longest first, its statistics over T time steps, and those of all digits."""

    steps: np.ndarray  # (B, T, 3), padding 0
    lengths: np.ndarray  # (B,)
    images: np.ndarray  # (B,) the digits' numbers
    alive: np.ndarray  # (T,) sequences that have the step
    mean: np.ndarray  # (T,) of the state's feature, NaN where nothing is there to average
    var: np.ndarray  # (T,), biased
    low: np.ndarray  # (T,): nine in ten of DRAWS batches of this size have their mean between this
    high: np.ndarray  # and this
    noise: np.ndarray  # (T,) standard deviation of the mean over them
    population: np.ndarray  # (2, T) mean and variance of each step over all digits
    value: float  # the longest sequence's feature at the step, NaN after its end
    normalized: float  # the same by the batch's statistics
    ideal: float  # and by the population's


@lru_cache(maxsize=1)
def digit_sequences() -> tuple[np.ndarray, np.ndarray]:
    """All 1,797 digits as ink sequences: steps float32 (n, T, 3) with ink 0 to 1, lengths int64 (n,)."""
    return ink_sequences(digit_images(1797))


def feature_of(steps: np.ndarray, feature: str) -> np.ndarray:
    """One of the three numbers of every step: (B, T, 3) to (B, T)."""
    return steps[..., list(FEATURES).index(feature)]


def statistics(values: np.ndarray, lengths: np.ndarray, per_step: bool, masked: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance at every time step: two float64 arrays (…, T).

    values: padded (…, B, T), lengths (…, B).  Per step, a step that no sequence reaches has none: NaN.  Unmasked, a
    batch's padding counts up to the end of its longest sequence.
    """
    end = lengths if masked else np.broadcast_to(lengths.max(-1, keepdims=True), lengths.shape)
    counted = np.arange(STEPS) < end[..., None]  # (…, B, T)
    over = {"axis": -2 if per_step else (-2, -1), "keepdims": True}
    with np.errstate(invalid="ignore"):
        size = counted.sum(**over)
        mean = (values * counted).sum(**over, dtype=float) / size
        var = (np.square(values - mean) * counted).sum(**over) / size
    mean, var = (np.broadcast_to(a, (*a.shape[:-1], STEPS))[..., 0, :] for a in (mean, var))
    return mean, var


@lru_cache(maxsize=256)
def scatter(batch_size: int, per_step: bool, masked: bool, feature: str) -> np.ndarray:
    """5 % and 95 % quantiles and standard deviation, over DRAWS batches, of the mean at every step: (3, T).

    NaN where fewer than two of the batches have anything to average.
    """
    steps, lengths = digit_sequences()
    drawn = np.random.default_rng(1000).integers(0, len(lengths), (DRAWS, batch_size))
    means = statistics(feature_of(steps, feature)[drawn], lengths[drawn], per_step, masked)[0]  # (DRAWS, T)
    known, found = np.isfinite(means).sum(0) > 1, np.full((3, STEPS), np.nan)
    found[:2, known] = np.nanquantile(means[:, known], (0.05, 0.95), axis=0)
    found[2, known] = np.nanstd(means[:, known], axis=0, ddof=1)
    return found


@lru_cache(maxsize=len(FEATURES))
def of_all_digits(feature: str) -> np.ndarray:
    """Mean and variance of each step over all digits: (2, T)."""
    steps, lengths = digit_sequences()
    return np.stack(statistics(feature_of(steps, feature), lengths, True, True))


@lru_cache
def axes(batch_size: int, feature: str) -> tuple[Chart, Chart, list]:
    """The two charts over time, and what is drawn of them whatever the step: the backdrop."""
    span, ticks = (-0.5, STEPS - 0.5), {t: str(t) for t in range(0, STEPS, 5)}
    alive = Chart(
        Box(LEFT, 190, ACROSS, 62), span, (0, batch_size), y_name="alive", x_ticks=ticks,
        y_ticks={n: str(n) for n in (0, batch_size // 2, batch_size)},
        heading="Sequences still alive: all that a step's own mean can average",
    )  # fmt: skip
    mean = Chart(
        Box(LEFT, 300, ACROSS, 148), span, (0, FEATURES[feature]), x_ticks=ticks,
        x_name="time step (ink pixels read so far)", y_name=f"mean {feature}",
        heading=f"The mean {feature}: this batch, nine in ten batches of its size, all digits",
    )  # fmt: skip
    return alive, mean, [*alive.items, *mean.items]


@dataclass(frozen=True)
class Time(Explorer):
    """BatchNorm's mean over the time step, on handwritten digits read as sequences of ink pixels.

    step: the time step looked at.  per_step: statistics of each time step, or shared by all of them.  masked: whether
    padding is left out of them.
    """

    batch_size: int = choice(16, SIZES, "batch size")
    step: int = integer(35, 0, STEPS - 1, "time step")
    per_step: bool = choice(True, {"per step": True, "shared": False}, "statistics")
    masked: bool = choice(True, {"left out": True, "counted": False}, "padding")
    feature: str = choice("ink", tuple(FEATURES), "feature")
    seed: int = integer(0, 0, 9, "seed")

    def read(self) -> Reading:
        """The state's batch, and everything that its picture shows."""
        steps, lengths = digit_sequences()
        drawn = np.random.default_rng(self.seed).integers(0, len(lengths), SIZES[-1])[: self.batch_size]
        drawn = drawn[np.argsort(-lengths[drawn], kind="stable")]
        steps, lengths, t = steps[drawn], lengths[drawn], self.step
        values = feature_of(steps, self.feature)  # (B, T)
        mean, var = statistics(values, lengths, self.per_step, self.masked)
        population = of_all_digits(self.feature)
        alive = (np.arange(STEPS) < lengths[:, None]).sum(0)
        value = float(values[0, t]) if alive[t] else np.nan
        normalized, ideal = (float((value - m[t]) / (v[t] + EPS) ** 0.5) for m, v in ((mean, var), population))
        noise = scatter(self.batch_size, self.per_step, self.masked, self.feature)
        return Reading(steps, lengths, drawn, alive, mean, var, *noise, population, value, normalized, ideal)

    def say(self, reading: Reading) -> str:
        t, alive = self.step, int(reading.alive[self.step])
        where = "of this step" if self.per_step else "shared by all steps"
        padding = "left out" if self.masked else "counted"
        text = f"Step {t}: {alive} of {self.batch_size} sequences alive. Statistics {where}, padding {padding}: "
        if not np.isfinite(reading.mean[t]):
            return text + "there is nothing to average, as every sequence of the batch has ended."
        text += f"mean {self.feature} {_moments(reading.mean[t], reading.var[t])}; "
        text += f"at this step over all digits: {_moments(*reading.population[:, t])}."
        if np.isfinite(reading.noise[t]):
            ends = f"{fixed(reading.low[t])} and {fixed(reading.high[t])}"
            text += f" Nine in ten such batches have a mean between {ends}."
        if not alive:
            return text + " Every sequence of the batch has ended; the shared statistics are there all the same."
        text += f" The longest digit's {self.feature} {number(reading.value)} is normalized to "
        text += f"{_signed(reading.normalized)}, by all digits' statistics to {_signed(reading.ideal)}."
        lone = " A lone sequence is its own mean: whatever it holds becomes 0."
        return text + lone * (self.per_step and self.masked and alive == 1)

    parts = ((0, 0, 606, 492), (606, 0, 840, 492))

    def draw(self, reading: Reading) -> Scene:
        """The padded batch, how many are alive, the mean over the time step, and the longest digit at this step."""
        x = LEFT + ACROSS * (self.step + 0.5) / STEPS
        panels = np.array([[(x, top), (x, bottom)] for top, bottom in ((32, 148), (186, 252), (296, 448))])
        cursor = Strokes(panels, INK, 1.4, name="cursor")
        items = [*self._batch(reading), *self._over_time(reading), cursor, *self._digit(reading), *self._words(reading)]
        alive, _, backdrop = axes(self.batch_size, self.feature)
        step = replace(along("time step", "step", alive, range(STEPS)), box=Box(LEFT, 32, ACROSS, 416))
        return Scene(840, 492, items, backdrop=backdrop, handles=[step])

    def _batch(self, reading: Reading) -> list:
        box, most, t = Box(LEFT, 36, ACROSS, 112), FEATURES[self.feature], np.arange(STEPS)
        dark = feature_of(reading.steps, self.feature)[..., None] / most
        colors = rgb(LIGHT) * (1 - dark) + rgb(DARK) * dark  # (B, T, 3)
        colors[t >= reading.lengths[:, None]] = rgb(PADDING)
        colors[:, reading.lengths.max() :] = 255.0
        title = f"{self.batch_size} sequences, longest first; light is {self.feature} 0, dark is {most:g}"
        x, y = box.right - 214, box.y - 20
        swatches = [mix(LIGHT, DARK, k) for k in (0.0, 0.5, 1.0)]
        return [
            Label(box.x, box.y - 10, "The batch, longest first", 13, bold=True),
            Raster(box.x, box.y, box.width, box.height, np.rint(colors).astype(np.uint8), title),
            Label(box.x - 42, box.center[1], "sequence", anchor="middle", angle=90),
            Shapes(grid_rects(Box(x, y, 42, 13), 1, 3), swatches, stroke=INK, width=0.7),
            Label(x - 4, y + 11, f"{self.feature} 0", anchor="end"), Label(x + 46, y + 11, f"{most:g}"),
            *legend([(PADDING, "padding (0)")], x + 84, y + 11),
        ]  # fmt: skip

    def _over_time(self, reading: Reading) -> list:
        alive, mean = map(copy, axes(self.batch_size, self.feature)[:2])
        alive.items, mean.items, t = [], [], np.arange(STEPS)
        titles = [f"step {t}: {n} alive" for t, n in enumerate(reading.alive.tolist())]
        alive.bars(t, reading.alive, 0.8, SKY, titles=titles, name="alive")
        mean.band(t, reading.low, reading.high, BATCH.color, 0.32, name="band")
        mean.line(t, reading.population[0], EVERYONE, 2.0, name="population")
        mean.line(t, reading.mean, BATCH, name="mean")
        mean.dots(self.step, reading.mean[self.step], BATCH, 5.5)
        return [*alive.items, *mean.items]

    def _digit(self, reading: Reading) -> list:
        """The longest digit, its pixels in reading order, the one of this step framed."""
        box, text = Box(622, 36, 208, 208), f"ended after step {reading.lengths[0] - 1}"
        items = [
            Label(box.x, box.y - 10, "The longest digit", 13, bold=True),
            Raster(box.x, box.y, box.width, box.height, grey_pixels(digits()[0][reading.images[0]]), "a digit"),
            Strokes(ring(rect(box)), GREY, 1.0),
        ]
        if self.step < reading.lengths[0]:
            row, column, ink = reading.steps[0, self.step].tolist()
            frame = ring(grid_rects(box, 8, 8)[int(8 * row + column)])
            items += [Strokes(frame, PAPER, 6.0), Strokes(frame, VERMILION, 3.6, name="pixel")]
            text = f"step {self.step}: row {row:g}, column {column:g}, ink {ink:.2f}"
        return [*items, Label(box.x, box.bottom + 20, text)]

    def _words(self, reading: Reading) -> list:
        x, y, t = 622.0, 300.0, self.step
        items: list = [Label(x, y, f"At step {t}", 13, bold=True)]
        for style, mean, var in ((BATCH, reading.mean, reading.var), (EVERYONE, *reading.population)):
            y += 22
            words = f"μ {_moments(mean[t], var[t])}" if np.isfinite(mean[t]) else "none is left"
            line = Strokes(np.array([[(x, y - 4), (x + 26, y - 4)]]), style.color, 2.4, style.dashed)
            items += [line, Label(x + 34, y, f"{style.name}: {words}")]
        y, noise, words = y + 20, reading.noise[t], "no batch is as long"
        if np.isfinite(noise):
            words = f"scatter of the mean: {fixed(noise) if noise >= 0.005 else number(noise, 1)}"
        items += [Shapes(rects(x, y - 9, x + 26, y), [mix(BATCH.color, PAPER, 0.68)]), Label(x + 34, y, words)]
        if np.isfinite(reading.value):
            y += 32
            items.append(Label(x, y, f"{self.feature} {number(reading.value)} is normalized to", 13, bold=True))
            for style, value in ((BATCH, reading.normalized), (EVERYONE, reading.ideal)):
                y += 21
                words = _signed(value) if np.isfinite(value) else "—"
                items += [Label(x, y, words, 14, bold=True), Label(x + 62, y, f"by {style.name}")]
        return items


def _moments(mean: float, var: float) -> str:
    return f"{fixed(mean)}, σ {fixed(var**0.5)}"


def _signed(value: float) -> str:
    return f"{'+' if value >= 0.005 else ''}{fixed(value)}"
