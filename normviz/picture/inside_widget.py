"""The explorers of notebook 07: inside a recorded run, and what an FFN does to a token that grows."""

from __future__ import annotations

import ipywidgets as w
import numpy as np

from normviz.picture import inside as view
from normviz.picture import inside_eval as after
from normviz.picture.curves import style_of
from normviz.picture.widgets import SceneExplorer, buttons, int_slider


def _checked(looks) -> dict[str, list[dict]]:
    """Records by arm, all at the same steps.  Raises ValueError."""
    looks = {name: list(records) for name, records in looks.items()}
    steps = {name: [look["step"] for look in records] for name, records in looks.items()}
    if not looks or not all(steps.values()):
        raise ValueError(f"looks={looks!r} holds no record; it takes arm -> a list of looks, see lab.Inside")
    if len({tuple(found) for found in steps.values()}) > 1:
        raise ValueError(f"looks has unlike steps, {steps}; all arms need the same")
    return looks


def _plain(images) -> np.ndarray:
    """Images as float (n, H, W)."""
    images = np.asarray(images, float)
    return images[:, 0] if images.ndim == 4 else images


def _steps(looks: dict[str, list[dict]]) -> list[tuple[str, int]]:
    """Options of a slider; a single step twice, since a slider needs two ends."""
    steps = [(str(look["step"]), i) for i, look in enumerate(next(iter(looks.values())))]
    return steps if len(steps) > 1 else [*steps, (f"{steps[0][0]} ", 0)]


class InsideExplorer(SceneExplorer):
    """Made by `explore_inside`.  `state` and `reading` are what is shown; controls: arm, block, site, step."""

    def __init__(self, looks, images, tokens, patch, start):
        self._looks, self._images, self._tokens, self._patch = looks, images, tokens, patch
        first = looks[start.arm]
        blocks = len(first[0]["norm2"])
        wide = w.Layout(width="260px")
        super().__init__({
            "arm": buttons("arm", [(style_of(arm).name, arm) for arm in looks], start.arm, "110px"),
            "site": buttons("site", list(view.SITES), start.site, "70px"),
            "block": int_slider("block", start.block, 0, blocks - 1, layout=wide),
            "step": w.SelectionSlider(options=_steps(looks), value=start.look, description="step", layout=wide),
        })  # fmt: skip

    def scene(self, with_text: bool = False):
        get = {name: control.value for name, control in self.controls.items()}
        self.state = view.State(get["arm"], get["block"], get["site"], get["step"])
        self.reading = view.read(self._looks, self.state, self._tokens)
        look = self._looks[self.state.arm][self.state.look]
        return view.scene(
            self._images, look, self.state, self.reading, patch=self._patch, with_text=with_text
        )


def explore_inside(
    looks, images, *, patch: int = 2, arm: str | None = None, block: int = 0
) -> InsideExplorer:
    """An explorer of how long the tokens are inside of recorded runs, and which patches the longest come from.

    looks: arm -> list of the records that `lab.Inside` collects, all arms at the same steps.
    images: the training set that the records point into, (n, H, W) or (n, 1, H, W); patch: pixels a side.

    Raises ValueError, naming the argument, for no records, records at different steps, an unknown arm or block.
    """
    looks = _checked(looks)
    arm = arm or next(iter(looks))
    if arm not in looks:
        raise ValueError(f"arm={arm!r} has no record; it takes one of {', '.join(looks)}")
    first = looks[arm][0]
    if not 0 <= block < len(first["norm2"]):
        raise ValueError(f"block={block!r} is unknown; it takes 0 to {len(first['norm2']) - 1}")
    images = _plain(images)
    tokens = len(first["images"]) * (images.shape[-1] // patch) ** 2
    return InsideExplorer(looks, images, tokens, patch, view.State(arm, block, "norm2", len(looks[arm]) - 1))


class EvaluationExplorer(SceneExplorer):
    """Made by `explore_evaluation`.  `state` and `reading` are what is shown; controls: arm, step."""

    def __init__(self, looks, images, patch, start):
        self._looks, self._images, self._patch = looks, images, patch
        wide = w.Layout(width="300px")
        super().__init__({
            "arm": buttons("arm", [(style_of(arm).name, arm) for arm in looks], start.arm, "110px"),
            "step": w.SelectionSlider(options=_steps(looks), value=start.look, description="step", layout=wide),
        })  # fmt: skip

    def scene(self, with_text: bool = False):
        self.state = after.EvalState(self.controls["arm"].value, self.controls["step"].value)
        self.reading = after.read_evaluation(self._looks, self.state)
        return after.evaluation_scene(
            self._images, self.state, self.reading, patch=self._patch, with_text=with_text
        )


def explore_evaluation(looks, images, *, patch: int = 2, arm: str | None = None) -> EvaluationExplorer:
    """An explorer of the longest test token behind every block, by each batch's own statistics and by the running ones.

    looks: arm -> list of the records that `lab.Inside` collects, all arms at the same steps.
    images: the test set that the records point into, (n, H, W) or (n, 1, H, W); patch: pixels a side.

    Raises ValueError, naming the argument, for no records, records at different steps, or an unknown arm.
    """
    looks = _checked(looks)
    arm = arm or next(iter(looks))
    if arm not in looks:
        raise ValueError(f"arm={arm!r} has no record; it takes one of {', '.join(looks)}")
    if lacking := [name for name, records in looks.items() if "test" not in records[0]]:
        raise ValueError(
            f"looks has no test tokens in {', '.join(lacking)}; take the looks with this lab.Inside"
        )
    return EvaluationExplorer(looks, _plain(images), patch, after.EvalState(arm, len(looks[arm]) - 1))


class ScalingExplorer(SceneExplorer):
    """Made by `explore_scaling`.  `state` and `curves` are what is shown; controls: factor, front, ffn_bn, mode."""

    def __init__(self, start: view.Scaling):
        fronts = [(name, front) for front, name in view.FRONTS.items()]
        modes = [("training", False), ("evaluation", True)]
        super().__init__({
            "factor": w.SelectionSlider(
                options=view.FACTORS, value=start.factor, description="k", layout=w.Layout(width="300px")
            ),
            "front": buttons("in front", fronts, start.front, "70px"),
            "ffn_bn": w.Checkbox(value=start.ffn_bn, description="FFN-BN inside", indent=False),
            "mode": buttons("mode", modes, start.evaluation, "90px"),
        })  # fmt: skip

    def scene(self, with_text: bool = False):
        get = {name: control.value for name, control in self.controls.items()}
        self.state = view.Scaling(get["factor"], get["front"], get["ffn_bn"], get["mode"])
        self.curves = view.scaling_curves(self.state)
        return view.scaling_scene(self.state, self.curves, with_text=with_text)


def explore_scaling(factor: int = 8, front: str = "none") -> ScalingExplorer:
    """An explorer of what a GELU and a SwiGLU FFN answer to one token multiplied by k among 256 usual ones.

    Raises ValueError for a factor outside of `FACTORS` or an unknown front ("none", "ln", "bn").
    """
    if factor not in view.FACTORS:
        raise ValueError(f"factor={factor!r} must be one of {view.FACTORS}")
    if front not in view.FRONTS:
        raise ValueError(f"front={front!r} is unknown; it takes one of {', '.join(view.FRONTS)}")
    return ScalingExplorer(view.Scaling(factor, front))
