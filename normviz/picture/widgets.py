"""The explorers: ipywidgets around scenes.  Core widgets only, so that ipywidgets 7.7 (Colab) and 8 both do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from html import escape

import ipywidgets as w
import numpy as np
import torch

from normviz.methods import AXIS_NAMES, METHODS, ROLES, axes_of, divisors, method_row
from normviz.picture import axes as view
from normviz.picture.colors import AXIS_COLORS, INK, PAPER
from normviz.picture.figures import as_array
from normviz.picture.png import compact, to_png
from normviz.picture.svg import backdrop_svg, front_svg, to_svg
from normviz.samples import digit_features

COLORS = f"background:{PAPER};color:{INK}"  # text of its own colours stays legible in a dark theme


class Explorer(w.VBox):
    """A root widget that leaves a PNG behind: where no kernel runs, a saved notebook shows the picture instead.

    A subclass says `twin()`: the scene as it stands, with its caption.
    """

    def __init__(self, rows: list[w.Widget]):
        still = w.Layout(margin="0", overflow="visible", min_width="0")
        self._backdrop, self._picture, self._text = w.HTML(layout=still), w.HTML(layout=still), w.HTML()
        self._stood_on: list | None = None
        sheet = w.VBox([self._backdrop, self._picture], layout=w.Layout(overflow="auto hidden"))
        super().__init__([*rows, sheet, self._text])

    def _paint(self, scene, more: str = "") -> None:
        """Show a scene, under it its caption (which is the alt text too) and `more` HTML.

        Its backdrop goes to the browser only when it is another one: most of a picture's parts are in there, and
        parsing and painting them is most of the time between a key and the new picture.
        """
        if scene.backdrop is not self._stood_on:
            self._stood_on = scene.backdrop
            self._backdrop.value = (
                f'<div style="background:{PAPER}">{backdrop_svg(scene)}</div>' if scene.backdrop else ""
            )
        if scene.backdrop:
            self._picture.value = f'<div style="position:relative;height:0">{front_svg(scene)}</div>'
        else:
            self._picture.value = f'<div style="background:{PAPER}">{to_svg(scene)}</div>'
        self._text.value = (
            f'<div style="{COLORS};padding:6px 12px;line-height:1.45;max-width:940px">'
            f'<p role="status" aria-live="polite">{escape(scene.alt)}</p>{more}</div>'
        )

    def twin(self):
        raise TypeError(f"{type(self).__name__} has no static twin")

    def _repr_mimebundle_(self, include=None, exclude=None, **kwargs):
        scene = self.twin()
        data = {
            "text/plain": type(self).__name__,
            "image/png": compact(to_png(scene)),
            "application/vnd.jupyter.widget-view+json": {
                "version_major": 2,
                "version_minor": 0,
                "model_id": self.model_id,
            },
        }
        return data, {"image/png": {"alt": scene.alt, "width": int(scene.width)}}

    def _ipython_display_(self, **kwargs):
        # ipywidgets 7 shows through this method and 8 through the bundle; with both defined, IPython comes here
        from IPython.display import display

        data, metadata = self._repr_mimebundle_()
        display(data, metadata=metadata, raw=True)


class SceneExplorer(Explorer):
    """Rows of controls above a picture above its caption; `controls` are the widgets by name.

    A subclass says `scene(with_text)`: read the controls, give the picture, with its caption in it where asked.
    """

    def __init__(self, *rows: dict[str, w.Widget]):
        self.controls = {name: control for row in rows for name, control in row.items()}
        flow = w.Layout(flex_flow="row wrap", align_items="center")
        super().__init__([w.HBox(list(row.values()), layout=flow) for row in rows])
        for control in self.controls.values():
            control.observe(lambda change: self._show(), names="value")
        self._show()

    def scene(self, with_text: bool = False):
        raise TypeError(f"{type(self).__name__} has no scene")

    def _show(self) -> None:
        self._paint(self.scene())

    def twin(self):
        return self.scene(with_text=True)


def buttons(name: str, options, value, width: str) -> w.ToggleButtons:
    """One of a few named choices, all in sight; each button is `width` (CSS) wide."""
    style, layout = {"button_width": width}, w.Layout(width="auto")
    return w.ToggleButtons(options=options, value=value, description=name, style=style, layout=layout)


def _html(text: str) -> w.HTML:
    return w.HTML(text, layout=w.Layout(width="auto", margin="0"))


def int_slider(name: str, value: int, low: int, high: int, **look) -> w.IntSlider:
    """A slider over low … high; where these coincide it keeps one spare step, since it would break in the browser."""
    return w.IntSlider(
        value=value, min=low, max=max(high, low + 1), description=name, disabled=high <= low, **look
    )


def _choices(channels: int) -> tuple[tuple[str, int], ...]:
    """The divisors of C as options of a slider; a single one twice, since a slider needs two ends."""
    options = tuple((str(g), g) for g in divisors(channels))
    return options if len(options) > 1 else (*options, (f"{channels} ", channels))


def eps_slider(value: float, layout: w.Layout) -> w.FloatLogSlider:
    """ε from 1e-8 to 1, two steps to a factor of ten."""
    return w.FloatLogSlider(
        value=value, base=10, min=-8, max=0, step=0.5, description="ε", readout_format=".1e", layout=layout
    )


#: The most cells along an axis that sliders reach; a larger tensor is explored by its first part
REACH = {"sample": 8, "channel": 16, "position": 8}


class AxesExplorer(Explorer):
    """Which cells share their statistics, on a real tensor, under every method.  Made by `explore_axes`.

    `state`, `x` and `reading` are what is shown now; `controls` are the widgets by name: "method", "groups",
    "color", "step", "compare", "eps", "gamma", "beta", the sizes by their letter ("N"), the cursor by the small
    letter ("n").
    """

    def __init__(
        self,
        take: Callable[[tuple[int, ...]], np.ndarray],
        largest,
        *,
        layout="NCHW",
        method="batch",
        note="",
    ):
        self._take, self._note = take, note
        self._letters = axes_of(largest, layout).letters
        self._busy = False
        start = tuple(min(size, want) for size, want in zip(largest, self._first_sizes(), strict=True))
        self.state = view.default_state(start, layout, method)
        self._chosen_groups = self.state.num_groups
        self._known = None  # the sizes and the state that was read in full
        self.controls: dict[str, w.Widget] = {}
        super().__init__(self._build(largest, start))
        for control in self.controls.values():
            control.observe(self._changed, names="value")
        self._show(start)

    def _first_sizes(self):
        wanted = {"sample": 4, "channel": 8, "position": 4 if self._letters == "NCHW" else 6}
        return [wanted[ROLES[letter]] for letter in self._letters]

    def _build(self, largest, start) -> list[w.Widget]:
        """The controls, row by row; each axis keeps its colour."""
        state, add = self.state, self.controls
        names = {row.name: key for key, row in METHODS.items()}
        # Not Dropdown: JupyterLab 4 takes a list's arrow keys for its own and leaves the widget
        add["method"] = w.SelectionSlider(
            options=names, value=state.method, description="method", layout=w.Layout(width="420px")
        )
        channels = start[axes_of(start, state.layout).channel]
        add["groups"] = w.SelectionSlider(
            options=_choices(channels),
            value=state.num_groups,
            description="groups G",
            layout=w.Layout(width="240px"),
        )
        add["color"] = w.ToggleButtons(
            options=["set", "value"],
            value=state.color,
            description="colour by",
            style={"button_width": "60px"},
            layout=w.Layout(width="260px"),
        )
        add["step"] = w.ToggleButtons(
            options=view.STEPS,
            value=state.step,
            description="step",
            style={"button_width": "70px"},
            layout=w.Layout(width="460px"),
        )
        add["compare"] = w.Checkbox(value=False, description="all methods side by side", indent=False)
        columns = []
        for letter, most, size, at in zip(self._letters, largest, start, state.cursor, strict=True):
            color = AXIS_COLORS[ROLES[letter]]
            head = _html(
                f'<b style="color:{color};background:{PAPER};padding:0 6px">{letter} ({AXIS_NAMES[letter]})</b>'
            )
            look = {"layout": w.Layout(width="225px"), "style": {"description_width": "62px"}}
            add[letter] = int_slider(letter, size, 1, most, **look)
            add[letter.lower()] = int_slider(f"cursor {letter.lower()}", at, 0, size - 1, **look)
            columns.append(w.VBox([head, add[letter], add[letter.lower()]]))
        slim = w.Layout(width="300px")
        add["eps"] = eps_slider(state.eps, slim)
        add["gamma"] = w.FloatSlider(
            value=1.0, min=-3, max=3, step=0.1, description="γ (affine)", layout=slim
        )
        add["beta"] = w.FloatSlider(value=0.0, min=-3, max=3, step=0.1, description="β (affine)", layout=slim)
        flow = w.Layout(flex_flow="row wrap", align_items="center")
        rows = (("method", "groups", "compare"), columns, ("color", "step"), ("eps", "gamma", "beta"))
        return [w.HBox([add.get(child, child) for child in row], layout=flow) for row in rows]

    @contextmanager
    def _quiet(self):
        """Set several controls as one change: their own events are not ours to answer."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    def _changed(self, change) -> None:
        if not self._busy:
            if change["owner"] is self.controls["groups"]:
                self._chosen_groups = change["new"]
            self._show(tuple(self.controls[letter].value for letter in self._letters))

    def _show(self, sizes: tuple[int, ...]) -> None:
        """Read the controls, bring the dependent ones in line, draw once."""
        controls = self.controls
        with self._quiet():
            sizes = tuple(
                min(size, controls[letter].max) if not controls[letter].disabled else 1
                for letter, size in zip(self._letters, sizes, strict=True)
            )
            axes = axes_of(sizes, self.state.layout)
            for letter, size in zip(self._letters, sizes, strict=True):
                cursor = controls[letter.lower()]
                if size == cursor.max + 1 and not cursor.disabled:
                    continue
                with cursor.hold_sync():
                    cursor.value = min(cursor.value, size - 1)
                    cursor.max, cursor.disabled = max(size - 1, 1), size == 1
                if controls[letter].value != size:
                    controls[letter].value = size
            groups = controls["groups"]
            if tuple(groups.options) != _choices(axes.channels):
                # The nearest divisor to what the reader chose last, so that moving C back and forth feels calm
                keep = max(g for g in divisors(axes.channels) if g <= self._chosen_groups)
                # One message: a slider that is told its new ends first clamps, and sends its own value back
                with groups.hold_sync():
                    groups.options = _choices(axes.channels)
                    groups.value = keep
            used = method_row(controls["method"].value).grouped or controls["compare"].value
            groups.disabled = not used or axes.channels == 1
        self.state = view.State(
            method=controls["method"].value,
            cursor=tuple(controls[letter.lower()].value for letter in self._letters),
            num_groups=groups.value,
            layout=self.state.layout,
            **{name: controls[name].value for name in ("color", "step", "eps", "gamma", "beta", "compare")},
        )
        apart_from_cursor = (sizes, replace(self.state, cursor=()))
        if apart_from_cursor != self._known:
            self._known = apart_from_cursor
            self.x = torch.from_numpy(self._take(sizes))
            self.reading = view.read(self.x, self.state)
        else:
            self.reading = view.read(self.x, self.state, self.reading)
        scene = view.scene(self.x, self.state, self.reading)
        self._paint(scene, self._words())

    def _words(self) -> str:
        reading, state = self.reading, self.state
        if reading.deviation is None:
            check = "was not run"
        else:
            check = f"ran just now: on this tensor it is within {reading.deviation:.1e} of <code>nv.normalize</code>"
        note = f"<p>{escape(self._note)}</p>" if self._note else ""
        sentences = " ".join(escape(text) for text in view.reading_text(reading, state))
        return (
            f'<p class="reading">{sentences}</p>{note}'
            f'<pre style="{COLORS};font-size:13px;white-space:pre-wrap">{escape(reading.snippet)}</pre>'
            f"<p>The code above {check}.</p>"
        )

    def twin(self):
        return view.scene(self.x, self.state, self.reading, with_caption=True)


def explore_axes(x=None, *, layout: str = "NCHW", method: str = "batch") -> AxesExplorer:
    """An explorer of which cells share a mean and a variance, on a tensor of yours or on real digits.

    x: floating-point or integer tensor or array, (N, C), (N, C, L), (N, C, H, W), or (B, T, D) with layout "BTD";
        None for four handwritten digits through a bank of edge and blob filters.  A tensor larger than the sliders
        reach is explored by its first part, and the explorer says so.
    method: the key that it starts with.

    Raises TypeError if x is not numeric; ValueError for a wrong rank, an empty axis, an unknown layout or method.
    """
    method_row(method)
    if x is None:
        if layout != "NCHW":
            raise ValueError(
                f"layout={layout!r} needs a tensor x of your own; the digits are in layout 'NCHW'"
            )
        return AxesExplorer(lambda sizes: digit_features(*sizes), (8, 8, 8, 8), layout=layout, method=method)
    values = as_array(x)
    values = values.astype(np.float64 if str(getattr(x, "dtype", "")).endswith("float64") else np.float32)
    axes = axes_of(values.shape, layout)
    largest = tuple(
        min(
            size,
            REACH[ROLES[letter]] * (8 if ROLES[letter] == "position" and len(axes.positions) == 1 else 1),
        )
        for size, letter in zip(axes.shape, axes.letters, strict=True)
    )
    note = ""
    if largest != axes.shape:
        part = ", ".join(f":{size}" for size in largest)
        note = (
            f"Your tensor has shape {axes.shape}; the sliders reach x[{part}], "
            "and the numbers are those of the part shown."
        )

    def take(sizes):
        return np.ascontiguousarray(values[tuple(slice(size) for size in sizes)])

    return AxesExplorer(take, largest, layout=layout, method=method, note=note)
