"""What the explorer of notebook 04 shows, without any widget: a state of its controls -> a reading -> a scene.

Eight feature maps of an image, and of the same image changed, are normalized in G groups of channels.  What still
differs afterwards is the part of the change that gets through: nothing, where the change moved all values of a set
by one factor and one shift.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch

from normviz.functional import normalize
from normviz.methods import axes_of, coincides_with, count_statistics, divisors, partition, title
from normviz.picture.block import block
from normviz.picture.colors import AXIS_COLORS, INK, MUTED, SET_FILLS
from normviz.picture.curves import Frame, with_caption
from normviz.picture.photos import photo_pixels, value_pixels
from normviz.picture.scene import Box, Cells, Label, Raster, Scene, Shapes, Strokes, legend
from normviz.samples import FILTERS, PHOTOS, digit_images, filter_maps, photos, shrink

MAPS = tuple(FILTERS)
GROUPS = tuple(divisors(len(MAPS)))
LOUD = MAPS.index("edge |")  # the map that `gain` multiplies
IMAGES = (*PHOTOS, "digit")
WIDTH, HEIGHT = 844, 576  # px: what JupyterLab leaves of a laptop's screen beside its file browser
LIMIT = 2.5  # standard deviations that the colours of the normalized maps span either way


@dataclass(frozen=True)
class State:
    """The controls.  The changed image is contrast · image + brightness; `gain` multiplies one of its maps."""

    image: str = "temple"
    groups: int = 1
    contrast: float = 0.5
    brightness: float = 0.2
    gain: float = 1.0


@dataclass(frozen=True)
class Reading:
    """Maps of the image and of the changed one: all arrays (2, C, h, w), float64.

    raw: before the normalization; normalized: after it; mean, std: (2, G), of each set of `raw`.
    kept: (2, C), the standard deviation of each map after it; differs: (C,), the root-mean-square difference of the
    two images' normalized maps; through: G -> that of all maps together, for every G; raw_through: of the maps before.
    """

    images: np.ndarray
    raw: np.ndarray
    normalized: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    kept: np.ndarray
    differs: np.ndarray
    through: dict[int, float]
    raw_through: float
    caption: str


@lru_cache
def grey_image(name: str) -> np.ndarray:
    """One of IMAGES in grey, float64 (h, w) between 0 and 1."""
    if name == "digit":
        return np.pad(digit_images(1)[0].astype(float), ((0, 0), (2, 2)))
    red, green, blue = photos(40, 60)[IMAGES.index(name)].astype(float)
    return 0.299 * red + 0.587 * green + 0.114 * blue  # luma of ITU-R BT.601


def feature_maps(image: np.ndarray, gain: float = 1.0) -> np.ndarray:
    """The eight maps of a grey image (h, w), its rim repeated outwards: (8, h, w); map LOUD times `gain`."""
    maps = filter_maps(np.pad(image, 1, mode="edge")[None])[0]
    maps[LOUD] *= gain
    return maps


def rms(values: np.ndarray, **options) -> np.ndarray:
    return np.sqrt(np.mean(np.square(values), **options))


def read(state: State) -> Reading:
    """Everything there is to say of one state."""
    image = grey_image(state.image)
    changed = state.contrast * image + state.brightness
    raw = np.stack([feature_maps(image), feature_maps(changed, state.gain)])  # (2, C, h, w)
    x = torch.from_numpy(raw)
    y = {groups: normalize(x, "group", groups).numpy() for groups in GROUPS}
    through = {groups: float(rms(maps[1] - maps[0])) for groups, maps in y.items()}
    here = y[state.groups]
    sets = raw.reshape(2, state.groups, -1)
    return Reading(
        np.stack([image, changed]), raw, here, sets.mean(2), sets.std(2),
        here.std(axis=(2, 3)), rms(here[1] - here[0], axis=(1, 2)), through, float(rms(raw[1] - raw[0])),
        _caption(state, raw.shape, through),
    )  # fmt: skip


def _caption(state: State, shape: tuple[int, ...], through: dict[int, float]) -> str:
    size = len(MAPS) // state.groups
    also = [title(key) for key in coincides_with("group", shape, state.groups)]
    name = title("group", state.groups) + (f", with the sets of {', '.join(also)}" if also else "")
    others = ", ".join(f"{value:.2f} with G={groups}" for groups, value in through.items())
    return (
        f"{name}: {len(MAPS)} maps of the {state.image} in groups of {size}; the changed image is "
        f"{state.contrast:g} · image {state.brightness:+g}".replace("-", "−")
        + f", its map “{MAPS[LOUD]}” times {state.gain:g}. "
        f"Difference that is left after the normalization, in standard deviations: {others}."
    )


# The picture -------------------------------------------------------------------------------------------------

LEFT, STEP = 92, 93.5  # of the maps: the first one's left side, from one to the next
_HIGH = 62.0
_ROWS = {"original": 286.0, "changed": 394.0, "difference": 488.0}


def scene(state: State, reading: Reading, *, with_text: bool = False) -> Scene:
    """The tensor cut into sets, both images, what gets through at every G; below, every map after normalization."""
    picture, cells = Scene(WIDTH, HEIGHT, reading.caption), _cells(state, reading)
    heading = title("group", state.groups)
    picture.items.append(Label(12, 18, heading, 15, bold=True))
    picture.items.append(Label(300, 18, "drawn: 3 × 4 positions", anchor="end", color=MUTED))
    picture.items += block(cells, Box(4, 26, 302, 186))
    for i, name in enumerate(("original", "changed")):
        picture.items += _photo(Box(318 + 142 * i, 34, 132, 88), reading.images[i], name)
    picture.items += _formula(318, 148, state)
    count, size = count_statistics("group", reading.raw.shape, state.groups), reading.raw[0].size
    text = f"{count.sets} sets of {size // state.groups:,} cells, {count.formula} = {count.values} statistics"
    picture.items.append(Label(318, 196, text, color=MUTED))
    picture.items += _bars(Box(650, 38, 184, 118), state, reading)
    for row, y in enumerate(_ROWS.values()):
        picture.items += _maps(row, y, state, reading, cells.hues[..., 0])
    picture.items.append(Label(12, 236, "The maps after normalization", 13, bold=True))
    bar = replace(cells, color="value", limit=LIMIT, values=np.zeros((1, 1, 1)))
    picture.items += legend(bar, 236, 236)
    return with_caption(picture) if with_text else picture


def _cells(state: State, reading: Reading) -> Cells:
    """The two images' maps, averaged down to 3 × 4 positions, coloured by the sets of G groups."""
    small = shrink(shrink(reading.raw, 3, axis=2), 4, axis=3)
    axes = axes_of(small.shape)
    labels = partition("group", small.shape, state.groups)
    return Cells.of(axes, labels, small, color="set")


def _photo(box: Box, image: np.ndarray, name: str) -> list:
    return [
        Label(box.x, box.y - 8, name, bold=True),
        Raster(box.x, box.y, box.width, box.height, photo_pixels(image), name),
        Strokes(_frame(box), MUTED, 1.0, name="photo"),
    ]


def _frame(box: Box) -> np.ndarray:
    x, y, right, bottom = box.x, box.y, box.x + box.width, box.y + box.height
    corners = np.array([(x, y), (right, y), (right, bottom), (x, bottom)])
    return np.stack([corners, np.roll(corners, -1, axis=0)], axis=1)


def _formula(x: float, y: float, state: State) -> list:
    sign = "−" if state.brightness < 0 else "+"
    lines = [f"changed = {state.contrast:g} · original {sign} {abs(state.brightness):g}"]
    if state.gain != 1:
        lines.append(f"and its map “{MAPS[LOUD]}” × {state.gain:g}")
    return [Label(x, y + 18 * i, line) for i, line in enumerate(lines)]


def _bars(box: Box, state: State, reading: Reading) -> list:
    """How much of the change is left, for every number of groups."""
    top = max(0.1, 1.15 * max(reading.through.values()))
    frame = Frame(box, (-0.5, len(GROUPS) - 0.5), (0.0, top))
    ends = {GROUPS[0]: "1 (LN)", GROUPS[-1]: f"{GROUPS[-1]} (IN)"}
    ticks = {float(i): ends.get(groups, str(groups)) for i, groups in enumerate(GROUPS)}
    items = frame.axes("groups G", "difference left (σ)", "What gets through", ticks)
    for i, (groups, value) in enumerate(reading.through.items()):
        corners = frame([i - 0.34, i + 0.34, i + 0.34, i - 0.34], [0, 0, value, value])
        here = groups == state.groups
        fill, name = SET_FILLS[0][0][5] if here else SET_FILLS[1][0][5], f"G={groups}: {value:.4g}"
        edge = {"stroke": INK, "width": 2.4 if here else 0.5}
        items.append(Shapes(corners[None], [fill], [name], name="through", **edge))
        x, y = frame(i, value)
        items.append(Label(x, y - 5, f"{value:.2f}", anchor="middle", bold=here))
    return items


def _maps(row: int, y: float, state: State, reading: Reading, hues: np.ndarray) -> list:
    """One row: the maps of an image, their sets' raw statistics above, each map's own below; or the difference.

    hues: (2, C), of the sets, as in the block.
    """
    name, wide = list(_ROWS)[row], STEP - 6
    values = reading.normalized[row] if row < 2 else reading.normalized[1] - reading.normalized[0]
    items: list = [Label(12, y + _HIGH / 2, name, bold=True)]
    items.append(Label(12, y + _HIGH + 14, ("σ after", "σ after", "rms")[row], color=MUTED))
    for c, channel in enumerate(values):
        x = LEFT + c * STEP
        number = reading.kept[row, c] if row < 2 else reading.differs[c]
        items.append(Raster(x, y, wide, _HIGH, value_pixels(channel, LIMIT), f"{name}, {MAPS[c]}"))
        items.append(Label(x + wide / 2, y + _HIGH + 14, f"{number:.2f}", anchor="middle", color=MUTED))
        if row == 0:
            color = AXIS_COLORS["channel"]
            items.append(Label(x + wide / 2, y - 26, MAPS[c], anchor="middle", color=color, bold=True))
    if row < 2:
        items += _sets(row, y, state, reading, hues)
    return items


def _sets(row: int, y: float, state: State, reading: Reading, hues: np.ndarray) -> list:
    """A bar above the maps of a set, in the set's colour, with the mean and σ that were taken away."""
    size, items = len(MAPS) // state.groups, []
    items.append(Label(12, y - 9, "set's μ, σ", color=MUTED))
    for g in range(state.groups):
        left = LEFT + g * size * STEP
        right = left + size * STEP - 6
        bar = np.array([[(left, y - 4), (right, y - 4), (right, y - 1), (left, y - 1)]])
        fill = SET_FILLS[0][0][int(hues[row, g * size])]
        items.append(Shapes(bar, [fill], stroke=INK, width=0.6, name="set"))
        mean, std = reading.mean[row, g], reading.std[row, g]
        text = f"{_short(mean)}, {_short(std)}"
        items.append(Label((left + right) / 2, y - 9, text, anchor="middle", color=MUTED))
    return items


def _short(value: float) -> str:
    return f"{0.0 if abs(value) < 5e-3 else value:.2f}".replace("-", "−")
