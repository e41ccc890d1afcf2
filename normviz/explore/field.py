"""Fields of blocks × tokens: how long each token is, as colours; and a picture in which such fields play over steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import ipywidgets as w
import numpy as np

from normviz.arms import style_of
from normviz.draw.common import NOTEBOOK_WIDTH, as_array, drawn
from normviz.explore.live import FLOW, Picture
from normviz.fields import whole
from normviz.picture.color import MUTED, PAPER, grey_pixels, value_pixels
from normviz.picture.scene import Box, Label, Raster, Scene, Strokes, grid_rects, ring
from normviz.picture.text import number

LONGEST = 1.5  # the colours' scale: powers of ten about the root-mean-square length
SCALE = {30: "30 ×", 10: "10 ×", 3: "3 ×", 1: "1 (rms)", 1 / 3: "1/3", 1 / 10: "1/10", 1 / 30: "1/30"}
UNIT = "length over root-mean-square length"


def field_raster(box: Box, field: np.ndarray, title: str = "") -> Raster:
    """A field (blocks, tokens) in colours: short tokens blue, long ones orange, logarithmic about the rms length."""
    with np.errstate(divide="ignore"):
        pixels = value_pixels(np.log10(np.maximum(field, 1e-9)), LONGEST)
    return Raster(box.x, box.y, box.width, box.height, pixels, title or longest_words(field))


def field_scale(box: Box) -> list:
    """What the colours of a field mean: in a tall box upright, with a line for every value; else lying, between two."""
    if box.height < box.width:
        low = Label(box.x - 6, box.bottom - 1, "1/30", anchor="end", color=MUTED)
        high = Label(box.right + 6, box.bottom - 1, "30 ×", color=MUTED)
        return [_shades(box, np.linspace(-1, 1, 56)[None]), low, high]
    places = (box.center[1] - box.height / 2 * math.log10(value) / LONGEST + 4 for value in SCALE)
    labels = (Label(box.right + 6, y, text, color=MUTED) for y, text in zip(places, SCALE.values(), strict=True))
    return [_shades(box, np.linspace(1, -1, 56)[:, None]), *labels]


def _shades(box: Box, shades: np.ndarray) -> Raster:
    return Raster(box.x, box.y, box.width, box.height, value_pixels(LONGEST * shades, LONGEST), "scale of lengths")


def block_names(box: Box, depth: int) -> list[Label]:
    """The names of a field's first row and of its last."""
    first = Label(box.x - 6, box.y + 10, "block 1", anchor="end", color=MUTED)
    last = Label(box.x - 6, box.bottom - 1, str(depth), anchor="end", color=MUTED)
    return [first, last][:depth]


def named_field(box: Box, field: np.ndarray) -> list:
    """A field with its longest token below it."""
    words = Label(box.right, box.bottom + 14, f"longest {longest_times(field)}", anchor="end", color=MUTED)
    return [field_raster(box, field), words]


def longest_times(field: np.ndarray) -> str:
    """The longest token of a field: `22.4 ×`."""
    return f"{number(field.max())} ×" if np.isfinite(field).all() else "not finite"


def longest_words(field: np.ndarray) -> str:
    """The longest token of a field in words."""
    if not np.isfinite(field).all():
        return "lengths are not finite"
    block = int(field.max(axis=1).argmax())
    return f"the longest has {number(field.max())} times the root-mean-square length, in block {block + 1}"


class Tokens(Picture):
    """The same tokens in several networks, step after step, as a film: a row a block, a column a token.

        nv.explore.Tokens({"ln": lengths, "bn": others}, images, steps)

    lengths: arm → (steps, blocks, images, patches), each token's length over the root mean square of its block's; NaN
        where a network has no finite ones.
    images: what the tokens are patches of, (images, H, W) or (images, 1, H, W), patches square and in reading order.
    steps: the training step of every frame, by default 0, 1, ….  most: how many images are shown, those with the
        longest tokens first.

    `show(k)` shows frame k; `strip()` gives five frames side by side, a matplotlib Figure with alt text `.alt`.
    Raises ValueError for shapes that do not go together, TypeError for what is no array of numbers.
    """

    def __init__(self, lengths: Mapping, images, steps: Iterable[int] | None = None, *, most: int = 16):
        lengths = {arm: as_array(values, f"lengths[{arm!r}]") for arm, values in lengths.items()}
        shapes, images = {arm: values.shape for arm, values in lengths.items()}, as_array(images, "images")
        images = images[:, 0] if images.ndim == 4 and images.shape[1] == 1 else images
        shape = next(iter(shapes.values()), ())
        if len(shape) != 4 or len(set(shapes.values())) != 1 or 0 in shape:
            raise ValueError(f"lengths has shapes {shapes}; it takes arm → (steps, blocks, images, patches), all alike")
        self.side = math.isqrt(shape[3])
        if images.ndim != 3 or len(images) != shape[2] or self.side**2 != shape[3]:
            raise ValueError(
                f"images has shape {images.shape}; lengths of shape {shape} need {shape[2]} of square patches"
            )
        self.steps = list(range(shape[0])) if steps is None else list(steps)
        if len(self.steps) != shape[0]:
            raise ValueError(f"steps has {len(self.steps)} numbers, and lengths {shape[0]} frames")
        whole("most", most)
        peaks = np.max([np.nan_to_num(values, posinf=0.0).max((0, 1, 3)) for values in lengths.values()], axis=0)
        self.order = np.argsort(-peaks, kind="stable")[:most]  # which images are shown
        self.images = images[self.order]
        self.lengths = {arm: values[:, :, self.order] for arm, values in lengths.items()}
        self.styles, self.tokens = {arm: style_of(arm) for arm in lengths}, shape[2] * shape[3]
        self.boxes = {arm: Box(62, 34 + 128 * row, 800, 96) for row, arm in enumerate(self.lengths)}
        *_, last = self.boxes.values()
        wide = last.width / len(self.images)
        side = min(wide - 6, 48)
        left = [last.x + k * wide + (wide - side) / 2 for k in range(len(self.images))]
        self.thumbs = [Box(x, last.bottom + 8, side, side) for x in left]  # each image beneath its own tokens
        self._beneath = self._still()
        play = w.Play(min=0, max=len(self.steps) - 1, interval=250, layout=w.Layout(width="auto"))
        frames = [(str(step), k) for k, step in enumerate(self.steps)]
        frames += [("end", 1)] if len(frames) == 1 else []  # a slider needs two ends
        look = {"style": {"description_width": "40px"}, "layout": w.Layout(width="420px")}
        self.slider = w.SelectionSlider(options=frames, index=len(self.steps) - 1, description="step", **look)
        w.jslink((play, "value"), (self.slider, "index"))
        self.slider.observe(lambda change: self.show(change["new"]), names="value")
        super().__init__([w.HBox([play, self.slider], layout=w.Layout(**FLOW))])
        self.show(len(self.steps) - 1)

    def show(self, frame: int) -> None:
        """Frame 0, 1, …, or −1, the last."""
        self.frame = range(len(self.steps))[min(frame, len(self.steps) - 1)]
        self.slider.index = self.frame
        self.paint(self.scene())

    def field(self, arm: str, frame: int) -> np.ndarray:
        """(blocks, tokens) of a frame, the images side by side."""
        return self.lengths[arm][frame].reshape(self.lengths[arm].shape[1], -1)

    def say(self) -> str:
        """The caption, which is the alt text too."""
        words = "; ".join(f"{self.styles[arm].name} {self._longest(arm)}" for arm in self.lengths)
        return (
            f"Step {self.steps[self.frame]}: the longest token before the FFN, over the root-mean-square length of all "
            f"{self.tokens:,} tokens. {words}."
        )

    def _longest(self, arm: str) -> str:
        field = self.field(arm, self.frame)
        if not np.isfinite(field).all():
            return longest_times(field)
        if field.max() < 1.5 and np.ptp(field) < 0.5:
            return f"{longest_times(field)} in every block"
        block, token = divmod(int(field.argmax()), field.shape[1])
        image, patch = divmod(token, self.side**2)
        return f"{longest_times(field)} in block {block + 1}, patch {patch} of image {self.order[image]}"

    def scene(self) -> Scene:
        """The frame that is shown."""
        (*_, last), patches, framed = self.boxes.values(), [], []
        scene = Scene(NOTEBOOK_WIDTH, last.bottom + 88, backdrop=self._beneath)
        for arm, box in self.boxes.items():
            style, field = self.styles[arm], self.field(arm, self.frame)
            # Between the tokens of one image and those of the next
            across = box.x + box.width / len(self.images) * np.arange(1, len(self.images))
            borders = np.reshape([[(x, box.y), (x, box.bottom)] for x in across], (-1, 2, 2))
            scene.items += [
                Label(box.x, box.y - 8, style.name, 13, bold=True, color=style.color),
                Label(box.right, box.y - 8, f"longest {longest_times(field)}", anchor="end"),
                field_raster(box, field),
                Strokes(borders, PAPER, 1.0, name="images"),
            ]
            if np.isfinite(field).all() and field.max() > 1.5:
                image, patch = divmod(int(field.max(axis=0).argmax()), self.side**2)
                frame = ring(grid_rects(self.thumbs[image], self.side, self.side)[patch])
                inset = 3.0 * framed.count((image, patch))  # one patch may be the longest of several networks
                framed.append((image, patch))
                patches += [Strokes(frame, PAPER, 5.0), Strokes(frame + inset, style.color, 2.6, name=f"longest-{arm}")]
        scene.items += patches
        scene.alt = self.say()
        return scene

    def _still(self) -> list:
        """What lies beneath every frame: names of rows, the scale, the images."""
        (first, *_), (*_, last) = self.boxes.values(), self.boxes.values()
        depth = next(iter(self.lengths.values())).shape[1]
        items: list = field_scale(Box(first.right + 16, first.y, 14, first.height))
        for box in self.boxes.values():
            items += block_names(box, depth)
        for box, image, at in zip(self.thumbs, self.images, self.order, strict=True):
            items.append(Raster(box.x, box.y, box.width, box.height, grey_pixels(image), f"image {at}"))
        text = "A column is a token: a patch of the image below it. Framed: the patch of each network's longest token."
        return [*items, Label(last.x, last.bottom + 78, text, color=MUTED)]

    def strip_scene(self) -> Scene:
        """Five frames side by side, a row a network."""
        frames = np.unique(np.linspace(0, len(self.steps) - 1, 5).round().astype(int)).tolist()
        pitch = (NOTEBOOK_WIDTH - 74) / len(frames)
        scene = Scene(NOTEBOOK_WIDTH, 56 + 116 * len(self.lengths))
        for row, (arm, style) in enumerate(self.styles.items()):
            for k, frame in enumerate(frames):
                box, field = Box(62 + k * pitch, 32 + 116 * row, pitch - 14, 84), self.field(arm, frame)
                if row == 0:
                    scene.items.append(Label(box.x, 18, f"step {self.steps[frame]}", 13, bold=True))
                if k == 0:
                    scene.items.append(Label(box.x - 12, box.center[1], style.name, anchor="middle", angle=90))
                scene.items += named_field(box, field)
        scene.items += field_scale(Box(NOTEBOOK_WIDTH - 196, scene.height - 18, 140, 11))
        scene.items.append(Label(62, scene.height - 8, f"A row a block, a column a token: {UNIT}", color=MUTED))
        said = (
            f"{style.name} {', '.join(longest_times(self.field(arm, frame)) for frame in frames)}"
            for arm, style in self.styles.items()
        )
        steps = ", ".join(str(self.steps[frame]) for frame in frames)
        what = "The longest token before any FFN, over the root-mean-square length"
        scene.alt = f"Token lengths at steps {steps}. {what}: {'; '.join(said)}."
        return scene

    strip = drawn(strip_scene)
