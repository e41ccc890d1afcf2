"""Charts of runs: the alt text tells the numbers, no run is dropped, NaN is marked."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from normviz import draw
from normviz.arms import KINDS
from normviz.picture.png import to_png
from normviz.picture.scene import Label, Scene, Shapes, Strokes
from normviz.series import smooth

CURVE = np.linspace(2, 1, 100)


def words(scene):
    return [item.text for item in scene.items if isinstance(item, Label)]


def named(scene, name):
    return [item for item in scene.items if getattr(item, "name", "") == name]


def test_loss_tells_the_last_tenth_and_marks_nan():
    good, bad = CURVE, np.full(100, 2.0)
    bad[50:] = np.nan
    scene = draw.loss_scene({"ln": [good], "bn": [bad, good + 1, bad]})
    assert f"LN (1 run): mean loss of the last tenth {good[-10:].mean():.2f}" in scene.alt
    assert "BN (3 runs)" in scene.alt and "2 not finite" in scene.alt
    assert words(scene).count("× NaN") == 2 and not scene.overlaps()
    assert to_png(scene).startswith(b"\x89PNG")
    assert "loss not finite in 1 of 1 run." in draw.loss_scene({"bn": [np.full(9, np.nan)]}).alt


def test_what_is_shown_is_smoothed_as_what_is_judged():
    curve = np.random.default_rng(0).random(200)
    scene = draw.loss_scene({"ln": curve}, chance=1.0)
    line, one = named(scene, "median-ln")[0].points, named(scene, "chance")[0].points[0, 0, 1]  # where the loss is 1
    zero = named(scene, "grid")[0].points[0, 0, 1]
    shown = (zero - np.concatenate([line[:1, 0, 1], line[:, 1, 1]])) / (zero - one)
    np.testing.assert_allclose(shown, smooth(curve), atol=1e-6)


def test_runs_may_be_histories_arrays_or_tensors():
    run = SimpleNamespace(recipe=SimpleNamespace(arm="ln"), loss=CURVE.tolist())
    grown = torch.tensor(CURVE, requires_grad=True)
    scenes = [draw.loss_scene(runs) for runs in ([run], {"ln": CURVE}, {"ln": [CURVE]}, {"ln": [grown]})]
    assert len({scene.alt for scene in scenes}) == 1


def test_a_history_may_be_wordless_and_annotated():
    scene = draw.loss_scene({"ln": CURVE}, keyed=False, note="trained: LN 1/1", heading="GELU")
    assert "LN" not in words(scene) and "trained: LN 1/1" in words(scene) and "GELU" in words(scene)
    assert "LN" in words(draw.loss_scene({"ln": CURVE}))


def test_ratio_names_peak_and_bound():
    scene = draw.ratios_scene({"bn": ([0, 10, 20], [2.0, 31.3, 5.0]), "ln": ([0, 10], [math.nan] * 2)}, 31.98)
    assert "BN reaches 31.3, LN reaches nan; the bound is 31.98" in scene.alt
    ticks = [word for word in words(scene) if word in ("1", "2", "5", "10", "20", "50")]
    assert len(ticks) >= 3


def test_every_run_has_a_square_and_a_dot():
    cells = {(0.0, "gelu"): ["trained", "stalled"], (1.0, "gelu"): ["crashed", "delayed"]}
    scene = draw.phase_map_scene({"bn": cells}, x_name="σ", y_name="FFN")
    assert len(named(scene, "verdict")) == 4
    assert "BN: 1 trained, 1 slow, 1 stalled, 1 crashed" in scene.alt
    letters = words(scene)
    assert all(letters.count(kind.letter) == 2 - (key == "diverged") for key, kind in KINDS.items())
    scene = draw.accuracies_scene({"tame": {"ln": [0.9, 0.8, 0.7], "bn": [0.5]}})
    assert len(named(scene, "mark-ln")[0].points) == 3
    assert "LN: 80.0 ± 10.0 %; tame, BN: 50.0 %." in scene.alt
    at = named(scene, "mark-ln")[0].points.mean(axis=1)[:, 0]
    zero, one = (item.x for item in scene.items if isinstance(item, Label) and item.text in "01")
    np.testing.assert_allclose((at - zero) / (one - zero), [0.9, 0.8, 0.7], atol=1e-6)


def test_a_sweep_has_a_mark_a_seed_and_a_band():
    scene = draw.sweep_scene({"bn": {2: [0.5, 0.3], 8: [0.1, 0.0]}, "ln": {2: [0.2]}}, "size", "error", percent=True)
    assert scene.alt == "Error over size, means of 1 to 2 seeds. BN: 5 at 8, 40 at 2; LN: 20 at 2."
    assert len(named(scene, "mark-bn")[0].points) == 4 and named(scene, "band-bn")
    order = [item.name for item in scene.items if getattr(item, "name", "")[:5] in ("band-", "mean-")]
    assert order == sorted(order)  # bands lie beneath the lines


def test_ratios_of_histories_are_the_largest_over_the_blocks():
    def run(arm, steps, rows):
        probes = {"step": steps, "norm2_outlier": rows}
        return SimpleNamespace(recipe=SimpleNamespace(arm=arm), probes=probes if steps else {})

    runs = [run("bn", [0, 10], [[1.0, 3.0], [2.0, math.nan]]), run("ln", [], []), run("bn", [0], [[4.0, 5.0]])]
    found = draw.outlier_ratios(runs)
    assert list(found) == ["bn"]
    np.testing.assert_array_equal(found["bn"][0], ([0, 10], [3, 2]))
    np.testing.assert_array_equal(found["bn"][1], ([0], [5]))


def test_an_axis_can_reach_further_than_the_curves():
    def ends(scene):
        return max(int(word) for word in words(scene) if word.isdigit())

    assert ends(draw.loss_scene({"ln": CURVE})) == 100
    assert ends(draw.loss_scene({"ln": CURVE}, steps=400)) == 400
    assert ends(draw.ratios_scene({"ln": ([0, 50], [1, 2])}, 30, steps=400)) == 400
    assert "over 100 steps" in draw.loss_scene({"ln": CURVE}, steps=400).alt


def evaluations(*rows):
    names = ("step", "train_loss", "batch_loss", "loss")
    return SimpleNamespace(recipe=SimpleNamespace(arm="bn"), evals=[dict(zip(names, row, strict=True)) for row in rows])


def test_a_test_loss_that_is_not_finite_is_a_cross():
    history = evaluations((1, 2.0, 2.1, 2.2), (2, 1.0, 1.1, 9.5), (3, 0.5, 0.6, math.nan))
    scene = draw.evaluation_scene([history])
    assert words(scene).count("×") == 1 and "× not finite" in words(scene)
    assert "training loss 0.5 at the end, test loss 0.6" in scene.alt
    assert "up to 9.5, not finite in 1 of 3 evaluations" in scene.alt
    assert sum(len(item.points) for item in named(scene, "dots")) == 8
    assert "× not finite" not in words(draw.evaluation_scene([evaluations((1, 2.0, 2.1, 2.2))]))


LABELLED = {
    "loss": lambda: draw.loss_scene({"ln": CURVE, "bn": [CURVE + 1, CURVE * np.nan], "bn+ffnbn": CURVE}, log=True),
    "small loss": lambda: draw.loss_scene({"ln": CURVE}, heading="SwiGLU with jitter from half time", size=(472, 290)),
    "ratios": lambda: draw.ratios_scene({"bn": ([0, 10, 20], [2.0, 31.3, 5.0])}, 31.98),
    "phase map": lambda: draw.phase_map_scene(
        {arm: {(x, y): ["trained"] * 3 for x in (0, 1, 2) for y in ("gelu", "swiglu")} for arm in ("ln", "bn")},
        x_name="jitter σ", y_name="kind of the feed-forward network", heading="Verdicts",
    ),
    "accuracies": lambda: draw.accuracies_scene(
        {"SwiGLU with jitter from half time and more": {"ln": [0.9], "bn+ffnbn-before": [0.2, 0.3]}}
    ),
    "sweep": lambda: draw.sweep_scene({"bn": {2.0**k: [0.1 / 2**k] for k in range(9)}}, "size", "error"),
    "evaluation": lambda: draw.evaluation_scene([evaluations((1, 2.0, 2.1, 2.2), (2, 0.5, 0.6, math.nan))]),
    "padding": lambda: draw.padding_scene({"bn": [0, 1, 2], "ln": [0, 0, 0]}, [0, 8, 16]),
    "histograms": lambda: draw.histograms_scene({"half contrast, running": CURVE, "the batch's own": -CURVE}),
    "many arms": lambda: draw.loss_scene(dict.fromkeys(("ln", "bn", "rms", "dyt", "bn+ffnbn", "a b"), CURVE)),
}  # fmt: skip


@pytest.mark.parametrize("name", LABELLED)
def test_labels_stay_on_the_sheet_and_apart(name):
    scene = LABELLED[name]()
    assert isinstance(scene, Scene) and scene.alt
    assert not scene.labels_outside()
    assert not scene.overlaps()
    for item in scene.items:
        if isinstance(item, (Shapes, Strokes)):
            assert np.isfinite(item.points).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: draw.loss({}), "runs={}"),
        (lambda: draw.loss([]), "runs="),
        (lambda: draw.ratios({}, 30), "runs={}"),
        (lambda: draw.accuracies({}), "accuracies={}"),
        (lambda: draw.accuracies({"tame": {}}), "has an empty place"),
        (lambda: draw.ratios({"ln": []}, 32.0), "an arm without any"),
        (lambda: draw.accuracies({"tame": {"ln": []}}), "accuracies="),
        (lambda: draw.phase_map({}, x_name="x", y_name="y"), "verdicts={}"),
        (lambda: draw.phase_map({"ln": {(0, 0): ["trainde"]}}, x_name="x", y_name="y"), "'trained'"),
        (lambda: draw.evaluation([]), "histories"),
        (lambda: draw.cost_ratios([]), "records"),
        (lambda: draw.sweep({}, "x", "y"), "values={}"),
        (lambda: draw.sweep({"ln": {0: [1]}}, "x", "y"), "setting 0"),
        (lambda: draw.sweep({"ln": {1: [math.nan]}}, "x", "y"), "not finite"),
        (lambda: draw.padding({}, [1]), "changes={}"),
        (lambda: draw.padding({"ln": [1, 2]}, [1]), "changes has shapes"),
        (lambda: draw.histograms({}), "panels={}"),
        (lambda: draw.histograms({"a": [np.nan]}), "finite"),
    ],
)
def test_nothing_to_draw_is_named(call, words):
    with pytest.raises(ValueError, match=r".") as caught:
        call()
    assert words in str(caught.value)


def test_curves_that_are_no_arms_are_told_apart():
    from normviz.arms import ARMS, SLATE, styles_of

    styles = styles_of(["ln", "64 at once", "16 times 4"])
    assert styles["ln"] is ARMS["ln"] and styles["64 at once"].name == "64 at once"
    looks = {(style.color, style.marker, style.dashed) for style in styles.values()}
    assert len(looks) == 3 and styles_of(["mine"])["mine"].color == SLATE
