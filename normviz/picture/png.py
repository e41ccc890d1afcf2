"""A scene drawn by matplotlib: the PNG twin of every SVG picture."""

from __future__ import annotations

import io

from normviz.picture.color import PAPER
from normviz.picture.scene import Label, Raster, Scene, Shapes, Strokes

DPI = 100  # at 100 dots an inch a scene's pixel is a figure's pixel
POINTS = 72 / DPI


def draw(scene: Scene, ax) -> None:
    """Draw a scene on axes whose data units become the scene's pixels."""
    from matplotlib.collections import LineCollection, PolyCollection
    from matplotlib.image import AxesImage

    ax.set(xlim=(0, scene.width), ylim=(scene.height, 0))
    ax.set_axis_off()
    for order, item in enumerate(scene.drawn):
        if isinstance(item, Shapes):
            # An edge of the fill's own colour closes the hairlines that antialiasing leaves between faces
            edge = item.stroke if item.stroke and item.width else "face"
            faces = PolyCollection(item.points, facecolors=item.fills, edgecolors=edge, alpha=item.opacity,
                                   linewidths=(item.width or 0.3) * POINTS, zorder=order)  # fmt: skip
            ax.add_collection(faces, autolim=False)
        elif isinstance(item, Strokes):
            style = (0, (3, 2)) if item.dashed else "solid"
            lines = LineCollection(item.points, colors=item.color, linewidths=item.width * POINTS, linestyles=style,
                                   capstyle="round", zorder=order)  # fmt: skip
            ax.add_collection(lines, autolim=False)
        elif isinstance(item, Label):
            align = {"start": "left", "middle": "center", "end": "right"}[item.anchor]
            ax.text(
                item.x, item.y, item.text, size=item.size * POINTS, color=item.color, ha=align, va="baseline",
                weight="bold" if item.bold else "normal", rotation=item.angle, rotation_mode="anchor", zorder=order,
                family="DejaVu Sans", parse_math=False,
            )  # fmt: skip
        elif isinstance(item, Raster):
            corners = (item.x, item.x + item.width, item.y + item.height, item.y)
            image = AxesImage(ax, extent=corners, interpolation="nearest", zorder=order)
            image.set_data(item.pixels)
            ax.add_image(image)


def figure(scene: Scene):
    """The scene as a matplotlib Figure that has the alt text as attribute `alt`: a picture, not axes.

    `savefig` it, or show it in a notebook, which gets PNG, alt text and nothing that varies.  Its one hidden axes is
    the sheet in pixels: limits and labels of charts are set by arguments of the function that drew it.  Made without
    pyplot, so that nothing is shown twice.
    """
    from matplotlib.figure import Figure

    class SceneFigure(Figure):
        alt = scene.alt

        def _ipython_display_(self):
            from IPython.display import display

            bundle = {"image/png": compact(png_bytes(self)), "text/plain": self.alt}
            display(bundle, metadata={"image/png": {"alt": self.alt, "width": scene.width}}, raw=True)

    fig = SceneFigure(figsize=(scene.width / DPI, scene.height / DPI), dpi=DPI, facecolor=PAPER)
    draw(scene, fig.add_axes((0, 0, 1, 1)))
    return fig


def png_bytes(fig, dpi: int = DPI) -> bytes:
    """A figure of ours as PNG; the alt text travels along as the file's description."""
    buffer = io.BytesIO()
    # Without the version of matplotlib the same picture is the same file
    fig.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None, "Description": fig.alt})
    return buffer.getvalue()


def compact(png: bytes, most: int = 12) -> bytes:
    """The picture, its texts kept, with a palette of 256 colours: a third of the bytes, for notebooks carry many.

    Where that would move a channel of any pixel by more than `most` (of 255), as in a photograph, it stays as it is.
    """
    import numpy as np
    from PIL import Image, PngImagePlugin

    with Image.open(io.BytesIO(png)) as image:
        texts, whole = dict(image.text), image.convert("RGB")
    pixels = np.asarray(whole, dtype=np.int16)
    for rounds in (2, 0):  # of k-means: without them large pale areas get a tint, with them a rare colour may be lost
        few = whole.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=rounds, dither=Image.Dither.NONE)
        if np.abs(pixels - np.asarray(few.convert("RGB"), dtype=np.int16)).max() <= most:
            break
    else:
        return png
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    buffer = io.BytesIO()
    few.save(buffer, format="png", optimize=True, pnginfo=info)
    return buffer.getvalue()


def to_png(scene: Scene, dpi: int = DPI) -> bytes:
    """The scene as PNG bytes."""
    return png_bytes(figure(scene), dpi)
