"""A race: several networks train in turn, a step each, on one chart, with the reader's hands on all of them.

Networks are anything that steps as `normviz.lab.steps(recipe)` does; nothing here knows how they are made.
"""

from __future__ import annotations

import io
import json
import math
import re
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import replace
from functools import cached_property
from html import escape
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import ipywidgets as w
import numpy as np

from normviz.arms import HUES, Style, style_of, styles_of
from normviz.draw.common import NOTEBOOK_WIDTH, drawn
from normviz.explore.comms import deliver_comms
from normviz.explore.field import (
    UNIT,
    block_names,
    field_raster,
    field_scale,
    longest_times,
    longest_words,
    named_field,
)  # fmt: skip
from normviz.explore.live import FLOW, Running
from normviz.fields import whole
from normviz.files import make_writable, write_atomic
from normviz.picture.chart import MARKERS, Chart, legend
from normviz.picture.color import MUTED
from normviz.picture.png import figure
from normviz.picture.scene import Box, Label, Scene, with_caption
from normviz.picture.text import fixed, number, plural
from normviz.series import last_tenth, smooth

COLUMNS = 256  # tokens drawn of a batch
DENSE = 10  # steps at the start and after an event in which every one is measured
WORDS = {"forget": "the optimizers' memory is cleared", "shock": "contrast jitter σ = {:g} begins"}


class Event(NamedTuple):
    """What a reader did to all networks, before the step with this number: a key of WORDS."""

    step: int
    what: str
    sigma: float = 1.0

    @property
    def words(self) -> str:
        return f"before step {self.step} {WORDS[self.what].format(self.sigma)}"


class Race(Running):
    """Several trainings that step in turn, before the reader's eyes.

        race = nv.explore.Race({arm: steps(preset("swiglu", arm)) for arm in ("ln", "bn", "bn+ffnbn")})
        display(race)
        race.run()

    Loss of every network (smoothed as verdicts are, `normviz.series`); how far AdamW moves for its learning rate; and
    the tokens' field of one network: how long each token is before the FFN of each block.  The buttons Stop, forget and
    shock work while the race is on, and so do `stop()`, `forget()`, `shock()`; `at(40, "forget")` plans one ahead.
    Without such an event each network trains as it would alone, to the last bit.  On a CPU, with
    `torch.set_num_threads(1)`, the networks take a step side by side, a thread each.

    runs: name → a training with `.advance() .read() .forget()`, `.due .step .recipe .history .model .optimizer`, as
        `normviz.lab.steps` gives it; a name that is a key of `normviz.arms.ARMS` has that arm's colour.
    recorded: histories, drawn as a band beneath the run that is named as their arm; or name → histories.
    out: a folder that keeps the race, every `save_every` steps and whenever it pauses; a new race with that folder goes
        on from there.  Its trainings need `.save(folder)` and `.load(folder)`.

    `events` is what was done, [(step, what), …]; `moves` what the second curve shows, `fields` the third;
    `seconds` what pictures have taken: about a fiftieth of the time at most.
    Raises ValueError for no runs or a name in `recorded` that is none of theirs, TypeError for what cannot be stepped.
    """

    def __init__(
        self, runs: Mapping[str, Any], *, recorded: Iterable | Mapping[str, Iterable] = (), out=None,
        save_every: int = 50, clock: Callable[[], float] = time.perf_counter,
    ):  # fmt: skip
        if not runs:
            raise ValueError("runs={} holds no training; it takes {name: normviz.lab.steps(recipe), …}")
        needed = ["advance", "read", "forget", "recipe", "history", *(["save", "load"] if out is not None else [])]
        for name, run in runs.items():
            if lacks := [part for part in needed if not hasattr(run, part)]:
                raise TypeError(
                    f"runs[{name!r}] has no .{lacks[0]}; it takes trainings as normviz.lab.steps makes them"
                )
        self.runs = dict(runs)
        styles = styles_of(runs, HUES, [*reversed(MARKERS)], least=1)
        self.styles = {name: style._replace(dashed=False) for name, style in styles.items()}
        self.steps = max(run.recipe.steps for run in self.runs.values())
        self.recorded = _recorded(recorded, self.runs)
        #: name → [(step, root mean square of |m̂|/(√v̂ + ε) over all parameters), …]
        self._moves: dict[str, list[tuple[int, Any]]] = {name: [] for name in self.runs}
        #: step → name → token length over root-mean-square length before norm2, (blocks, tokens ≤ COLUMNS) in order
        self.fields: dict[int, dict[str, np.ndarray]] = {}
        self._field: tuple[int, dict[str, np.ndarray]] = (0, {})
        self._events: list[Event] = []
        self._planned: list[Event] = []
        self._wishes: list[tuple[str, float]] = []  # pressed, to be granted between two rounds
        self._stop, self._running, self._rate = threading.Event(), False, 0.0
        self.buttons: dict[str, w.Button] = {}
        for what, act, icon, tip in (
            ("Stop", self.stop, "stop", "Pause after this step; race.run() goes on"),
            ("forget", self.forget, "eraser", "Clear the optimizers' memory, of every network, now"),
            ("shock", self.shock, "bolt", "Multiply every image by exp(z), z normal, from now on"),
        ):
            self.buttons[what] = w.Button(description=what, tooltip=tip, icon=icon, layout=w.Layout(width="90px"))
            self.buttons[what].on_click(lambda _, act=act: act() if self.step < self.steps else None)
        names = [(style.name, name) for name, style in self.styles.items() if _norms(self.runs[name].model)]
        self._fielded = bool(names)
        self.picked = w.ToggleButtons(
            options=names, value=next((name for _, name in names if name == "bn"), names[0][1]) if names else None,
            description="tokens of", style={"button_width": "auto", "description_width": "70px"},
            layout=w.Layout(width="auto", display="flex" if len(names) > 1 else "none", align_items="center"),
        )  # fmt: skip
        self.picked.observe(lambda change: self._show(), names="value")
        super().__init__([w.HBox([*self.buttons.values(), self.picked], layout=w.Layout(**FLOW))], clock)
        self.out, self.save_every = None if out is None else make_writable(out), save_every
        if self.out is not None:
            self._restore()
        self._enable()
        self._draw(over=True)

    # What the reader does -------------------------------------------------------------------------------------------

    def run(self, until: int | None = None) -> None:
        """Steps all networks in turn until they end, or until step `until`, Stop, or the cell is interrupted.

        Run again, it goes on.  An interrupt lets the round come to its end; a second one does not.
        """
        if until is not None:
            whole("until", until, ", or None for the end")
        last = self._last = self.steps if until is None else min(until, self.steps)
        self._stop.clear()
        self._running, first, began = True, self.step, self._clock()
        self._due = began  # the first picture at once
        self._enable()
        try:
            with _patient(self._stop.set), ThreadPoolExecutor(len(self.runs)) as pool:
                each = pool.map if _side_by_side(self.runs.values()) else map
                while self.step < last:
                    deliver_comms()
                    self._hear()
                    if self._stop.is_set():
                        break
                    due = self._clock() >= self._due
                    self._round(each, look=due)
                    if self.step % self.save_every == 0:
                        self._keep()
                    self._rate = (self.step - first) / max(self._clock() - began, 1e-9)
                    if due:
                        self._draw()
        except KeyboardInterrupt:
            self._stop.set()
        finally:
            self._running = False
            for run in self.runs.values():
                run.read()
            self._hear()
            if self.step > first:
                self._keep()
            self._enable()
            self._draw(over=True)
            self._publish()

    def stop(self) -> None:
        """What the button Stop does: the race pauses after this round."""
        self._stop.set()

    def forget(self) -> None:
        """Clears the optimizer's state of every network, now: AdamW's means of gradients and their squares."""
        self._wish("forget")

    def shock(self, sigma: float = 1.0) -> None:
        """From now on every image is multiplied by exp(sigma·z), z normal, for every network."""
        self._wish("shock", sigma)

    def at(self, step: int, what: str, sigma: float = 1.0) -> None:
        """Plans "forget" or "shock" ahead, to come before the step with this number (from 0)."""
        if what not in WORDS:
            raise ValueError(f"what={what!r} must be one of {', '.join(WORDS)}")
        if Event(step, what, sigma) in self._events:  # a cell run once more, on a race that goes on
            return
        if not self.step <= step < self.steps:
            raise ValueError(f"step={step!r} must be from {self.step}, the next one, to {self.steps - 1}")
        self._planned.append(Event(step, what, sigma))

    # What there is to know ------------------------------------------------------------------------------------------

    @property
    def step(self) -> int:
        """The number of steps that all networks have taken, those aside that have ended."""
        return min(self._under_way(), default=self.steps)

    def _under_way(self) -> list[int]:
        """Where the networks are that have not ended: the same number, unless an interrupt or a kill came between."""
        return [run.step for run in self.runs.values() if run.step < run.recipe.steps]

    @property
    def events(self) -> list[tuple[int, str]]:
        """What was done to the networks, and before which step."""
        return [(event.step, event.what) for event in self._events]

    @property
    def histories(self) -> dict[str, Any]:
        return {name: run.history for name, run in self.runs.items()}

    @property
    def moves(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """How far AdamW moved for its learning rate, by name: steps and root mean squares; 1 is a step of ±lr each."""
        for name, rows in self._moves.items():  # tensors wait on their device until somebody asks
            self._moves[name] = [(step, float(value)) for step, value in rows]
        return {name: tuple(np.reshape(rows, (-1, 2)).T.astype(float)) for name, rows in self._moves.items()}

    def status(self) -> str:
        """Where the race is: step, losses, seconds left."""
        losses = ", ".join(f"{self.styles[name].name} {_word(loss[-1])}" for name, loss in self._smoothed().items())
        text = f"Step {self.step} of {self.steps}" + (f": training loss {losses}" if losses else "")
        if self.step == self.steps:
            return f"{text}. The race is over."
        if not self._running:
            return f"{text}. race.run() {'goes on' if self.step else 'starts it'}."
        return text + (f"; {(self._last - self.step) / self._rate:.0f} s left." if self._rate else ".")

    def say(self) -> str:
        """The caption, which is the alt text too."""
        (*names, last_name), moves = [style.name for style in self.styles.values()], self.moves
        text = f"A race of {', '.join(names)} and {last_name}, " if names else f"A training, {last_name}: "
        if not self.step:
            return f"{text}{plural(self.steps, 'step')} to come. {self._said_bands()}".strip()
        text += f"{self.step} of {plural(self.steps, 'step')}. Mean training loss of the last tenth: "
        ends = {name: last_tenth(run.history.loss) for name, run in self.runs.items() if run.history.loss}
        text += ", ".join(f"{self.styles[name].name} {_word(end)}" for name, end in ends.items())
        text += f"; chance is {fixed(self._chance)}. {self._said_bands()}"
        if self._events:
            text += f"{'; '.join(event.words for event in self._events).capitalize()}. "
        if any(len(steps) for steps, _ in moves.values()):
            last = (f"{self.styles[n].name} {number(v[-1], 2)}" for n, (_, v) in moves.items() if len(v))
            text += f"AdamW last moved by so much of its learning rate: {', '.join(last)}. "
        if (field := self._field[1].get(self.picked.value)) is not None:
            text += f"Tokens of {self.styles[self.picked.value].name} at step {self._field[0]}: {longest_words(field)}."
        return text.strip()

    def _said_bands(self) -> str:
        """The recorded seeds in words."""
        parts = []
        for histories in self.recorded.values():
            if ends := [end for history in histories if math.isfinite(end := last_tenth(history.loss))]:
                name = style_of(histories[0].recipe.arm).name
                parts.append(f"{name} {number(min(ends), 2)} to {number(max(ends), 2)}")
        count = max(map(len, self.recorded.values()), default=0)
        bands = "Bands" if len(parts) > 1 else "Band"
        return f"{bands}: {plural(count, 'recorded seed')}, ending at {', '.join(parts)}. " if parts else ""

    @property
    def _chance(self) -> float:
        return next(iter(self.runs.values())).history.chance

    def _smoothed(self) -> dict[str, list[float]]:
        losses = {name: run.history.loss for name, run in self.runs.items() if run.history.loss}
        return {name: smooth(loss, max(5, self.runs[name].recipe.steps // 20)) for name, loss in losses.items()}

    # The race -------------------------------------------------------------------------------------------------------

    def _wish(self, what: str, sigma: float = 1.0) -> None:
        if self.step >= self.steps:
            raise ValueError(f"{what}: the race is over; a new Race starts another")
        self._wishes.append((what, sigma))
        if not self._running:  # else the race grants it between two rounds: the click may come in a thread of its own
            self._hear()
        self._show()

    def _hear(self) -> None:
        """Grants what was wished for, and what was planned for this step."""
        step = max(self._under_way(), default=self.steps)
        wishes = [Event(step, *self._wishes.pop(0)) for _ in range(len(self._wishes))]
        due = [event for event in self._planned if event.step <= step]
        self._planned = [event for event in self._planned if event.step > step]
        for event in (*due, *wishes):
            if event not in self._events and step < self.steps:
                self._events.append(event)
                self._due = 0.0
                for run in self.runs.values():
                    run.history.meta["events"] = [list(done) for done in self._events]
                    if run.step == step:
                        _apply(event, run)

    def _round(self, each: Callable, look: bool) -> None:
        """One step of each network; one that an interrupt or a kill left behind catches up.

        each: `map`, or that of a pool.  look: keep the tokens' field for the picture; it is kept for the replay at some
        forty steps, evenly spread over those that there are so far.
        """
        step = self.step
        stride = 1 << (step // 40).bit_length()  # 1, from step 40 on 2, from step 80 on 4, …
        kept = step % stride == 0 or step == self._last - 1
        recent = min((step - event.step for event in self._events if event.step <= step), default=step)
        measured = min(recent, step) < DENSE or step % max(1, self.steps // 100) == 0

        def advance(name: str) -> np.ndarray | None:
            run = self.runs[name]
            for event in self._events:
                if event.step == step:  # once more, if it came when the others were here
                    _apply(event, run)
            with _watching(run) if look or kept else nullcontext() as squares:
                run.advance()
            if run.due:
                run.read()
            if measured and (move := adamw_move(run.optimizer)) is not None:
                self._moves[name].append((step, move))
            return _in_order(squares) if squares else None

        behind = [name for name, run in self.runs.items() if step >= run.step < run.recipe.steps]
        seen = {name: row for name, row in zip(behind, each(advance, behind), strict=True) if row is not None}
        if seen:
            self._field = (step, {**self._field[1], **seen})
        if seen and kept:
            self.fields = {at: row for at, row in self.fields.items() if at % stride == 0}
            self.fields[step] = {**self.fields.get(step, {}), **seen}

    def _keep(self) -> None:
        """Writes the race, then its networks: of an event that a network has met, the record is never missing."""
        if self.out is None:
            return
        fields = {f"{step}/{name}": field for step, row in self.fields.items() for name, field in row.items()}
        moves = {f"moves/{name}": np.stack(rows) for name, rows in self.moves.items()}
        file = io.BytesIO()
        np.savez_compressed(file, events=np.array(json.dumps(self._events)), **moves, **fields)
        write_atomic(self.out / "race.npz", file.getvalue())
        for run, folder in zip(self.runs.values(), self._folders(), strict=True):
            run.read()  # a checkpoint is of the steps whose losses are known
            run.save(folder)

    def _restore(self) -> None:
        """Goes on from what the folder holds; a network that a kill left behind catches up with the others."""
        for run, folder in zip(self.runs.values(), self._folders(), strict=True):
            run.load(folder)
        if not (self.out / "race.npz").exists():
            return
        with np.load(self.out / "race.npz") as kept:
            reached = max(run.step for run in self.runs.values())
            events = (Event(*row) for row in json.loads(str(kept["events"])))
            self._events = [event for event in events if event.step <= reached]
            for part in kept.files:
                step, _, name = part.partition("/")
                if step == "moves" and name in self.runs:
                    rows = zip(*kept[part].tolist(), strict=True)
                    self._moves[name] = [(int(at), value) for at, value in rows if at < self.runs[name].step]
                elif step.isdigit() and name in self.runs and int(step) < self.runs[name].step:
                    self.fields.setdefault(int(step), {})[name] = kept[part]
        self._field = max(self.fields.items(), default=self._field)
        for run in self.runs.values():
            for event in self._events:
                if event.what == "shock" and event.step <= run.step:
                    _apply(event, run)

    def _folders(self) -> list[Path]:
        return [self.out / f"{i}-{re.sub(r'[^a-z0-9.+-]+', '_', name.lower())}" for i, name in enumerate(self.runs)]

    # The picture ----------------------------------------------------------------------------------------------------

    def _enable(self) -> None:
        self.buttons["Stop"].disabled = not self._running
        self.buttons["forget"].disabled = self.buttons["shock"].disabled = self.step >= self.steps

    def _show(self) -> None:
        """Something else is to be shown: now, or with the next step."""
        self._due = 0.0
        if not self._running:
            self._draw(over=True)

    def _draw(self, over: bool = False) -> None:
        """over: a screen reader is told; while the race is on it is left in peace."""
        with self._drawing():
            self.paint(self.scene(), f"<p>{escape(self.status())}</p>", spoken=over)

    def scene(self) -> Scene:
        """The picture as it stands: loss, moves, and the tokens of the network that is chosen."""
        losses, moves = self._smoothed(), self.moves
        *charts, backdrop = self._draft
        loss, move = map(copy, charts)
        loss.items, move.items, box = [], [], loss.box
        words = {name: _word(losses[name][-1]) if name in losses else "–" for name in self.runs}
        scene = Scene(NOTEBOOK_WIDTH, box.bottom + (208 if self._fielded else 44), self._legend(words))
        for name, curve in losses.items():
            _racer(loss, np.arange(len(curve)), curve, self.styles[name], self.steps, f"loss-{name}")
            if (bad := next((i for i, v in enumerate(curve) if not math.isfinite(v)), None)) is not None:
                loss.write(bad, loss.y[1], "× NaN", dx=3, dy=26, color=self.styles[name].color, bold=True)
        for name, (steps, values) in moves.items():
            _racer(move, steps, values, self.styles[name], self.steps, f"move-{name}")
        scene.items += [*self._marks(loss, move), *loss.items, *move.items]
        if self._fielded:
            scene.items += self._tokens(Box(box.x, box.bottom + 72, 742, 112))
        scene.backdrop, scene.alt = backdrop, self.say()
        return scene

    def _legend(self, words: Mapping[str, str]) -> list:
        """The networks' names with a word after each."""
        named = [style._replace(name=f"{style.name}  {words[name]}") for name, style in self.styles.items()]
        return legend(named, 12, 22, NOTEBOOK_WIDTH - 24)

    @cached_property
    def _draft(self) -> tuple[Chart, Chart, list]:
        """Both charts empty, and what lies beneath all curves: axes, bands, guides, the scale of the field."""
        box = Box(62, _last_line(self._legend(dict.fromkeys(self.runs, "0.000"))) + 54, 526, 186)
        chance, axis = self._chance, (0, max(self.steps, 2))
        top = 1.35 * chance
        round_ticks = {v: f"{v:g}" for v in np.arange(0, top, 0.5 if top < 4 else 1.0) if abs(v - chance) > 0.09 * top}
        loss = Chart(box, axis, (0.0, top), x_name="step", y_ticks=round_ticks | {chance: "chance"})
        wide = Box(box.right + 82, box.y, NOTEBOOK_WIDTH - box.right - 100, box.height)
        move = Chart(wide, axis, (3e-3, 3.0), x_name="step", log_y=True)
        for chart, heading in ((loss, "Training loss"), (move, "AdamW's step / learning rate")):
            chart.add(Label(chart.box.x, box.y - 26, heading, 13, bold=True))
        for name, histories in self.recorded.items():
            curves = (smooth(history.loss)[: self.steps] for history in histories)
            even = np.transpose([*zip_longest(*curves, fillvalue=np.nan)])  # (histories, steps)
            at = np.unique(np.linspace(0, even.shape[1] - 1, 160).astype(int))
            at = at[np.isfinite(even[:, at]).any(axis=0)]
            if len(at):
                low, high = np.nanmin(even[:, at], axis=0), np.nanmax(even[:, at], axis=0)
                loss.band(at, low, high, self.styles[name].color, 0.14, f"band-{name}")
        loss.across(chance, color=MUTED, name="chance", width=1.2)
        move.across(1.0, color=MUTED, name="sign", width=1.2)
        move.write(self.steps, 1.0, "1: each weight by ±lr", dx=-2, dy=-5, anchor="end", color=MUTED)
        items = [*loss.items, *move.items]
        if self._fielded:
            items += field_scale(Box(box.x + 742 + 22, box.bottom + 72, 16, 112))
        return loss, move, items

    def _marks(self, loss: Chart, move: Chart) -> list:
        """Events as uprights, their names above the loss chart, or in further lines where they would meet."""
        items, ends = [], [-math.inf] * 3
        for event in sorted(self._events):
            loss.upright(event.step, name="event", width=1.2)
            move.upright(event.step, name="event", width=1.2)
            x = loss(event.step, 0)[0]
            text = f"{event.what} {event.step}" if event.sigma == 1 else f"{event.what} {event.step}, σ {event.sigma:g}"
            label = Label(float(x), 0, text, anchor="middle", bold=True)
            half = label.width / 2
            for row, y in enumerate((-6, 14, 29)):
                # Above the chart centred on its upright, within it beside it
                at = x if row == 0 else x + half + 5 if x + 2 * half + 5 < loss.box.right else x - half - 5
                label.x, label.y = min(max(at, loss.box.x + half), loss.box.right - half), loss.box.y + y
                if label.extent[0] > ends[row] + 6:
                    ends[row] = label.extent[2]
                    items.append(label)
                    break
        return items

    def _tokens(self, box: Box) -> list:
        """The field of the network that is chosen."""
        name, (step, fields) = self.picked.value, self._field
        heading = f"Tokens of {self.styles[name].name} before the FFN"
        heading += f", step {step}" if name in fields else ": to come with the first step"
        items = [
            Label(box.x, box.y - 10, heading, 13, bold=True),
            Label(box.right, box.y - 10, UNIT, anchor="end", color=MUTED),
            *block_names(box, len(self.runs[name].model.blocks)),
        ]
        if name in fields:
            items.append(field_raster(box, fields[name]))
        for x, text, anchor in (
            (box.x, "shortest token", "start"),
            (box.center[0], "every row in its own order", "middle"),
            (box.right, "longest", "end"),
        ):
            items.append(Label(x, box.bottom + 15, text, anchor=anchor, color=MUTED))
        return items

    def figure(self):
        """The picture as it stands with its caption, as a matplotlib Figure with alt text `.alt`."""
        return figure(with_caption(self.scene()))

    def replay_scene(self, steps: Iterable[int] | None = None) -> Scene:
        """The race as a filmstrip: loss and tokens at five moments.

        steps: those to show, each at the nearest one that was kept; by default the first, the last, those around the
        events, and what lies between.  Raises ValueError before the first step.
        """
        if not self.step:
            raise ValueError("there is nothing to replay before the first step; race.run() takes it")
        kept = np.array(sorted(self.fields) or range(self.step))
        if steps is None:
            chosen = [0, len(kept) - 1]
            # Moments of events as far as they lie apart, then whatever lies farthest from those chosen
            for at in [int(np.abs(kept - event.step).argmin()) for event in self._events]:
                if np.abs(np.subtract(chosen, at)).min() > len(kept) // 12 and len(chosen) < 5:
                    chosen.append(at)
            while len(set(chosen)) < min(5, len(kept)):
                chosen.append(int(np.abs(np.arange(len(kept))[:, None] - chosen).min(axis=1).argmax()))
        else:
            chosen = [int(np.abs(kept - step).argmin()) for step in steps]
        moments, losses, styles = kept[sorted(set(chosen))].tolist(), self._smoothed(), self.styles
        names = [name for name in self.runs if any(name in row for row in self.fields.values())]
        scene = Scene(NOTEBOOK_WIDTH, 0, legend(styles.values(), 12, 22, NOTEBOOK_WIDTH - 24))
        top = _last_line(scene.items) + 36
        pitch = (NOTEBOOK_WIDTH - 74) / len(moments)
        for k, moment in enumerate(moments):
            box = Box(62 + k * pitch, top, pitch - 16, 110)
            ticks = {v: str(v) for v in range(1 + int(1.35 * self._chance))}
            chart = Chart(
                box, (0, max(self.steps, 2)), (0.0, 1.35 * self._chance), heading=f"step {moment}", x_ticks=False,
                y_ticks=False if k else ticks, y_name="" if k else "loss",
            )  # fmt: skip
            chart.across(self._chance, color=MUTED, name="chance", width=0.8)
            for event in self._events:
                chart.upright(event.step, name="event", width=0.8)
            for name, curve in losses.items():
                at = min(moment, len(curve) - 1)
                chart.line(np.arange(len(curve)), curve, styles[name], 0.6)
                chart.line(np.arange(at + 1), curve[: at + 1], styles[name], 2.4)
                chart.dots(at, curve[at], styles[name], 5.0, name=f"head-{name}")
            scene.items += chart.items
            for row, name in enumerate(names):
                place = Box(box.x, box.bottom + 16 + 92 * row, box.width, 68)
                if k == 0:
                    middle = place.center[1]
                    scene.items.append(Label(place.x - 12, middle, styles[name].name, anchor="middle", angle=90))
                if name in self.fields[moment]:
                    scene.items += named_field(place, self.fields[moment][name])
        scene.height = top + 118 + 92 * len(names)
        if names:
            scene.height += 36
            note = f"Every token before every FFN, blocks downwards, short to long: {UNIT}"
            scene.items.append(Label(62, scene.height - 8, note, color=MUTED))
            scene.items += field_scale(Box(NOTEBOOK_WIDTH - 196, scene.height - 18, 140, 11))
        scene.alt = self._said_of(moments, losses, names)
        return scene

    replay = drawn(replay_scene)

    def _said_of(self, moments: list[int], losses: Mapping, names: list[str]) -> str:
        """The filmstrip in words."""
        curves = (f"{self.styles[n].name} {', '.join(_word(c[min(m, len(c) - 1)]) for m in moments)}"
                  for n, c in losses.items())  # fmt: skip
        events = "".join(f" {event.words.capitalize()}." for event in self._events)
        text = f"The race at steps {', '.join(map(str, moments))}.{events} Training loss: {'; '.join(curves)}."
        if not names:
            return text
        rows = [self.fields[moment] for moment in moments]
        lengths = (
            f"{self.styles[n].name} {', '.join(longest_times(row[n]) if n in row else '–' for row in rows)}"
            for n in names
        )
        return f"{text} Longest token over root-mean-square length: {'; '.join(lengths)}."


def adamw_move(optimizer):
    """How far AdamW's last step moved the parameters for its learning rate: a 0-d tensor, on their device.

    The root mean square over all parameters of |m̂|/(√v̂ + ε), the means of gradients and of their squares with their
    biases corrected (Kingma & Ba 2015); weight decay is left out.  1 where every step is as long as the learning rate.
    None where the optimizer keeps no such means, or has taken no step since it was cleared.
    """
    import torch  # whoever has an optimizer has loaded it

    squares, count = 0.0, 0
    with torch.no_grad():
        for group in optimizer.param_groups:
            states = [s for p in group["params"] if "exp_avg_sq" in (s := optimizer.state.get(p, {}))]
            if not states:
                continue
            first, second = (-torch.expm1(states[0]["step"] * math.log(beta)) for beta in group["betas"])
            scales = torch._foreach_sqrt([s["exp_avg_sq"] for s in states])
            torch._foreach_mul_(scales, second.to(scales[0].device).rsqrt())
            torch._foreach_add_(scales, group["eps"])
            steps = torch._foreach_div([s["exp_avg"] for s in states], scales)
            total = torch.stack(torch._foreach_norm(steps)).square().sum()
            squares = squares + total / first.to(total.device) ** 2
            count += sum(step.numel() for step in steps)
        return (squares / count).sqrt() if count else None


def _apply(event: Event, run) -> None:
    """Does to one network what an event says; twice between the same two steps is as good as once."""
    if event.what == "forget":
        run.forget()
        return
    start = max(0.0, event.step - 0.5) / run.recipe.steps
    run.recipe = replace(run.recipe, sigma=event.sigma, sigma_from=start)


def _norms(model) -> list:
    """What stands before the FFN of every block: whose input the field shows."""
    return [block.norm2 for block in getattr(model, "blocks", ()) if hasattr(block, "norm2")]


@contextmanager
def _watching(run) -> Iterator[list]:
    """Within, a step leaves the squared length of every token before the FFN, a tensor (N,) a block."""
    squares: list = []

    def keep(module, inputs) -> None:
        squares.append(inputs[0].detach().float().square().sum(-1).flatten())

    handles = [norm.register_forward_pre_hook(keep) for norm in _norms(run.model)]
    take = getattr(run, "_take", None)
    if take is not None:
        run._take = run._step  # a step that is replayed on the GPU calls no hook
    try:
        yield squares
    finally:
        if take is not None:
            run._take = take
        for handle in handles:
            handle.remove()


def _side_by_side(runs: Collection) -> bool:
    """Whether a thread for each network fills the cores: not if torch does that by itself, nor on a GPU."""
    import torch  # whoever has a network has loaded it

    devices = {p.device.type for run in runs for p in run.model.parameters()}
    return len(runs) > 1 and torch.get_num_threads() == 1 and devices == {"cpu"}


def _in_order(squares: list) -> np.ndarray:
    """Token length over root-mean-square length, (blocks, ≤ COLUMNS): each row in order, the shortest and the longest
    among those kept."""
    field = np.stack([row.cpu().numpy() for row in squares]).astype(float)  # (depth, N)
    with np.errstate(invalid="ignore", divide="ignore"):
        field = np.sort(np.sqrt(field / field.mean(axis=1, keepdims=True)), axis=1)
    count = field.shape[1]
    return field[:, np.linspace(0, count - 1, min(count, COLUMNS)).round().astype(int)].astype(np.float32)


def _last_line(items: list) -> float:
    return max(item.y for item in items if isinstance(item, Label))


def _racer(chart: Chart, x, y, style: Style, steps: int, name: str) -> None:
    """A curve with its markers at fixed places, and a large one at its head."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if not len(x):
        return
    chart.line(x, y, style, 2.2, name)
    at = np.unique(np.searchsorted(x, np.arange(1, 10) * steps / 10))
    at = at[at < len(x)]
    chart.dots(x[at], y[at], style, 3.4, name="dots")
    chart.dots(x[-1], y[-1], style, 6.0, name=f"head-{name}")


def _word(loss: float) -> str:
    return fixed(loss, 3) if math.isfinite(loss) else "NaN"


def _recorded(recorded, runs: Mapping) -> dict[str, list]:
    """name → recorded histories."""
    if not isinstance(recorded, Mapping):
        histories = [*recorded]
        recorded = {name: [history for history in histories if history.recipe.arm == name] for name in runs}
    if strange := [name for name in recorded if name not in runs]:
        raise ValueError(f"recorded has {strange[0]!r}, which is none of the runs: {', '.join(runs)}")
    found = {name: [history for history in recorded.get(name, ()) if history.loss] for name in runs}
    return {name: histories for name, histories in found.items() if histories}


@contextmanager
def _patient(interrupted: Callable[[], None]) -> Iterator[None]:
    """Within, the first interrupt (Ctrl-C, a notebook's stop button) calls a function; the second one interrupts.

    An optimizer caught in mid-step could not go on.  Outside of the main thread everything stays as it is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def once(signum, frame):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupted()

    before = signal.signal(signal.SIGINT, once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before if before is not None else signal.default_int_handler)
