"""What the explorer of notebook 05 shows, without any widget: a state of the controls -> a reading -> a scene.

Digits become sequences of ink pixels (see `samples.ink_sequences`); BatchNorm's mean of one feature is followed over
the time step, as fewer and fewer sequences of the batch are left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from normviz.picture.colors import HUES, INK, PAPER, mix, rgb
from normviz.picture.curves import Frame, marks, path, style_of, with_caption
from normviz.picture.ink import numbered
from normviz.picture.png import figure
from normviz.picture.scene import Box, Label, Raster, Scene, Shapes, Strokes
from normviz.samples import digit_images, ink_sequences

#: The numbers of a step, and the range that their axis shows
FEATURES = {"row": (0.0, 7.0), "column": (0.0, 7.0), "ink": (0.0, 1.0)}
SIZES = (2, 4, 8, 16, 32, 64, 128)
SEEDS = 10
DRAWS = 100  # batches that tell how noisy a mean is
EPS = 1e-5
WIDTH = 840  # fits JupyterLab beside its file browser on a small screen
PADDING = "#D8D8D8"


@dataclass(frozen=True)
class State:
    """batch_size: of SIZES; step: from 0; feature: a key of FEATURES; seed: which batch.

    per_step: statistics of each time step by itself, or shared by all of them; masked: whether padding is left out.
    """

    batch_size: int = 16
    step: int = 35
    per_step: bool = True
    masked: bool = True
    feature: str = "ink"
    seed: int = 0


@dataclass(frozen=True)
class Reading:
    """A batch of B sequences, longest first, its statistics over T time steps, and those of all digits.

    steps: (B, T, 3), padding 0; lengths: (B,); images: the digits' numbers; alive: (T,) sequences that have the step;
    mean, var: (T,) of the state's feature, var biased, NaN where nothing is there to average; low, high: (T,) between
    which nine in ten of DRAWS batches of this size have their mean; noise: (T,) its standard deviation over them;
    population: (2, T) mean and variance of each step over all digits; value: the longest sequence's feature at the
    step, normalized: the same by the batch's statistics, ideal: by the population's; NaN behind its end.
    """

    steps: np.ndarray
    lengths: np.ndarray
    images: np.ndarray
    alive: np.ndarray
    mean: np.ndarray
    var: np.ndarray
    low: np.ndarray
    high: np.ndarray
    noise: np.ndarray
    population: np.ndarray
    value: float
    normalized: float
    ideal: float
    caption: str


@lru_cache(maxsize=1)
def digit_sequences() -> tuple[np.ndarray, np.ndarray]:
    """All 1,797 digits as ink sequences: steps float32 (n, T, 3) with ink 0 to 1, lengths int64 (n,)."""
    import torch

    steps, lengths = ink_sequences(torch.from_numpy(digit_images(1797)))
    return steps.numpy(), lengths.numpy()


def check_state(state: State) -> State:
    """The state itself.  Raises ValueError, naming the field, for what no control can be set to."""
    last = digit_sequences()[0].shape[1] - 1
    for name, allowed in (("batch_size", SIZES), ("feature", tuple(FEATURES))):
        if getattr(state, name) not in allowed:
            raise ValueError(
                f"{name}={getattr(state, name)!r} is unknown; it takes one of {', '.join(map(str, allowed))}"
            )
    for name, most in (("step", last), ("seed", SEEDS - 1)):
        value = getattr(state, name)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise ValueError(f"{name}={value!r} must be an integer from 0 to {most}")
    return state


def statistics(values: np.ndarray, lengths: np.ndarray, per_step: bool, masked: bool) -> tuple:
    """Mean and biased variance at every time step: two float64 arrays (..., T).

    values: padded (..., B, T), lengths (..., B).  Per step, a step that no sequence reaches has none: NaN.  Unmasked,
    a batch's padding counts up to the end of its longest sequence.
    """
    time = np.arange(values.shape[-1])
    end = lengths if masked else np.broadcast_to(lengths.max(-1, keepdims=True), lengths.shape)
    counted = time < end[..., None]  # (..., B, T)
    over = -2 if per_step else (-2, -1)
    with np.errstate(invalid="ignore"):
        size = counted.sum(over, keepdims=True)
        mean = (values * counted).sum(over, keepdims=True, dtype=float) / size
        var = (np.square(values - mean) * counted).sum(over, keepdims=True) / size
    shape = (*values.shape[:-2], values.shape[-1])
    return tuple(np.broadcast_to(found[..., 0, :], shape) for found in (mean, var))


@lru_cache(maxsize=len(SIZES))
def _draws(batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """DRAWS batches: how often each holds each digit (DRAWS, n), and the length of its longest (DRAWS, 1)."""
    _, lengths = digit_sequences()
    drawn = np.random.default_rng(1000).integers(0, len(lengths), (DRAWS, batch_size))
    times = np.zeros((DRAWS, len(lengths)), np.float32)
    np.add.at(times, (np.arange(DRAWS)[:, None], drawn), 1)
    return times, lengths[drawn].max(1, keepdims=True)


@lru_cache(maxsize=256)
def _noise(batch_size: int, per_step: bool, masked: bool, feature: str) -> tuple[np.ndarray, ...]:
    """5 % and 95 % quantiles and standard deviation, over DRAWS batches, of the mean at every step."""
    steps, lengths = digit_sequences()
    times, longest = _draws(batch_size)
    time = np.arange(steps.shape[1])
    # As `statistics`, but one product for all batches: a slider must not wait for a hundred gathers
    totals = (times @ steps[..., list(FEATURES).index(feature)]).astype(float)  # (DRAWS, T); padding adds 0
    sizes = times @ (time < lengths[:, None]).astype(np.float32) if masked else batch_size * (time < longest)
    if not per_step:
        totals, sizes = (np.broadcast_to(a.sum(1, keepdims=True), a.shape) for a in (totals, sizes))
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.sort(totals / sizes, axis=0)  # NaN, where a batch has nothing to average, comes last
    known = np.isfinite(means)
    count = known.sum(0)
    low, high = (_quantile(means, count, q) for q in (0.05, 0.95))
    centre = np.where(known, means, 0).sum(0) / np.maximum(count, 1)
    spread = np.square(np.where(known, means - centre, 0)).sum(0) / np.maximum(count - 1, 1)
    return low, high, np.where(count > 1, np.sqrt(spread), np.nan)


def _quantile(ordered: np.ndarray, count: np.ndarray, share: float) -> np.ndarray:
    """A quantile of the first `count` of each column, interpolated; NaN where there are fewer than two."""
    at = share * np.maximum(count - 1, 0)
    below = np.floor(at).astype(int)
    column = np.arange(len(count))
    above = ordered[np.minimum(below + 1, np.maximum(count - 1, 0)), column]
    value = ordered[below, column] + (at - below) * (above - ordered[below, column])
    return np.where(count > 1, value, np.nan)


@lru_cache(maxsize=len(FEATURES))
def _population(feature: str) -> np.ndarray:
    steps, lengths = digit_sequences()
    return np.stack(statistics(steps[..., list(FEATURES).index(feature)], lengths, True, True))


def read(state: State) -> Reading:
    """Draw the state's batch and compute everything that its scene shows."""
    steps, lengths = digit_sequences()
    drawn = np.random.default_rng(state.seed).integers(0, len(lengths), SIZES[-1])[: state.batch_size]
    drawn = drawn[np.argsort(-lengths[drawn], kind="stable")]
    steps, lengths = steps[drawn], lengths[drawn]
    values = steps[..., list(FEATURES).index(state.feature)]  # (B, T)
    mean, var = statistics(values, lengths, state.per_step, state.masked)
    low, high, noise = _noise(state.batch_size, state.per_step, state.masked, state.feature)
    population, t = _population(state.feature), state.step
    alive = (np.arange(values.shape[1]) < lengths[:, None]).sum(0)
    value = float(values[0, t]) if alive[t] else np.nan
    normalized = (value - mean[t]) / (var[t] + EPS) ** 0.5
    ideal = (value - population[0, t]) / (population[1, t] + EPS) ** 0.5
    found = {
        "steps": steps, "lengths": lengths, "images": drawn, "alive": alive, "mean": mean, "var": var, "low": low,
        "high": high, "noise": noise, "population": population, "value": value, "normalized": float(normalized),
        "ideal": float(ideal),
    }  # fmt: skip
    return Reading(**found, caption=_caption(state, found))


def _caption(state: State, found: Mapping) -> str:
    t, alive = state.step, int(found["alive"][state.step])
    which = "statistics of this step" if state.per_step else "statistics shared by all steps"
    text = f"Step {t}: {alive} of {state.batch_size} sequences alive. {which[0].upper()}{which[1:]}, "
    text += "padding left out: " if state.masked else "padding counted: "
    if not np.isfinite(found["mean"][t]):
        return text + "there is nothing to average, as every sequence of the batch has ended."
    text += f"mean {state.feature} {found['mean'][t]:.2f}, σ {found['var'][t] ** 0.5:.2f}; "
    text += f"at this step over all digits: {found['population'][0, t]:.2f}, σ {found['population'][1, t] ** 0.5:.2f}."
    if np.isfinite(found["noise"][t]):
        text += (
            f" Nine in ten such batches have a mean between {found['low'][t]:.2f} and {found['high'][t]:.2f}."
        )
    if alive:
        text += f" The longest digit's {state.feature} {found['value']:.3g} is normalized to "
        text += f"{_signed(found['normalized'])}, by all digits' statistics to {_signed(found['ideal'])}."
        if state.per_step and state.masked and alive == 1:
            text += " A lone sequence is its own mean: whatever it holds becomes 0."
    else:
        text += " Every sequence of the batch has ended; the shared statistics are there all the same."
    return text.replace("-", "−")


def _signed(value: float) -> str:
    return f"{value:+.2f}" if abs(value) >= 0.005 else "0.00"


LEFT, ACROSS = 62, 520  # of the three panels over time


def scene(state: State, reading: Reading, *, with_text: bool = False) -> Scene:
    """The padded batch, how many are alive, the mean over the time step, and the longest digit at this step."""
    picture = Scene(WIDTH, 492, reading.caption)
    last = len(reading.alive)
    picture.items += _batch(Box(LEFT, 36, ACROSS, 112), state, reading)
    picture.items += _alive(Box(LEFT, 190, ACROSS, 62), state, reading)
    picture.items += _mean(Box(LEFT, 300, ACROSS, 148), state, reading)
    x = LEFT + ACROSS * (state.step + 0.5) / last
    line = [[(x, 32), (x, 148)], [(x, 186), (x, 252)], [(x, 296), (x, 448)]]
    picture.items.append(Strokes(np.array(line), INK, 1.4, name="cursor"))
    picture.items += _digit(Box(622, 36, 208, 208), state, reading)
    picture.items += _words(622, 300, state, reading)
    return with_caption(picture) if with_text else picture


_DARK = mix(HUES[4], INK, 0.25)


def _batch(box: Box, state: State, reading: Reading) -> list:
    values = reading.steps[..., list(FEATURES).index(state.feature)]
    share = values[..., None] / FEATURES[state.feature][1]
    colors = rgb("#EAF3FA") * (1 - share) + rgb(_DARK) * share
    real = np.arange(values.shape[1]) < reading.lengths[:, None]
    padded = np.arange(values.shape[1]) < reading.lengths.max()
    colors = np.where(real[..., None], colors, np.where(padded[:, None], rgb(PADDING), 255))
    most = FEATURES[state.feature][1]
    title = f"{state.batch_size} sequences, longest first; light is {state.feature} 0, dark is {most:g}"
    items = [
        Label(box.x, box.y - 10, "The batch, longest first", 13, bold=True),
        Raster(box.x, box.y, box.width, box.height, np.rint(colors).astype(np.uint8), title),
        Label(box.x - 42, box.y + box.height / 2, "sequence", anchor="middle", angle=90),
    ]
    x, y = box.x + box.width - 214, box.y - 20
    ends = [(mix("#EAF3FA", _DARK, k), k) for k in (0.0, 0.5, 1.0)]
    for i, (fill, k) in enumerate(ends):
        items.append(_square(x + 14 * i, y, fill))
        if k in (0.0, 1.0):
            text = f"{state.feature} 0" if k == 0 else f"{FEATURES[state.feature][1]:g}"
            items.append(
                Label(x - 4 if k == 0 else x + 46, y + 11, text, anchor="end" if k == 0 else "start")
            )
    items += [_square(x + 84, y, PADDING), Label(x + 102, y + 11, "padding (0)")]
    return items


def _square(x: float, y: float, fill: str) -> Shapes:
    return Shapes(
        np.array([[(x, y), (x + 13, y), (x + 13, y + 13), (x, y + 13)]]), [fill], stroke=INK, width=0.7
    )


def _ticks(last: int) -> dict[float, str]:
    return {float(t): str(t) for t in range(0, last, 5)}


def _alive(box: Box, state: State, reading: Reading) -> list:
    last = len(reading.alive)
    frame = Frame(box, (-0.5, last - 0.5), (0, state.batch_size))
    items = frame.axes(
        "", "alive", "Sequences still alive: all that a step's own mean can average", _ticks(last)
    )
    t = np.arange(last)
    corners = [(t - 0.4, 0 * t), (t + 0.4, 0 * t), (t + 0.4, reading.alive), (t - 0.4, reading.alive)]
    bars = np.stack([frame(x, y) for x, y in corners], axis=1)
    titles = [f"step {i}: {n} alive" for i, n in enumerate(reading.alive.tolist())]
    return [*items, Shapes(bars, [HUES[1]] * last, titles, stroke=INK, width=0.5, name="alive")]


def _mean(box: Box, state: State, reading: Reading) -> list:
    last = len(reading.alive)
    frame = Frame(box, (-0.5, last - 0.5), FEATURES[state.feature])
    heading = f"The mean {state.feature}: this batch, nine in ten batches of its size, all digits"
    items = frame.axes("time step (ink pixels read so far)", f"mean {state.feature}", heading, _ticks(last))
    t = np.arange(last)
    sound = np.isfinite(reading.low)
    whole = np.flatnonzero(sound[:-1] & sound[1:])
    band = [frame(whole, reading.low[whole]), frame(whole + 1, reading.low[whole + 1])]
    band += [frame(whole + 1, reading.high[whole + 1]), frame(whole, reading.high[whole])]
    color = style_of("bn").color
    items.append(Shapes(np.stack(band, axis=1), [mix(color, PAPER, 0.68)] * len(whole), name="band"))
    items.append(Strokes(path(frame, t, reading.population[0]), INK, 2.0, True, "population"))
    items.append(Strokes(path(frame, t, reading.mean), color, 2.4, name="mean"))
    if np.isfinite(reading.mean[state.step]):
        items.append(marks(frame(state.step, reading.mean[state.step]), "bn", 5.5))
    return items


def _digit(box: Box, state: State, reading: Reading) -> list:
    """The longest digit, its pixels in reading order, the one of this step framed."""
    items = [Label(box.x, box.y - 10, "The longest digit", 13, bold=True)]
    items += numbered(box, digit_images(1797)[reading.images[0]], numbers=False)
    if state.step < reading.lengths[0]:
        row, column = reading.steps[0, state.step, :2]
        side = box.width / 8
        x, y = box.x + side * column, box.y + side * row
        corners = np.array([(x, y), (x + side, y), (x + side, y + side), (x, y + side)])
        ring = np.stack([corners, np.roll(corners, -1, axis=0)], axis=1)
        items += [Strokes(ring, PAPER, 6.0), Strokes(ring, HUES[5], 3.6, name="pixel")]
        text = f"step {state.step}: row {row:g}, column {column:g}, ink {reading.steps[0, state.step, 2]:.2f}"
    else:
        text = f"ended after step {reading.lengths[0] - 1}"
    return [*items, Label(box.x, box.y + box.height + 20, text)]


def _words(x: float, y: float, state: State, reading: Reading) -> list:
    t = state.step
    lines = [
        ("this batch", style_of("bn").color, reading.mean[t], reading.var[t], False),
        ("all digits", INK, reading.population[0, t], reading.population[1, t], True),
    ]
    items = [Label(x, y, f"At step {t}", 13, bold=True)]
    for i, (name, color, mean, var, dashed) in enumerate(lines):
        at = y + 24 + 20 * i
        items.append(Strokes(np.array([[(x, at - 4), (x + 26, at - 4)]]), color, 2.4, dashed))
        text = f"{name}: μ {mean:.2f}, σ {var**0.5:.2f}" if np.isfinite(mean) else f"{name}: nobody is left"
        items.append(Label(x + 34, at, text))
    at = y + 64
    band = mix(style_of("bn").color, PAPER, 0.68)
    items.append(Shapes(np.array([[(x, at - 9), (x + 26, at - 9), (x + 26, at), (x, at)]]), [band]))
    noise = reading.noise[t]
    text = "no such batch gets here"
    if np.isfinite(noise):
        text = f"scatter of the mean: {noise:.2f}" if noise >= 0.005 else f"scatter of the mean: {noise:.1g}"
    items.append(Label(x + 34, at, text))
    if np.isfinite(reading.value):
        items.append(Label(x, y + 96, f"{state.feature} {reading.value:.3g} is normalized to", 13, bold=True))
        for i, (name, value) in enumerate(
            (("this batch", reading.normalized), ("all digits", reading.ideal))
        ):
            text = _signed(value).replace("-", "−") if np.isfinite(value) else "—"
            items.append(Label(x, y + 118 + 20 * i, text, 14, bold=True))
            items.append(Label(x + 62, y + 118 + 20 * i, f"by {name}"))
    return items


def draw_time(**choices):
    """What `explore_time` shows, as a matplotlib Figure.  Arguments and errors as there."""
    state = check_state(State(**choices))
    return figure(scene(state, read(state), with_text=True))
