"""From the notebooks, the package and `results/` to a folder of pages."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from html import escape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from normviz.explore import page as explorer_page
from normviz.files import write_atomic
from normviz.lab import ledger
from tools.site import glossary
from tools.site.chapters import Body, Notebook, notebooks
from tools.site.prose import Heading, Prose, plain, renderer, slug

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
NOTEBOOKS = ROOT / "notebooks"
MARK = ".built-by-normviz"  # a folder without it is somebody's, and is not emptied
CACHE = ROOT / "build" / "site-cache"


class Page(NamedTuple):
    path: str  # from the pages' folder
    title: str
    html: str
    headings: list[Heading]
    words: str = ""  # what it is about, in a sentence


def repository() -> str:
    """The repository's address, from the one place that names it."""
    return re.search(r'^Repository = "(.*?)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)[1]


def weight(page: Path) -> int:
    """Bytes of a built page, compressed, with the files that it loads, and without its pictures."""
    html = page.read_text(encoding="utf-8")
    loads = re.findall(r'<(?:link|script|img|iframe|source)\b[^>]*? (?:href|src)="([^"]+)"', html)
    files = [(page.parent / load).read_bytes() for load in loads if not load.endswith(".png")]
    bare = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", html)
    return sum(len(gzip.compress(part)) for part in (bare.encode(), *files))


def build(out: Path) -> list[Path]:
    """Builds the pages into a folder, which is emptied first; gives the pages.

    Raises ValueError for a folder that holds something else than pages built before.
    """
    out = Path(out)
    _empty(out)
    site = _Site(out)
    pages = site.write()
    return [out / page.path for page in pages]


def _empty(out: Path) -> None:
    if out.exists():
        if any(out.iterdir()) and not (out / MARK).exists():
            raise ValueError(f"out={str(out)!r} holds other files; it takes a new folder, or one built before")
        shutil.rmtree(out)
    out.mkdir(parents=True)
    (out / MARK).touch()


class _Site:
    def __init__(self, out: Path):
        self.out, self.repository = out, repository()
        self.sources = notebooks(NOTEBOOKS)
        self.chapters = {one.number: one.page for one in self.sources if one.number}
        self.terms = glossary.pattern()
        folder = FileSystemLoader(HERE / "templates")
        self.templates = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
        self.titles = {one.page: _title(one) for one in self.sources}

    # Pages ----------------------------------------------------------------------------------------------------------

    def write(self) -> list[Page]:
        static = self.out / "static"
        shutil.copytree(HERE / "static", static)
        moving = ROOT / "images" / "axes_explorer.svg"
        if moving.exists():
            shutil.copy(moving, static / moving.name)
        pages = [self._notebook(one) for one in self.sources]
        pages += [self._ledger(), self._glossary(), self._record(), self._search()]
        index: list[dict] = []
        for page in pages:
            index += _sections(page)
        pages.insert(0, self._home(pages))
        write_atomic(static / "search-index.js", f"window.NORMVIZ_INDEX = {json.dumps(index, ensure_ascii=False)};\n")
        write_atomic(self.out / ".nojekyll", "")  # GitHub Pages: serve the files as they are
        return pages

    def _render(self, template: str, path: str, title: str, *, headings=(), **values) -> str:
        root = "../" * path.count("/")
        html = self.templates.get_template(template).render(
            root=root, path=path, title=title, headings=[h for h in headings if h.level in (2, 3)],
            repository=self.repository, chapters=self.chapters, titles=self.titles, **values,
        )  # fmt: skip
        write_atomic(self.out / path, html)
        return html

    def _prose(self, source: Path, root: str) -> Prose:
        return Prose(lambda address: self._address(source, address, root), self.chapters, self.terms, root)

    def _address(self, source: Path, address: str, root: str) -> str:
        """Where a link of a Markdown file leads: a page for a notebook that has one, else the file on GitHub."""
        parts = urlsplit(address)
        if parts.scheme or not parts.path:
            return address
        target = (source.parent / parts.path).resolve()
        anchor = f"#{parts.fragment}" if parts.fragment else ""
        if target.suffix == ".ipynb" and target.is_relative_to(NOTEBOOKS):
            return f"{root}{target.relative_to(NOTEBOOKS).with_suffix('.html').as_posix()}{anchor}"
        if target == ROOT / "results" / "README.md":
            return f"{root}record.html{anchor}"
        return f"{self.repository}/blob/main/{target.relative_to(ROOT).as_posix()}{anchor}"

    def _notebook(self, one: Notebook) -> Page:
        prose = self._prose(one.source, one.root)
        body = Body(one, renderer(prose), self.out, CACHE)
        pages = [source.page for source in self.sources]
        at = pages.index(one.page)
        where = one.source.relative_to(ROOT).as_posix()
        title = prose.headings[0].text
        extra = "" if one.number else "extra"
        self._render(
            "chapter.html", one.page, title, headings=prose.headings, body=body.html, kind=extra,
            explorers=body.explorers, previous=pages[at - 1] if at else None,
            following=pages[at + 1] if at + 1 < len(pages) else None,
            source=f"{self.repository}/blob/main/{where}",
            colab=self.repository.replace("https://github.com", "https://colab.research.google.com/github")
            + f"/blob/main/{where}",
            style=explorer_page.STYLE if body.explorers else "", script=explorer_page.SCRIPT if body.explorers else "",
        )  # fmt: skip
        return Page(one.page, title, body.html, prose.headings)

    def _ledger(self) -> Page:
        claims = []
        for claim, (verdict, sentence, numbers) in ledger():
            claims.append({
                "statement": claim.statement, "verdict": verdict, "sentence": sentence, "numbers": numbers,
                "kind": slug(verdict), "chapter": f"{claim.notebook}.html", "anchor": slug(claim.statement)[:60],
            })  # fmt: skip
        headings = [Heading(2, c["anchor"], escape(c["statement"]), c["statement"]) for c in claims]
        html = self._render("ledger.html", "ledger.html", "The ledger", headings=headings, claims=claims)
        return Page("ledger.html", "The ledger", _main(html), headings)

    def _glossary(self) -> Page:
        terms = sorted(glossary.TERMS, key=lambda term: term.name.lower())
        headings = [Heading(2, term.anchor, escape(term.name), term.name) for term in terms]
        html = self._render("glossary.html", "glossary.html", "Glossary", terms=terms)
        return Page("glossary.html", "Glossary", _main(html), headings)

    def _record(self) -> Page:
        source = ROOT / "results" / "README.md"
        prose = self._prose(source, "")
        body = renderer(prose)(source.read_text(encoding="utf-8"))
        title = prose.headings[0].text
        self._render("text.html", "record.html", title, headings=prose.headings, body=body)
        return Page("record.html", title, body, prose.headings)

    def _search(self) -> Page:
        html = self._render("search.html", "search.html", "Search")
        return Page("search.html", "Search", _main(html) and "", [])

    def _home(self, pages: list[Page]) -> Page:
        leads = {page.path: _lead(page) for page in pages}
        moving = (self.out / "static" / "axes_explorer.svg").exists()
        html = self._render("home.html", "index.html", "normviz", leads=leads, moving=moving)
        return Page("index.html", "normviz", _main(html), [])


def _title(one: Notebook) -> str:
    for cell in one.cells:
        if found := re.search(r"^# (.+)$", cell.source, re.M):
            return found[1]
    raise ValueError(f"{one.source} has no heading of level 1")


def _main(html: str) -> str:
    return re.search(r"<main.*?</main>", html, re.S)[0]


def _lead(page: Page) -> str:
    """The first paragraph of a page, in plain words."""
    found = re.search(r"</h1>\s*<p>(.*?)</p>", page.html, re.S)
    return plain(found[1]) if found else ""


def _sections(page: Page) -> list[dict]:
    """What the search knows of a page: its sections by heading, each with its words."""
    html = re.sub(r"<(script|style|svg|nav).*?</\1>", " ", page.html, flags=re.S)
    html = re.sub(r'<a class="anchor".*?</a>', "", html)
    starts = [(m.start(), m[1]) for m in re.finditer(r'<(?:h[1-4]|dt)[^>]* id="([\w-]+)"', html)]
    names = {heading.anchor: heading.text for heading in page.headings}
    rows = []
    ends = [start for start, _ in starts[1:]] + [len(html)]
    for (start, anchor), end in zip(starts, ends[: len(starts)], strict=True):
        if anchor in names and (words := plain(html[start:end])):
            title = names[anchor]
            rows.append(
                {
                    "u": f"{page.path}#{anchor}",
                    "p": plain(page.title),
                    "t": title,
                    "x": words.removeprefix(title).strip(),
                }
            )
    return rows
