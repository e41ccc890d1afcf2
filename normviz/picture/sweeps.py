"""A chart of a measure over a setting: one curve an arm, every seed a mark, the spread a band.  numpy only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from normviz.picture.curves import Frame, key, marks, path, style_of, with_caption
from normviz.picture.figures import NOTEBOOK_WIDTH
from normviz.picture.png import figure
from normviz.picture.scene import Box, Scene, Shapes, Strokes


def sweep_chart(
    values: Mapping[str, Mapping[float, Iterable[float]]],
    x_name: str,
    y_name: str,
    *,
    heading: str = "",
    percent: bool = False,
    limits: tuple[float, float] | None = None,
    size=(NOTEBOOK_WIDTH, 360),
) -> Scene:
    """A measure over a positive setting, both axes logarithmic: arm -> {setting: one value a seed}.

    The line joins the means of the seeds; every seed is a small mark; the band reaches from the least to the greatest.
    percent: the values are shares, shown as percentages.  limits: of the vertical axis; by default what the values
    need.  What lies below it is drawn at the rim.

    Raises ValueError, naming the argument, for no values, a setting that is not positive, or a value that is not
    finite.
    """
    found = {
        arm: {
            float(x): np.asarray(list(seeds), float) * (100 if percent else 1) for x, seeds in cells.items()
        }
        for arm, cells in values.items()
    }
    settings = sorted({x for cells in found.values() for x in cells})
    everything = [seeds for cells in found.values() for seeds in cells.values()]
    if not settings or not all(seeds.size for seeds in everything):
        raise ValueError(f"values={values!r} has an empty place; it takes arm -> setting -> one value a seed")
    if settings[0] <= 0:
        raise ValueError(f"values has the setting {settings[0]:g}; a logarithmic axis takes positive ones")
    everything = np.concatenate(everything)
    if not np.isfinite(everything).all():
        raise ValueError("values holds a value that is not finite; leave such runs out and say so")
    low = float(everything[everything > 0].min(initial=1.0))
    limits = limits or (0.8 * low, 1.25 * max(low, float(everything.max())))

    width, height = size
    ends = math.log2(settings[0]), math.log2(settings[-1])
    room = 0.04 * (ends[1] - ends[0] or 1)
    frame = Frame(Box(66, 58, width - 90, height - 104), (ends[0] - room, ends[1] + room), limits, log=True)
    ticks = {math.log2(x): f"{x:g}" for x in settings}
    scene = Scene(width, height, "", frame.axes(x_name, y_name, heading, ticks))
    told, floor = [], limits[0]
    for arm, cells in found.items():
        style, xs = style_of(arm), np.array(sorted(cells))
        at = np.log2(xs)
        least, most, mean = (np.array([pick(cells[x]) for x in xs]) for pick in (np.min, np.max, np.mean))
        clipped = [np.maximum(v, floor) for v in (least, most, mean)]
        band = np.concatenate([frame(at, clipped[0]), frame(at, clipped[1])[::-1]])
        scene.items.append(Shapes(band[None], [style.color], opacity=0.18, name=f"band-{arm}"))
        line = path(frame, at, clipped[2])
        scene.items.append(Strokes(line, style.color, 2.6, style.dashed, f"mean-{arm}"))
        points = [frame(math.log2(x), np.maximum(cells[x], floor)) for x in xs]
        scene.items.append(marks(np.concatenate(points), arm, 3.4))
        numbers = ", ".join(f"{m:.3g} at {x:g}" for x, m in zip(xs[::-1], mean[::-1], strict=True))
        told.append(f"{style.name}: {numbers}")
    scene.items += key(found, 66 + 9 * len(heading), 48)
    counts = {seeds.size for cells in found.values() for seeds in cells.values()}
    many = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else max(counts)
    scene.alt = f"{y_name[:1].upper()}{y_name[1:]} over {x_name}, means of {many} seeds. {'; '.join(told)}."
    return scene


def draw_sweep(values, x_name, y_name, **options):
    """`sweep_chart` as a matplotlib Figure with its alt text beneath; arguments and errors as there."""
    return figure(with_caption(sweep_chart(values, x_name, y_name, **options)))
