"""Stacked bars of where the time goes: lengths that are the numbers, and refusals in words."""

import numpy as np
import pytest

from normviz import draw
from normviz.picture.scene import Label, Shapes

PARTS = {"calls": 0.002, "moving": 0.001}
BARS = {"here": {"LN": PARTS, "folded": {"calls": 0.001, "moving": 0.001}}, "there": {"LN": PARTS}}
TOOK = {"here": {"LN": 0.004, "folded": 0.002}, "there": {"LN": 0.0025}}


def pieces(scene):
    """(title, width) of every piece of a bar, in the order of drawing; those of the legend have no time."""
    for item in scene.items:
        if isinstance(item, Shapes) and ":" in item.titles[0]:
            x = np.asarray(item.points)[0][:, 0]
            yield item.titles[0], float(x.max() - x.min())


def test_a_bar_is_as_long_as_its_time():
    scene = draw.times_scene(BARS, TOOK)
    drawn = list(pieces(scene))
    titles = [title for title, _ in drawn]
    assert titles == [
        "calls: 2 ms", "moving: 1 ms", "not explained: 1 ms", "calls: 1 ms", "moving: 1 ms",  # nothing is left of 2 ms
        "calls: 2 ms", "moving: 1 ms",  # the model says more than was measured
    ]  # fmt: skip
    widths = [width for _, width in drawn]
    assert widths[0] == pytest.approx(2 * widths[1]) and widths[3] == pytest.approx(widths[4])
    assert widths[2] == pytest.approx(widths[1]) and sum(widths[:3]) == pytest.approx(2 * sum(widths[3:5]))
    texts = [item.text for item in scene.items if isinstance(item, Label)]
    assert {"4 ms", "2 ms", "2.5 ms", "C", "M", "here", "there"} <= set(texts)
    assert "LN 4 ms (calls 2 ms)" in scene.alt
    assert all(item.extent[0] >= 0 and item.extent[2] <= scene.width for item in scene.items if isinstance(item, Label))
    assert draw.times(BARS, TOOK).alt == scene.alt


@pytest.mark.parametrize(
    ("bars", "took", "named"),
    [
        ({}, {}, "machines="),
        ({"here": {"LN": {}}}, TOOK, "parts"),
        ({"here": {"LN": dict.fromkeys("abcde", 1.0)}}, TOOK, "parts"),
        ({"here": {"LN": PARTS, "folded": {"calls": 1.0}}}, TOOK, "parts"),
        ({"here": {"LN": {"calls": -1.0, "moving": 1.0}}}, TOOK, "0 or more"),
        ({"here": {"LN": PARTS}}, {"here": {"LN": 0.0}}, "measured"),
        ({"here": {"LN": PARTS}}, {}, "measured"),
    ],
)
def test_what_is_no_time_is_named(bars, took, named):
    with pytest.raises(ValueError, match=named):
        draw.times_scene(bars, took)
