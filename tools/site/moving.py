"""The README's moving picture: the axes explorer on one method after the other, as one SVG that moves by CSS alone.

GitHub shows it in an <img>, where no script runs.  Who asks for less motion sees its first frame.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from normviz.explore import axes
from normviz.files import write_atomic
from normviz.norms.table import METHODS
from normviz.picture.color import INK, PAPER
from normviz.picture.scene import Scene, Shapes
from normviz.picture.svg import FONT, escape, piece

SECONDS = 2.4  # a frame
CURSOR = (1, 2, 1, 2)  # (n, c, h, w)


def moving_svg() -> str:
    """A frame a method, in the order of the table, with one cursor: what changes is the set that it is in."""
    states = [axes(method=method, cursor=CURSOR, color="set", step="scaled") for method in METHODS]
    scenes = [state.scene() for state in states]
    bodies = [_body(scene) for scene in scenes]
    width, height = scenes[0].width, max(scene.height for scene in scenes)
    whole, share = SECONDS * len(scenes), 100 / len(scenes)
    delays = "".join(f".f{i}{{animation-delay:{i * SECONDS:g}s}}" for i in range(len(scenes)))
    names = ", ".join(method.name for method in METHODS.values())
    alt = f"The axes explorer on {names} in turn. Outlined is the set that the cursor's cell is in."
    frames = "".join(f'<g class="f f{i}">{body}</g>' for i, body in enumerate(bodies))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}"'
        f' height="{height:g}" font-family="{FONT}" role="img" aria-label="{escape(alt)}" color="{INK}">'
        f"<style>.f{{visibility:hidden;animation:turn {whole:g}s step-end infinite}}"
        f"@keyframes turn{{0%{{visibility:visible}}{share:g}%{{visibility:hidden}}}}{delays}"
        "@media (prefers-reduced-motion:reduce){.f{animation:none}.f0{visibility:visible}}</style>"
        f'<rect width="100%" height="100%" fill="{PAPER}"/>{frames}</svg>\n'
    )


def _body(scene: Scene) -> str:
    """The picture without its sheet and without what only a pointer reads; neighbours of one colour are one path."""
    items = [replace(item, titles=None, data=None) if isinstance(item, Shapes) else item for item in scene.drawn]
    body = "".join(map(piece, items))
    joined = re.sub(r'(?:<path d="[^"]*" fill="([^"]*)"/>)(?:<path d="[^"]*" fill="\1"/>)*', _one_path, body)
    return re.sub(r"(\d)\.0(?=\D)", r"\1", joined)


def _one_path(run: re.Match) -> str:
    corners = re.findall(r"M([^z]*)z", run[0])
    return f'<path d="{"".join(map(_polygon, corners))}" fill="{run[1]}"/>'


def _polygon(corners: str) -> str:
    """A closed path from its corners, each but the first told by how far it lies from the one before."""
    points = [[float(v) for v in corner.split()] for corner in corners.split("L")]
    path = "M{:g} {:g}".format(*points[0])
    for (x, y), (to_x, to_y) in pairwise(points):
        dx, dy = round(to_x - x, 1), round(to_y - y, 1)
        path += f"h{dx:g}" if not dy else f"v{dy:g}" if not dx else f"l{dx:g} {dy:g}"
    return f"{path}z"


def write_moving(file: Path) -> None:
    """Writes the picture, whole or not at all."""
    write_atomic(file, moving_svg())
