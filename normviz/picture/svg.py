"""A scene as SVG text.  No dependency: the explorer makes one for every move of a slider."""

from __future__ import annotations

from html import escape

from normviz.picture.colors import PAPER
from normviz.picture.scene import Label, Scene, Shapes, Strokes

FONT = "DejaVu Sans, Verdana, sans-serif"


def _shapes(item: Shapes) -> str:
    style = f' class="{item.name}"' if item.name else ""
    if item.stroke and item.width:
        style += f' stroke="{item.stroke}" stroke-width="{item.width}"'
    if item.opacity < 1:
        style += f' opacity="{item.opacity}"'
    parts = [f"<g{style}>"]
    # One format a shape, not one a corner: this loop is the explorer's hot spot
    faces, corners, _ = item.points.shape
    path = '<path d="M' + "L".join(["%.1f %.1f"] * corners) + 'z" fill="%s"'
    rows = item.points.reshape(faces, -1).tolist()
    for i, (row, fill) in enumerate(zip(rows, item.fills, strict=True)):
        parts.append(path % (*row, fill))
        if item.data:
            parts.append(' data-cell="%s" data-set="%d"' % item.data[i])  # noqa: UP031 (twice as fast)
        parts.append(f"><title>{item.titles[i]}</title></path>" if item.titles else "/>")
    parts.append("</g>")
    return "".join(parts)


def _strokes(item: Strokes) -> str:
    path = "".join(f"M{a[0]:.1f} {a[1]:.1f}L{b[0]:.1f} {b[1]:.1f}" for a, b in item.points.tolist())
    dash = ' stroke-dasharray="4 3"' if item.dashed else ""
    name = f' class="{item.name}"' if item.name else ""
    # Strokes let the mouse through, so that the cell beneath shows its title
    return (
        f'<path{name} d="{path}" fill="none" stroke="{item.color}" stroke-width="{item.width}"{dash}'
        ' stroke-linecap="round" pointer-events="none"/>'
    )


def _label(item: Label) -> str:
    weight = ' font-weight="bold"' if item.bold else ""
    turn = f' transform="rotate({-item.angle:g} {item.x:.1f} {item.y:.1f})"' if item.angle else ""
    anchor = f' text-anchor="{item.anchor}"' if item.anchor != "start" else ""
    return (
        f'<text x="{item.x:.1f}" y="{item.y:.1f}" font-size="{item.size:g}" fill="{item.color}"{anchor}{weight}{turn}'
        f' pointer-events="none">{escape(item.text)}</text>'
    )


_WRITERS = {Shapes: _shapes, Strokes: _strokes, Label: _label}


def to_svg(scene: Scene) -> str:
    """The scene as one <svg> element, its alt text as accessible name, on a background of its own."""
    body = "".join(_WRITERS[type(item)](item) for item in scene.items)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{scene.width:g}" height="{scene.height:g}"'
        f' viewBox="0 0 {scene.width:g} {scene.height:g}" role="img" aria-label="{escape(scene.alt)}"'
        f' font-family="{FONT}" style="background:{PAPER}">'
        f'<rect width="100%" height="100%" fill="{PAPER}"/>{body}</svg>'
    )
