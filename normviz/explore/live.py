"""An explorer as widgets: core ipywidgets, 7.7 (Colab) and 8, around one anywidget that shows the picture.

The picture is `picture.js`, which a page without a kernel uses as well.  It lights what is under the pointer by itself;
the kernel hears of what a hand has moved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from html import escape

import anywidget
import ipywidgets as w
import traitlets as t

from normviz.explore.base import Control, Explorer, notes_html, tidy, words_html
from normviz.explore.hand import LOOK, MODULE, handle_rows, parts_of
from normviz.picture.png import compact, to_png
from normviz.picture.scene import Scene, with_caption
from normviz.picture.svg import backdrop_svg, front_svg, to_svg
from normviz.picture.text import text_width

FLOW = {"flex_flow": "row wrap", "align_items": "center", "grid_gap": "2px 12px"}
SHARE = 0.02  # of the time that pictures of something that runs may take
INTERVAL = 0.5  # seconds between two of them, at least


class Sheet(anywidget.AnyWidget):
    """The picture: a backdrop and a front (SVG), the words under it (HTML), and what a hand can take hold of.

    handles, parts: as of `handle_rows`, `parts_of`; cells: `Scene.numbers`; hand: what the hand has moved last,
    {"changes": {field: value}, "count": how often}; passing: nobody holds it, so it closes with its last output.
    """

    _esm, _css = MODULE, LOOK
    backdrop, front, words = (t.Unicode().tag(sync=True) for _ in range(3))
    handles = t.List().tag(sync=True)
    cells = t.Dict().tag(sync=True)
    parts = t.List().tag(sync=True)
    hand = t.Dict().tag(sync=True)
    passing = t.Bool(False).tag(sync=True)


class Picture(w.VBox):
    """A root widget that shows a scene, and leaves a PNG behind: where no kernel runs, a saved notebook shows that.

    rows: what stands above the picture.
    """

    def __init__(self, rows: list[w.Widget]):
        self.sheet = Sheet(layout=w.Layout(margin="0", width="100%", min_width="0"))
        self._below: list | None = None
        super().__init__([*rows, self.sheet])
        self.add_class("normviz")

    def paint(
        self, scene: Scene, more: str = "", *, spoken: bool = True, offered: dict[str, Control] | None = None, parts=()
    ):
        """Shows a scene, under it its caption (which is the alt text too) and `more` HTML, in one message.

        Its backdrop goes to the browser only when it is another one: most of a picture's parts are in there, and
        parsing and painting them is most of the time between a key and the new picture.
        spoken: a screen reader is told the caption.  offered: controls that the scene's handles may set.
        parts: what goes one under another on a narrow screen.
        """
        self.painted, sheet = scene, self.sheet
        with sheet.hold_sync():
            if scene.backdrop is not self._below:
                self._below = scene.backdrop
                sheet.backdrop = backdrop_svg(scene) if scene.backdrop else ""
            sheet.front = front_svg(scene) if scene.backdrop else to_svg(scene)
            sheet.handles, sheet.parts = handle_rows(scene, offered or {}), [*parts]
            if sheet.cells is not scene.numbers:
                sheet.cells = scene.numbers or {}
            sheet.words = (words_html(scene.alt) if spoken else "") + more

    @property
    def shown(self) -> str:
        """The HTML that is shown now: backdrop, picture and text."""
        return self.sheet.backdrop + self.sheet.front + self.sheet.words

    def twin(self) -> Scene:
        """What is shown, with its caption in the picture."""
        return with_caption(replace(self.painted, items=[*self.painted.items]))

    def close(self) -> None:
        """Closes the widgets inside too, which ipywidgets leaves in its registry, and lets go of what they call."""
        for inner in (*_inside(self), self):
            for part in ("layout", "style"):
                if inner.has_trait(part):
                    getattr(inner, part).close()
            inner.unobserve_all()
            if inner is not self:
                inner.close()
        super().close()

    def _repr_mimebundle_(self, include=None, exclude=None, **kwargs):
        scene = self.twin()
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        data = {
            "text/plain": type(self).__name__,
            "image/png": compact(to_png(scene)),
            "application/vnd.jupyter.widget-view+json": view,
        }
        return data, {"image/png": {"alt": scene.alt, "width": int(scene.width)}}

    def _ipython_display_(self, **options) -> None:
        # ipywidgets 7 shows through this method and 8 through the bundle; with both defined, IPython comes here
        from IPython.display import display

        data, metadata = self._repr_mimebundle_()
        display(data, metadata=metadata, raw=True, **options)


class Running(Picture):
    """A picture of something that runs, drawn when it is due: pictures take about `SHARE` of the time at most.

    `seconds` is what they have taken, as `clock` tells it.
    """

    def __init__(self, rows: list[w.Widget], clock: Callable[[], float]):
        self.seconds, self._clock, self._due, self._displayed = 0.0, clock, 0.0, False
        super().__init__(rows)

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Around the making of a picture: takes its time, and says when the next one is due."""
        began = self._clock()
        yield
        spent = self._clock() - began
        self.seconds += spent
        self._due = self._clock() + max(INTERVAL, spent / SHARE)

    def _ipython_display_(self, update: bool = False) -> None:
        self._displayed = True
        super()._ipython_display_(display_id=f"normviz-{self.model_id}", update=update)

    def _publish(self) -> None:
        """Brings what was displayed, if it was, up to date: a saved notebook has the picture of the last pause."""
        if self._displayed:
            self._ipython_display_(update=True)


def _inside(box: w.Box):
    for child in box.children:
        if isinstance(child, w.Box):
            yield from _inside(child)
        yield child


#: Explorers that a cell has shown and nobody else holds, by the cell
_PASSING: dict[str, list[Picture]] = {}


def show_passing(live: Picture) -> None:
    """Shows a widget that nobody holds: it closes when its cell runs again, or when its last output is gone."""
    from IPython import get_ipython
    from IPython.display import display

    live.sheet.passing = True
    live.sheet.on_msg(lambda _, content, buffers: content.get("gone") and live.close())
    kernel = getattr(get_ipython(), "kernel", None)
    with suppress(Exception):  # a kernel of another make: the front end's word is enough
        if cell := kernel.get_parent("shell").get("metadata", {}).get("cellId"):
            if not _PASSING:
                get_ipython().events.register("pre_run_cell", _close_those_of)
            _PASSING.setdefault(cell, []).append(live)
    display(live)


def _close_those_of(info) -> None:
    """Before a cell runs: what it showed last time is freed."""
    for live in _PASSING.pop(getattr(info, "cell_id", None), ()):
        live.close()


class ListSlider(w.SelectionSlider):
    """A slider over a list that may hold None, which ipywidgets takes for "nothing is chosen"."""

    @t.observe("value")
    def _propagate_value(self, change) -> None:
        place = next((k for k, (_, value) in enumerate(self.options) if value == change["new"]), None)
        if place is not None and self.index != place:
            self.index = place


class Live(Picture):
    """An explorer's controls above its picture; made by `Explorer.live`.

    `state` is what is shown now, `reading` what was read of it, `controls` the widgets by name, `buttons` those of its
    actions by label.
    """

    def __init__(self, state: Explorer):
        self.state, self._busy, self._brought = state, False, {}
        offered = {name: control for name, control in state.controls().items() if not control.hand}
        self.controls: dict[str, w.Widget] = {name: _widget(control) for name, control in offered.items()}
        self.buttons = {label: w.Button(description=label) for label in state.actions()}
        rows = [w.HBox([*self.controls.values()], layout=w.Layout(**FLOW))]
        if self.buttons:
            hidden = w.Layout(width="120px", visibility="hidden")
            self.progress, self.error = w.FloatProgress(value=0, min=0, max=1, layout=hidden), w.HTML()
            rows.append(w.HBox([*self.buttons.values(), self.progress, self.error]))
        super().__init__(rows)
        for name, control in self.controls.items():
            control.observe(lambda change, name=name: self._changed(name, change["new"]), names="value")
        for label, button in self.buttons.items():
            button.on_click(lambda _, label=label: self._act(label))
        self.sheet.observe(lambda change: self._moved(change["new"].get("changes", {})), names="hand")
        self.show(state)

    def show(self, state: Explorer) -> None:
        """Brings controls, picture and caption to a state, the controls in one batch."""
        offered = state.controls()
        self._busy = True  # what we set ourselves is not ours to answer
        try:
            for name, widget in self.controls.items():
                control = offered[name]
                offer = replace(control, value=None)
                if offer != self._brought.get(name) or widget.value != control.value:
                    _bring(widget, control)
                    self._brought[name] = offer
        finally:
            self._busy = False
        self.state, self.reading = state, state.read()
        self.paint(
            state.scene(self.reading), notes_html(state.notes(self.reading)), offered=offered, parts=parts_of(state)
        )

    def _moved(self, changes: dict) -> None:
        """What the hand has moved, as `picture.js` tells it; what no control takes is left as it is."""
        offered, taken = self.state.controls(), {}
        for name, value in changes.items():
            control = offered.get(name)
            if control is None or isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            if control.kind == "choice":
                value = control.values[min(max(int(value), 0), len(control.values) - 1)]
            else:
                value = int(value) if control.kind == "integer" else tidy(float(value), control.step)
            if control.takes(value) and value != control.value:
                taken[name] = value
        if taken:
            self.show(self.state.turn(**taken))

    def _changed(self, name: str, value) -> None:
        if self._busy:
            return
        control = self.state.controls()[name]
        if control.kind == "number":
            value = tidy(value, control.step)
        self.show(self.state.turn(**{name: value}))

    def _act(self, label: str) -> None:
        """Runs an action; the controls rest meanwhile, and an error is told instead of raised."""
        resting = {widget: widget.disabled for widget in (*self.buttons.values(), *self.controls.values())}
        for widget in resting:
            widget.disabled = True
        self.progress.value, self.progress.layout.visibility = 0, "visible"
        try:
            state = self.state.actions()[label](lambda share: setattr(self.progress, "value", share))
            self.error.value = ""
        except Exception as error:  # out of memory, say: the explorer lives on
            state = self.state
            self.error.value = f"<span role='alert'>{escape(f'{label} failed: {error}')}</span>"
        finally:
            self.progress.layout.visibility = "hidden"
            for widget, disabled in resting.items():
                widget.disabled = disabled
        self.show(state)


def _widget(control: Control) -> w.Widget:
    """The widget of a control: buttons for a few words, else a slider, since JupyterLab 4 takes a list's arrow keys.

    Ends, value and whether it rests are for `_bring` to set.
    """
    name = control.label
    look = {"description": name, "style": {"description_width": f"{max(40, text_width(name, 13) + 12):.0f}px"}}
    if control.kind == "flag":
        return w.Checkbox(indent=False, description=name, layout={"width": "auto"})
    if control.kind == "choice":
        words = any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in control.values)
        longest = max(text_width(label, 13) for label in control.labels)
        if words and len(control.labels) < 5 and sum(map(len, control.labels)) <= 30:
            look["style"] |= {"button_width": f"{max(54, longest + 36):.0f}px"}
            beside = {"display": "flex", "align_items": "center", "margin": "0 0 0 8px", "width": "auto"}
            return w.ToggleButtons(options=_options(control), layout=beside, **look)
        look["layout"] = {"width": f"{min(400, 220 + text_width(name, 13) + longest):.0f}px"}
        return ListSlider(options=_options(control), **look)
    few = control.high - control.low <= 16 * control.step
    room = min(300, (150 if few else 200) + text_width(name, 13))
    look["layout"] = {"width": f"{room:.0f}px"}
    if control.kind == "integer":
        return w.IntSlider(**look)
    digits = max(0, len(f"{control.step:g}".partition(".")[2]))
    return w.FloatSlider(step=control.step, readout_format=f".{digits}f", **look)


def _options(control: Control) -> tuple[tuple[str, object], ...]:
    """Options of a list; a single one twice, since a slider needs two ends."""
    options = tuple(zip(control.labels, control.values, strict=True))
    return options if len(options) > 1 else (*options, (f"{options[0][0]} ", options[0][1]))


def _bring(widget: w.Widget, control: Control) -> None:
    """Sets options, ends and value in one message: a slider that is told its new ends first clamps, and answers."""
    with widget.hold_sync():
        if control.kind == "choice" and tuple(widget.options) != _options(control):
            widget.options = _options(control)
        elif control.kind in ("integer", "number"):
            low, high = control.low, control.high
            high = high if high > low else low + control.step  # a slider without a step would break in the browser
            widget.max = max(high, widget.min)  # never below the lower end on the way
            widget.min, widget.max = low, high
        widget.value = control.value
        if control.kind != "flag":
            widget.disabled = not control.enabled
