"""Explorers where no kernel runs: many states, drawn ahead by the same Python and factored so that little is stored.

What a page holds of an explorer (`data`) only `picture.js` reads, which makes a working explorer of it.  Pictures are
kept as their items, each once; of polygons geometry, colours, names and sets apart, each once.  A cursor that its
picture knows by its set alone is drawn once a set; which set a cell is in, the module computes as `Cut.labels` does.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np

from normviz.explore.base import Control, Explorer, notes_html, words_html
from normviz.explore.hand import LOOK, MODULE, handle_rows, parts_of
from normviz.fields import whole
from normviz.picture.scene import CURSOR, Handle, Scene, Shapes
from normviz.picture.svg import BACKDROP, FRONT, SHEET, escape, face_parts, head, piece

#: How many values of a range a page offers, the finest that fits
_FINENESS = (200, 12, 5)
_RUN = 6  # items of a picture that are kept together
_LINE = re.compile(r"M[^M]*")
_LINES = re.compile(r'(<path[^>]* d=")((?:M[^M"]*){2,})("[^>]*>)$')
#: What a page holds once, since a folder on disk lets no module be imported
STYLE, SCRIPT = LOOK, f"{MODULE}\nmountAll();\n"

TABLES = (
    "pieces", "colors", "paths", "outlines", "runs", "fills", "names", "labels", "lists", "moves", "head", "backdrops",
    "handles", "cells", "sets", "titles", "parts",
)  # fmt: skip

_DOCUMENT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><link rel="icon" href="data:,">
<style>:root{{color-scheme:light dark}}
body{{background:#fff;font:15px/1.45 system-ui,sans-serif;max-width:1560px;margin:0 auto;padding:4px 12px}}
@media (prefers-color-scheme:dark){{body{{background:#14161a;color:#ededed}}}}
h1{{font-size:1.2rem;margin:.3em 0}}
{style}</style></head>
<body><main><h1>{title}</h1>{body}</main><script type="module">{script}</script></body></html>"""


def page(start: Explorer, *, most: int = 300) -> str:
    """A whole HTML document: the explorer as it opens in `start`, see `data`."""
    found = data(start, most=most)
    return _DOCUMENT.format(title=escape(found["title"]), style=STYLE, body=markup(found), script=SCRIPT)


def markup(data: dict, *, still: str = "") -> str:
    """The element that the module makes an explorer of; `still` is HTML that is shown until then."""
    packed = data | {"states": _columns(data["states"])}
    rows = json.dumps(packed, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<div class="normviz nv-page" data-explorer>{still}<script type="application/json">{rows}</script></div>'


def _columns(rows: list) -> Any:
    """Values of one kind, row by row, as columns of steps from one row to the next, which compress to an eighth:
    dictionaries by name, lists by place, [0] for how long each is and then its places.
    """
    some = next((row for row in rows if row is not None), None)
    if isinstance(some, dict):
        return {name: _columns([row[name] for row in rows]) for name in some}
    if isinstance(some, (list, tuple)):
        longest = max(len(row) for row in rows)
        places = [_columns([row[k] if k < len(row) else None for row in rows]) for k in range(longest)]
        return [_columns([len(row) for row in rows]), *places]
    before = [None, *rows[:-1]]
    return [b if a is None or b is None else b - a for a, b in zip(before, rows, strict=True)]


def data(start: Explorer, *, most: int = 300) -> dict:
    """All that a page needs of an explorer, as JSON: `start`, and the states that some of its controls lead to.

    Controls are taken in the order of `start.ahead`, then of the fields, as long as the states stay at most `most`
    (those of a cursor not counted), ranges in coarser steps where need be; the page says which it had to leave out.
    `start.stops`, where an explorer has them, are the values of some ranges that pages are to offer.  What a control
    does is what `turn` does.  Raises ValueError for `most` below 1.
    """
    whole("most", most)
    offered = start.controls()
    by_set = _by_set(start.scene())
    cursor = by_set.fields if by_set else ()
    order = sorted((name for name in offered if name not in cursor), key=lambda name: (*start.ahead, name).index(name))
    fineness: dict[str, int] = {}
    for name in order:
        if offered[name].enabled or name in start.ahead:
            fits = (n for n in _FINENESS if _reach(start, fineness | {name: n}, most, cursor) is not None)
            if (finest := next(fits, None)) is not None:
                fineness[name] = finest
    fineness = {name: fineness[name] for name in offered if name in fineness}
    plain = _reach(start, fineness, most, cursor) or [_home(start, cursor)]
    states = [state for one in plain for state in _sets(one, cursor)[1]]
    index = {state: i for i, state in enumerate(states)}
    store = _Store()
    controls = [
        {"name": c.name, "label": c.label, "kind": c.kind if c.kind in ("choice", "flag") else "range"}
        for c in map(offered.get, fineness)
    ]
    rows = [_row(state, fineness, index, store, cursor) for state in states]
    at = tuple(offered[name].value for name in cursor)
    left = [c.label for name, c in offered.items() if c.enabled and name not in fineness and name not in cursor]
    return {
        "title": type(start).__doc__.strip().split("\n")[0].rstrip("."), "controls": controls, "states": rows,
        "start": index[_first_of_its_set(_home(start, cursor), cursor, at)],
        "cell": ",".join(map(str, at)) if cursor else None, **store.tables(),
        "rest": f"In a notebook with a kernel there is also: {', '.join(left)}." if left else "",
    }  # fmt: skip


class _Store:
    """Tables of what states share: everything once, by the place where it is."""

    def __init__(self):
        self._kept: dict[str, tuple[dict[Any, int], list]] = {}
        self._backdrops: dict[int, tuple[list, int]] = {}  # by identity, holding on to what it is

    def keep(self, table: str, key: Any, value: Any = None) -> int:
        """The place of a value in a table; key: what makes it the same."""
        seen, rows = self._kept.setdefault(table, ({}, []))
        if key not in seen:
            seen[key] = len(rows)
            rows.append(key if value is None else value)
        return seen[key]

    def backdrop(self, items: list, kept: Callable[[list], list[int]]) -> int:
        """The place of a backdrop, which most pictures share as one object: `kept` gives its items' places, once."""
        if id(items) not in self._backdrops:
            self._backdrops[id(items)] = items, self.keep("backdrops", tuple(kept(items)))
        return self._backdrops[id(items)][1]

    def json(self, table: str, value: Any) -> int:
        return self.keep(table, json.dumps(value, ensure_ascii=False, default=_plain), value)

    def item(self, item: Any) -> int:
        """An item of a picture: its text; lines in parts [before their path, the parts of it, after]; polygons too:
        [opening tag, outlines, colours, names of cells, their sets, titles].
        """
        if not isinstance(item, Shapes) or len(item.points) < 4:
            return self.keep("pieces", self._in_parts(piece(item)))
        tag, paths, fills, cells, sets = face_parts(item)
        colors = tuple(self.keep("colors", fill) for fill in fills)
        outlines = tuple(self.keep("outlines", path) for path in paths)
        parts = (
            tag, self.keep("paths", outlines), self.keep("fills", colors),
            self.keep("names", tuple(cells)), self.keep("labels", tuple(sets)),
            self.keep("titles", tuple(map(escape, item.titles or ()))),
        )  # fmt: skip
        return self.keep("pieces", parts)

    def _in_parts(self, text: str) -> str | tuple:
        """A path of several lines in parts, since most sets' outlines have most of theirs in common."""
        found = _LINES.match(text)
        if not found:
            return text
        before, path, after = found.groups()
        return before, tuple(self.keep("outlines", line) for line in _LINE.findall(path)), after

    def runs(self, places: list[int]) -> list[int]:
        """Items in a row, by the runs of them that pictures have in common."""
        return [self.keep("runs", tuple(places[k : k + _RUN])) for k in range(0, len(places), _RUN)]

    def tables(self) -> dict[str, list]:
        """All tables; an outline that occurs once stands where it does, and not in a table."""
        tables = {name: self._kept.get(name, ({}, []))[1] for name in TABLES}
        lines, of_lines = tables["outlines"], [one[1] for one in tables["pieces"] if _is_lines(one)]
        uses = Counter(chain(*tables["paths"], *of_lines))
        kept = [k for k, count in sorted(uses.items()) if count > 1]
        place = {k: i for i, k in enumerate(kept)}

        def settled(parts: tuple) -> list:
            return [place.get(k, lines[k]) for k in parts]

        return tables | {
            "outlines": [lines[k] for k in kept], "paths": [settled(parts) for parts in tables["paths"]],
            "pieces": [
                (one[0], settled(one[1]), one[2]) if _is_lines(one) else one for one in tables["pieces"]
            ],
        }  # fmt: skip


def _is_lines(one: str | tuple) -> bool:
    """Whether a piece is a path of several lines, in parts."""
    return not isinstance(one, str) and len(one) == 3


def _plain(value: Any) -> Any:
    """Numpy's scalars as Python's, for JSON."""
    return value.item()


def _offers(control: Control, fineness: int, stops: Mapping[str, tuple]) -> tuple:
    """The values that the page offers, with the one that is set; stops: by control those that it is to offer."""
    offered = stops.get(control.name) or control.offers(fineness)
    return offered if control.value in offered else tuple(sorted((*offered, control.value)))


def _home(state: Explorer, cursor: tuple[str, ...]) -> Explorer:
    """The state with its cursor (the names of its fields, none for no cursor) at the first cell, and with those of
    `ahead` that have no effect in the middle: what cannot be seen is no state of its own.
    """
    if cursor:
        state = state.turn(**dict.fromkeys(cursor, 0))
    for name in state.ahead:
        control = state.controls()[name]
        if not control.useful and control.values:
            state = state.turn(**{name: control.values[len(control.values) // 2]})
    return state


@lru_cache(maxsize=50_000)
def _turned(home: Explorer, cursor: tuple[str, ...], name: str, value: Any) -> Explorer:
    """`turn`, which a page asks for again and again."""
    return _home(home.turn(**{name: value}), cursor)


def _reach(start: Explorer, fineness: dict[str, int], most: int, cursor: tuple[str, ...]) -> list[Explorer] | None:
    """All states that the controls in `fineness` lead to, `start` first; None if they are more than `most`."""
    states = [_home(start, cursor)]
    seen = set(states)
    for state in states:  # grows as it is walked
        offered = state.controls()
        for name, n in fineness.items():
            if not offered[name].enabled:
                continue
            fresh = (_turned(state, cursor, name, value) for value in _offers(offered[name], n, start.stops))
            states += [other for other in fresh if not (other in seen or seen.add(other))]
            if len(states) > most:
                return None
    return states


def _by_set(scene: Scene) -> Handle | None:
    """The cursor, where the picture knows it by its set alone."""
    return next((handle for handle in scene.handles if handle.sets), None)


@lru_cache(maxsize=1024)
def _sets(home: Explorer, cursor: tuple[str, ...]) -> tuple[np.ndarray, list[Explorer]]:
    """Which set every cell is in, and the state with its cursor at the first cell of every set.

    One set, of one cell, where the picture does not know its cursor by its set alone.
    """
    if not cursor or not _by_set(scene := home.scene()):
        return np.zeros([1] * len(cursor), int), [home]
    view, dims = scene.numbers["view"], scene.numbers["dims"]
    sets = [1 if axis in dims else size for axis, size in enumerate(view)]
    labels = np.broadcast_to(np.arange(math.prod(sets)).reshape(sets), view).reshape(scene.numbers["shape"])
    firsts = np.unravel_index(np.unique(labels, return_index=True)[1], labels.shape)
    return labels, [home.turn(**dict(zip(cursor, cell, strict=True))) for cell in np.transpose(firsts).tolist()]


def _first_of_its_set(home: Explorer, cursor: tuple[str, ...], at: tuple[int, ...]) -> Explorer:
    """The state with its cursor at the first cell of the set that the cell `at` is in, or the last cell before it."""
    labels, every = _sets(home, cursor)
    return every[labels[tuple(min(i, size - 1) for i, size in zip(at, labels.shape, strict=True))]]


def _text(control: Control, value: Any) -> str:
    """What a value of a control is called."""
    if control.kind == "choice":
        return control.labels[control.values.index(value)]
    return f"{value:g}" if control.kind == "number" else str(value)


def _row(state, fineness: dict[str, int], index: dict[Explorer, int], store: _Store, cursor: tuple[str, ...]) -> dict:
    """A state by the places of its parts in the tables: controls with the states that they lead to, picture, words."""
    reading, offered, home = state.read(), state.controls(), _home(state, cursor)
    at = tuple(offered[name].value for name in cursor)
    controls = []
    for name, n in fineness.items():
        control = offered[name]
        values = _offers(control, n, state.stops) if control.enabled else (control.value,)
        targets = [index[_first_of_its_set(_turned(home, cursor, name, value), cursor, at)] for value in values]
        # A hand means a choice by its index, see `Handle`
        numbers = [control.values.index(v) for v in values] if control.kind == "choice" else [*values]
        names = store.json("lists", {"texts": [_text(control, value) for value in values], "values": numbers})
        controls.append([values.index(control.value), names, store.keep("moves", tuple(targets))])
    scene = state.scene(reading)
    by_set, bare = _by_set(scene), replace(scene, alt="")

    def items(some: list) -> list[int]:
        kept = (item for item in some if not (by_set and getattr(item, "name", "") in CURSOR))
        # Under the pointer cells tell their numbers, see `Scene.numbers`
        return [store.item(replace(item, titles=None) if getattr(item, "data", None) else item) for item in kept]

    below = head(bare, BACKDROP, alt=False) if scene.backdrop else ""
    front = head(bare, FRONT, paper=False) if scene.backdrop else head(bare, SHEET)
    words = words_html(scene.alt) + notes_html(state.notes(reading))
    return {
        "backdrop": store.backdrop(scene.backdrop, items), "front": store.runs(items(scene.items)),
        "head": store.json("head", [below, front]), "words": store.keep("pieces", words),
        "handles": store.json("handles", handle_rows(scene, offered)), "parts": store.json("parts", parts_of(state)),
        "cells": store.json("cells", scene.numbers) if scene.numbers else None, "controls": controls,
        "sets": store.keep("sets", tuple(index[one] for one in _sets(home, cursor)[1])) if cursor and by_set else None,
    }  # fmt: skip
