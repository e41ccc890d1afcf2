"""Charts of training: the alt text tells the numbers, no run is dropped, NaN is marked."""

import numpy as np
import pytest

from normviz.picture.curves import accuracy_chart, loss_curves, phase_map, ratio_curves, smooth
from normviz.picture.png import to_png
from normviz.picture.scene import Label, Shapes


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
