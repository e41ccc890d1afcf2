"""An explorer as widgets: core ipywidgets alone, so that version 7.7 (Colab) and 8 both do."""

from __future__ import annotations

from dataclasses import replace
from html import escape

import ipywidgets as w

from normviz.explore.base import Code, Control, Explorer, tidy
from normviz.picture.color import INK, PAPER
from normviz.picture.png import compact, to_png
from normviz.picture.scene import Scene, with_caption
from normviz.picture.svg import backdrop_svg, front_svg, to_svg
from normviz.picture.text import text_width

COLORS = f"background:{PAPER};color:{INK}"  # text of its own colours stays legible in a dark theme
# Jupyter cuts off what a slider reads after 148 px
WIDE = "<style>.normviz .widget-readout {max-width: none; flex-shrink: 0}</style>"
FLOW = {"flex_flow": "row wrap", "align_items": "center", "grid_gap": "2px 12px"}


class Picture(w.VBox):
    """A root widget that shows a scene, and leaves a PNG behind: where no kernel runs, a saved notebook shows that.

    rows: what stands above the picture.
    """

    def __init__(self, rows: list[w.Widget]):
        still = w.Layout(margin="0", overflow="visible", min_width="0")
        self._backdrop, self._front, self.text = (w.HTML(layout=still) for _ in range(3))
        self._below: list | None = None
        sheet = w.VBox([self._backdrop, self._front], layout=w.Layout(overflow="auto hidden"))
        super().__init__([*rows, sheet, self.text])
        self.add_class("normviz")

    def paint(self, scene: Scene, more: str = "", *, spoken: bool = True) -> None:
        """Shows a scene, under it its caption (which is the alt text too) and `more` HTML.

        Its backdrop goes to the browser only when it is another one: most of a picture's parts are in there, and
        parsing and painting them is most of the time between a key and the new picture.
        spoken: a screen reader is told the caption.
        """
        self.painted = scene
        if scene.backdrop is not self._below:
            self._below = scene.backdrop
            svg = backdrop_svg(scene) if scene.backdrop else ""
            self._backdrop.value = f'<div style="background:{PAPER}">{svg}</div>' if svg else ""
        place = "position:relative;height:0" if scene.backdrop else f"background:{PAPER}"
        self._front.value = f'<div style="{place}">{front_svg(scene) if scene.backdrop else to_svg(scene)}</div>'
        status = f'<p role="status" aria-live="polite">{escape(scene.alt)}</p>' if spoken else ""
        self.text.value = (
            f'{WIDE}<div style="{COLORS};padding:6px 12px;line-height:1.45;max-width:940px">{status}{more}</div>'
        )

    @property
    def shown(self) -> str:
        """The HTML that is shown now: backdrop, picture and text."""
        return self._backdrop.value + self._front.value + self.text.value

    def twin(self) -> Scene:
        """What is shown, with its caption in the picture."""
        return with_caption(replace(self.painted, items=[*self.painted.items]))

    def close(self) -> None:
        """Closes the widgets inside too, which ipywidgets leaves in its registry."""
        for inner in (*_inside(self), self):
            for part in ("layout", "style"):
                if inner.has_trait(part):
                    getattr(inner, part).close()
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

    def _ipython_display_(self, **kwargs) -> None:
        # ipywidgets 7 shows through this method and 8 through the bundle; with both defined, IPython comes here
        from IPython.display import display

        data, metadata = self._repr_mimebundle_()
        display(data, metadata=metadata, raw=True)


def _inside(box: w.Box):
    for child in box.children:
        if isinstance(child, w.Box):
            yield from _inside(child)
        yield child


class Live(Picture):
    """An explorer's controls above its picture; made by `Explorer.live`.

    `state` is what is shown now, `reading` what was read of it, `controls` the widgets by name, `buttons` those of its
    actions by label.
    """

    def __init__(self, state: Explorer):
        self.state, self._busy = state, False
        offered = state.controls()
        self.controls: dict[str, w.Widget] = {name: _widget(control) for name, control in offered.items()}
        self.buttons = {label: w.Button(description=label) for label in state.actions()}
        rows = [w.HBox(_grouped(offered, self.controls), layout=w.Layout(**FLOW))]
        if self.buttons:
            hidden = w.Layout(width="120px", visibility="hidden")
            self.progress, self.error = w.FloatProgress(value=0, min=0, max=1, layout=hidden), w.HTML()
            rows.append(w.HBox([*self.buttons.values(), self.progress, self.error]))
        super().__init__(rows)
        for name, control in self.controls.items():
            control.observe(lambda change, name=name: self._changed(name, change["new"]), names="value")
        for label, button in self.buttons.items():
            button.on_click(lambda _, label=label: self._act(label))
        self.show(state)

    def show(self, state: Explorer) -> None:
        """Brings controls, picture and caption to a state, the controls in one batch."""
        self._busy = True  # what we set ourselves is not ours to answer
        try:
            for name, control in state.controls().items():
                _bring(self.controls[name], control)
        finally:
            self._busy = False
        self.state, self.reading = state, state.read()
        self.paint(state.scene(self.reading), _notes(state.notes(self.reading)))

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


def _notes(notes: list[str]) -> str:
    """Sentences as paragraphs, code as it is."""
    pre = f"{COLORS};font-size:13px;white-space:pre-wrap"
    return "".join(
        f'<pre style="{pre}">{escape(note)}</pre>' if isinstance(note, Code) else f'<p class="note">{escape(note)}</p>'
        for note in notes
    )


def _grouped(offered: dict[str, Control], widgets: dict[str, w.Widget]) -> list[w.Widget]:
    """The controls side by side; those of a group stacked under its heading."""
    columns: dict[str, list[w.Widget]] = {}
    for name, control in offered.items():
        column = columns.setdefault(control.group or name, [])
        if control.group and not column:
            column.append(
                w.HTML(f'<b style="color:{control.color};background:{PAPER};padding:0 6px">{control.group}</b>')
            )
        column.append(widgets[name])
    return [column[0] if len(column) == 1 else w.VBox(column) for column in columns.values()]


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
            look["style"] |= {"button_width": f"{max(54, longest + 30):.0f}px"}
            beside = {"display": "flex", "align_items": "center", "margin": "0 0 0 8px", "width": "auto"}
            return w.ToggleButtons(options=_options(control), layout=beside, **look)
        look["layout"] = {"width": f"{min(400, 220 + text_width(name, 13) + longest):.0f}px"}
        return w.SelectionSlider(options=_options(control), **look)
    room = 212 if control.group else min(320, 220 + text_width(name, 13))  # four groups stand side by side
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
