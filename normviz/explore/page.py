"""An explorer as a page that needs no kernel: the pictures of many states, drawn ahead by the same Python."""

from __future__ import annotations

import json
from html import escape

from normviz.explore.base import Code, Control, Explorer
from normviz.picture.color import INK, PAPER
from normviz.picture.svg import to_svg

#: How many values of a range a page offers, the finest that fits
_FINENESS = (200, 12, 5)

_SCRIPT = """
const data = JSON.parse(document.getElementById("states").textContent);
const controls = document.getElementById("controls");
function show(at, hold) {
  const state = data[at];
  document.getElementById("picture").innerHTML = state.svg;
  document.getElementById("caption").textContent = state.caption;
  document.getElementById("notes").innerHTML = state.notes;
  controls.replaceChildren(...state.controls.map(([label, value, moves]) => {
    const box = document.createElement("label"), list = document.createElement("select");
    box.append(label + " ", list);
    for (const [name, target] of moves) list.add(new Option(name, target));
    list.selectedIndex = value;
    list.disabled = moves.length < 2;
    list.dataset.name = label;
    list.onchange = () => show(Number(list.value), label);
    return box;
  }));
  if (hold) [...controls.querySelectorAll("select")].find(list => list.dataset.name === hold)?.focus();
}
show(0);
"""


def page(start: Explorer, *, most: int = 300) -> str:
    """A whole HTML document: `start`, and every state that some of its controls lead to, at most `most` of them.

    Controls are taken in the order of the fields as long as the states stay so few, ranges in coarser steps where need
    be; the page says which controls it had to leave out.  What a control does is what `turn` does.
    Raises ValueError for `most` below 1.
    """
    if most < 1:
        raise ValueError(f"most={most!r} must be an integer >= 1")
    fineness: dict[str, int] = {}
    for name, control in start.controls().items():
        if control.enabled:
            fits = (n for n in _FINENESS if _reach(start, fineness | {name: n}, most) is not None)
            if (finest := next(fits, None)) is not None:
                fineness[name] = finest
    states = _reach(start, fineness, most) or [start]
    index = {state: i for i, state in enumerate(states)}
    rows = json.dumps([_row(state, fineness, index) for state in states], ensure_ascii=False).replace("</", "<\\/")
    left = [c.label for name, c in start.controls().items() if c.enabled and name not in fineness]
    rest = f"<p>In a notebook with a kernel there is also: {escape(', '.join(left))}.</p>" if left else ""
    title = escape(type(start).__doc__.strip().split("\n")[0])
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body{{background:{PAPER};color:{INK};font:15px/1.45 sans-serif;max-width:960px;margin:1em auto;padding:0 12px}}
#controls{{display:flex;flex-wrap:wrap;gap:8px 18px}} svg{{max-width:100%;height:auto}}
pre{{white-space:pre-wrap}}</style>
</head><body><h1>{title}</h1><div id="controls"></div><div id="picture"></div>
<p id="caption" role="status" aria-live="polite"></p><div id="notes"></div>{rest}
<script type="application/json" id="states">{rows}</script><script>{_SCRIPT}</script></body></html>"""


def _offers(control: Control, fineness: int) -> tuple:
    """The values that the page offers, with the one that is set."""
    offered = control.offers(fineness)
    return offered if control.value in offered else tuple(sorted((*offered, control.value)))


def _reach(start: Explorer, fineness: dict[str, int], most: int) -> list[Explorer] | None:
    """All states that the controls in `fineness` lead to, `start` first; None if they are more than `most`."""
    states, seen = [start], {start}
    for state in states:  # grows as it is walked
        offered = state.controls()
        for name, n in fineness.items():
            fresh = (state.turn(**{name: value}) for value in _offers(offered[name], n))
            states += [other for other in fresh if not (other in seen or seen.add(other))]
            if len(states) > most:
                return None
    return states


def _row(state: Explorer, fineness: dict[str, int], index: dict[Explorer, int]) -> dict:
    reading, offered = state.read(), state.controls()
    controls = []
    for name, n in fineness.items():
        control = offered[name]
        values = _offers(control, n)
        labels = control.labels or [f"{value:g}" if control.kind == "number" else str(value) for value in values]
        moves = [[label, index[state.turn(**{name: value})]] for label, value in zip(labels, values, strict=True)]
        controls.append([control.label, values.index(control.value), moves])
    notes = (f"<pre>{escape(n)}</pre>" if isinstance(n, Code) else f"<p>{escape(n)}</p>" for n in state.notes(reading))
    scene = state.scene(reading)
    return {"svg": to_svg(scene), "caption": scene.alt, "notes": "".join(notes), "controls": controls}
