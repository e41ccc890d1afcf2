"""Charts of training: the alt text tells the numbers, no run is dropped, NaN is marked."""

import math

import numpy as np
import pytest

from normviz.picture.curves import (
    accuracy_chart,
    loss_curves,
    outlier_ratios,
    phase_map,
    ratio_curves,
    smooth,
)
from normviz.picture.png import to_png
from normviz.picture.scene import Label, Shapes, arrange


def words(scene):
    return [item.text for item in scene.items if isinstance(item, Label)]


def test_loss_tells_the_last_tenth_and_marks_nan():
    good, bad = np.linspace(2, 1, 100), np.full(100, 2.0)
    bad[50:] = np.nan
    scene = loss_curves({"ln": [good], "bn": [bad, good + 1]})
    assert f"LN (1 run): mean loss of the last tenth {good[-10:].mean():.2f}" in scene.alt
    assert "1 not finite" in scene.alt
    assert words(scene).count("× NaN") == 1
    assert to_png(scene).startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="runs"):
        loss_curves({})


def test_smoothing_is_a_trailing_mean():
    curve = np.random.default_rng(0).random(30)
    expected = [curve[max(0, i - 4) : i + 1].mean() for i in range(30)]
    np.testing.assert_allclose(smooth(curve, 5), expected)


def test_ratio_names_peak_and_bound():
    scene = ratio_curves({"bn": ([0, 10, 20], [2.0, 31.3, 5.0])}, 31.98)
    assert "BN reaches 31.3; the bound is 31.98" in scene.alt


def test_every_run_has_a_square_and_a_dot():
    cells = {(0.0, "gelu"): ["trained", "stalled"], (1.0, "gelu"): ["crashed"]}
    scene = phase_map({"bn": cells}, x_name="σ", y_name="FFN")
    squares = [item for item in scene.items if getattr(item, "name", "") == "verdict"]
    assert len(squares) == 3
    scene = accuracy_chart({"tame": {"ln": [0.9, 0.8, 0.7]}})
    dots = next(i for i in scene.items if isinstance(i, Shapes) and i.name == "mark-ln")
    assert len(dots.points) == 3 and "80.0 ± 10.0 %" in scene.alt


def test_ratios_of_histories_are_the_largest_over_the_blocks():
    from types import SimpleNamespace

    def run(arm, steps, rows):
        probes = {"step": steps, "norm2_outlier": rows}
        return SimpleNamespace(recipe=SimpleNamespace(arm=arm), probes=probes if steps else {})

    runs = [
        run("bn", [0, 10], [[1.0, 3.0], [2.0, math.nan]]),
        run("ln", [], []),
        run("bn", [0], [[4.0, 5.0]]),
    ]
    found = outlier_ratios(runs)
    assert list(found) == ["bn"]
    np.testing.assert_array_equal(found["bn"][0], ([0, 10], [3, 2]))
    np.testing.assert_array_equal(found["bn"][1], ([0], [5]))


def test_an_axis_can_reach_further_than_the_curves():
    def ends(scene):
        return max(int(word) for word in words(scene) if word.isdigit())

    curve = np.linspace(2, 1, 100)
    assert ends(loss_curves({"ln": curve})) == 100
    assert ends(loss_curves({"ln": curve}, steps=400)) == 400
    assert ends(ratio_curves({"ln": ([0, 50], [1, 2])}, 30, steps=400)) == 400
    assert "over 100 steps" in loss_curves({"ln": curve}, steps=400).alt


def test_pictures_side_by_side_keep_their_size_and_words():
    one, two = loss_curves({"ln": np.linspace(2, 1, 9)}), loss_curves({"bn": np.linspace(2, 1, 9)})
    both, column = arrange([one, two], 2, gap=10), arrange([one, two], gap=10)
    assert (both.width, both.height) == (2 * one.width + 10, one.height)
    assert (column.width, column.height) == (one.width, 2 * one.height + 10)
    assert both.alt == f"{one.alt} {two.alt}"
    moved = [item for item in both.items[len(one.items) :] if isinstance(item, Label)]
    kept = [item for item in two.items if isinstance(item, Label)]
    assert all((a.x, a.y) == (b.x + one.width + 10, b.y) for a, b in zip(moved, kept, strict=True))
