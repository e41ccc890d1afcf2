"""Batches drawn from a population of images: what BatchNorm knows of it, and what one image becomes in each of them."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from normviz.arms import BLUE, VERMILION, Style
from normviz.draw.common import as_array
from normviz.explore.base import Control, Explorer, Held, given
from normviz.explore.hand import along
from normviz.fields import choice, integer
from normviz.norms import RunningStats, normalize, normalize_steps
from normviz.picture.chart import Chart, legend
from normviz.picture.color import INK, MUTED, PAPER, grey_fills, mix, readable_on, value_fills
from normviz.picture.scene import Box, Label, Scene, Shapes, Strokes, grid_rects, paragraph, rect, ring
from normviz.picture.text import number, plural
from normviz.samples import FILTERS, digit_features, digit_images

SIZES = (1, 2, 4, 8, 16, 32, 64)
DRAWS = 40  # the most batches
#: None is torch's name for the plain average over all batches
MOMENTA = {"0.01": 0.01, "0.03": 0.03, "0.1": 0.1, "0.3": 0.3, "1.0": 1.0, "None": None}
SCOPES = {"map": "every position of the map", "cell": "one cell of each map"}
LARGEST = 1e70  # of a reader's values: the variance of their variance is finite
EPS = 1e-5

SHOWN = 5  # batches whose outputs are drawn as pictures: the last ones
BATCHES = range(1, DRAWS + 1)
MEANS = Box(72, 62, 336, 152)  # of the chart of means; that of variances is beside it
BATCH = Style("one batch", BLUE, "circle")
RUNNING = Style("running estimate", VERMILION, "square")


class Population(NamedTuple):
    """All images that batches are drawn from."""

    maps: np.ndarray  # float64 (n, C, H, W)
    names: tuple[str, ...]  # of the channels
    cell: tuple[int, int]  # the (row, column) that is watched
    pictures: np.ndarray | None = None  # what the maps were made from, (n, h, w)


class Reading(NamedTuple):
    """The statistics of every batch and what they do to the watched image; K batches of N, P×Q positions."""

    batches: np.ndarray  # (K, N) indices of the images drawn
    mean: np.ndarray  # (K,)
    var: np.ndarray  # (K,), biased, as it is divided by
    running: np.ndarray  # (K + 1, 2), running mean and variance before the first batch and after each
    population: tuple[float, float]  # its mean and (biased) variance
    error: float  # standard deviation of a batch mean, exactly
    raw: np.ndarray  # (P, Q) of the image
    outputs: np.ndarray  # (K, P, Q), the image as first member of each batch, in the state's mode
    ideal: np.ndarray  # (P, Q), the same with the population's statistics
    at: tuple[int, int]  # the watched one of the positions
    refusal: str  # why there are no statistics, where a batch has a single value

    @property
    def watched(self) -> np.ndarray:
        """Outputs at the watched position, (K,)."""
        return self.outputs[(slice(None), *self.at)]


@lru_cache(maxsize=4)
def population_of(x: Held | None) -> Population:
    """All 1,797 handwritten digits through the eight filters of chapter 01, or what a reader brought."""
    if x is None:
        return Population(digit_features(1797).astype(float), tuple(FILTERS), (2, 3), digit_images(1797))
    _, channels, rows, columns = x.value.shape
    return Population(x.value, tuple(map(str, range(channels))), (rows // 2, columns // 2))


def channel_of(x: Held | None, channel: int, scope: str) -> np.ndarray:
    """The values of one channel of the population, (n, H, W), or (n, 1, 1) where the scope is one cell."""
    maps, _, (row, column), _ = population_of(x)
    return maps[:, channel] if scope == "map" else maps[:, channel, row : row + 1, column : column + 1]


@lru_cache(maxsize=64)
def spread_of(x: Held | None, channel: int, scope: str) -> tuple[float, float, float, list[tuple[float, float]]]:
    """Mean and variance of a channel, the standard deviation of its images' means, and limits for the two charts.

    The limits hold the means of nearly all single images and the variances of nearly all pairs, whatever the state:
    larger batches are seen to scatter less.
    """
    values = channel_of(x, channel, scope)
    means = values.mean((1, 2))
    pairs = values[np.random.default_rng(0).integers(0, len(values), (500, 2))]
    limits = []
    for center, some in ((values.mean(), means), (values.var(), pairs.var((1, 2, 3)))):
        low, high = min(center, np.quantile(some, 0.01)), max(center, np.quantile(some, 0.99))
        room = 0.12 * (high - low) or 1.0
        limits.append((float(low - room), float(high + room)))
    return float(values.mean()), float(values.var()), float(means.std()), limits


@dataclass(frozen=True)
class Batches(Explorer):
    """BatchNorm's statistics: batches drawn from a population, the running estimate, the outputs of one image.

    x: the population, tensor or array (n, C, H, W); None for 1,797 handwritten digits through eight filters.
    scope: "map" averages over all positions, as BatchNorm2d does, "cell" takes one cell of each map, as BatchNorm1d has
    one number a sample.  image: index of the image that is put into every batch.

    Raises TypeError if x is not numeric; ValueError for another rank, an empty axis, fewer than 2 images, or a value
    that is not finite or beyond ±1e70.
    """

    ahead = ("batch_size", "scope", "evaluation", "momentum")
    parts = (
        *((0, 6, 424, 34), (424, 6, 690, 34), (690, 6, 960, 34)),  # the legend
        *((0, 46, 424, 258), (424, 46, 840, 258), (0, 258, 530, 502), (530, 258, 840, 502), (0, 502, 530, 540)),
    )

    x: object = given()
    batch_size: int = choice(8, SIZES, "batch size")
    draws: int = integer(20, 1, DRAWS, "batches")
    momentum: float | None = choice(0.1, MOMENTA, "momentum")
    channel: int | None = integer(None, label="channel")
    scope: str = choice("map", {"map": "map", "one cell": "cell"}, "average over")
    image: int = integer(0, label="image")
    seed: int = integer(0, 0, 9, "seed")
    evaluation: bool = choice(False, {"training": False, "evaluation": True}, "mode")

    def hold(self, name, value):
        values = as_array(value)
        if values.ndim != 4 or 0 in values.shape or len(values) < 2:
            raise ValueError(f"x has shape {values.shape}; it takes (n, C, H, W) with at least 2 images")
        if not (np.abs(values) <= LARGEST).all():
            raise ValueError(f"x holds a value that is not finite, or beyond ±{LARGEST:g}, as no statistic could be")
        return Held(values)

    def settle(self):
        if self.channel is None:
            self._set("channel", min(3, len(population_of(self.x).names) - 1))

    def offer(self) -> dict[str, Control]:
        offered, (maps, names, *_) = super().offer(), population_of(self.x)
        channel = offered["channel"].among(range(len(names)), names)
        return offered | {"channel": channel, "image": replace(offered["image"], high=len(maps) - 1)}

    def read(self) -> Reading:
        """The batches, drawn with replacement, go through BatchNorm one after the other."""
        values = channel_of(self.x, self.channel, self.scope)  # (n, P, Q)
        # Always the same draw, cut to size: a larger batch contains the smaller one
        drawn = np.random.default_rng(self.seed).integers(0, len(values), (DRAWS, SIZES[-1]))
        drawn, image = drawn[: self.draws, : self.batch_size], values[self.image]
        batches = values[drawn].transpose(1, 0, 2, 3)  # (N, K, P, Q): each batch a channel of its own
        with_image = batches.copy()
        with_image[0] = image

        running, refusal, track = RunningStats.fresh(1, like=values), "", [(0.0, 1.0)]
        try:
            steps = normalize_steps(batches, "batch")
            mean, var = steps.mean[0, :, 0, 0], steps.var[0, :, 0, 0]
            outputs = normalize(with_image, "batch")[0]  # (K, P, Q)
            for k in range(self.draws):
                normalize(batches[:, k : k + 1], "batch", running=running, momentum=self.momentum)
                track.append((float(running.mean[0]), float(running.var[0])))
        except ValueError as error:
            refusal, mean = str(error), np.full(self.draws, np.nan)
            var, outputs = mean, np.full((self.draws, *image.shape), np.nan)
            track *= self.draws + 1
        if self.evaluation:
            alone = normalize(image[None, None], "batch", running=running, training=False)[0]  # (1, P, Q)
            outputs = np.broadcast_to(alone, outputs.shape)

        centre, spread, error, _ = spread_of(self.x, self.channel, self.scope)
        ideal, error = (image - centre) / (spread + EPS) ** 0.5, error / self.batch_size**0.5
        at = population_of(self.x).cell if self.scope == "map" else (0, 0)
        return Reading(drawn, mean, var, np.array(track), (centre, spread), error, image, outputs, ideal, at, refusal)

    def say(self, reading: Reading) -> str:
        (centre, spread), (mean, var) = reading.population, reading.running[-1]
        std, watched = spread**0.5, reading.watched
        scatter, rest = "a single value has no variance, and torch refuses to train on it", "as they started"
        if not reading.refusal:
            scatter = f"{plural(self.draws, 'batch mean')} scatter{'s' * (self.draws == 1)} by "
            scatter += f"±{_sound(reading.mean.std(), std)} and batch variances by ±{_sound(reading.var.std(), spread)}"
            rest = f"momentum {self.momentum}"
        first, low, high = map(_sound, (watched[0], watched.min(), watched.max()))
        if reading.refusal and not self.evaluation:
            outputs = "has no output"
        elif self.batch_size == 1 and not self.evaluation:
            outputs = f"comes out as {first}: it is its own batch"
        elif self.evaluation or np.ptp(watched) < 1e-3:
            outputs = f"comes out as {first} in every batch"
        else:
            outputs = f"comes out between {low} and {high}, depending on the rest of its batch"
        return (
            f"BatchNorm of channel ‘{population_of(self.x).names[self.channel]}’, {SCOPES[self.scope]}, batches of "
            f"{self.batch_size}: {scatter}; running mean {_sound(mean, std)}, running variance {_sound(var, spread)} "
            f"(population {_sound(centre, std)} and {_sound(spread, spread)}), {rest}. In {self._mode} the framed cell "
            f"of image {self.image} {outputs}."
        )

    @property
    def _mode(self) -> str:
        return "evaluation" if self.evaluation else "training"

    def draw(self, reading: Reading) -> Scene:
        """Batch means and variances with the running estimates; below them one image in one batch after another."""
        band = mix(BATCH.color, PAPER, 0.82), "where 95 % of batch means fall"
        means, variances, outputs = self._statistic(reading, 0), self._statistic(reading, 1), self._outputs(reading)
        items = legend([BATCH, RUNNING, ("", "– – population"), band, ("", "○ beyond the scale")], 72, 20)
        items += [*means.items, *variances.items, *self._tiles(reading), *outputs.items]
        return Scene(840, 520, items, handles=[along("batches", "draws", means, BATCHES, BATCHES)])

    def _statistic(self, reading: Reading, which: int) -> Chart:
        """One of the two charts on top: a dot a batch, the running estimate as a line."""
        name, (low, high) = ("mean", "variance")[which], spread_of(self.x, self.channel, self.scope)[3][which]
        chart = _chart(replace(MEANS, x=MEANS.x + 418 * which), (low, high), f"The {name} of each batch")
        centre, values, running = reading.population[which], reading[1 + which], reading.running[:, which]
        if which == 0 and not reading.refusal:
            near = 1.96 * reading.error
            chart.band([0, DRAWS], centre - near, centre + near, BATCH.color, name="band")
        chart.across(centre, name="population")
        if reading.refusal:
            for y, text in ((102, "a single value has no variance:"), (120, "torch refuses to train")):
                chart.add(Label(chart.box.center[0], y, text, anchor="middle", bold=True))
            return chart
        batch = np.arange(len(running))
        chart.dots(batch[1:], values, BATCH, hollow=(values < low) | (values > high), name=f"batch-{name}")
        chart.line(batch, running, Style("", PAPER), 5.0)
        chart.line(batch, running, RUNNING, 3.0, name=f"running-{name}")
        if not low <= running[0] <= high:
            arrow, dy = ("↑", 14) if running[0] > high else ("↓", -6)
            chart.write(0, running[0], f"{arrow} starts at {number(running[0])}", dx=6, dy=dy, color=MUTED)
        return chart

    def _tiles(self, reading: Reading) -> list:
        """The image, its raw channel, the outputs in the last batches, and how far each is from the ideal one."""
        _, _, (row, column), pictures = population_of(self.x)
        side, step, top, below = 64.0, 74.0, 306.0, 396.0
        near = 0.3 if self.scope == "map" else 1.5  # the scale of the differences
        tiles = [] if pictures is None else [(12.0, top, "image", pictures[self.image], None)]
        tiles.append((12 + step * len(tiles), top, "raw", reading.raw, float(np.abs(reading.raw).max())))
        x = 160.0
        for k in range(max(0, self.draws - SHOWN), self.draws):
            # The scales do not move with the batches, so that equal colours are equal values
            tiles.append((x, top, f"batch {k + 1}", reading.outputs[k], 2.5))
            tiles.append((x, below, "", reading.outputs[k] - reading.ideal, near))
            x += step

        items: list = [Label(12, top - 28, f"Image {self.image}, the same in every batch", 13, bold=True)]
        outlines, frames = [], []
        for x, y, name, values, limit in tiles:
            box, value = Box(x, y, side, side), float(values[reading.at])
            cells = grid_rects(box, *values.shape)
            fills = grey_fills(values) if limit is None else value_fills(values.ravel(), limit)[0]
            items += [Shapes(cells, fills, [*map(number, values.ravel().tolist())]), Label(x, y - 7, name, color=MUTED)]
            outlines.append(rect(box))
            frames += [cells[row * values.shape[1] + column]] if values.size > 1 else []
            if limit is not None:
                items.append(Label(x, y + side + 17, _sound(value) if np.isfinite(value) else "none", bold=True))
            if not np.isfinite(value):
                items.append(Label(x + side / 2, y + side / 2 + 5, "×", 16, "middle", readable_on(fills[0])))
        items.append(Strokes(ring(outlines), MUTED, 1.0))
        if frames:
            items += [Strokes(ring(frames), PAPER, 4.0), Strokes(ring(frames), INK, 2.0)]
        items += paragraph("minus what the population’s statistics would give:", 12, below + 20, 136, color=MUTED)
        scales = f"outputs from −2.5 to 2.5, differences from −{near:g} to {near:g}."
        note = f"Numbers: the framed cell. Orange is above 0, blue below: {scales}"
        return [*items, Label(12, 508, note, color=MUTED)]

    def _outputs(self, reading: Reading) -> Chart:
        """The watched cell's output in every batch."""
        ideal, watched = reading.ideal[reading.at], reading.watched
        low, high = ideal - 0.75, ideal + 0.75
        if self.scope == "cell":  # of a pair of single values one becomes +1 and the other −1
            low, high = min(ideal - 1.5, -1.2), max(ideal + 1.5, 1.2)
        chart = _chart(Box(590, 288, 236, 168), (low, high), f"The framed cell, {self._mode}", "output")
        chart.across(ideal, name="population")
        style, beyond = RUNNING if self.evaluation else BATCH, (watched < low) | (watched > high)
        chart.dots(np.arange(1, self.draws + 1), watched, style, hollow=beyond, name="watched")
        return chart


def _sound(value: float, scale: float = 1.0) -> str:
    """A number for a caption; what is rounding noise on its scale is 0."""
    return number(0.0 if abs(value) < 1e-6 * scale else float(value))


def _chart(box: Box, limits: tuple[float, float], heading: str, y_name: str = "") -> Chart:
    ticks = {k: str(k) for k in range(0, DRAWS + 1, 10)}
    return Chart(box, (0, DRAWS), limits, x_name="batch", y_name=y_name, heading=heading, x_ticks=ticks)
