"""Markdown, code and formulas as HTML: mistune, Pygments and latex2mathml, at build time and without a network."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape, unescape
from typing import NamedTuple

import mistune
from latex2mathml.converter import convert
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

_CHAPTER = re.compile(r"\b([Cc]hapter|[Nn]otebook) (\d)\b")
_TAG = re.compile(r"<[^>]+>")
_BLOCK = re.compile(r"</?(?:p|li|[uo]l|t[dhr]|h\d|pre|div|d[tld]|figure|details|summary|blockquote|br|section)\b[^>]*>")
_FORMATTER = HtmlFormatter(nowrap=True)


class Heading(NamedTuple):
    level: int
    anchor: str
    html: str
    text: str


def plain(html: str) -> str:
    """The words of a piece of HTML, on one line."""
    return " ".join(unescape(_TAG.sub("", _BLOCK.sub(" ", html))).split())


def slug(text: str) -> str:
    """An anchor for a heading: its words in lower case, joined by hyphens."""
    return re.sub(r"[^\w]+", "-", text.lower()).strip("-") or "section"


def code(source: str, language: str = "python", label: str = "Code") -> str:
    """A coloured listing in a box of its own that scrolls when a line is too long for it."""
    try:
        inner = highlight(source, get_lexer_by_name(language), _FORMATTER)
    except ClassNotFound:
        inner = escape(source)
    return f'<pre class="code scrolls" role="group" aria-label="{escape(label)}"><code>{inner.rstrip()}</code></pre>'


def formula(source: str, display: str) -> str:
    """LaTeX as MathML; display: "block" or "inline".  The source stays beside it, for who copies it."""
    try:
        return convert(source.strip(), display=display).replace("<math ", f'<math data-tex="{escape(source.strip())}" ')
    except Exception as error:  # latex2mathml has many errors and no base class of its own
        raise ValueError(f"a formula that cannot be set: {source!r}") from error


class Prose(mistune.HTMLRenderer):
    """Renders the Markdown of one page; collects its headings, and links chapters and terms where they are first met.

    link: called with an address, gives the one to use on the pages.
    terms: regular expression that finds a term of the glossary, and anchor by term; each is linked once a page.
    """

    def __init__(self, link: Callable[[str], str], chapters: dict[int, str], terms: tuple, root: str):
        super().__init__(escape=False)
        self.headings: list[Heading] = []
        self._link, self._chapters, self._root = link, chapters, root
        self._pattern, self._anchors = terms
        self._used: set[str] = set()
        self._met: set[str] = set()

    def text(self, text: str) -> str:
        return self._terms(_CHAPTER.sub(self._chapter, escape(text, quote=False)))

    def _chapter(self, found: re.Match) -> str:
        address = self._chapters.get(int(found[2]))
        return f'<a class="auto" href="{self._root}{address}">{found[0]}</a>' if address else found[0]

    def _terms(self, html: str) -> str:
        parts = re.split(r"(<a .*?</a>)", html)
        return "".join(part if part.startswith("<a ") else self._pattern.sub(self._term, part) for part in parts)

    def _term(self, found: re.Match) -> str:
        anchor = self._anchors[found[0].lower()]
        if anchor in self._met:
            return found[0]
        self._met.add(anchor)
        return f'<a class="auto term" href="{self._root}glossary.html#{anchor}">{found[0]}</a>'

    def _without_links(self, html: str) -> str:
        """For what may not hold a link: another link, a heading."""
        self._met -= set(re.findall(r'glossary\.html#([\w-]+)"', html))  # the next mention is the first one then
        return re.sub(r'<a class="auto[^>]*>(.*?)</a>', r"\1", html)

    def link(self, text: str, url: str, title: str | None = None) -> str:
        return f'<a href="{escape(self._link(url))}">{self._without_links(text)}</a>'

    def heading(self, text: str, level: int, **attributes) -> str:
        text = self._without_links(text)
        words = plain(text)
        anchor = base = slug(words)
        count = 1
        while anchor in self._used:
            anchor, count = f"{base}-{count + 1}", count + 1
        self._used.add(anchor)
        self.headings.append(Heading(level, anchor, text, words))
        if level == 1:
            return f'<h1 id="{anchor}">{text}</h1>\n'
        hash_link = f'<a class="anchor" href="#{anchor}" aria-label="Link to “{escape(words)}”">#</a>'
        return f'<h{level} id="{anchor}">{text} {hash_link}</h{level}>\n'

    def block_code(self, source: str, info: str | None = None) -> str:
        return code(source, (info or "text").split()[0])

    def block_quote(self, text: str) -> str:
        kind = ' class="predict"' if text.lstrip().startswith("<p><strong>Predict") else ""
        return f"<blockquote{kind}>{text}</blockquote>\n"

    def block_math(self, text: str) -> str:
        return f'<div class="formula scrolls">{formula(text, "block")}</div>\n'

    def inline_math(self, text: str) -> str:
        return formula(text, "inline")

    def table(self, text: str) -> str:
        text = re.sub(r"<th([^>]*)></th>", r"<td\1></td>", text)  # a corner heads nothing
        return f'<div class="table scrolls"><table>{text}</table></div>\n'

    def image(self, text: str, url: str, title: str | None = None) -> str:
        if url.startswith(("http:", "https:")):  # a badge: the page asks nobody
            return escape(text)
        return f'<img src="{escape(self._link(url))}" alt="{escape(text)}" loading="lazy">'


def renderer(prose: Prose) -> Callable[[str], str]:
    """A function from Markdown to HTML that all cells of a page share."""
    # The math plugin's table, which mistune renders through methods of its own
    markdown = mistune.Markdown(renderer=prose)
    for name in ("table", "mistune.plugins.table.table_in_quote", "strikethrough", "math"):
        mistune.plugins.import_plugin(name)(markdown)
    for name in ("block_math", "inline_math", "table"):  # ours, not the plugins'
        method = getattr(type(prose), name)
        prose.register(name, lambda self, text, method=method, **attributes: method(self, text))
    return markdown
