"""Token lengths inside recorded runs: how long the tokens of a batch are, and which patches the longest come from.

Lengths are measured by the root mean square over the batch.  After a BatchNorm no token of N is longer than √(N−1)
times that (Samuelson 1968).
"""

from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from normviz.arms import VERMILION, style_of
from normviz.draw.common import as_array
from normviz.explore.base import Control, Explorer, Held
from normviz.explore.hand import along
from normviz.fields import check, choice, integer, text
from normviz.picture.chart import Chart
from normviz.picture.color import INK, MUTED, PAPER, grey_pixels
from normviz.picture.scene import Box, Label, Raster, Scene, Strokes, grid_rects, ring
from normviz.picture.text import number
from normviz.series import LENGTH_EDGES

SITES = {
    "norm1": "what attention gets (after norm1)",
    "norm2": "what the FFN gets (after norm2)",
    "stream": "the residual stream after the block",
}


class Records(Held):
    """Looks by arm, with their steps, the number of blocks, and the largest image and patch that they point at."""

    def __init__(self, value: dict[str, list[dict]], shape: list[tuple[int, int]], points: list[tuple[int, int]]):
        super().__init__(value)
        self.steps, self.depth = [step for step, _ in shape], shape[0][1]
        self.image, self.patch = map(max, zip(*points, (0, 0), strict=True))


@dataclass(frozen=True)
class Recorded(Explorer):
    """Recorded looks of several arms, and the images that they point into: what two explorers have in common.

    looks: arm -> list of the records that `lab.Looks` collects, all arms at the same steps.  images: (n, H, W) or
    (n, C, H, W), shown as the mean over channels.  arm: None for the first.  look: index of the step, None for the
    last.  patch: pixels a side.
    """

    looks: Any
    images: Any
    _: KW_ONLY
    arm: str = text(None, "arm")
    look: int = integer(None, label="step")
    patch: int = integer(2, 1)

    @staticmethod
    def points(record: dict) -> list[list[tuple[int, int]]]:
        """The images and patches that a record points at, a list a block."""
        raise NotImplementedError

    def hold(self, name: str, value: Any) -> Held:
        if name == "images":
            images = as_array(value, "images")
            if images.ndim not in (3, 4) or 0 in images.shape or not np.isfinite(images).all():
                raise ValueError(f"images of shape {images.shape} must be finite, of shape (n, H, W) or (n, C, H, W)")
            return Held(images if images.ndim == 3 else images.mean(axis=1))
        takes = "it takes arm -> a list of the records that lab.Looks collects"
        shapes, points = {}, []
        try:
            looks = {str(arm): list(records) for arm, records in dict(value).items()}
            for arm, records in looks.items():
                blocks = [self.points(record) for record in records]
                shapes[arm] = [(record["step"], len(rows)) for record, rows in zip(records, blocks, strict=True)]
                points += [point for rows in blocks for row in rows for point in row]
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(f"looks has what is no record ({error!r}); {takes}") from None
        if not looks or not all(shape and min(shape)[1] for shape in shapes.values()):
            raise ValueError(f"looks={value!r} holds no record; {takes}")
        if len({tuple(shape) for shape in shapes.values()}) > 1:
            raise ValueError(f"looks has unlike (step, blocks), {shapes}; all arms need the same")
        return Records(looks, next(iter(shapes.values())), points)

    def settle(self) -> None:
        if self.looks is None or self.images is None:
            raise TypeError(f"{type(self).__name__} needs looks and images")
        if self.arm is None:
            self._set("arm", next(iter(self.looks.value)))
        if self.look is None:
            self._set("look", len(self.looks.steps) - 1)
        check(self)
        (count, height, width), looks = self.images.value.shape, self.looks
        if height % self.patch or width % self.patch:
            raise ValueError(f"patch={self.patch!r} must divide the sides of images, {height} × {width}")
        patches = height * width // self.patch**2
        if looks.image >= count or looks.patch >= patches:
            holds = f"with patch={self.patch} images holds {count} of {patches} patches"
            raise ValueError(f"looks points at image {looks.image}, patch {looks.patch}; {holds}")

    @property
    def record(self) -> dict:
        """The record that is shown."""
        return self.looks.value[self.arm][self.look]

    def offer(self) -> dict[str, Control]:
        offered, looks, steps = super().offer(), self.looks.value, self.looks.steps
        offered["arm"] = offered["arm"].among(looks, (style_of(arm).name for arm in looks))
        offered["look"] = offered["look"].among(range(len(steps)), map(str, steps))
        del offered["patch"]
        return offered

    def framed_image(self, x: float, y: float, side: float, image: int, patch: int) -> list:
        """An image in grey, ink dark, fit into a square, with one of its patches framed."""
        pixels = grey_pixels(self.images.value[image])
        height, width = pixels.shape[:2]
        box = Box(x, y, side * width / max(height, width), side * height / max(height, width))
        frame = ring(grid_rects(box, height // self.patch, width // self.patch)[patch])
        return [
            Raster(x, y, box.width, box.height, pixels),
            Strokes(frame, PAPER, 5.0),
            Strokes(frame, VERMILION, 3.0, name="patch"),
        ]


class Reading(NamedTuple):
    """One block's tokens at one site and step."""

    step: int
    tokens: int  # N = images of a batch × patches of an image
    ratio: float  # longest over root-mean-square length
    bound: float  # √(N−1)
    counts: np.ndarray  # tokens in each bin of `LENGTH_EDGES`
    longest: list[tuple[int, int, float]]  # (image of the batch, patch, ratio) of the longest ones
    ratios: np.ndarray  # `ratio` of every block


@dataclass(frozen=True)
class Inside(Recorded):
    """Inside recorded runs: how long the tokens are, and which patches the longest come from."""

    site: str = choice("norm2", tuple(SITES), "site")
    block: int = integer(0, label="block")

    @staticmethod
    def points(record: dict) -> list[list[tuple[int, int]]]:
        sites = zip(*(record[site] for site in SITES), strict=True)
        return [[(record["images"][i], p) for block in row for i, p, _ in block["longest"]] for row in sites]

    def offer(self) -> dict[str, Control]:
        offered = super().offer()
        offered["block"] = replace(offered["block"], high=self.looks.depth - 1)
        return {name: offered[name] for name in ("arm", "site", "block", "look")}

    def read(self) -> Reading:
        record, blocks = self.record, self.record[self.site]
        here = blocks[self.block]
        tokens = len(record["images"]) * (self.images.value[0].size // self.patch**2)
        longest = [(int(i), int(p), float(r)) for i, p, r in here["longest"]]
        ratios = np.array([block["ratio"] for block in blocks], float)
        counts, bound = np.array(here["counts"]), (tokens - 1) ** 0.5
        return Reading(record["step"], tokens, here["ratio"], bound, counts, longest, ratios)

    def say(self, reading: Reading) -> str:
        where = f"{style_of(self.arm).name}, step {reading.step}, block {self.block}, {SITES[self.site]}"
        bound = f"BatchNorm's bound √(N−1) is {number(reading.bound, 4)}."
        if self.site == "stream":
            bound = "nothing bounds it here, as no normalization follows."
        which = " It is patch {1} of image {0} of the batch.".format(*reading.longest[0]) if reading.longest else ""
        longest = f"the longest of {reading.tokens} tokens is {number(reading.ratio)} times the root-mean-square length"
        return f"{where}: {longest}; {bound}{which}"

    parts = ((0, 0, 448, 240), (448, 0, 844, 240), (0, 240, 414, 440), (414, 240, 844, 440))

    def draw(self, reading: Reading) -> Scene:
        blocks = self._blocks(reading)
        picture = Scene(844, 440, [*self._lengths(reading), *blocks.items])
        picture.handles.append(along("block", "block", blocks, range(len(reading.ratios))))
        picture.items.append(Label(12, 256, "The longest tokens: their images, their patches framed", 13, bold=True))
        for i, (image, patch, ratio) in enumerate(reading.longest[:6]):
            x, contrast = 12 + 139 * i, self.record["contrast"][image]
            picture.items += [
                *self.framed_image(x, 268, 112, self.record["images"][image], patch),
                Label(x, 398, f"{number(ratio)} × rms", bold=i == 0),
                Label(x, 414, f"contrast × {number(contrast)}", color=MUTED),
                Label(x, 430, f"image {image}, patch {patch}", color=MUTED),
            ]
        return picture

    def _lengths(self, reading: Reading) -> list:
        """The histogram of lengths, with the longest and its bound."""
        share, edges = reading.counts / max(1, reading.counts.sum()), np.log10(LENGTH_EDGES)
        low = min(-2, edges[np.flatnonzero(share)].min(initial=0))
        top = 1.2 * max(0.05, share.max())  # with room for words above the bars
        chart = Chart(
            Box(62, 40, 370, 150), (low, 2), (0, top), heading="All tokens of the batch",
            x_name="token length over root-mean-square length", y_name="share of tokens",
            x_ticks={e: number(10.0**e) for e in range(-3, 3) if e >= low},
        )  # fmt: skip
        middles, heights = (edges[:-1] + edges[1:]) / 2, np.where(share > 0, share, np.nan)
        chart.bars(middles, heights, edges[1] - edges[0], style_of(self.arm).color, name="lengths")
        if np.isfinite(reading.ratio):
            chart.upright(np.log10(reading.ratio), "longest", dashed=False, name="longest", width=1.6)
        if self.site != "stream":
            chart.upright(np.log10(reading.bound), "bound", name="bound")
        return chart.items

    def _blocks(self, reading: Reading) -> Chart:
        """The ratio of every block beside the bound, this one outlined."""
        ratios, depth = reading.ratios, len(reading.ratios)
        top = max(1.5 * reading.bound, 1.2 * np.max(ratios[np.isfinite(ratios)], initial=1.0))
        chart = Chart(
            Box(510, 40, 324, 150), (-0.5, depth - 0.5), (0.9, top), log_y=True, x_name="block",
            y_name="outlier ratio", heading="Every block at this step",
            x_ticks={i: str(i) for i in range(0, depth, 1 if depth <= 10 else 4)},
        )  # fmt: skip
        titles = [f"block {i}: {ratio:.4g}" for i, ratio in enumerate(ratios)]
        chart.bars(range(depth), ratios, 0.7, style_of(self.arm).color, titles=titles, name="ratio")
        if np.isfinite(here := ratios[self.block]):
            left, right = self.block - 0.35, self.block + 0.35
            chart.add(Strokes(ring(chart([left, right, right, left], [0.9, 0.9, here, here])), INK, 2.2, name="here"))
        if self.site != "stream":
            chart.across(reading.bound, f"√(N−1) = {number(reading.bound, 4)}", name="bound")
        return chart
