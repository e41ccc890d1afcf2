"""The explorer of notebook 06: what one norm layer costs, predicted and measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape

import ipywidgets as w

from normviz.costs import Machine
from normviz.picture import cost as view
from normviz.picture.widgets import SceneExplorer

BATCHES, TOKENS, WIDTHS = (1, 2, 4, 8, 16, 32, 64), (16, 64, 197), (48, 96, 192, 384, 768)


class CostExplorer(SceneExplorer):
    """Made by `explore_cost`.  `state` and `reading` are what is shown; controls: batch, tokens, width.

    `button` measures the sizes shown, in this kernel; `progress` counts its rounds.
    """

    def __init__(self, record: Mapping, measure: Callable[..., Mapping] | None, start: view.State):
        self._machine, self._measure = Machine.from_dict(record["machine"]), measure
        self._measured = {_sizes(row): row["seconds"] for row in record["layers"]}
        self.button = w.Button(
            description="measure here", disabled=measure is None, tooltip="time these layers in this kernel",
            layout=w.Layout(width="130px"),
        )  # fmt: skip
        self.progress = w.IntProgress(0, 0, 1, layout=w.Layout(width="120px", visibility="hidden"))
        self.note = w.HTML()
        super().__init__({
            "batch": _slider("batch", BATCHES, start.batch),
            "tokens": _slider("tokens", TOKENS, start.tokens),
            "width": _slider("width", WIDTHS, start.width),
        })  # fmt: skip
        self.children = (
            self.children[0],
            w.HBox([self.button, self.progress, self.note]),
            *self.children[1:],
        )
        self.button.on_click(lambda button: self._run())

    def scene(self, with_text: bool = False):
        self.state = view.State(**{name: control.value for name, control in self.controls.items()})
        sizes = (self.state.batch, self.state.tokens, self.state.width)
        self.reading = view.read(self.state, self._machine, self._measured.get(sizes))
        return view.scene(self.state, self.reading, with_text=with_text)

    def _run(self) -> None:
        """Measure the sizes shown; the sliders rest meanwhile, and an error is told instead of raised."""
        sizes, rounds = (self.state.batch, self.state.tokens, self.state.width), 9
        self.progress.max, self.progress.value = rounds, 0
        self.progress.layout.visibility = "visible"
        resting = [self.button, *self.controls.values()]
        for control in resting:
            control.disabled = True

        def tell(line: str) -> None:
            self.progress.value += 1

        try:
            row = self._measure(*sizes, rounds=rounds, tell=tell)
            self._measured[sizes] = dict(row["seconds"])
            self.note.value = ""
        except Exception as error:  # out of memory, say: the explorer lives on
            self.note.value = f"<span role='alert'>could not be measured: {escape(str(error))}</span>"
        finally:
            for control in resting:
                control.disabled = False
            self.progress.layout.visibility = "hidden"
        self._show()


def _sizes(row: Mapping) -> tuple[int, int, int]:
    return row["batch"], row["tokens"], row["width"]


def _slider(name: str, options: tuple[int, ...], value: int) -> w.SelectionSlider:
    named = [(str(option), option) for option in options]
    return w.SelectionSlider(options=named, value=value, description=name, layout=w.Layout(width="270px"))


def explore_cost(
    record: Mapping,
    measure: Callable[..., Mapping] | None = None,
    *,
    batch: int = 16,
    tokens: int = 64,
    width: int = 192,
) -> CostExplorer:
    """An explorer of what LN, BN in evaluation and folded BN cost on tokens of any size, predicted and measured.

    record: as `lab.measure_layers` gives it: a calibrated machine and layers timed at some sizes.
    measure: `lab.time_layers`, or another function of (batch, tokens, width, rounds=, tell=) for the button.

    Raises ValueError, naming the argument, for a record without a machine or a size that the sliders do not have.
    """
    if not {"machine", "layers"} <= set(record):
        raise ValueError(
            f"record has {', '.join(record) or 'nothing'}; it takes what lab.measure_layers gives"
        )
    for name, value, allowed in (
        ("batch", batch, BATCHES),
        ("tokens", tokens, TOKENS),
        ("width", width, WIDTHS),
    ):
        if value not in allowed:
            raise ValueError(f"{name}={value!r} must be one of {allowed}")
    return CostExplorer(record, measure, view.State(batch, tokens, width))


def draw_cost(record: Mapping, batch: int = 16, tokens: int = 64, width: int = 192):
    """What `explore_cost` shows at one size, as a matplotlib Figure with alt text.  Raises as it does."""
    from normviz.picture.png import figure

    return figure(explore_cost(record, batch=batch, tokens=tokens, width=width).twin())
