"""Where the time of a network goes: stacked bars, one for each network on each machine."""

from __future__ import annotations

import math
from collections.abc import Mapping

from normviz.arms import BLUE, GREEN, ORANGE, SKY
from normviz.draw.common import NOTEBOOK_WIDTH
from normviz.picture.color import INK, MUTED, PAPER, readable_on
from normviz.picture.scene import Label, Scene, Shapes, rects
from normviz.picture.text import seconds, text_width

HUES = (BLUE, SKY, ORANGE, GREEN)
REST = "not explained"


def times_scene(
    machines: Mapping[str, Mapping[str, Mapping[str, float]]], measured: Mapping[str, Mapping[str, float]]
) -> Scene:
    """A bar for each network on each machine: what its time is made of by a model, and how long it took.

    machines: machine -> network -> part -> seconds, up to four parts, the same for all.  measured: machine -> network
    -> seconds; what the parts leave of it is drawn hollow.  The bars of one machine have one scale, in two columns of
    machines.  Parts are told by colour, by their order and by the letter that opens their names.

    Raises ValueError for no machines, parts that differ or are more than four, or times that are not finite and
    positive, or negative parts.
    """
    parts = _checked(machines, measured)
    letters = {part: part[0].upper() for part in parts}
    scene, left, column, row = Scene(NOTEBOOK_WIDTH, 0), 96.0, NOTEBOOK_WIDTH / 2, 24
    room = column - left - 70
    x = 12.0
    for part, hue in [*zip(parts, HUES, strict=False), (REST, PAPER)]:
        scene.items += _piece(x, 14, 22, 16, hue, letters.get(part, ""), part)
        scene.items.append(Label(x + 28, 27, part))
        x += 28 + text_width(part) + 22
    words, top, bottom = [], 58.0, 58.0
    for k, (machine, networks) in enumerate(machines.items()):
        if k and k % 2 == 0:
            top = bottom + 24
        shift, y = column * (k % 2), top + 18
        scale = room / max(max(measured[machine].values()), max(sum(found.values()) for found in networks.values()))
        scene.items.append(Label(shift + 12, top + 4, machine, 13, bold=True))
        told = []
        for network, found in networks.items():
            at, whole = shift + left, measured[machine][network]
            scene.items.append(Label(at - 8, y + 13, network, anchor="end"))
            for part, hue in zip(parts, HUES, strict=False):
                wide = scale * found[part]
                scene.items += _piece(at, y, wide, row - 6, hue, letters[part], f"{part}: {seconds(found[part])}")
                at += wide
            rest = whole - sum(found.values())
            if rest > 0:
                scene.items += _piece(at, y, scale * rest, row - 6, PAPER, "", f"{REST}: {seconds(rest)}")
                at += scale * rest
            scene.items.append(Label(at + 6, y + 13, seconds(whole), color=MUTED))
            most = max(parts, key=found.get)
            told.append(f"{network} {seconds(whole)} ({most} {seconds(found[most])})")
            y += row
        words.append(f"{machine}: {', '.join(told)}")
        bottom = max(bottom, y)
    scene.height = bottom + 12
    scene.alt = f"Where the time goes, with the largest part of each. {'; '.join(words)}."
    return scene


def _piece(x: float, y: float, width: float, height: float, fill: str, letter: str, title: str) -> list:
    """A part of a bar, with its letter where it has room."""
    items: list = [Shapes(rects(x, y, x + width, y + height), [fill], [title], stroke=INK, width=0.7)]
    if letter and width >= text_width(letter) + 4:
        items.append(Label(x + width / 2, y + height / 2 + 4, letter, anchor="middle", color=readable_on(fill)))
    return items


def _checked(machines: Mapping, measured: Mapping) -> list[str]:
    """The parts that all bars have."""
    bars = {(machine, name): found for machine, networks in machines.items() for name, found in networks.items()}
    if not bars:
        raise ValueError(f"machines={machines!r} is empty; it takes machine -> network -> part -> seconds")
    parts = list(next(iter(bars.values())))
    if not 0 < len(parts) <= len(HUES) or any(list(found) != parts for found in bars.values()):
        these = [list(found) for found in bars.values()]
        raise ValueError(f"machines has the parts {these}; they must be the same everywhere, 1 to {len(HUES)}")
    for (machine, name), found in bars.items():
        whole = measured.get(machine, {}).get(name, math.nan)
        if not (math.isfinite(whole) and whole > 0):
            raise ValueError(f"measured of {name!r} on {machine!r} is {whole}; it takes seconds above 0")
        if not all(math.isfinite(value) and value >= 0 for value in found.values()):
            raise ValueError(f"machines has {dict(found)} for {name!r} on {machine!r}; it takes seconds, 0 or more")
    return parts
