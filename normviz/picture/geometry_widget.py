"""The explorers of notebook 03: tokens in space, and what a normalized output does not notice."""

from __future__ import annotations

import ipywidgets as w

from normviz.picture import geometry, invariance
from normviz.picture.widgets import SceneExplorer, buttons, eps_slider, int_slider

WIDE, SLIM = w.Layout(width="330px"), w.Layout(width="270px")  # three slim ones beside each other


def _float_slider(
    name: str, value: float, low: float, high: float, step: float, layout=SLIM
) -> w.FloatSlider:
    return w.FloatSlider(value=value, min=low, max=high, step=step, description=name, layout=layout)


class GeometryExplorer(SceneExplorer):
    """Made by `explore_geometry`.  `state` and `panels` are what is shown; controls by the fields of the state."""

    def __init__(self, start: geometry.State):
        kinds = [(name, key) for key, (name, _) in geometry.TOKENS.items()]
        last = len(geometry.STEPS) - 1
        step = _float_slider("step", start.step, 0, last, 0.1, WIDE)
        step.readout_format = ".1f"
        super().__init__(
            {
                "tokens": buttons("tokens", kinds, start.tokens, "110px"),
                "step": step,
            },
            {
                "turn": _float_slider("turn", start.turn, 0, 360, 5),
                "tilt": _float_slider("tilt", start.tilt, -90, 90, 5),
                "token": int_slider("token", start.token, 0, geometry.PLACES - 1, layout=SLIM),
            },
            {
                "images": int_slider("images", start.images, 1, geometry.MOST_IMAGES, layout=SLIM),
                "eps": eps_slider(start.eps, SLIM),
            },
            {
                "gamma": _float_slider("γ₁ (affine)", start.gamma, -2, 2, 0.1),
                "beta": _float_slider("β₁ (affine)", start.beta, -2, 2, 0.1),
            },
        )

    def scene(self, with_text: bool = False):
        self.state = geometry.State(**{name: control.value for name, control in self.controls.items()})
        self.panels = geometry.read(self.state)
        return geometry.geometry_scene(self.state, self.panels, with_text=with_text)


def explore_geometry(tokens: str = "filters", step: float = 2.0) -> GeometryExplorer:
    """An explorer of tokens of three features in space, under LayerNorm, RMSNorm and BatchNorm.

    tokens: "filters" (the answers of three filters on patches of digits) or "pixels" (three neighbouring pixels);
    step: where it starts, 0 (raw) to 3 (affine).  Raises ValueError, naming the argument, for anything else.
    """
    return GeometryExplorer(geometry.check(geometry.State(tokens=tokens, step=step)))


class InvarianceExplorer(SceneExplorer):
    """Made by `explore_invariance`.  `state` and `reading` are what is shown; controls by the fields of the state."""

    def __init__(self, start: invariance.State):
        scopes = [(name, key) for key, name in invariance.SCOPES.items()]
        modes = [("training", False), ("evaluation", True)]
        scales = [(f"{scale:g}", scale) for scale in invariance.SCALES]
        super().__init__(
            {
                "scope": buttons("change", scopes, start.scope, "100px"),
                "evaluation": buttons("mode", modes, start.evaluation, "90px"),
            },
            {
                "scale": w.SelectionSlider(
                    options=scales, value=start.scale, description="scale x", layout=SLIM
                ),
                "shift": _float_slider("shift x", start.shift, *invariance.SHIFTS, 0.25),
                "weights": w.SelectionSlider(
                    options=scales, value=start.weights, description="weights ×", layout=SLIM
                ),
            },
        )

    def scene(self, with_text: bool = False):
        self.state = invariance.State(**{name: control.value for name, control in self.controls.items()})
        self.reading = invariance.read(self.state)
        return invariance.invariance_scene(self.state, self.reading, with_text=with_text)


def explore_invariance(scope: str = "token", scale: float = 1.0, shift: float = 0.0) -> InvarianceExplorer:
    """An explorer of how far an output moves when the norm's input, or the weights in front of it, change.

    scope: "token", "feature" or "all", which cells become scale · x + shift; scale: one of `invariance.SCALES`;
    shift: −3 to 3.  Raises ValueError, naming the argument, for anything else.
    """
    return InvarianceExplorer(invariance.check(invariance.State(scope=scope, scale=scale, shift=shift)))
