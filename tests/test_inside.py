"""The explorers of notebook 07 against torch, under random events; the caption is the alt text."""

import random
from html import escape

import numpy as np
import pytest
import torch

import normviz as nv
from normviz.picture.inside import EDGES, FACTORS, SITES
from normviz.picture.svg import to_svg


def make_looks(depth=3, batch=4, patches=16):
    """Looks of two arms at two steps, with the token lengths they were made from."""
    rng, looks, lengths = np.random.default_rng(0), {}, {}
    for arm in ("ln", "bn"):
        looks[arm] = []
        for i, step in enumerate((0, 10)):
            look = {"step": step, "images": list(range(batch)), "contrast": [1.0] * batch}
            for site in SITES:
                look[site] = []
                for block in range(depth):
                    x = rng.lognormal(size=(batch, patches))
                    x /= np.sqrt((x**2).mean())
                    lengths[arm, i, site, block] = x
                    order = np.argsort(-x.ravel())[:6]
                    top = [[*map(int, divmod(k, patches)), float(x.flat[k])] for k in order]
                    counts = np.histogram(x, EDGES)[0].tolist()
                    look[site].append({"ratio": float(x.max()), "counts": counts, "longest": top})
            looks[arm].append(look)
    return looks, lengths


def test_inside_shows_the_tokens_it_was_given_under_random_events():
    looks, lengths = make_looks()
    explorer = nv.explore_inside(looks, np.random.default_rng(1).random((4, 8, 8)))
    dice = random.Random(0)
    for _ in range(60):
        name = dice.choice(list(explorer.controls))
        control = explorer.controls[name]
        control.value = (
            dice.randrange(3)
            if name == "block"
            else dice.choice([o[1] if isinstance(o, tuple) else o for o in control.options])
        )
        state = explorer.state
        x = lengths[state.arm, state.look, state.site, state.block]
        assert explorer.reading.ratio == x.max()
        assert explorer.reading.counts.sum() == x.size
        assert explorer.reading.longest[0][:2] == np.unravel_index(x.argmax(), x.shape)
        assert explorer.reading.bound == pytest.approx(np.sqrt(x.size - 1))
        scene = explorer.scene()
        assert f"{x.max():.3g} times" in scene.alt and escape(scene.alt) in explorer._text.value
        assert to_svg(scene) in explorer._picture.value
        assert explorer.twin().alt == scene.alt


def test_inside_refuses_what_it_cannot_show():
    looks, _ = make_looks()
    for wrong, options, word in (
        ({}, {}, "looks"),
        (looks, {"arm": "rms"}, "arm"),
        (looks, {"block": 3}, "block"),
    ):
        with pytest.raises(ValueError, match=word):
            nv.explore_inside(wrong, np.zeros((4, 8, 8)), **options)


def test_scaling_is_linear_for_gelu_and_quadratic_for_swiglu():
    explorer = nv.explore_scaling(64)
    wide = np.log(FACTORS[-1] / FACTORS[-4])
    slopes = {kind: np.log(curve[-1] / curve[-4]) / wide for kind, curve in explorer.curves.items()}
    assert slopes["gelu"] == pytest.approx(1, abs=0.05)
    assert slopes["swiglu"] == pytest.approx(2, abs=0.05)


def test_scaling_front_agrees_with_torch_layers():
    from normviz.picture.inside import _batch_norm

    g = torch.Generator().manual_seed(3)
    usual, x = (torch.randn(32, 5, generator=g, dtype=torch.float64) for _ in range(2))
    layer = torch.nn.BatchNorm1d(5, affine=False, dtype=torch.float64)
    torch.testing.assert_close(_batch_norm(x, usual, False), layer(x))
    layer.running_mean, layer.running_var = usual.mean(0), usual.var(0, correction=0)
    torch.testing.assert_close(_batch_norm(x, usual, True), layer.eval()(x))


def test_layer_norm_in_front_cancels_the_factor():
    explorer = nv.explore_scaling(8, "ln")
    for curve in explorer.curves.values():
        np.testing.assert_allclose(curve, 1, rtol=1e-3)
    explorer.controls["factor"].value = 64
    assert explorer.state.factor == 64 and "token × 64" in explorer.twin().alt
