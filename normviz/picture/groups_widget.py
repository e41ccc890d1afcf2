"""The explorer of notebook 04: one slider from LayerNorm to InstanceNorm, and what of a change gets through."""

from __future__ import annotations

import ipywidgets as w

from normviz.picture import groups as view
from normviz.picture.png import figure
from normviz.picture.widgets import SceneExplorer, buttons

#: What the sliders reach; a state of one's own keeps to the same
REACH = {"contrast": (0.2, 2.0), "brightness": (-0.5, 0.5), "gain": (0.2, 3.0)}


class GroupsExplorer(SceneExplorer):
    """Made by `explore_groups`.  `state` and `reading` are what is shown; controls: groups, image, contrast, …"""

    def __init__(self, start: view.State):
        wide = w.Layout(width="270px")

        def slider(name: str, label: str) -> w.FloatSlider:
            low, high = REACH[name]
            value = getattr(start, name)
            return w.FloatSlider(
                value=value,
                min=low,
                max=high,
                step=0.1,
                readout_format=".1f",
                description=label,
                layout=wide,
                style={"description_width": "90px"},
            )

        super().__init__(
            {
                "groups": w.SelectionSlider(
                    options=[(str(g), g) for g in view.GROUPS],
                    value=start.groups,
                    description="groups G",
                    layout=wide,
                ),
                "image": buttons("image", list(view.IMAGES), start.image, "80px"),
            },
            {
                "contrast": slider("contrast", "contrast ×"),
                "brightness": slider("brightness", "brightness +"),
                "gain": slider("gain", f"“{view.MAPS[view.LOUD]}” ×"),
            },
        )

    def scene(self, with_text: bool = False):
        # Sliders of the browser know no tenths: 0.30000000000000004
        get = {name: round(c.value, 6) if name in REACH else c.value for name, c in self.controls.items()}
        self.state = view.State(**get)
        self.reading = view.read(self.state)
        return view.scene(self.state, self.reading, with_text=with_text)


def _state(num_groups: int, image: str, contrast: float, brightness: float, gain: float) -> view.State:
    if isinstance(num_groups, bool) or num_groups not in view.GROUPS:
        raise ValueError(
            f"num_groups={num_groups!r} does not divide C={len(view.MAPS)}; it takes one of {list(view.GROUPS)}"
        )
    if image not in view.IMAGES:
        raise ValueError(f"image={image!r} is unknown; it takes one of {', '.join(map(repr, view.IMAGES))}")
    for name, value in (("contrast", contrast), ("brightness", brightness), ("gain", gain)):
        low, high = REACH[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise ValueError(f"{name}={value!r} must be a number from {low:g} to {high:g}")
    return view.State(image, int(num_groups), float(contrast), float(brightness), float(gain))


def explore_groups(
    num_groups: int = 1,
    *,
    image: str = "temple",
    contrast: float = 0.5,
    brightness: float = 0.2,
    gain: float = 1.0,
) -> GroupsExplorer:
    """An explorer of GroupNorm between its ends: an image and a changed copy of it, eight feature maps, G groups.

    num_groups: G, a divisor of 8: 1 has the sets of LayerNorm over the whole sample, 8 those of InstanceNorm.
    image: "temple", "flower" (photographs) or "digit".  contrast, brightness: the copy is contrast · image +
    brightness.  gain: times which the copy's map of vertical edges is taken, a change inside of one channel.

    Raises ValueError, naming the argument, for groups that do not divide 8, an unknown image, or a number out of
    the sliders' reach.  Source: Wu & He, "Group Normalization" (ECCV 2018), section 3.2.
    """
    return GroupsExplorer(_state(num_groups, image, contrast, brightness, gain))


def draw_groups(
    num_groups: int = 1,
    *,
    image: str = "temple",
    contrast: float = 0.5,
    brightness: float = 0.2,
    gain: float = 1.0,
):
    """What `explore_groups` shows, as a matplotlib Figure with its alt text beneath; arguments and errors as there."""
    state = _state(num_groups, image, contrast, brightness, gain)
    return figure(view.scene(state, view.read(state), with_text=True))
