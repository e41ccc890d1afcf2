"""A scene as SVG text.  No dependency: the explorer makes one for every move of a slider."""

from __future__ import annotations

import re
import struct
import zlib
from base64 import b64encode
from functools import lru_cache
from html import escape as _html

import numpy as np

from normviz.picture.color import PAPER, THEMED
from normviz.picture.scene import Label, Raster, Scene, Shapes, Strokes

FONT = "DejaVu Sans, Verdana, sans-serif"
_NO_XML = re.compile("[\x01-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")


def escape(text: str) -> str:
    """A reader's words, fit for text and attributes; characters that no XML may hold are left out."""
    return _html(text if text.isprintable() else _NO_XML.sub("", text).replace("\0", ""))


@lru_cache(maxsize=512)
def _named(name: str) -> str:
    return f' class="{escape(name)}"' if name else ""


def _hue(color: str) -> str:
    """A colour, or the host's own in its place."""
    return THEMED.get(color, color)


def _open(item: Shapes) -> str:
    """The tag of the group that has a shape's faces."""
    style = _named(item.name)
    if item.panel:
        style += f' data-panel="{escape(item.panel)}"'
    if item.stroke and item.width:
        style += f' stroke="{_hue(item.stroke)}" stroke-width="{item.width}"'
    if item.opacity < 1:
        style += f' opacity="{item.opacity}"'
    if item.titles:
        style += ' pointer-events="visiblePainted"'
    return f"<g{style}>"


def face_parts(item: Shapes) -> tuple[str, list[str], list[str], list[str], list[int]]:
    """Shapes in parts: the group's tag, and of every face its path, its colour, and where there are any the name of
    its cell and its set.  From them `picture.js` makes what `piece` does.
    """
    faces, corners, _ = item.points.shape
    path = "M" + "L".join(["%.1f %.1f"] * corners) + "z"  # one format a face, not one a corner: this is the hot spot
    paths = [path % (*row,) for row in np.asarray(item.points, float).reshape(faces, 2 * corners).tolist()]
    cells, sets = map(list, zip(*item.data, strict=True)) if item.data else ([], [])
    return _open(item), paths, [*map(_hue, item.fills)], cells, sets


def _shapes(item: Shapes) -> str:
    tag, *columns = face_parts(item)
    face, columns = '<path d="%s" fill="%s"', columns if item.data else columns[:2]
    if item.data:
        face += ' data-cell="%s" data-set="%d"'
    if item.titles:
        columns.append(_all_escaped(item.titles))
    face += "><title>%s</title></path>" if item.titles else "/>"
    return f"{tag}{''.join([face % row for row in zip(*columns, strict=True)])}</g>"


def _all_escaped(titles: list[str]) -> list[str]:
    """Every title escaped, in one go: three calls a cell would cost more than the cell."""
    whole = "\0".join(titles)
    if whole.count("\0") != len(titles) - 1:
        return [escape(title) for title in titles]
    return _html(_NO_XML.sub("", whole)).split("\0")


def _strokes(item: Strokes) -> str:
    path = "".join(["M%.1f %.1fL%.1f %.1f" % (*a, *b) for a, b in item.points.tolist()])  # noqa: UP031 (faster)
    dash = ' stroke-dasharray="4 3"' if item.dashed else ""
    # Strokes let the mouse through, so that the cell beneath shows its title
    return (
        f'<path{_named(item.name)} d="{path}" fill="none" stroke="{_hue(item.color)}" stroke-width="{item.width}"{dash}'
        ' stroke-linecap="round" pointer-events="none"/>'
    )


@lru_cache(maxsize=512)
def _letters(size: float, color: str, anchor: str, bold: bool) -> str:
    place = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'font-size="{size:g}" fill="{_hue(color)}"{place}' + ' font-weight="bold"' * bold


def _label(item: Label) -> str:
    x, y, look = f"{item.x:.1f}", f"{item.y:.1f}", _letters(item.size, item.color, item.anchor, item.bold)
    turn = f' transform="rotate({-item.angle:g} {x} {y})"' if item.angle else ""
    return f'<text x="{x}" y="{y}" {look}{turn} pointer-events="none">{escape(item.text)}</text>'


def _png(pixels: np.ndarray) -> bytes:
    """A PNG file of uint8 (rows, columns, 3), rows unfiltered: less than half the time that pillow takes."""
    rows, columns, _ = pixels.shape
    lines = np.zeros((rows, 1 + 3 * columns), np.uint8)  # each begins with its filter: 0, none
    lines[:, 1:] = pixels.reshape(rows, -1)
    head = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)  # 8 bits of red, green and blue
    file = b"\x89PNG\r\n\x1a\n"
    for part in (b"IHDR" + head, b"IDAT" + zlib.compress(lines.tobytes(), 1), b"IEND"):
        file += struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
    return file


def _raster(item: Raster) -> str:
    return (
        f'<image x="{item.x:.1f}" y="{item.y:.1f}" width="{item.width:.1f}" height="{item.height:.1f}"'
        ' preserveAspectRatio="none" style="image-rendering:pixelated"'
        f' href="data:image/png;base64,{b64encode(_png(item.pixels)).decode()}">'
        f"<title>{escape(item.title)}</title></image>"
    )


_WRITERS = {Shapes: _shapes, Strokes: _strokes, Label: _label, Raster: _raster}


def piece(item) -> str:
    """The SVG of one item."""
    return _WRITERS[type(item)](item)


def head(scene: Scene, style: str, *, alt: bool = True, paper: bool = True) -> str:
    """What is before the items: the <svg> element's own tag, and the sheet."""
    sheet = f'<rect width="100%" height="100%" fill="{_hue(PAPER)}"/>' if paper else ""
    attributes = (f'role="img" aria-label="{escape(scene.alt)}"' if alt else 'aria-hidden="true"') + f' style="{style}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{scene.width:g}" height="{scene.height:g}"'
        f' viewBox="0 0 {scene.width:g} {scene.height:g}" font-family="{FONT}" {attributes}>{sheet}'
    )


SHEET = f"background:{_hue(PAPER)}"
BACKDROP, FRONT = f"display:block;{SHEET}", "pointer-events:none"


def to_svg(scene: Scene, items: list | None = None, style: str = SHEET, **look: bool) -> str:
    """The scene as one <svg> element, its alt text as accessible name, on a background of its own.

    items, style, look: other items than all of its own, and another `head`.
    """
    return f"{head(scene, style, **look)}{''.join(map(piece, scene.drawn if items is None else items))}</svg>"


def backdrop_svg(scene: Scene) -> str:
    """The backdrop alone, hidden from screen readers: `front_svg` has the alt text."""
    return to_svg(scene, scene.backdrop, BACKDROP, alt=False)


def front_svg(scene: Scene) -> str:
    """The items alone, to be laid over `backdrop_svg`; between them, the mouse reaches the cells beneath."""
    return to_svg(scene, scene.items, FRONT, paper=False)
