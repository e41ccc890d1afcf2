"""The gradient at step 0 over depth, against the runs that it was given."""

import statistics
from types import SimpleNamespace

import numpy as np
import pytest

from normviz.arms import style_of
from normviz.explore.gradient import THREE, Gradient

DEPTHS, ARMS = (2, 4, 8, 16, 32), (*THREE, "dyt")


def make_rows():
    """Three networks of every kind; BN's gradient grows by 1.3 a block, every other's by 1.02."""
    rng, rows = np.random.default_rng(0), []
    for arm in ARMS:
        for ffn in ("gelu", "swiglu"):
            for sigma in (0.0, 1.0):
                for depth in DEPTHS:
                    size = (1.3 if arm == "bn" else 1.02) ** depth
                    rows += [(arm, ffn, sigma, depth, size * factor) for factor in rng.permutation([0.5, 1.0, 3.0])]
    return rows


ROWS = make_rows()


def named(scene, name):
    return [item for item in scene.drawn if getattr(item, "name", "") == name]


def of(arm, state, depth):
    return [norm for a, ffn, sigma, d, norm in ROWS if (a, ffn, sigma, d) == (arm, state.ffn, state.sigma, depth)]


def test_it_shows_medians_and_spread_of_the_networks_that_it_was_given():
    state, rng = Gradient(ROWS), np.random.default_rng(1)
    for _ in range(60):
        control = list(state.controls().values())[rng.integers(4)]
        state = state.turn(**{control.name: control.offers()[rng.integers(len(control.offers()))]})
        reading, scene = state.read(), state.scene()
        assert set(reading) == set(ARMS if state.arms == "all" else THREE)
        for arm, curve in reading.items():
            for k, depth in enumerate(DEPTHS):
                norms = of(arm, state, depth)
                assert tuple(curve.spread[:, k]) == (min(norms), statistics.median(norms), max(norms))
            assert curve.here == statistics.median(of(arm, state, state.depth))
            assert curve.growth == pytest.approx(1.3 if arm == "bn" else 1.02)
            size = f"{curve.here / 1e3:.3g} k" if curve.here >= 1e3 else f"{curve.here:.3g}"
            assert f"{style_of(arm).name} {size}, × {curve.growth:.2f} a block" in scene.alt
            (dots,) = named(scene, f"dots-{arm}")
            assert len(dots.points) == len(DEPTHS) and len(named(scene, f"band-{arm}")) == (state.arms == "three")
        assert scene.overlaps() == scene.labels_outside() == []


def test_the_growth_is_the_rule_of_the_study():
    from normviz.lab.conclusions import Runs, growth
    from normviz.lab.study import load_study

    some = [run for run in load_study("initial") if run.recipe.ffn == "swiglu" and run.recipe.sigma == 0]
    curves, runs = Gradient(some, arms="all").read(), Runs()
    runs._known["initial"] = some
    for arm, curve in curves.items():
        rule = growth(runs, arm, "swiglu", 0.0)
        assert np.log(curve.growth) == pytest.approx(rule.slope)
        assert dict(zip(curve.depths.tolist(), curve.spread[1], strict=True)) == rule.medians


def test_what_was_not_measured_is_left_out():
    state = Gradient([("bn", "swiglu", 0.0, 4, 2.0), ("bn", "swiglu", 0.0, 16, 30.0), ("ln", "gelu", 0.0, 4, 5.0)])
    assert list(state.read()) == ["bn"] and list(state.turn(ffn="gelu").read()) == ["ln"]
    assert state.turn(sigma=1.0).read() == {} and "none" in state.turn(sigma=1.0).scene().alt
    assert state.controls()["depth"].values == (4, 16)
    assert np.isnan(state.turn(ffn="gelu").read()["ln"].here)
    for each in (state, state.turn(ffn="gelu"), state.turn(sigma=1.0, arms="all")):
        assert each.scene().labels_outside() == []


def test_histories_and_rows_say_the_same():
    runs = [
        SimpleNamespace(recipe=SimpleNamespace(arm=arm, ffn=ffn, sigma=sigma, depth=depth), grad_norm=[norm, 99.0])
        for arm, ffn, sigma, depth, norm in ROWS
    ]
    assert Gradient(runs).scene().alt == Gradient(ROWS).scene().alt


@pytest.mark.parametrize(
    "runs", [[], [("bn", "swiglu", 0.0, 4)], [("bn", "gelu", 0.0, 4, float("nan"))], [("bn", "gelu", 0.0, 4, 0.0)],
             [("bn", "gelu", 0.0, 4, float("inf"))], [1], 7, [SimpleNamespace(recipe=None)]],
)  # fmt: skip
def test_refusals_say_what_it_takes(runs):
    with pytest.raises(ValueError, match=r"^runs has what is no run.*it takes histories"):
        Gradient(runs)


def test_a_depth_that_was_not_measured_is_refused():
    with pytest.raises(ValueError, match=r"^depth=3 must be one of 2, 4, 8, 16, 32"):
        Gradient(ROWS, depth=3)
    with pytest.raises(TypeError, match="runs"):
        Gradient()
