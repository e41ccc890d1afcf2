"""The explorer of notebook 05: BatchNorm's mean over the time step of a batch of unlike sequences."""

from __future__ import annotations

import ipywidgets as w

from normviz.picture import sequences as view
from normviz.picture.widgets import SceneExplorer, buttons, int_slider

_WIDE = w.Layout(width="265px")


class TimeExplorer(SceneExplorer):
    """Made by `explore_time`.  `state` and `reading` are what is shown; `controls` are the widgets by name:
    batch_size, step, seed, feature, per_step, masked."""

    def __init__(self, start: view.State):
        def pick(name, options, value):
            options = [(str(option), option) for option in options]
            return w.SelectionSlider(options=options, value=value, description=name, layout=_WIDE)

        last = view.digit_sequences()[0].shape[1] - 1
        sliders = {
            "batch_size": pick("batch size", view.SIZES, start.batch_size),
            "step": int_slider("time step", start.step, 0, last, layout=_WIDE),
            "seed": int_slider("seed", start.seed, 0, view.SEEDS - 1, layout=_WIDE),
        }
        scopes = [("per step", True), ("shared", False)]
        masks = [("left out", True), ("counted", False)]
        choices = {
            "per_step": buttons("statistics", scopes, start.per_step, "84px"),
            "masked": buttons("padding", masks, start.masked, "84px"),
            "feature": buttons("feature", list(view.FEATURES), start.feature, "74px"),
        }
        for choice in choices.values():
            # A gap between the groups; a narrow page moves one to the next line as a whole
            choice.layout.flex, choice.layout.margin = "0 0 auto", "2px 28px 2px 2px"
        super().__init__(sliders, choices)

    def scene(self, with_text: bool = False):
        self.state = view.State(**{name: control.value for name, control in self.controls.items()})
        self.reading = view.read(self.state)
        return view.scene(self.state, self.reading, with_text=with_text)


def explore_time(
    *,
    batch_size: int = 16,
    step: int = 35,
    per_step: bool = True,
    masked: bool = True,
    feature: str = "ink",
    seed: int = 0,
) -> TimeExplorer:
    """An explorer of BatchNorm's mean over time, on handwritten digits read as sequences of ink pixels.

    batch_size: of `sequences.SIZES`; step: 0 to 41, the time step looked at; feature: "row", "column" or "ink".
    per_step: statistics of each time step, or shared by all; masked: whether padding is left out; seed: 0 to 9.

    Raises ValueError, naming the argument, for anything outside of these.
    """
    return TimeExplorer(
        view.check_state(view.State(batch_size, step, bool(per_step), bool(masked), feature, seed))
    )
