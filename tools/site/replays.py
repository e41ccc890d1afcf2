"""Recorded trainings as replays: charts that normviz draws, and a scrubber that uncovers them step by step."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from html import escape
from itertools import zip_longest
from typing import NamedTuple

from normviz.arms import style_of
from normviz.draw.runs import loss_scene, outlier_ratios, ratios_scene
from normviz.lab import History, Runs, load_study, memory
from normviz.picture.color import INK
from normviz.picture.scene import Label, Scene, Shapes, Strokes
from normviz.picture.svg import SHEET, head, piece
from normviz.picture.text import fixed, plural
from normviz.series import smooth

PANEL = (440, 300)  # px, so that two stand side by side and one fits a telephone
_AXES = {"grid", "chance", "bound"}


class Replay(NamedTuple):
    """Recorded runs that stand for what a cell trains: a heading, the runs, a sentence below."""

    heading: str
    runs: Callable[[], Iterable[History]]
    note: str = ""


@cache
def _memory() -> Mapping[str, list[History]]:
    return memory(Runs(), "swiglu").runs


def _of(study: str, arms: tuple[str, ...], **fields) -> Callable[[], Iterable[History]]:
    def runs():
        wanted = [run for run in load_study(study) if run.recipe.arm in arms]
        return [run for run in wanted if all(getattr(run.recipe, name) == v for name, v in fields.items())]

    return runs


_THREE = ("ln", "bn", "bn+ffnbn")
#: What stands with a cell that trains before the reader's eyes, by the cell's id
REPLAYS: dict[str, Replay] = {
    "seq-26": Replay("The recorded runs: a GRU with each norm", _of("sequences", ("ln", "bn", "none"), name="gru"),
                     "Five seeds an arm, 400 steps. The cell above trains two of each for 200."),
    "crash-15": Replay("The recorded race", lambda: [r for k in ("LN", "as it is", "FFN-BN") for r in _memory()[k]],
                       "The five seeds on which the studies are judged; nobody forgets anything."),
    "crash-20": Replay("Recorded: the memory is cleared at step 40",
                       lambda: [*_memory()["LN"], *_memory()["state cleared at step 40"]],
                       "BN as in the race, five seeds, its optimizer’s memory cleared once; LN beside it, untouched."),
    "crash-33": Replay("Recorded: BN, clipped at 1 in the first 40 steps",
                       lambda: [*_memory()["LN"], *_memory()["clipped at 1 in the first 40 steps"]],
                       "Five seeds; LN beside it, not clipped."),
    "crash-42": Replay("Recorded: the shock at step 300", _of("midrun", _THREE),
                       "Study midrun, seeds 0 to 4, 600 steps: contrast jitter begins half-way."),
}  # fmt: skip


def replay(name: str, cell: str) -> str:
    """The replay of a cell as HTML.  name: unlike that of any other replay of the page."""
    shown = REPLAYS[cell]
    runs = [run for run in shown.runs() if run.loss]
    if not runs:
        raise ValueError(f"{cell}: no run is recorded for {shown.heading!r}")
    steps = max(run.recipe.steps for run in runs)
    panels = [loss_scene(runs, chance=runs[0].chance, steps=steps, size=PANEL)]
    if ratios := outlier_ratios(runs):
        bound = max(run.meta["outlier_bound"] for run in runs)
        panels.append(ratios_scene(ratios, bound, steps=steps, size=PANEL, heading="Longest token / root mean square"))
    pictures = "".join(_panel(panel, f"{name}-{i}", steps) for i, panel in enumerate(panels))
    data = json.dumps({"steps": steps, "medians": _medians(runs, steps)}, ensure_ascii=False).replace("</", "<\\/")
    note = f'<p class="note">{escape(shown.note)}</p>' if shown.note else ""
    return f"""<section class="replay normviz" data-replay aria-labelledby="{name}-heading">
<h3 class="replay-heading" id="{name}-heading">{escape(shown.heading)}</h3>
<div class="panels">{pictures}</div>
<div class="scrubber"><button type="button" class="play" aria-label="Play the replay">▶ Play</button>
<label for="{name}-step">Step</label>
<input type="range" id="{name}-step" min="1" max="{steps}" value="{steps}">
<output for="{name}-step"></output></div>{note}
<script type="application/json">{data}</script></section>
"""


def _medians(runs: Iterable[History], steps: int) -> list[list]:
    """[[an arm's name, its median loss after each step], …], smoothed as the chart is; None where it is not finite."""
    arms: dict[str, list] = {}
    for run in runs:
        arms.setdefault(run.recipe.arm, []).append(smooth(run.loss))
    table = []
    for arm, curves in arms.items():
        even = zip_longest(*curves, fillvalue=math.nan)
        finite = ([value for value in step if math.isfinite(value)] for step in even)
        middle = [float(fixed(statistics.median(values), 3)) if values else None for values in finite]
        middle += [None] * (steps - len(middle))
        table.append([f"{style_of(arm).name} ({plural(len(curves), 'run')})", middle])
    return table


def _panel(scene: Scene, name: str, steps: int) -> str:
    """A chart whose curves are there twice: faint in whole, and in full as far as the scrubber has uncovered them."""
    grid = next(item for item in scene.items if isinstance(item, Strokes) and item.name == "grid")
    left, right = float(grid.points[..., 0].min()), float(grid.points[..., 0].max())
    moving = [item for item in scene.items if _moves(item)]
    still = [item for item in scene.items if not _moves(item)]
    curves, axes = ("".join(map(piece, items)) for items in (moving, still))
    return (
        f'<div class="panel">{head(scene, SHEET, paper=False)}'
        f'<defs><clipPath id="{name}-clip"><rect x="0" y="0" width="{right + 9:.1f}"'
        f' height="100%" data-from="{left:.1f}" data-to="{right:.1f}"/></clipPath><g id="{name}">{curves}</g></defs>'
        f'{axes}<use href="#{name}" opacity="0.2"/>'
        f'<g clip-path="url(#{name}-clip)"><use href="#{name}"/></g></svg></div>'
    )


def _moves(item) -> bool:
    """Whether an item of a chart belongs to its curves, not to axes, guides and legend."""
    if isinstance(item, Label):
        return item.text.startswith("×")
    if isinstance(item, Shapes):
        return item.name.startswith("mark-")
    return isinstance(item, Strokes) and item.name not in _AXES and item.color != INK and item.name != "key"
