"""Tokens of three features as points in space, under LayerNorm, RMSNorm and BatchNorm.

LayerNorm takes each token to the plane of mean 0 and on to the sphere of radius √D: with D = 3 that leaves a circle.
RMSNorm leaves out the plane and gets the sphere.  BatchNorm never looks at a token by itself: it moves and stretches
the three axes, each by one number, until the ellipsoid of all tokens is round.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar, NamedTuple

import numpy as np

from normviz.arms import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, YELLOW
from normviz.explore.base import Explorer
from normviz.fields import choice, integer, number
from normviz.norms import METHODS, normalize_steps
from normviz.picture.chart import MARKERS
from normviz.picture.color import AXIS_COLORS, INK, MUTED, PAPER
from normviz.picture.scene import Box, Handle, Label, Scene, Shapes, Strokes, arrows, open_path, rects, ring
from normviz.picture.text import fixed, interval, plural, text_width, vector
from normviz.samples import digit_features, digit_images

#: What a token is: the name of the choice, and of its three features
TOKENS = {
    "filters": ("three filters", ("ink", "edge |", "edge —")),
    "pixels": ("three pixels", ("left", "middle", "right")),
}
SHOWN = ("layer_token", "rms", "batch")
STEPS = ("raw", "centred", "scaled", "affine")
PLACES = 16  # tokens of an image
RADIUS = 3**0.5  # √D
WIDE, HALF = 280.0, 136.0  # px: a panel, half the side of the cube in it
IMAGE_HUES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE)
# An image has its marker too: as twelve corners whatever it has, so that unlike ones can share one depth order
MARKS = np.stack([corners[np.arange(12) * len(corners) // 12] for corners in MARKERS.values()])


class Panel(NamedTuple):
    """One method's T = 16 · images tokens, float64, in reading order, and the sphere or ellipsoid with them."""

    steps: np.ndarray  # (4, T, 3), the tokens at raw, centred, scaled and affine
    reach: float  # how far from the origin tokens or surface come at any step
    points: np.ndarray  # (T, 3), the tokens where the state is
    centre: np.ndarray  # (3,), of the surface there
    axes: np.ndarray  # (3,), half as long as the surface is

    @property
    def span(self) -> str:
        """The lengths of the tokens in words."""
        lengths = np.linalg.norm(self.points, axis=1)
        return interval(lengths.min(), lengths.max())


def tokens_of(kind: str, images: int) -> np.ndarray:
    """Tokens of three features from the first `images` digits: float64 (images, 16, 3).

    "filters": the answers of three filters (ink, vertical and horizontal edge) on each of 4×4 patches.
    "pixels": three neighbouring pixels, the left or the right three of the middle six in each of 8 rows.
    """
    if kind == "filters":
        maps = digit_features(images, 4, 4, 4)[:, [0, 2, 3]]  # (B, 3, 4, 4)
        return maps.reshape(images, 3, PLACES).transpose(0, 2, 1).astype(float)
    return digit_images(images)[:, :, 1:7].reshape(images, PLACES, 3).astype(float)


@lru_cache(maxsize=64)
def stations(tokens: str, images: int, eps: float, gamma: float, beta: float) -> dict[str, tuple]:
    """By method: tokens (4, T, 3), centres and half axes (4, 3) of their surface at every step, and the reach."""
    x = tokens_of(tokens, images)  # (B, T, D)
    weight, bias = np.array([gamma, 1.0, 1.0]), np.array([beta, 0.0, 0.0])
    stations = {}
    for method in SHOWN:
        found = normalize_steps(x, method, eps=eps, weight=weight, bias=bias, layout="BTD")
        steps = np.stack([getattr(found, name).reshape(-1, 3) for name in STEPS])
        centres, axes = np.zeros((4, 3)), np.full((4, 3), RADIUS)
        if METHODS[method].running:  # the statistics are of features: the whole cloud has one ellipsoid
            centres[0], sigma = found.mean[0, 0], np.sqrt(found.var[0, 0])
            axes[:2], axes[2:] = RADIUS * sigma, RADIUS * sigma / np.sqrt(sigma**2 + eps)
        centres[3] = centres[2] * weight + bias
        axes[3] *= np.abs(weight)
        surface = np.linalg.norm(centres, axis=1) + axes.max(axis=1)
        reach = max(float(np.linalg.norm(steps, axis=2).max()), float(surface.max()))
        stations[method] = steps, reach, centres, axes
    return stations


def between(values: np.ndarray, step: float) -> np.ndarray:
    """`values` (4, …) at a step that may lie between two."""
    low = min(int(step), len(values) - 2)
    return values[low] * (low + 1 - step) + values[low + 1] * (step - low)


def step_name(step: float, halfway: str = "between %s and %s") -> str:
    """`scaled`, or `between centred and scaled`."""
    low = int(step)
    return STEPS[low] if step == low else halfway % STEPS[low : low + 2]


def extent(reading: dict[str, Panel]) -> float:
    """Half the side of the cube that every panel shows: nothing leaves it at any step, so steps can be compared."""
    return 1.08 * max(panel.reach for panel in reading.values())


class View:
    """A parallel projection: points (…, 3) to pixels (…, 2), and how near each is to the eye.

    azimuth, tilt: where the eye is, in degrees; centre: the pixel of the origin; scale: pixels for a unit of length.
    """

    def __init__(self, azimuth: float, tilt: float, centre: tuple[float, float], scale: float):
        a, e = np.radians([azimuth, tilt])
        right = np.array([-np.sin(a), np.cos(a), 0.0])
        self.eye = np.array([np.cos(a) * np.cos(e), np.sin(a) * np.cos(e), np.sin(e)])
        self.screen = np.stack([right, -np.cross(self.eye, right)])  # pixels point down
        self.centre, self.scale = np.array(centre), scale

    def __call__(self, points) -> np.ndarray:
        return self.centre + self.scale * (np.asarray(points) @ self.screen.T)

    def depth(self, points) -> np.ndarray:
        """Distance towards the eye; the painter starts with the least."""
        return np.asarray(points) @ self.eye


_ANGLES = np.linspace(0, 2 * np.pi, 36, endpoint=False)[:, None]
CIRCLE = np.hstack([np.cos(_ANGLES), np.sin(_ANGLES)])  # (36, 2)
_X, _Y, _Z = np.eye(3)
#: The circle (36, 3) of the tokens with mean 0 and length 1: LayerNorm's, up to its radius
PLANE = CIRCLE @ np.stack([np.array([1, -1, 0]) / 2**0.5, np.array([1, 1, -2]) / 6**0.5])
#: Rings (7, 36, 3) on the unit sphere: four circles of longitude and three of latitude
GLOBE = np.stack(
    [CIRCLE @ np.stack([np.cos(a) * _X + np.sin(a) * _Y, _Z]) for a in np.arange(4) * np.pi / 4]
    + [CIRCLE @ np.stack([_X, _Y]) * np.cos(b) + np.sin(b) * _Z for b in np.radians([-40, 0, 40])]
)


def dots(view: View, points: np.ndarray, which: np.ndarray) -> Shapes:
    """The tokens `which` (indices) of points (T, 3) as markers, the farthest first."""
    order = which[np.argsort(view.depth(points[which]))]
    image, place = np.divmod(order, PLACES)
    rows = list(zip(image.tolist(), place.tolist(), points[order].tolist(), strict=True))
    words = "image %d, place %d: (%.3g, %.3g, %.3g)"
    titles = [words % (i, p, *point) for i, p, point in rows]
    fills, data = [IMAGE_HUES[i] for i, *_ in rows], [(f"{i},{p}", i) for i, p, _ in rows]
    return Shapes(view(points[order])[:, None] + 5.0 * MARKS[image], fills, titles, data, PAPER, 0.8, name="token")


@dataclass(frozen=True)
class Geometry(Explorer):
    """Tokens of three features in space, on their way through LayerNorm, RMSNorm and BatchNorm.

    tokens: what a token is, see `tokens_of`; step: 0 (raw) to 3 (affine), fractions lie between two steps; azimuth,
    tilt: where the eye is, in degrees; token: the one that is followed, of the first image; gamma, beta: weight and
    bias of the first feature (the others keep 1 and 0).
    """

    ahead = ("tokens", "step", "azimuth")
    stops: ClassVar = {"step": (0.0, 1.0, 2.0, 3.0), "azimuth": (70.0, 160.0, 250.0, 340.0)}
    parts = (
        *((x, 0, x + 280, 366) for x in (0, 280, 560)),
        *((left, 366, right, 392) for left, right in pairwise((0, 226, 690, 840))),
    )

    tokens: str = choice("filters", {name: key for key, (name, _) in TOKENS.items()}, "tokens")
    step: float = number(2.0, least=0, most=3, step=0.1)
    azimuth: float = number(70.0, least=0, most=360, step=5)
    tilt: float = number(15.0, least=-90, most=90, step=5)
    images: int = integer(4, 1, len(IMAGE_HUES))
    token: int = integer(1, 0, PLACES - 1)
    eps: float = choice(1e-5, {f"{10.0**k:g}": 10.0**k for k in range(-8, 1)}, "ε")
    gamma: float = number(1.0, least=-2, most=2, step=0.1, label="γ₁ (affine)")
    beta: float = number(0.0, least=-2, most=2, step=0.1, label="β₁ (affine)")

    def read(self) -> dict[str, Panel]:
        every = stations(self.tokens, self.images, self.eps, self.gamma, self.beta)
        return {
            method: Panel(steps, reach, *(between(values, self.step) for values in (steps, centres, axes)))
            for method, (steps, reach, centres, axes) in every.items()
        }

    def say(self, reading: dict[str, Panel]) -> str:
        name, features = TOKENS[self.tokens]
        lengths = "; ".join(f"{METHODS[m].name} {panel.span}" for m, panel in reading.items())
        places = "; ".join(f"{METHODS[m].name} {vector(panel.points[self.token])}" for m, panel in reading.items())
        raw = next(iter(reading.values())).steps[0, self.token]
        return (
            f"{PLACES * self.images} tokens of {name} ({', '.join(features)}) from {plural(self.images, 'image')}, "
            f"{step_name(self.step)}. Lengths: {lengths}. The followed token, {self.token} of the first image, "
            f"was {vector(raw)} and is: {places}."
        )

    def draw(self, reading: dict[str, Panel]) -> Scene:
        """The same tokens under three methods, side by side, from one point of view and on one scale."""
        picture, reach = Scene(WIDE * len(reading), 392), extent(reading)
        for k, (method, panel) in enumerate(reading.items()):
            left, row, point = k * WIDE, METHODS[method], panel.points[self.token]
            view = View(self.azimuth, self.tilt, (left + WIDE / 2, 184), HALF / reach)
            lines, names = self._axes(view, 0.8 * reach, left)
            body = self._on_plane if row.centred and not row.running else self._on_surface
            where = f"mean {fixed(point.mean())}, length {fixed(np.linalg.norm(point))}"
            picture.items += [
                *lines, *body(view, panel, reach), *names, *self._followed(view, panel),
                Label(left + 12, 18, row.name, 14, bold=True), Label(left + 12, 36, row.aim, color=MUTED),
                Label(left + 12, 344, f"token lengths: {panel.span}"),
                Label(left + 12, 362, f"followed token: {where}"),
            ]  # fmt: skip
            if k:
                picture.items.append(Strokes(np.array([[(left, 8), (left, 366)]]), GREY, 0.8, name="rule"))
        every = Box(4, 44, picture.width - 8, 284)
        turn = {"azimuth": (-0.5, 0.0), "tilt": (0.0, 0.5)}
        picture.handles = [
            Handle("followed token", ("token",), every, cells=True, only="0"),
            Handle("point of view", (*turn,), every, drag=turn, keys=arrows(*turn), wraps=("azimuth",)),
        ]
        picture.items += self._key(picture.width)
        return picture

    def _on_plane(self, view: View, panel: Panel, reach: float) -> list:
        """What LayerNorm aims at stands still until affine moves it along; tokens before and beyond the plane."""
        outline = panel.centre + panel.axes * PLANE
        normal = np.cross(outline[12] - outline[0], outline[24] - outline[0])
        normal = normal * (np.sign(normal @ view.eye) or 1.0)
        beyond = (panel.points - panel.centre) @ normal < -1e-9  # what lies in the plane is not left to rounding
        # The plane has no end, the panel has
        wide = max(1.0, (0.98 * reach - np.linalg.norm(panel.centre)) / panel.axes.max())
        sphere = ring(view.centre + view.scale * RADIUS * CIRCLE)
        return [
            *([Strokes(sphere, MUTED, 0.9, dashed=True, name="sphere")] if self.step <= 2 else []),
            dots(view, panel.points, np.flatnonzero(beyond)),
            Shapes(view(panel.centre + wide * panel.axes * PLANE)[None], [SKY], opacity=0.22, name="plane"),
            Strokes(ring(view(outline)), INK, 1.8, name="circle"),
            dots(view, panel.points, np.flatnonzero(~beyond)),
        ]

    def _on_surface(self, view: View, panel: Panel, reach: float) -> list:
        """Tokens between the far and the near half of a sphere or ellipsoid."""
        rings = panel.axes * GLOBE
        near = view.depth(rings + np.roll(rings, -1, axis=1)).ravel() > 0
        segments = ring(view(panel.centre + rings))
        return [
            Strokes(segments[~near], GREY, 0.8, dashed=True, name="far"),
            dots(view, panel.points, np.arange(len(panel.points))),
            Strokes(segments[near], MUTED, 0.9, name="near"),
        ]

    def _axes(self, view: View, size: float, left: float) -> tuple[list, list]:
        """Three axes through the origin, and the names of the features at their ends, none over another."""
        ends, color = size * np.eye(3), AXIS_COLORS["channel"]
        lines = [
            Strokes(np.stack([view(0 * ends), view(tips)], axis=1), *style, name="axis")
            for tips, style in ((-ends, (GREY, 0.8, True)), (ends, (color, 1.3)))
        ]
        names: list[Label] = []
        whole = size * view.scale
        tips = zip((view(1.1 * ends) - view.centre).tolist(), TOKENS[self.tokens][1], strict=True)
        for away, name in sorted(tips, key=lambda tip: tip[0][1]):
            if (apart := np.hypot(*away)) <= 0.25 * whole:  # one that points at the eye gives way to the tokens
                continue
            x, y = view.centre + np.multiply(away, max(1.0, 0.75 * whole / apart)) + (0, 4)
            half = text_width(name, bold=True) / 2
            x = min(max(x, left + half + 4), left + WIDE - half - 4)
            for other in names:
                if abs(x - other.x) < half + other.width / 2 + 4:
                    y = max(y, other.y + 15)
            names.append(Label(x, y, name, anchor="middle", color=color, bold=True))
        plates = [rects(*np.add(label.extent, (-2, -1, 2, 1))) for label in names]  # legible above the tokens
        return lines, [Shapes(np.concatenate(plates), [PAPER] * len(names), opacity=0.75, name="plate"), *names]

    def _followed(self, view: View, panel: Panel) -> list:
        """The way of the followed token up to here, and itself on top of all others."""
        last = min(int(self.step), len(STEPS) - 2)
        way = view(np.concatenate([panel.steps[: last + 1, self.token], panel.points[[self.token]]]))
        return [
            Strokes(open_path(way), PAPER, 4.0, name="halo"),
            Strokes(open_path(way), INK, 1.8, name="way"),
            Shapes((way[-1] + 8.0 * MARKS[0])[None], [YELLOW], stroke=INK, width=2.0, name="followed"),
        ]

    def _key(self, width: float) -> list:
        """Which marker is which image, and the step."""
        items: list = [
            Shapes(((18, 380) + 7.0 * MARKS[0])[None], [YELLOW], stroke=INK, width=1.8),
            Label(30, 384, "followed, with its way from raw"),
            Label(width - 12, 384, f"step {self.step:.1f}: {step_name(self.step, '%s → %s')}", anchor="end", bold=True),
        ]
        for i, hue in enumerate(IMAGE_HUES[: self.images]):
            x = 246 + 78 * i
            items += [Shapes(((x, 380) + 6.0 * MARKS[i])[None], [hue]), Label(x + 10, 384, f"image {i}")]
        return items
