"""The explorers of notebook 07 against torch, under random events; the caption is the alt text."""

import random
import time
from html import escape
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import normviz as nv
from normviz.picture.curves import style_of
from normviz.picture.inside import EDGES, FACTORS, FEATURES, HIDDEN, SITES, TOKENS
from normviz.picture.inside_eval import evaluation_losses
from normviz.picture.scene import Label
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


def make_tests(depth=5, images=7, patches=16):
    """Looks with test tokens whose running lengths grow beyond all floats, and the lengths they were made from."""
    rng, looks, lengths = np.random.default_rng(2), {}, {}
    for arm, growth in (("ln", 1.0), ("bn", 3.0), ("bn+ffnbn", 400.0)):
        looks[arm] = []
        for i, step in enumerate((0, 30)):
            look = {"step": step, "test": {}} | {site: [{}] * depth for site in SITES}
            for name, power in (("batch", 1.0), ("running", growth)):
                blocks = (
                    rng.lognormal(size=(depth, images, patches)) * power ** np.arange(depth)[:, None, None]
                )
                if growth == 400 and name == "running":
                    blocks[3, 2, 5], blocks[4:] = np.inf, np.nan
                lengths[arm, i, name] = blocks
                at = [int(np.nan_to_num(block, nan=np.inf).argmax()) for block in blocks]
                rows = [[float(b.flat[k]), *divmod(k, patches)] for b, k in zip(blocks, at, strict=True)]
                look["test"][name] = rows
            looks[arm].append(look)
    return looks, lengths


def test_evaluation_shows_the_longest_test_tokens_under_random_events():
    looks, lengths = make_tests()
    explorer = nv.explore_evaluation(looks, np.random.default_rng(3).random((7, 8, 8)), arm="bn")
    assert explorer.state.look == 1
    dice = random.Random(1)
    for _ in range(40):
        control = explorer.controls[dice.choice(["arm", "step"])]
        control.value = dice.choice([option[1] for option in control.options])
        state, reading = explorer.state, explorer.reading
        batch, running = (lengths[state.arm, state.look, name] for name in ("batch", "running"))
        ends = {"batch": batch.max((1, 2)), "running": running.max((1, 2))}
        for name, longest in ends.items():
            np.testing.assert_array_equal(reading.lengths[name], longest)
        last = max(i for i in range(5) if np.isfinite(ends["running"][i]))
        assert reading.last == last
        assert reading.token == np.unravel_index(running[last].argmax(), running[last].shape)
        apart = [i for i in range(5) if not ends["running"][i] <= 2 * ends["batch"][i]]
        assert reading.apart == (apart[0] if apart else None)
        words = (
            f"Longest of all test tokens behind every block ({style_of(state.arm).name}, step {reading.step})"
        )
        assert words in explorer._picture.value and escape(reading.caption) in explorer._text.value
        assert ("not finite from block 3 on" in explorer._picture.value) == (state.arm == "bn+ffnbn")
        assert explorer.twin().alt == reading.caption


def test_evaluation_refuses_what_it_cannot_show():
    looks, _ = make_tests()
    for wrong, arm, word in (
        ({}, None, "looks"),
        (looks, "rms", "arm"),
        (looks | {"x": looks["ln"][:1]}, None, "unlike"),
    ):
        with pytest.raises(ValueError, match=word):
            nv.explore_evaluation(wrong, np.zeros((7, 8, 8)), arm=arm)
    with pytest.raises(ValueError, match="no test tokens in ln, bn"):
        nv.explore_evaluation(make_looks()[0], np.zeros((4, 8, 8)))


def test_losses_of_every_evaluation_are_drawn_and_told():
    def run(arm, rows):
        names = ("step", "train_loss", "batch_loss", "loss")
        return SimpleNamespace(
            recipe=SimpleNamespace(arm=arm), evals=[dict(zip(names, row, strict=True)) for row in rows]
        )

    histories = [
        run("ln", [(10, 2.0, 2.1, 2.1), (20, 0.5, 0.6, 0.6)]),
        run("bn+ffnbn", [(10, 2.0, 2.1, 3e7), (20, 0.5, 0.7, np.nan)]),
        run("bn+ffnbn", [(10, 1.0, 1.1, np.inf), (20, 0.3, 0.5, 9.0)]),
    ]
    scene = evaluation_losses(histories)
    assert "LN: training loss 0.5 at the end, test loss 0.6" in scene.alt
    assert "up to 0.6" not in scene.alt and "up to 2.1, not finite in 0 of 2 evaluations" in scene.alt
    assert "up to 3e+07, not finite in 2 of 4 evaluations" in scene.alt
    dots = sum(len(item.points) for item in scene.items if getattr(item, "name", "") == "dots")
    assert dots == 3 * 6 - 2 + 3  # every finite loss, and the key
    words = [item.text for item in scene.items if isinstance(item, Label)]
    assert words.count("×") == 2 and "BN + FFN-BN (2 runs)" in words
    assert nv.draw_evaluation(histories).alt == scene.alt
    with pytest.raises(ValueError, match="no evaluation"):
        nv.draw_evaluation([])


@pytest.mark.parametrize("make", [
    lambda: nv.explore_inside(make_looks(16, 64)[0], np.random.default_rng(1).random((64, 8, 8)), arm="bn"),
    lambda: nv.explore_evaluation(make_tests(16)[0], np.random.default_rng(1).random((7, 8, 8))),
    lambda: nv.explore_scaling(8),
])  # fmt: skip
def test_an_event_takes_few_milliseconds(make):
    explorer, times = make(), []
    for _ in range(15):
        start = time.process_time()
        explorer._show()
        times.append(time.process_time() - start)
    assert (
        sorted(times)[len(times) // 4] < 0.05
    )  # 15 ms on a quiet machine; three times that on one that is not


def test_scaling_shows_the_growth_of_torchs_own_layers_under_random_events():
    """The curves again from nn.Linear and nn.BatchNorm1d, after every event."""
    explorer, dice = nv.explore_scaling(), random.Random(5)
    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    parts = {}
    for kind, wide in (("gelu", HIDDEN), ("swiglu", 2 * HIDDEN)):
        g.manual_seed(0)
        parts[kind] = (
            draw(TOKENS, FEATURES),
            draw(FEATURES, wide) / FEATURES**0.5,
            draw(HIDDEN, FEATURES) / HIDDEN**0.5,
        )

    def norm(usual, evaluation):
        layer = torch.nn.BatchNorm1d(usual.shape[1], affine=False, momentum=1.0, dtype=torch.float64)
        if evaluation:
            layer(usual)
            layer.running_var.mul_((len(usual) - 1) / len(usual))  # torch stores the unbiased one
        return layer.train(not evaluation)

    def answer(kind, state, factor):
        usual, first, second = parts[kind]
        front = {
            "none": lambda: lambda x: x,
            "ln": lambda: torch.nn.LayerNorm(FEATURES, elementwise_affine=False, dtype=torch.float64),
            "bn": lambda: norm(usual, state.evaluation),
        }[state.front]

        def hidden(x):
            x = front()(x) @ first
            return F.gelu(x) if kind == "gelu" else F.silu(x[:, :HIDDEN]) * x[:, HIDDEN:]

        x = usual.clone()
        x[0] *= factor
        h = hidden(x)
        if state.ffn_bn:
            h = norm(hidden(usual), state.evaluation)(h)
        return (h @ second)[0].norm().item()

    for _ in range(25):
        name = dice.choice(list(explorer.controls))
        control = explorer.controls[name]
        options = getattr(control, "options", (True, False))
        control.value = dice.choice([o[1] if isinstance(o, tuple) else o for o in options])
        at = FACTORS.index(explorer.state.factor)
        for kind in parts:
            expected = answer(kind, explorer.state, explorer.state.factor) / answer(kind, explorer.state, 1)
            assert explorer.curves[kind][at] == pytest.approx(expected, rel=1e-6)
            assert f"× {expected:.3g}" in explorer.twin().alt
