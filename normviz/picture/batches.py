"""What `explore_batches` computes, without any widget: a state of the controls -> a reading.

Batches are drawn from a population of images; BatchNorm estimates the population's mean and variance from each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from normviz.functional import RunningStats, normalize, normalize_steps
from normviz.picture.figures import as_array
from normviz.samples import FILTERS, digit_features, digit_images

SIZES = (1, 2, 4, 8, 16, 32, 64)
DRAWS = 40  # the most batches
SEEDS = 10
#: What the momentum slider takes; None is torch's name for the plain average over all batches
MOMENTA = {"0.01": 0.01, "0.03": 0.03, "0.1": 0.1, "0.3": 0.3, "1.0": 1.0, "None": None}
SCOPES = {"map": "every position of the map", "cell": "one cell of each map"}


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

    centre, spread, error, _, _ = about(population, state.channel, state.scope)
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
def about(population: Population, channel: int, scope: str):
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


def number(value: float, digits: int = 3) -> str:
    """A number for a caption: a proper minus sign, and rounding noise is 0."""
    return f"{0.0 if abs(value) < 5e-7 else value:.{digits}g}".replace("-", "−")


def _caption(population: Population, state: State, found: dict) -> str:
    (centre, spread), running = found["population"], found["running"][-1]
    name = population.names[state.channel]
    head = f"BatchNorm of channel ‘{name}’, {SCOPES[state.scope]}, batches of {state.batch_size}: "
    rest = (
        f"running mean {number(running[0])}, running variance {number(running[1])} "
        f"(population {number(centre)} and {number(spread)})"
    )
    if found["refusal"]:
        statistics = (
            f"a single value has no variance, and torch refuses to train on it; {rest}, as they started. "
        )
    else:
        statistics = (
            f"{state.draws} batch means scatter by ±{number(found['mean'].std())} and batch variances by "
            f"±{number(found['var'].std())}; {rest}, momentum {state.momentum}. "
        )
    watched, image = found["watched"], f"the framed cell of image {state.image}"
    if state.evaluation:
        return f"{head}{statistics}In evaluation {image} comes out as {number(watched[0])} in every company."
    if found["refusal"]:
        return f"{head}{statistics}In training {image} has no output."
    if state.batch_size == 1:
        return (
            f"{head}{statistics}In training {image} comes out as {number(watched[0])}: it is its own batch."
        )
    low, high = watched.min(), watched.max()
    if high - low < 1e-3:
        return f"{head}{statistics}In training {image} comes out as {number(watched[0])} in every company."
    return (
        f"{head}{statistics}In training {image} comes out between {number(low)} and {number(high)}, "
        "as its company has it."
    )


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
