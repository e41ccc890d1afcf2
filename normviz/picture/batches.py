"""What `explore_batches` shows, without any widget: a state of the controls -> a reading -> a scene.

Batches are drawn from a population of images; BatchNorm estimates the population's mean and variance from each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from normviz.functional import RunningStats, normalize, normalize_steps
from normviz.picture.colors import HUES, INK, MUTED, PAPER, mix, readable_on, value_fills
from normviz.picture.curves import MARKERS, Frame, Style, path, with_caption
from normviz.picture.figures import as_array
from normviz.picture.png import figure
from normviz.picture.scene import Box, Label, Scene, Shapes, Strokes
from normviz.samples import FILTERS, digit_features, digit_images

SIZES = (1, 2, 4, 8, 16, 32, 64)
DRAWS = 40  # the most batches
SEEDS = 10
#: What the momentum slider takes; None is torch's name for the plain average over all batches
MOMENTA = {"0.01": 0.01, "0.03": 0.03, "0.1": 0.1, "0.3": 0.3, "1.0": 1.0, "None": None}
SCOPES = {"map": "every position of the map", "cell": "one cell of each map"}
SHOWN = 5  # outputs drawn as pictures: the last so many batches
WIDTH = 840  # fits JupyterLab beside its file browser on a small screen

BATCH = Style("one batch", HUES[4], "circle")
RUNNING = Style("running estimate", HUES[5], "square")


@dataclass(frozen=True, eq=False)  # eq=False: one population is one key of a cache
class Population:
    """All images that batches are drawn from: feature maps (n, C, H, W), float32, with what to call the channels.

    pictures: the images that the maps were made from, (n, h, w), or None; cell: (row, column) that is watched.
    """

    maps: torch.Tensor
    names: tuple[str, ...]
    cell: tuple[int, int]
    pictures: np.ndarray | None = None

    def channel(self, channel: int, scope: str) -> torch.Tensor:
        """The values of one channel, (n, H, W), or (n, 1, 1) where the scope is one cell."""
        values = self.maps[:, channel]
        row, column = self.cell
        return values if scope == "map" else values[:, row : row + 1, column : column + 1]


@lru_cache(maxsize=1)
def digits() -> Population:
    """All 1797 handwritten digits of scikit-learn through the eight filters of notebook 01."""
    maps = torch.from_numpy(digit_features(1797))
    return Population(maps, tuple(FILTERS), (2, 3), digit_images(1797))


@dataclass(frozen=True)
class State:
    """batch_size: of SIZES; draws: 1 to DRAWS batches; momentum: a key of MOMENTA; scope: a key of SCOPES.

    image: which one is watched; seed: of the draws; evaluation: whether the image is put through in training or in
    evaluation mode.
    """

    batch_size: int = 8
    draws: int = 20
    momentum: str = "0.1"
    channel: int = 3
    scope: str = "map"
    image: int = 0
    seed: int = 0
    evaluation: bool = False


@dataclass(frozen=True)
class Reading:
    """The statistics of every batch and what they do to the watched image; K batches, P×Q positions.

    batches: (K, N) indices of the images drawn; mean, var: (K,), var biased, as it is divided by;
    running: (K + 1, 2), running mean and variance before the first batch and behind each;
    population: its mean and (biased) variance; error: standard deviation of a batch mean, exactly;
    raw: (P, Q); outputs: (K, P, Q) of the image as first member of each batch, in the state's mode;
    watched: (K,) outputs at the cell; ideal: the same with the population's statistics;
    refusal: why there are no statistics, where a batch has a single value.
    """

    batches: np.ndarray
    mean: np.ndarray
    var: np.ndarray
    running: np.ndarray
    population: tuple[float, float]
    error: float
    raw: np.ndarray
    outputs: np.ndarray
    watched: np.ndarray
    ideal: float
    refusal: str | None
    caption: str


def read(population: Population, state: State) -> Reading:
    """Draw the batches, with replacement, and put them through BatchNorm one after the other."""
    values = population.channel(state.channel, state.scope)  # (n, P, Q)
    rng = np.random.default_rng(state.seed)
    # Always the same draw, cut to size: a larger batch contains the smaller one
    batches = rng.integers(0, len(values), (DRAWS, SIZES[-1]))[: state.draws, : state.batch_size]
    batch = values[batches].transpose(0, 1)  # (N, K, P, Q): each batch a channel of its own
    company = batch.clone()
    company[0] = image = values[state.image]  # the watched one takes the first place of every batch

    running = RunningStats.fresh(1)
    track, refusal = [_pair(running)], None
    try:
        steps = normalize_steps(batch, "batch")
        mean, var = steps.mean[0, :, 0, 0].numpy(), steps.var[0, :, 0, 0].numpy()
        outputs = normalize(company, "batch")[0]  # (K, P, Q)
        for one in batch.unbind(1):
            normalize(one[:, None], "batch", running=running, momentum=MOMENTA[state.momentum])
            track.append(_pair(running))
    except ValueError as error:
        refusal = str(error)
        mean = var = np.full(state.draws, np.nan)
        outputs = torch.full((state.draws, *image.shape), torch.nan)
        track *= state.draws + 1
    if state.evaluation:
        alone = normalize(image[None, None], "batch", running=running, training=False)[0]
        outputs = alone.expand(state.draws, -1, -1)

    centre, spread, error, _, _ = _about(population, state.channel, state.scope)
    at = population.cell if state.scope == "map" else (0, 0)
    found = {
        "batches": batches, "mean": mean, "var": var, "running": np.array(track),
        "population": (centre, spread), "error": error / state.batch_size**0.5,
        "raw": image.numpy(), "outputs": outputs.numpy(), "watched": outputs[(slice(None), *at)].numpy(),
        "ideal": (float(image[at]) - centre) / (spread + 1e-5) ** 0.5, "refusal": refusal,
    }  # fmt: skip
    return Reading(**found, caption=_caption(population, state, found))


def _pair(running: RunningStats) -> tuple[float, float]:
    return float(running.mean), float(running.var)


@lru_cache(maxsize=64)
def _about(population: Population, channel: int, scope: str):
    """Mean and variance of a channel, the standard deviation of its images' means, and limits for the two charts.

    The limits hold the means of nearly all single images and the variances of nearly all pairs, whatever the state:
    larger batches are seen to scatter less.
    """
    values = population.channel(channel, scope).double().numpy()
    means = values.mean((1, 2))
    pairs = values[np.random.default_rng(0).integers(0, len(values), (500, 2))]
    variances = pairs.var((1, 2, 3))
    limits = []
    for center, some in ((values.mean(), means), (values.var(), variances)):
        low, high = min(center, np.quantile(some, 0.01)), max(center, np.quantile(some, 0.99))
        room = 0.12 * (high - low) or 1.0
        limits.append((low - room, high + room))
    return float(values.mean()), float(values.var()), float(means.std()), *limits


def _number(value: float, digits: int = 3) -> str:
    return f"{0.0 if abs(value) < 5e-7 else value:.{digits}g}".replace("-", "−")


def _caption(population: Population, state: State, found: dict) -> str:
    (centre, spread), running = found["population"], found["running"][-1]
    name = population.names[state.channel]
    head = f"BatchNorm of channel ‘{name}’, {SCOPES[state.scope]}, batches of {state.batch_size}: "
    rest = (
        f"running mean {_number(running[0])}, running variance {_number(running[1])} "
        f"(population {_number(centre)} and {_number(spread)})"
    )
    if found["refusal"]:
        statistics = (
            f"a single value has no variance, and torch refuses to train on it; {rest}, as they started. "
        )
    else:
        statistics = (
            f"{state.draws} batch means scatter by ±{_number(found['mean'].std())} and batch variances by "
            f"±{_number(found['var'].std())}; {rest}, momentum {state.momentum}. "
        )
    watched, image = found["watched"], f"the framed cell of image {state.image}"
    if state.evaluation:
        return f"{head}{statistics}In evaluation {image} comes out as {_number(watched[0])} in every company."
    if found["refusal"]:
        return f"{head}{statistics}In training {image} has no output."
    if state.batch_size == 1:
        return (
            f"{head}{statistics}In training {image} comes out as {_number(watched[0])}: it is its own batch."
        )
    low, high = watched.min(), watched.max()
    if high - low < 1e-3:
        return f"{head}{statistics}In training {image} comes out as {_number(watched[0])} in every company."
    return (
        f"{head}{statistics}In training {image} comes out between {_number(low)} and {_number(high)}, "
        "as its company has it."
    )


def scene(population: Population, state: State, reading: Reading, *, with_text: bool = False) -> Scene:
    """Batch means and variances with the running estimates; below them the watched image in different company."""
    picture = Scene(WIDTH, 468, reading.caption)
    picture.items += _key()
    limits = _about(population, state.channel, state.scope)[3:]
    series = (("mean", reading.mean), ("variance", reading.var))
    for i, (name, batch) in enumerate(series):
        frame = Frame(Box(64 + 422 * i, 62, 340, 152), (0, DRAWS), limits[i])
        picture.items += _statistic(frame, name, batch, reading, i)
    picture.items += _image(population, state, reading)
    picture.items += _company(state, reading)
    return with_caption(picture) if with_text else picture


def _dots(points, style: Style, radius: float, name: str, hollow=None) -> Shapes:
    """The style's marker at points (K, 2); a hollow one stands for a value beyond the scale."""
    points = np.reshape(points, (-1, 2))
    hollow = np.zeros(len(points), bool) if hollow is None else hollow
    fills = [PAPER if empty else style.color for empty in hollow]
    return Shapes(points[:, None] + radius * MARKERS[style.marker], fills, stroke=INK, width=0.7, name=name)


def _key() -> list:
    x, y = 64.0, 20.0
    items: list = [_dots([(x + 6, y - 4)], BATCH, 4, "legend"), Label(x + 18, y, BATCH.name)]
    items += [Strokes(np.array([[(x + 100, y - 4), (x + 126, y - 4)]]), RUNNING.color, 3.0)]
    items += [Label(x + 132, y, RUNNING.name)]
    items += [Strokes(np.array([[(x + 262, y - 4), (x + 288, y - 4)]]), INK, 1.4, dashed=True)]
    items += [Label(x + 294, y, "population")]
    band = [[(x + 390, y - 10), (x + 412, y - 10), (x + 412, y + 2), (x + 390, y + 2)]]
    items += [Shapes(np.array(band), [_BAND]), Label(x + 418, y, "where 95 % of batch means fall")]
    items += [_dots([(x + 650, y - 4)], BATCH, 4, "legend", [True]), Label(x + 662, y, "beyond the scale")]
    return items


_BAND = mix(BATCH.color, PAPER, 0.82)


def _statistic(frame: Frame, name: str, batch: np.ndarray, reading: Reading, which: int) -> list:
    """One of the two charts on top: a dot a batch, the running estimate as a line."""
    centre, ticks = reading.population[which], {float(k): str(k) for k in range(0, DRAWS + 1, 10)}
    items: list = []
    if which == 0 and reading.refusal is None:
        low, high = centre - 1.96 * reading.error, centre + 1.96 * reading.error
        corners = frame([0, DRAWS, DRAWS, 0], [low, low, high, high])
        items.append(Shapes(corners[None], [_BAND], name="band"))
    items += frame.axes("batch", name, f"The {name} of each batch", ticks)
    items.append(Strokes(frame([0, DRAWS], [centre] * 2)[None], INK, 1.4, dashed=True, name="population"))
    if reading.refusal:
        x, y = frame.box.x + frame.box.width / 2, frame.box.y + 40
        items.append(Label(x, y, "a single value has no variance:", anchor="middle", bold=True))
        items.append(Label(x, y + 18, "torch refuses to train", anchor="middle", bold=True))
        return items
    beyond = (batch < frame.y[0]) | (batch > frame.y[1])
    places = frame(np.arange(1, len(batch) + 1), batch)
    items.append(_dots(places, BATCH, 4, f"batch-{name}", beyond))
    running = reading.running[:, which]
    line = path(frame, np.arange(len(running)), running)
    items.append(Strokes(line, PAPER, 5.0))
    items.append(Strokes(line, RUNNING.color, 3.0, name=f"running-{name}"))
    if not frame.y[0] <= running[0] <= frame.y[1]:
        above = running[0] > frame.y[1]
        x, y = frame(0, running[0])
        text = f"{'↑' if above else '↓'} starts at {_number(running[0])}"
        items.append(Label(x + 6, y + (14 if above else -6), text, color=MUTED))
    return items


def _map(box: Box, values: np.ndarray, fills, cell=None) -> list:
    """An image as squares, with an outline, and a frame around one cell."""
    rows, columns = values.shape
    step = np.array([box.width / columns, box.height / rows])
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
    places = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 1, 2) + corners
    titles = [_number(v) for v in values.ravel()]
    items: list = [Shapes(np.array([box.x, box.y]) + step * places, fills, titles, name="map")]
    frames = [((0, 0), (columns, rows), MUTED, 1.0)]
    if cell is not None:
        frames += [(cell[::-1], (1, 1), PAPER, 4.0), (cell[::-1], (1, 1), INK, 2.0)]
    for start, size, color, width in frames:
        ring = np.array([box.x, box.y]) + step * (np.array(start) + np.array(size) * corners)
        items.append(Strokes(np.stack([ring, np.roll(ring, -1, axis=0)], 1), color, width))
    return items


def _image(population: Population, state: State, reading: Reading) -> list:
    """The watched image, its raw channel, and what came out of the last batches."""
    side, step, top = 64.0, 74.0, 306.0
    cell = population.cell if state.scope == "map" else None
    heading = f"Image {state.image}, the same in every batch"
    items: list = [Label(12, top - 28, heading, 13, bold=True)]
    tiles: list[tuple[str, str, np.ndarray, list[str]]] = []
    if population.pictures is not None:
        ink = population.pictures[state.image]
        grey = 255 - (ink - ink.min()) / (np.ptp(ink) or 1) * 230
        tiles.append(("image", "", ink, ["#" + f"{round(v):02X}" * 3 for v in grey.ravel()]))
    raw = reading.raw
    fills, _ = value_fills(raw.ravel(), float(np.abs(raw).max()))
    at = cell or (0, 0)
    tiles.append(("raw", _number(float(raw[at])), raw, fills))
    first = max(0, len(reading.watched) - SHOWN)
    for k in range(first, len(reading.watched)):
        # The scale of the outputs does not move with the batches, so that equal colours are equal values
        fills, _ = value_fills(reading.outputs[k].ravel(), 2.5)
        tiles.append((f"batch {k + 1}", _number(float(reading.watched[k])), reading.outputs[k], fills))
    for i, (name, text, values, fills) in enumerate(tiles):
        box = Box(12 + step * i, top, side, side)
        framed = population.cell if values.size > 1 else None
        items += _map(box, values, fills, framed)
        items.append(Label(box.x, top - 7, name, color=MUTED))
        if not np.isfinite(values).all():
            items.append(
                Label(box.x + side / 2, top + side / 2 + 4, "×", 16, "middle", readable_on(fills[0]))
            )
        items.append(Label(box.x, top + side + 17, text if text != "nan" else "none", bold=True))
    y = top + side + 44
    items.append(Label(12, y, "Numbers: the framed cell. Orange is above 0, blue below;", color=MUTED))
    items.append(Label(12, y + 17, "all outputs share one scale, from −2.5 to 2.5.", color=MUTED))
    return items


def _company(state: State, reading: Reading) -> list:
    """The watched cell's output in every batch."""
    ideal = reading.ideal
    # Of a pair of single values one becomes +1 and the other −1
    signs = [-1.2, 1.2] if state.scope == "cell" else []
    limits = (min([ideal - 1.5, *signs]), max([ideal + 1.5, *signs]))
    frame = Frame(Box(590, 288, 236, 132), (0, DRAWS), limits)
    mode = "evaluation" if state.evaluation else "training"
    ticks = {float(k): str(k) for k in range(0, DRAWS + 1, 10)}
    items = frame.axes("batch", "output", f"The framed cell, {mode}", ticks)
    items.append(Strokes(frame([0, DRAWS], [ideal] * 2)[None], INK, 1.4, dashed=True, name="population"))
    watched = reading.watched
    seen = np.isfinite(watched)
    if not seen.any():
        return items
    beyond = (watched < frame.y[0]) | (watched > frame.y[1])
    style = RUNNING if state.evaluation else BATCH
    places = frame(np.arange(1, len(watched) + 1), watched)
    items.append(_dots(places[seen], style, 4, "watched", beyond[seen]))
    return items


def population_of(x=None) -> Population:
    """The digits, or a population of the reader's own, (n, C, H, W).

    Raises TypeError if x is not numeric; ValueError for another rank, an empty axis, fewer than 2 images, or a
    value that is not finite.
    """
    if x is None:
        return digits()
    values = as_array(x)
    if values.ndim != 4 or 0 in values.shape or len(values) < 2:
        raise ValueError(f"x has shape {values.shape}; it takes (n, C, H, W) with at least 2 images")
    if not np.isfinite(values).all():
        raise ValueError(
            "x holds a value that is not finite; the statistics of such a population are not either"
        )
    names = tuple(str(c) for c in range(values.shape[1]))
    cell = (values.shape[2] // 2, values.shape[3] // 2)
    return Population(torch.from_numpy(values.astype(np.float32)), names, cell)


def make_state(population: Population, *, momentum: float | None = 0.1, **choices) -> State:
    """A `State` that fits the population.  Raises ValueError, naming the argument and what it takes."""
    keys = {value: key for key, value in MOMENTA.items()}
    if momentum not in keys:
        raise ValueError(f"momentum={momentum!r} must be one of {tuple(keys)}")
    choices.setdefault("channel", min(State.channel, len(population.names) - 1))
    state = State(momentum=keys[momentum], **choices)
    for name, allowed in (("batch_size", SIZES), ("scope", tuple(SCOPES))):
        if getattr(state, name) not in allowed:
            raise ValueError(f"{name}={getattr(state, name)!r} must be one of {allowed}")
    ends = {
        "draws": (1, DRAWS),
        "channel": (0, len(population.names) - 1),
        "image": (0, len(population.maps) - 1),
        "seed": (0, SEEDS - 1),
    }
    for name, (low, high) in ends.items():
        if not low <= getattr(state, name) <= high:
            raise ValueError(f"{name}={getattr(state, name)!r} must be {low} to {high}")
    return state


def draw_batches(x=None, **choices):
    """What `explore_batches` shows for these arguments, as a matplotlib Figure with alt text; errors as there."""
    population = population_of(x)
    state = make_state(population, **choices)
    return figure(scene(population, state, read(population, state), with_text=True))
