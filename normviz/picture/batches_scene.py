"""What `explore_batches` shows: a reading of batch statistics -> a scene."""

from __future__ import annotations

import numpy as np

from normviz.picture.batches import (
    DRAWS,
    Population,
    Reading,
    State,
    about,
    make_state,
    number,
    population_of,
    read,
)
from normviz.picture.colors import HUES, INK, MUTED, PAPER, mix, readable_on, value_fills
from normviz.picture.curves import MARKERS, Frame, Style, path, with_caption
from normviz.picture.png import figure
from normviz.picture.scene import Box, Label, Scene, Shapes, Strokes

SHOWN = 5  # outputs drawn as pictures: the last so many batches
WIDTH = 840  # fits JupyterLab beside its file browser on a small screen

BATCH = Style("one batch", HUES[4], "circle")
RUNNING = Style("running estimate", HUES[5], "square")
_BAND = mix(BATCH.color, PAPER, 0.82)


def scene(population: Population, state: State, reading: Reading, *, with_text: bool = False) -> Scene:
    """Batch means and variances with the running estimates; below them the watched image in different company."""
    picture = Scene(WIDTH, 468, reading.caption)
    picture.items += _key()
    limits = about(population, state.channel, state.scope)[3:]
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
        text = f"{'↑' if above else '↓'} starts at {number(running[0])}"
        items.append(Label(x + 6, y + (14 if above else -6), text, color=MUTED))
    return items


def _map(box: Box, values: np.ndarray, fills, cell=None) -> list:
    """An image as squares, with an outline, and a frame around one cell."""
    rows, columns = values.shape
    step = np.array([box.width / columns, box.height / rows])
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
    places = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 1, 2) + corners
    titles = [number(v) for v in values.ravel()]
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
    tiles.append(("raw", number(float(raw[at])), raw, fills))
    first = max(0, len(reading.watched) - SHOWN)
    for k in range(first, len(reading.watched)):
        # The scale of the outputs does not move with the batches, so that equal colours are equal values
        fills, _ = value_fills(reading.outputs[k].ravel(), 2.5)
        tiles.append((f"batch {k + 1}", number(float(reading.watched[k])), reading.outputs[k], fills))
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


def draw_batches(x=None, **choices):
    """What `explore_batches` shows for these arguments, as a matplotlib Figure with alt text; errors as there."""
    population = population_of(x)
    state = make_state(population, **choices)
    return figure(scene(population, state, read(population, state), with_text=True))
