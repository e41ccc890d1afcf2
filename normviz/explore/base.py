"""The base of every explorer: a frozen state whose fields are its controls, and which can read, say and draw itself.

A subclass is a frozen dataclass.  Its fields declare themselves with `normviz.fields` (default, range or options,
label), and it says three things, all pure and numpy alone:

    read()         whatever there is to know of this state
    say(reading)   one sentence or two: the caption, which is the alt text too
    draw(reading)  a Scene

Widgets, the static twin, the page without a kernel, the checks and their errors follow from the fields.  What depends
on what else is set is said by two more: `offer` (what the controls offer in this state) and `turn` (the state after an
event).  Whatever is expensive is a cached function of the fields that it needs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from typing import Any, ClassVar

from normviz.fields import check, unknown
from normviz.picture.scene import Scene, with_caption


class Code(str):
    """A note that is code: shown as it is written, line by line."""


def words_html(caption: str) -> str:
    """A caption as HTML: what a screen reader is told when it changes."""
    return f'<p role="status" aria-live="polite">{escape(caption)}</p>'


def notes_html(notes: list[str]) -> str:
    """Notes as HTML: sentences as paragraphs, code as it is."""
    return "".join(
        f"<pre>{escape(note)}</pre>" if isinstance(note, Code) else f'<p class="note">{escape(note)}</p>'
        for note in notes
    )


class Held:
    """A value of the reader's, told apart by identity: a key of a cache, though arrays have no hash.

    A field that no control sets holds one (`given`): a tensor of the reader's, recorded runs.
    """

    def __init__(self, value: Any):
        self.value = value

    def __repr__(self) -> str:
        shape = getattr(self.value, "shape", None)
        return f"{type(self.value).__name__}{'' if shape is None else f' of shape {tuple(shape)}'}"


def given(default: Any = None) -> Any:
    """A plain field: data that no control sets."""
    return field(default=default, metadata={})


@dataclass(frozen=True)
class Control:
    """What a control offers in one state; made from a field's declaration.

    kind: "integer", "number", "choice" or "flag"; values: the options of a choice, labels: their names; low, high,
    step: the ends of a range; useful: False where the value has no effect; hand: a hand in the picture sets it, and no
    widget beside it.
    """

    name: str
    kind: str
    label: str
    value: Any
    values: tuple = ()
    labels: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    step: float = 1
    useful: bool = True
    hand: bool = False

    def among(self, values: Iterable, labels: Iterable[str] | None = None) -> Control:
        """The control as a choice of some values, by default called as they are."""
        values = tuple(values)
        return replace(self, kind="choice", values=values, labels=tuple(labels or map(str, values)))

    @property
    def enabled(self) -> bool:
        """Whether there is anything to choose."""
        some = len(self.values) > 1 if self.kind == "choice" else self.kind == "flag" or self.high > self.low
        return self.useful and some

    def takes(self, value) -> bool:
        """Whether the control can be set to a value."""
        if self.kind == "flag":
            return isinstance(value, bool)
        return value in self.values if self.kind == "choice" else self.low <= value <= self.high

    def offers(self, most: int = 200) -> tuple:
        """The values that a reader can set, in order; of a range with more than `most` steps, as many evenly spread."""
        if self.kind in ("choice", "flag"):
            return self.values or (False, True)
        steps = round((self.high - self.low) / self.step)
        stride = -(-steps // most) or 1
        return tuple(tidy(self.low + k * self.step, self.step) for k in range(0, steps + 1, stride))


def tidy(value: float, step: float) -> float:
    """A value of a slider without the dust of binary fractions: browsers send 0.30000000000000004."""
    return value if isinstance(value, int) and isinstance(step, int) else round(value, 9)


@dataclass(frozen=True)
class Explorer:
    """A state that shows itself: with controls in a notebook, as a picture everywhere else.

    ahead: the controls that a page without a kernel offers before the others, see `normviz.explore.page`.
    stops: control → the values of a range that such a page is to offer; by default as many as fit.
    parts: what a narrow screen shows one under another, (left, top, right, bottom) each; by default one picture.

    Raises ValueError for a field that no control could have set, naming it, what it got and what it takes.
    """

    ahead: ClassVar[tuple[str, ...]] = ()
    stops: ClassVar[Mapping[str, tuple]] = {}
    parts: ClassVar[Iterable[tuple[float, ...]]] = ()

    def __post_init__(self):
        for declared in dataclasses.fields(self):
            value = getattr(self, declared.name)
            if not declared.metadata and value is not None and not isinstance(value, Held):
                self._set(declared.name, self.hold(declared.name, value))
        self.settle()
        check(self)
        for control in self.controls().values():
            if not control.takes(control.value):
                ends = f"from {control.low:g} to {control.high:g}" if control.high is not None else ""
                takes = ends or f"one of {', '.join(map(str, control.values))}"
                raise ValueError(f"{control.name}={control.value!r} must be {takes}")

    def _set(self, name: str, value) -> None:
        """For `settle` and `hold` alone: afterwards the state is frozen."""
        object.__setattr__(self, name, value)

    def read(self) -> Any:
        """All that there is to know of this state."""

    def say(self, reading: Any) -> str:
        """The caption, which is the alt text too."""

    def draw(self, reading: Any) -> Scene:
        """The picture; its alt text is filled in by `scene`."""

    def notes(self, reading: Any) -> list[str]:
        """What stands below the caption where there is room for it: sentences, and `Code`."""
        return []

    def hold(self, name: str, value: Any) -> Held:
        """What a field without a control keeps of what it was given.  Raises TypeError or ValueError for a misfit."""
        return Held(value)

    def settle(self) -> None:
        """Fills in what was left open (None) before the fields are checked, by `self._set(name, value)`."""

    def actions(self) -> dict[str, Callable[[Callable[[float], None]], Explorer]]:
        """Buttons by label: called with a function that takes the share done, each gives the next state."""
        return {}

    def offer(self) -> dict[str, Control]:
        """What the controls offer in this state, in the order of the fields."""
        offered = {}
        for declared in dataclasses.fields(self):
            if m := declared.metadata:
                label, value = m["label"] or declared.name.replace("_", " "), getattr(self, declared.name)
                choices, ends = (m["options"], m["labels"]), (m["least"], m["most"], m["step"] or 1)
                offered[declared.name] = Control(declared.name, m["kind"], label, value, *choices, *ends)
        return offered

    def controls(self) -> dict[str, Control]:
        """What `offer` gives, which an event asks for four times, made once a state."""
        return self._offered

    @cached_property
    def _offered(self) -> dict[str, Control]:
        return self.offer()

    def turn(self, **changes: Any) -> Explorer:
        """The state after some controls were set, with those that depend on them brought in line.

        Raises ValueError for what no control can be set to, TypeError for a control that this explorer lacks.
        """
        if strange := [name for name in changes if name not in self.controls()]:
            raise TypeError(unknown("control", strange[0], self.controls()))
        return replace(self, **changes)

    def scene(self, reading: Any = None) -> Scene:
        """The picture, with the caption as its alt text.  reading: what `read` gave, if that was called already."""
        reading = self.read() if reading is None else reading
        scene = self.draw(reading)
        scene.alt = self.say(reading)
        return scene

    def figure(self):
        """The static twin: the picture with its caption, as a matplotlib Figure with alt text `.alt`."""
        from normviz.picture.png import figure

        return figure(with_caption(self.scene()))

    def live(self):
        """The widget: controls, picture, caption.  Its `.state` is what is shown now, `.reading` what was read."""
        from normviz.explore.live import Live

        return Live(self)

    def html(self, *, most: int = 300) -> str:
        """A page that needs no kernel: pictures of up to `most` states, drawn ahead, and controls that choose one."""
        from normviz.explore.page import page

        return page(self, most=most)

    def _ipython_display_(self, **kwargs) -> None:
        from normviz.explore.live import show_passing

        show_passing(self.live())
