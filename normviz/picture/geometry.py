"""What normalization does to tokens of three features, seen as points in space.  Pure: a state -> a reading -> a scene.

LayerNorm takes each token to the plane of mean 0 and on to the sphere of radius √D: with D = 3 that leaves a circle.
RMSNorm leaves out the plane and gets the sphere.  BatchNorm never looks at a token by itself: it moves and stretches
the three axes, each by one number, until the ellipsoid of all tokens is round.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from normviz.functional import normalize_steps
from normviz.methods import METHODS
from normviz.picture.colors import AXIS_COLORS, GREY, HUES, INK, MUTED, PAPER
from normviz.picture.curves import MARKERS, with_caption
from normviz.picture.png import figure
from normviz.picture.scene import Box, Label, Scene, Shapes, Strokes
from normviz.samples import digit_features, digit_images

#: What a token is: the name of the choice, and of its three features
TOKENS = {
    "filters": ("three filters", ("ink", "edge |", "edge —")),
    "pixels": ("three pixels", ("left", "middle", "right")),
}
SHOWN = ("layer_token", "rms", "batch")
STEPS = ("raw", "centred", "scaled", "affine")
PLACES = 16  # tokens of an image
MOST_IMAGES = 5
RADIUS = 3**0.5  # √D
WIDTH = 840  # px, what JupyterLab shows beside its sidebar
IMAGE_MARKS = ("circle", "square", "triangle", "diamond", "star")  # an image has its marker and its hue
IMAGE_HUES = (HUES[4], HUES[5], HUES[2], HUES[6], HUES[0])


@dataclass(frozen=True)
class State:
    """What the controls say.

    tokens: key of TOKENS; images: in the batch, 1 to 5; token: the one that is followed, 0 to 15, of the first
    image; step: 0 (raw) to 3 (affine), fractions lie between two steps; turn, tilt: the view, in degrees;
    gamma, beta: weight and bias of the first feature (the others keep 1 and 0).
    """

    tokens: str = "filters"
    images: int = 4
    token: int = 1
    step: float = 2.0
    turn: float = 70.0
    tilt: float = 15.0
    eps: float = 1e-5
    gamma: float = 1.0
    beta: float = 0.0


@dataclass(frozen=True)
class Panel:
    """One method's tokens, float64, images × 16 of them in reading order.

    steps: (4, T, 3), the tokens at raw, centred, scaled and affine; points: (T, 3), where the state's step has them;
    centre, axes: (3,), centre and half axes of the surface that goes along (sphere or ellipsoid) at this step;
    reach: how far from the origin tokens or surface come at any step.
    """

    method: str
    steps: np.ndarray
    points: np.ndarray
    centre: np.ndarray
    axes: np.ndarray
    reach: float

    @property
    def lengths(self) -> np.ndarray:
        """Distance of every token from the origin, (T,)."""
        return np.linalg.norm(self.points, axis=1)


def check(state: State) -> State:
    """The state itself.  Raises ValueError, naming the field, for what no control could have set."""
    if state.tokens not in TOKENS:
        raise ValueError(f"tokens={state.tokens!r} is unknown; it takes one of {', '.join(TOKENS)}")
    for name, low, high in (
        ("images", 1, MOST_IMAGES),
        ("token", 0, PLACES - 1),
        ("step", 0, len(STEPS) - 1),
    ):
        if not low <= getattr(state, name) <= high:
            raise ValueError(f"{name}={getattr(state, name)!r} must be {low} to {high}")
    return state


def tokens_of(kind: str, images: int) -> np.ndarray:
    """Tokens of three features from the first `images` digits: float64 (images, 16, 3).

    "filters": the answers of three filters (ink, vertical and horizontal edge) on each of 4×4 patches.
    "pixels": three neighbouring pixels, the left or the right three of the middle six in each of 8 rows.
    """
    if kind == "filters":
        maps = digit_features(images, 4, 4, 4)[:, [0, 2, 3]]  # (B, 3, 4, 4)
        return maps.reshape(images, 3, PLACES).transpose(0, 2, 1).astype(float)
    return digit_images(images)[:, :, 1:7].reshape(images, PLACES, 3).astype(float)


def read(state: State) -> dict[str, Panel]:
    """Method -> where its tokens are, for each of SHOWN; the arithmetic is `normviz.normalize_steps`."""
    x = torch.from_numpy(tokens_of(state.tokens, state.images))  # (B, T, D)
    weight = torch.tensor([state.gamma, 1.0, 1.0], dtype=x.dtype)
    bias = torch.tensor([state.beta, 0.0, 0.0], dtype=x.dtype)
    panels = {}
    for method in SHOWN:
        found = normalize_steps(x, method, eps=state.eps, weight=weight, bias=bias, layout="BTD")
        steps = np.stack([getattr(found, name).reshape(-1, 3).numpy() for name in STEPS])
        if METHODS[method].running:  # the statistics are of features: the whole cloud has one ellipsoid
            mean, sigma = found.mean[0, 0].numpy(), found.var[0, 0].sqrt().numpy()
            shrunk = sigma / np.sqrt(sigma**2 + state.eps)
            centres, axes = [mean, 0 * mean, 0 * mean], [sigma, sigma, shrunk]
        else:
            centres, axes = [np.zeros(3)] * 3, [np.ones(3)] * 3
        centres.append(centres[2] * weight.numpy() + bias.numpy())
        axes.append(axes[2] * np.abs(weight.numpy()))
        surfaces = np.linalg.norm(centres, axis=1) + RADIUS * np.max(axes, axis=1)
        reach = max(float(np.linalg.norm(steps, axis=2).max()), float(surfaces.max()))
        at = lambda values: _between(np.asarray(values, float), state.step)  # noqa: E731
        panels[method] = Panel(method, steps, at(steps), at(centres), RADIUS * at(axes), reach)
    return panels


def _between(values: np.ndarray, step: float) -> np.ndarray:
    """`values` (4, …) at a step that may lie between two."""
    low = min(int(step), len(values) - 2)
    share = step - low
    return values[low] * (1 - share) + values[low + 1] * share


class View:
    """A parallel projection: points (…, 3) to pixels (…, 2), and how near each is to the eye."""

    def __init__(self, turn: float, tilt: float, centre: tuple[float, float], scale: float):
        a, e = np.radians([turn, tilt])
        right = np.array([-np.sin(a), np.cos(a), 0.0])
        self.eye = np.array([np.cos(a) * np.cos(e), np.sin(a) * np.cos(e), np.sin(e)])
        self.screen = np.stack([right, -np.cross(self.eye, right)])  # pixels point down
        self.centre, self.scale = np.array(centre), scale

    def __call__(self, points) -> np.ndarray:
        return self.centre + self.scale * (np.asarray(points) @ self.screen.T)

    def depth(self, points) -> np.ndarray:
        """Distance towards the eye; the painter starts with the least."""
        return np.asarray(points) @ self.eye


_ANGLES = np.linspace(0, 2 * np.pi, 37)
_RING = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)  # closed, (37, 2)


def _circle(u, v) -> np.ndarray:
    """Points (37, 3) of the unit circle through the directions u and v, which are at right angles."""
    return _RING @ np.stack([np.asarray(u, float), np.asarray(v, float)])


#: The circle of the tokens with mean 0 and length 1: LayerNorm's, up to its radius
PLANE = _circle(np.array([1, -1, 0]) / 2**0.5, np.array([1, 1, -2]) / 6**0.5)


def _globe() -> np.ndarray:
    """Closed rings (R, 37, 3) on the unit sphere: three circles of latitude and four of longitude."""
    x, y, z = np.eye(3)
    rings = [_circle(np.cos(a) * x + np.sin(a) * y, z) for a in np.arange(4) * np.pi / 4]
    rings += [_circle(x, y) * np.cos(b) + np.sin(b) * z for b in np.radians([-40, 0, 40])]
    return np.stack(rings)


GLOBE = _globe()


def _wires(view: View, rings: np.ndarray, middle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Segments (S, 2, 2) of rings (R, K, 3), those behind `middle` and those in front of it."""
    front = view.depth((rings[:, :-1] + rings[:, 1:]) / 2 - middle) > 0
    flat = view(rings)
    segments = np.stack([flat[:, :-1], flat[:, 1:]], axis=2)
    return segments[~front], segments[front]


def _outlines(name: str) -> np.ndarray:
    """A marker as a polygon of twelve corners, whatever it has: unlike markers can then share one depth order."""
    corners = MARKERS[name]
    return corners[np.arange(12) * len(corners) // 12]


_MARKS = np.stack([_outlines(name) for name in IMAGE_MARKS])


def _dots(view: View, points: np.ndarray, which: np.ndarray) -> list:
    """The tokens `which` as markers, the farthest first."""
    order = which[np.argsort(view.depth(points[which]))]
    if not len(order):
        return []
    image, place = np.divmod(order, PLACES)
    corners = view(points[order])[:, None] + 5.0 * _MARKS[image]
    words = "image %d, place %d: (%.3g, %.3g, %.3g)"
    titles = [words % (i, p, *points[k]) for i, p, k in zip(image, place, order, strict=True)]
    data = [(f"{i},{p}", int(i)) for i, p in zip(image, place, strict=True)]
    fills = [IMAGE_HUES[i] for i in image]
    return [Shapes(corners, fills, titles, data, stroke=PAPER, width=0.8, name="token")]


def extent(panels: dict[str, Panel]) -> float:
    """Half the side of the cube that every picture shows: nothing leaves it at any step, so steps can be compared."""
    return 1.08 * max(panel.reach for panel in panels.values())


def _panel(box: Box, state: State, panel: Panel, reach: float) -> list:
    half = min(box.width, box.height) / 2
    view = View(state.turn, state.tilt, (box.x + box.width / 2, box.y + box.height / 2), half / reach)
    items, names = _axes(view, 0.8 * reach, TOKENS[state.tokens][1])
    everyone = np.arange(len(panel.points))
    flat = METHODS[panel.method].centred and not METHODS[panel.method].running
    if flat:
        # What LayerNorm aims at stands still until affine moves it along
        ring = panel.centre + panel.axes * PLANE
        normal = np.cross(ring[12] - ring[0], ring[24] - ring[0])
        normal = normal * (np.sign(normal @ view.eye) or 1.0)
        behind = (panel.points - panel.centre) @ normal < 0
        silhouette = view.centre + view.scale * RADIUS * np.stack([_RING[:, 0], _RING[:, 1]], axis=1)
        segments = np.stack([silhouette[:-1], silhouette[1:]], axis=1)
        if state.step <= 2:
            items.append(Strokes(segments, MUTED, 0.9, dashed=True, name="sphere"))
        items += _dots(view, panel.points, everyone[behind])
        wide = (
            0.98 * reach - np.linalg.norm(panel.centre)
        ) / panel.axes.max()  # the plane has no end, the panel has
        disc = view(panel.centre + (ring - panel.centre) * max(1.0, wide))
        items.append(Shapes(disc[None, :-1], [HUES[1]], opacity=0.22, name="plane"))
        circle = view(ring)
        items.append(Strokes(np.stack([circle[:-1], circle[1:]], axis=1), INK, 1.8, name="circle"))
        items += _dots(view, panel.points, everyone[~behind])
    else:
        back, front = _wires(view, panel.centre + panel.axes * GLOBE, panel.centre)
        items.append(Strokes(back, GREY, 0.8, dashed=True, name="behind"))
        items += _dots(view, panel.points, everyone)
        items.append(Strokes(front, MUTED, 0.9, name="surface"))
    return [*items, *names, *_followed(view, state, panel)]


def _axes(view: View, size: float, names: tuple[str, ...]) -> tuple[list, list]:
    """Three axes through the origin, and the names of the features at their ends."""
    ends = size * np.eye(3)
    origin = np.zeros((3, 3))
    items: list = [
        Strokes(np.stack([view(origin), view(-ends)], axis=1), GREY, 0.8, dashed=True, name="axis"),
        Strokes(np.stack([view(origin), view(ends)], axis=1), AXIS_COLORS["channel"], 1.3, name="axis"),
    ]
    written = []
    for tip, name in zip(view(1.1 * ends), names, strict=True):
        # The name of an axis that points at the eye gives way to the tokens
        away = tip - view.centre
        apart = np.hypot(*away)
        if apart > 0.25 * size * view.scale:
            x, y = (
                tip
                if apart > 0.75 * size * view.scale
                else view.centre + away * 0.75 * size * view.scale / apart
            )
            written.append(Label(x, y + 4, name, anchor="middle", color=AXIS_COLORS["channel"], bold=True))
    return items, written


def _followed(view: View, state: State, panel: Panel) -> list:
    """The way of the followed token up to here, and itself on top of all others."""
    last = min(int(state.step), len(STEPS) - 2)
    way = view(np.concatenate([panel.steps[: last + 1, state.token], panel.points[[state.token]]]))
    here = way[-1] + 8.0 * _MARKS[0]
    return [
        Strokes(np.stack([way[:-1], way[1:]], axis=1), PAPER, 4.0, name="halo"),
        Strokes(np.stack([way[:-1], way[1:]], axis=1), INK, 1.8, name="way"),
        Shapes(here[None], [HUES[3]], stroke=INK, width=2.0, name="followed"),
    ]


AIMS = {
    "layer_token": "where plane and sphere meet: a circle",
    "rms": "the whole sphere of radius √3",
    "batch": "the ellipsoid of all, √3·σ, made round",
}


def _vector(point) -> str:
    return "(" + ", ".join(f"{0.0 if abs(v) < 5e-3 else v:.2f}".replace("-", "−") for v in point) + ")"


def _span(panel: Panel) -> str:
    return f"{panel.lengths.min():.2f} to {panel.lengths.max():.2f}"


def step_name(step: float) -> str:
    """`scaled`, or `between centred and scaled`."""
    low = int(step)
    return STEPS[low] if step == low else f"between {STEPS[low]} and {STEPS[low + 1]}"


def describe(state: State, panels: dict[str, Panel]) -> str:
    """The caption and alt text: how long the tokens are, and where the followed one is."""
    told = "; ".join(f"{METHODS[m].name} {_span(panel)}" for m, panel in panels.items())
    places = "; ".join(f"{METHODS[m].name} {_vector(p.points[state.token])}" for m, p in panels.items())
    raw = _vector(panels["batch"].steps[0, state.token])
    tokens, images = len(panels["batch"].points), f"{state.images} image{'s' if state.images > 1 else ''}"
    return (
        f"{tokens} tokens of {TOKENS[state.tokens][0]} ({', '.join(TOKENS[state.tokens][1])}) from {images}, "
        f"{step_name(state.step)}. Lengths: {told}. The followed token, {state.token} of the first image, "
        f"was {raw} and is: {places}."
    )


def geometry_scene(state: State, panels: dict[str, Panel], *, with_text: bool = False) -> Scene:
    """The same tokens under three methods, side by side, from one point of view and on one scale."""
    picture = Scene(WIDTH, 392, describe(state, panels))
    reach, wide = extent(panels), WIDTH / len(panels)
    for k, (method, panel) in enumerate(panels.items()):
        box = Box(k * wide + 4, 44, wide - 8, 280)
        picture.items += _panel(box, state, panel, reach)
        picture.items.append(Label(k * wide + 12, 18, METHODS[method].name, 14, bold=True))
        picture.items.append(Label(k * wide + 12, 36, AIMS[method], color=MUTED))
        mean = float(panel.points[state.token].mean())
        text = f"mean {0.0 if abs(mean) < 5e-3 else mean:.2f}, length {panel.lengths[state.token]:.2f}"
        picture.items.append(Label(k * wide + 12, 344, f"token lengths: {_span(panel)}"))
        picture.items.append(Label(k * wide + 12, 362, f"followed token: {text.replace('-', '−')}"))
        if k:
            line = np.array([[(k * wide, 8), (k * wide, 366)]])
            picture.items.append(Strokes(line, GREY, 0.8, name="rule"))
    picture.items += _key(state)
    return with_caption(picture) if with_text else picture


def _key(state: State) -> list:
    """Which marker is which image."""
    x, y = 12.0, 384.0
    items: list = [
        Shapes((np.array([x + 6, y - 4]) + 7.0 * _MARKS[0])[None], [HUES[3]], stroke=INK, width=1.8)
    ]
    items.append(Label(x + 18, y, "followed, with its way from raw"))
    x += 236
    for i in range(state.images):
        items.append(Shapes((np.array([x + 6, y - 4]) + 6.0 * _MARKS[i])[None], [IMAGE_HUES[i]]))
        items.append(Label(x + 17, y, f"image {i}"))
        x += 78
    items.append(
        Label(WIDTH - 12, y, f"step {state.step:.1f}: {step_name(state.step)}", anchor="end", bold=True)
    )
    return items


def draw_geometry(
    tokens: str = "filters", step: float = 2.0, *, turn: float = 70.0, tilt: float = 15.0, images=4
):
    """Tokens of three features under LayerNorm, RMSNorm and BatchNorm, as a matplotlib Figure with alt text.

    tokens: "filters" or "pixels", see `tokens_of`; step: 0 raw, 1 centred, 2 scaled, 3 affine, fractions between;
    turn, tilt: the view in degrees; images: 1 to 5.  Raises ValueError, naming the argument, for anything else.
    """
    state = check(State(tokens=tokens, step=step, turn=turn, tilt=tilt, images=images))
    return figure(geometry_scene(state, read(state), with_text=True))
