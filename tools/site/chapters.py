"""A notebook as the body of a page: prose, code, the outputs that it was committed with, explorers and replays."""

from __future__ import annotations

import struct
from base64 import b64decode
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import NamedTuple

import nbformat

from normviz.files import write_atomic
from tools.site.explorers import explorer_of, shows_live
from tools.site.prose import code
from tools.site.replays import REPLAYS, replay

# What is true of a notebook and not of its page
OMITTED = (
    "*Run the cells from top to bottom with Shift+Enter. Every figure is stored, so you can also just read.*",
    "Without a running kernel the explorer shows as a still picture. ",
)
_PHOTOGRAPHS = ("draw.photos", "draw.ink", "explore.groups", "explore.inside(")  # no negatives of these in the dark


class Notebook(NamedTuple):
    """One notebook and its page, both as paths from the root: `notebooks/01_axes.ipynb` and `01_axes.html`."""

    source: Path
    page: str
    number: int  # of the chapter; 0 for an extra
    cells: list

    @property
    def name(self) -> str:
        return self.source.stem

    @property
    def root(self) -> str:
        """The way from its page to the pages' folder."""
        return "../" * self.page.count("/")


def notebooks(folder: Path) -> list[Notebook]:
    """The chapters in order, then the extras."""
    found = []
    for file in sorted(folder.glob("*.ipynb")) + sorted((folder / "extras").glob("*.ipynb")):
        page = file.relative_to(folder).with_suffix(".html").as_posix()
        number = int(file.stem.split("_")[0]) if file.parent == folder else 0
        found.append(Notebook(file, page, number, nbformat.read(file, as_version=4).cells))
    return found


class Body:
    """Renders the cells of a notebook; `html` is the page's body, `pictures` what was written beside it.

    markdown: from Markdown to HTML.  out: the pages' folder.  cache: the explorers' folder, see `Shown.markup`.
    """

    def __init__(self, notebook: Notebook, markdown: Callable[[str], str], out: Path, cache: Path):
        self.notebook, self.markdown, self.out, self.cache = notebook, markdown, out, cache
        self.pictures: list[Path] = []
        self.explorers = 0
        self.html = "\n".join(filter(None, map(self._cell, notebook.cells[1:])))  # the first one holds badges

    def _cell(self, cell) -> str:
        if cell.cell_type == "markdown":
            text = cell.source
            for sentence in OMITTED:
                text = text.replace(sentence, "")
            return self.markdown(text)
        if cell.cell_type != "code":
            return ""
        listing = code(cell.source)
        if "setup" in cell.metadata.get("tags", ()):
            return f'<details class="setup"><summary>Setup of the notebook</summary>{listing}</details>'
        return f'<div class="cell" id="cell-{escape(cell.id)}">{listing}{self._outputs(cell)}</div>'

    def _outputs(self, cell) -> str:
        outputs = [self._output(cell, i, output) for i, output in enumerate(cell.outputs)]
        pictures = "".join(outputs)
        if cell.id in REPLAYS:
            return f"{replay(f'replay-{cell.id}', cell.id)}{pictures}{_NEEDS_KERNEL if shows_live(cell.source) else ''}"
        if found := explorer_of(cell.source):
            self.explorers += 1
            note = f'<p class="note">{escape(found.note)}</p>' if found.note else ""
            return found.markup(pictures, self.cache) + note
        if "needs-kernel" in cell.metadata.get("tags", ()):
            return pictures + _NEEDS_KERNEL
        return pictures

    def _output(self, cell, index: int, output) -> str:
        if output.output_type == "stream":
            return _printed(output.text)
        if output.output_type == "error":
            return _printed(f"{output.ename}: {output.evalue}")
        data = output.data
        if "image/png" in data:
            return self._picture(cell, index, output)
        if "text/markdown" in data:
            return f'<div class="answer">{self.markdown(data["text/markdown"])}</div>'
        return _printed(data.get("text/plain", ""))

    def _picture(self, cell, index: int, output) -> str:
        data = b64decode(output.data["image/png"])
        meta = output.metadata.get("image/png", {})
        width, height = struct.unpack(">II", data[16:24])
        alt = meta.get("alt") or output.data.get("text/plain", "")
        shown = min(meta.get("width", width), width)
        file = self.out / "pictures" / f"{self.notebook.name}-{cell.id}-{index}.png"
        write_atomic(file, data)
        self.pictures.append(file)
        address = f"{self.notebook.root}pictures/{file.name}"
        kind = "photo" if any(name in cell.source for name in _PHOTOGRAPHS) else "chart"
        return (
            f'<figure class="picture {kind}"><a href="{address}" aria-label="The picture alone">'
            f'<img src="{address}" alt="{escape(alt)}" width="{shown}" height="{round(shown * height / width)}"'
            ' loading="lazy" decoding="async"></a></figure>'
        )


_NEEDS_KERNEL = (
    '<p class="note">The picture is how the notebook’s own run ended. To run it yourself takes a kernel: '
    "open the notebook.</p>"
)


def _printed(text: str) -> str:
    if not text.strip():
        return ""
    return f'<pre class="printed scrolls" role="group" aria-label="Output">{escape(text.rstrip())}</pre>'
