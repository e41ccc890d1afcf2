"""Why evaluation explodes: test tokens behind every block by two kinds of statistics, and what it does to the loss."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from normviz.picture.colors import HUES, INK, MUTED
from normviz.picture.curves import MARKERS, Frame, Style, path, style_of, with_caption
from normviz.picture.figures import NOTEBOOK_WIDTH
from normviz.picture.inside import WIDTH, framed_image
from normviz.picture.png import figure
from normviz.picture.scene import Box, Label, Scene, Shapes, Strokes

#: Curves are told apart by what the BatchNorms divide by, not by arm
STATISTICS = {
    "batch": Style("each batch's own statistics", HUES[4], "circle"),
    "running": Style("running statistics, as in evaluation", HUES[5], "square", dashed=True),
}
TOPS = (1e3, 1e6, 1e12, 1e24, 1e39)  # float32 ends at 3.4e38


def _top(values: np.ndarray) -> float:
    """The lowest of TOPS that holds every value; the highest if one is not finite."""
    return next((top for top in TOPS if np.all(values <= top)), TOPS[-1])


def _dots(points: np.ndarray, style: Style, radius: float = 4.0) -> Shapes:
    outline = np.reshape(points, (-1, 1, 2)) + radius * MARKERS[style.marker]
    return Shapes(outline, [style.color] * len(outline), stroke=INK, width=0.7, name="dots")


def _key(style: Style, x: float, y: float) -> list:
    line = Strokes(np.array([[(x, y - 4), (x + 26, y - 4)]]), style.color, 2.4, style.dashed)
    return [line, _dots(np.array([(x + 13, y - 4)]), style), Label(x + 33, y, style.name)]


# The explorer ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EvalState:
    """Which look is shown: arm, and index of the recorded step."""

    arm: str
    look: int = 0


@dataclass(frozen=True)
class EvalReading:
    """The longest test token behind every block.

    lengths: "batch" and "running" -> (depth,), NaN or infinity where the arithmetic ended; last: the last block in
    which the running one is finite; token: (image of the test set, patch) that is longest there; apart: the first
    block in which the running one is more than twice the other, or None.
    """

    step: int
    lengths: dict[str, np.ndarray]
    last: int
    token: tuple[int, int]
    apart: int | None
    caption: str


def read_evaluation(looks: dict[str, list[dict]], state: EvalState) -> EvalReading:
    """looks: arm -> records of `lab.Inside`."""
    look = looks[state.arm][state.look]
    lengths = {name: np.array([row[0] for row in look["test"][name]], float) for name in STATISTICS}
    running, batch = lengths["running"], lengths["batch"]
    finite = np.flatnonzero(np.isfinite(running))
    last = int(finite[-1]) if finite.size else 0
    image, patch = (int(i) for i in look["test"]["running"][last][1:])
    wide = np.flatnonzero(~(running <= 2 * batch))
    apart = int(wide[0]) if wide.size else None
    end = (
        f"{running[-1]:.3g}"
        if np.isfinite(running[-1])
        else f"no longer finite (the last finite one, in block {last}, is {running[last]:.3g})"
    )
    caption = (
        f"{style_of(state.arm).name}, step {look['step']}: behind the last block the longest test token has length "
        f"{batch[-1]:.3g} by each batch's own statistics; by the running statistics it is {end}. "
        + ("The two stay within a factor of 2." if apart is None else f"They part at block {apart}.")
        + f" The longest token is patch {patch} of test image {image}."
    )
    return EvalReading(look["step"], lengths, last, (image, patch), apart, caption)


def evaluation_scene(
    images: np.ndarray, state: EvalState, reading: EvalReading, *, patch: int, with_text=False
) -> Scene:
    """Lengths over blocks by both statistics, and the image of the longest test token.  images: test set (n, H, W)."""
    picture = Scene(WIDTH, 384, reading.caption)
    lengths = reading.lengths
    depth, everything = len(lengths["batch"]), np.concatenate(list(lengths.values()))
    frame = Frame(Box(72, 82, 540, 240), (0, max(depth - 1, 1)), (1.0, _top(everything)), log=True)
    ticks = {float(i): str(i) for i in range(0, depth, 1 if depth <= 10 else 3)}
    heading = (
        f"Longest of all test tokens behind every block ({style_of(state.arm).name}, step {reading.step})"
    )
    picture.items += [Label(72, 22, heading, 13, bold=True), *frame.axes("block", "length", "", ticks)]
    for i, (name, style) in enumerate(STATISTICS.items()):
        known = np.isfinite(lengths[name])
        picture.items.append(
            Strokes(path(frame, np.arange(depth), lengths[name]), style.color, 2.4, style.dashed, name)
        )
        picture.items.append(_dots(frame(np.flatnonzero(known), lengths[name][known]), style, 5.0))
        picture.items += _key(style, 72 + 250 * i, 46)
        if not known.all():
            first = int(np.flatnonzero(~known)[0])
            x, y = frame(first, TOPS[-1])
            line = np.array([[(x, y), (x, y + frame.box.height)]])
            picture.items.append(Strokes(line, style.color, 1.0, True, "not finite"))
            anchor = "end" if first > 0.8 * depth else "start" if first < 0.2 * depth else "middle"
            text = f"not finite from block {first} on"
            picture.items.append(
                Label(x, y - 6, text, anchor=anchor, color=INK, bold=True)
            )  # above the curves
    image, place = reading.token
    box = Box(662, 66, 150, 150)
    picture.items.append(Label(box.x, 22, "The longest token", 13, bold=True))
    picture.items += framed_image(box, images[image], place, patch)
    for i, text in enumerate((f"test image {image}, patch {place}", f"at block {reading.last}:")):
        picture.items.append(Label(box.x, 240 + 17 * i, text, color=MUTED))
    for i, (name, style) in enumerate(STATISTICS.items()):
        picture.items += [
            _dots(np.array([(box.x + 5, 276 + 19 * i)]), style, 5.0),
            Label(box.x + 18, 280 + 19 * i, f"{lengths[name][reading.last]:.3g} ({name})"),
        ]
    return with_caption(picture) if with_text else picture


# The loss --------------------------------------------------------------------------------------------------

LOSSES = {
    "train_loss": Style("training loss", INK, "triangle"),
    "batch_loss": Style("test loss, each batch's own statistics", HUES[4], "circle"),
    "loss": Style("test loss, running statistics", HUES[5], "square", dashed=True),
}


def evaluation_losses(histories: Iterable) -> Scene:
    """Training loss beside the test loss by both kinds of statistics, a panel an arm, every run a line.

    histories: of `lab.train` or `lab.load_study`, with `.recipe.arm` and `.evals`.  A loss that is not finite is a
    cross at the upper edge.  Raises ValueError if no history has an evaluation.
    """
    arms: dict[str, list] = {}
    for history in histories:
        if history.evals:
            arms.setdefault(history.recipe.arm, []).append(history.evals)
    if not arms:
        raise ValueError(
            "histories holds no evaluation; it takes the histories of lab.train or lab.load_study"
        )
    values = np.array(
        [row[name] for runs in arms.values() for run in runs for row in run for name in LOSSES], float
    )
    finite = values[np.isfinite(values) & (values > 0)]
    limits = (min(0.1, float(finite.min(initial=1.0))), 30 * float(finite.max(initial=10.0)))
    scene = Scene(NOTEBOOK_WIDTH, 356, "")
    pitch, told = (NOTEBOOK_WIDTH - 6) / len(arms), []
    for i, (arm, runs) in enumerate(arms.items()):
        last = max(row["step"] for run in runs for row in run)
        frame = Frame(Box(66 + i * pitch, 62, pitch - 84, 234), (0, last), limits, log=True)
        many = f" ({len(runs)} runs)" if len(runs) > 1 else ""
        scene.items += frame.axes("step", "loss" if not i else "", style_of(arm).name + many)
        lost = 0
        for run in runs:
            steps = np.array([row["step"] for row in run], float)
            for name, style in LOSSES.items():
                losses = np.array([row[name] for row in run], float)
                known = np.isfinite(losses)
                scene.items.append(Strokes(path(frame, steps, losses), style.color, 1.6, style.dashed, name))
                if known.any():
                    scene.items.append(_dots(frame(steps[known], losses[known]), style, 3.6))
                for x, y in frame(steps[~known], limits[1]):
                    scene.items.append(Label(x, y + 10, "×", 15, "middle", style.color, bold=True))
                lost += int((~known).sum()) if name == "loss" else 0
        ends = {name: np.median([run[-1][name] for run in runs]) for name in ("train_loss", "batch_loss")}
        worst = max((row["loss"] for run in runs for row in run if np.isfinite(row["loss"])), default=np.nan)
        total = sum(len(run) for run in runs)
        told.append(
            f"{style_of(arm).name}: training loss {ends['train_loss']:.2g} at the end, test loss "
            f"{ends['batch_loss']:.2g} by each batch's own statistics; by the running ones up to {worst:.3g}, "
            f"not finite in {lost} of {total} evaluations"
        )
    x = 66.0
    for style in LOSSES.values():
        scene.items += _key(style, x, 26)
        x += 64 + 7.2 * len(style.name)
    if not np.isfinite(values).all():
        scene.items.append(Label(x, 26, "× not finite", bold=True))
    scene.alt = f"Losses over steps, logarithmic. {'; '.join(told)}."
    return scene


def draw_evaluation(histories: Iterable):
    """`evaluation_losses` as a matplotlib Figure with alt text: training and test loss, by both kinds of statistics."""
    return figure(with_caption(evaluation_losses(list(histories))))
