"""GroupNorm between its ends: eight maps of an image and of a changed copy, normalized in G groups of channels.

What still differs afterwards is the part of the change that gets through: nothing, where the change moved all values
of a set by one factor and one shift.  Source: Wu & He, "Group Normalization" (ECCV 2018), section 3.2.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from normviz.explore.base import Explorer
from normviz.explore.hand import along
from normviz.fields import choice, number
from normviz.norms import METHODS, cut, divisors, normalize
from normviz.picture.block import Cells, block, cells_legend
from normviz.picture.chart import Chart
from normviz.picture.color import AXIS_COLORS, INK, MUTED, photo_pixels, set_fill, value_pixels
from normviz.picture.scene import Box, Label, Raster, Scene, Shapes, Strokes, rect, rects, ring
from normviz.picture.text import fixed
from normviz.samples import FILTERS, PHOTOS, digit_images, filter_maps, photos, shrink

MAPS = tuple(FILTERS)
GROUPS = tuple(divisors(len(MAPS)))
LOUD = MAPS.index("edge |")  # the map that `gain` multiplies
IMAGES = (*PHOTOS, "digit")
LIMIT = 2.5  # standard deviations that the colours of the normalized maps span either way
LEFT, STEP, HIGH = 92.0, 93.5, 62.0  # px: of the maps, the first one's left side, from one to the next, their height
HALF = LEFT + STEP * len(MAPS) / 2  # px: on a narrow screen the maps beyond it go below the others
ROWS = {"original": 286.0, "changed": 394.0, "difference": 488.0}  # px: where the rows of maps begin


class Reading(NamedTuple):
    """An image and its changed copy, and their maps before and after normalization; all in float64."""

    images: np.ndarray  # (2, h, w)
    raw: np.ndarray  # (2, C, h, w)
    normalized: np.ndarray  # (2, C, h, w)
    mean: np.ndarray  # (2, G), of each set of `raw`
    std: np.ndarray  # (2, G)
    kept: np.ndarray  # (2, C), the standard deviation of each normalized map
    differs: np.ndarray  # (C,), the root-mean-square difference of the two images' normalized maps
    through: dict[int, float]  # for every G that of all maps


@lru_cache
def original(name: str) -> np.ndarray:
    """One of IMAGES in grey, float64 (h, w) between 0 and 1."""
    if name == "digit":
        return np.pad(digit_images(1)[0].astype(float), ((0, 0), (2, 2)))
    red, green, blue = photos(40, 60)[IMAGES.index(name)].astype(float)
    return 0.299 * red + 0.587 * green + 0.114 * blue  # luma of ITU-R BT.601


def rms(values: np.ndarray, axis=None) -> np.ndarray:
    return np.sqrt(np.mean(np.square(values), axis=axis))


@lru_cache(maxsize=8)
def compare(image: str, contrast: float, brightness: float, gain: float) -> tuple[np.ndarray, np.ndarray, dict]:
    """An image and its changed copy (2, h, w); their maps (2, C, h, w); for every G those maps after GroupNorm."""
    images = np.stack([original(image), contrast * original(image) + brightness])
    raw = filter_maps(np.pad(images, ((0, 0), (1, 1), (1, 1)), mode="edge"))  # the rim is repeated outwards
    raw[1, LOUD] *= gain
    return images, raw, {groups: normalize(raw, "group", groups) for groups in GROUPS}


@dataclass(frozen=True)
class Groups(Explorer):
    """An image and a changed copy, normalized in G groups of channels: what of the change gets through?

    num_groups: G, a divisor of 8: 1 has the sets of LayerNorm over the whole sample, 8 those of InstanceNorm.
    contrast, brightness: the copy is contrast · image + brightness.
    gain: the factor of the copy's map of vertical edges, a change inside of one channel.
    """

    num_groups: int = choice(1, GROUPS, "groups G")
    image: str = choice("temple", IMAGES, "image")
    contrast: float = number(0.5, least=0.2, most=2.0, step=0.1, label="contrast ×")
    brightness: float = number(0.2, least=-0.5, most=0.5, step=0.1, label="brightness +")
    gain: float = number(1.0, least=0.2, most=3.0, step=0.1, label=f"“{MAPS[LOUD]}” ×")

    def read(self) -> Reading:
        images, raw, after = compare(self.image, self.contrast, self.brightness, self.gain)
        through = {groups: float(rms(maps[1] - maps[0])) for groups, maps in after.items()}
        here, sets = after[self.num_groups], raw.reshape(2, self.num_groups, -1)
        differs = rms(here[1] - here[0], axis=(1, 2))
        return Reading(images, raw, here, sets.mean(2), sets.std(2), here.std(axis=(2, 3)), differs, through)

    def _changed(self, what: str, gap: str) -> str:
        """`0.5 · image +0.2`."""
        sign = "−" if self.brightness < 0 else "+"
        return f"{self.contrast:g} · {what} {sign}{gap}{abs(self.brightness):g}"

    def say(self, reading: Reading) -> str:
        here = cut("group", reading.raw.shape, self.num_groups)
        also = ", ".join(METHODS[key].name for key in here.same_as)
        through = ", ".join(f"{fixed(value)} with G={groups}" for groups, value in reading.through.items())
        return (
            f"{here.title}{also and f', with the sets of {also}'}: {len(MAPS)} maps of the {self.image} in groups of "
            f"{len(MAPS) // self.num_groups}; the changed image is {self._changed('image', '')}, its map "
            f"“{MAPS[LOUD]}” times {self.gain:g}. Difference that is left after the normalization, in standard "
            f"deviations: {through}."
        )

    parts = ((0, 0, 310, 212), (310, 0, 590, 212), (590, 0, 844, 212), (0, 212, HALF, 576), (HALF, 212, 844, 576))

    def draw(self, reading: Reading) -> Scene:
        """The tensor cut into sets, both images, what gets through at every G; below, every map normalized."""
        here = cut("group", reading.raw.shape, self.num_groups)
        small = shrink(shrink(reading.raw, 3, axis=2), 4, axis=3)
        coarse = cut("group", small.shape, self.num_groups)
        cells = Cells.of(coarse.axes, coarse.labels, small)
        sets, values, formula = here.count
        bars = self._bars(Box(650, 38, 184, 118), reading.through)
        items = [
            Label(12, 18, here.title, 15, bold=True),
            Label(300, 18, "drawn: 3 × 4 positions", anchor="end", color=MUTED),
            *block(cells, Box(4, 26, 302, 186)),
            Label(318, 148, f"changed = {self._changed('original', ' ')}"),
            Label(318, 166, f"and its map “{MAPS[LOUD]}” × {self.gain:g}" if self.gain != 1 else ""),
            Label(318, 196, f"{sets} sets of {here.set_size:,} cells, {formula} = {values} statistics", color=MUTED),
            *bars.items,
            Label(12, 236, "The maps after normalization", 13, bold=True),
            *cells_legend(replace(cells, color="value", limit=LIMIT, values=np.zeros(1)), 236, 236),
        ]
        for i, name in enumerate(("original", "changed")):
            box = Box(318 + 142 * i, 34, 132, 88)
            items += [
                Label(box.x, box.y - 8, name, bold=True),
                Raster(box.x, box.y, box.width, box.height, photo_pixels(reading.images[i]), name),
                Strokes(ring(rect(box)), MUTED, name="photo"),
                *self._sets(ROWS[name], reading.mean[i], reading.std[i], cells.hues[i, :, 0]),
                *_maps(name, reading.normalized[i], "σ after", reading.kept[i]),
            ]
        items += _maps("difference", reading.normalized[1] - reading.normalized[0], "rms", reading.differs)
        # As wide as what JupyterLab leaves of a laptop's screen beside its file browser
        return Scene(844, 576, items, handles=[along("groups", "num_groups", bars, range(len(GROUPS)))])

    def _bars(self, box: Box, through: dict[int, float]) -> Chart:
        """How much of the change is left, for every number of groups."""
        names = {GROUPS[0]: "1 (LN)", GROUPS[-1]: f"{GROUPS[-1]} (IN)"}
        chart = Chart(
            box, (-0.5, len(GROUPS) - 0.5), (0.0, max(0.1, 1.15 * max(through.values()))), x_name="groups G",
            y_name="difference left (σ)", heading="What gets through",
            x_ticks={i: names.get(groups, str(groups)) for i, groups in enumerate(GROUPS)},
        )  # fmt: skip
        for i, (groups, value) in enumerate(through.items()):
            here, title = groups == self.num_groups, [f"G={groups}: {value:.4g}"]
            look = {"stroke_width": 2.4 if here else 0.5, "name": "through"}
            chart.bars(i, value, 0.68, set_fill(5, faded=not here), titles=title, **look)
            chart.write(i, value, fixed(value), dy=-5, anchor="middle", bold=here)
        return chart

    def _sets(self, y: float, mean: np.ndarray, std: np.ndarray, hues: np.ndarray) -> list:
        """A bar above the maps of each set, in its colour, with the mean and σ that were taken away."""
        items, wide = [Label(12, y - 9, "set's μ, σ", color=MUTED)], STEP * len(MAPS) / self.num_groups
        for g, hue in enumerate(hues[:: len(MAPS) // self.num_groups].tolist()):
            left, right = LEFT + g * wide, LEFT + (g + 1) * wide - 6
            halves = [left, *([HALF] if left < HALF < right else []), right]  # each goes where its maps go
            outline = {"stroke": INK, "width": 0.6} if len(halves) == 2 else {}
            for begin, end in pairwise(halves):
                items.append(Shapes(rects(begin, y - 4, end, y - 1), [set_fill(hue)], name="set", **outline))
            text = f"{fixed(mean[g])}, {fixed(std[g])}"
            items.append(Label((left + right) / 2, y - 9, text, anchor="middle", color=MUTED))
        return items


def _maps(name: str, maps: np.ndarray, heading: str, numbers: np.ndarray) -> list:
    """A row of maps (C, h, w), each with its number below."""
    y, wide = ROWS[name], STEP - 6
    items = [Label(12, y + HIGH / 2, name, bold=True), Label(12, y + HIGH + 14, heading, color=MUTED)]
    for c, pixels in enumerate(value_pixels(maps, LIMIT)):
        x, middle = LEFT + c * STEP, LEFT + c * STEP + wide / 2
        items.append(Raster(x, y, wide, HIGH, pixels, f"{name}, {MAPS[c]}"))
        items.append(Label(middle, y + HIGH + 14, fixed(numbers[c]), anchor="middle", color=MUTED))
        if name == "original":
            items.append(Label(middle, y - 26, MAPS[c], anchor="middle", color=AXIS_COLORS["channel"], bold=True))
    return items
