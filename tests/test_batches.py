"""The explorers of notebook 02 under random events, against torch's own layers."""

import random
import re
from html import escape

import numpy as np
import pytest
import torch
from torch import nn

import normviz as nv
from normviz.picture import batches as view
from normviz.picture import outlier
from normviz.picture.histograms import histogram_row
from normviz.picture.scene import Shapes
from normviz.picture.svg import to_svg


def turn_one(explorer, dice):
    """Turn one control to a value that it takes."""
    control = explorer.controls[dice.choice(list(explorer.controls))]
    if hasattr(control, "options"):
        control.value = dice.choice([o[1] if isinstance(o, tuple) else o for o in control.options])
    else:
        control.value = dice.randint(control.min, control.max)


def named(scene, name):
    """How many shapes of that name the scene draws."""
    return sum(len(item.points) for item in scene.items if isinstance(item, Shapes) and item.name == name)


def oracle(maps, state, batches):
    """Statistics of every batch, running statistics, and the image's outputs, from `nn.BatchNorm2d`."""
    values = torch.from_numpy(maps)[:, state.channel, None]  # (n, 1, H, W)
    if state.scope == "cell":
        values = values[:, :, 2:3, 3:4]
    momentum = None if state.momentum == "None" else float(state.momentum)
    trained, watching = (nn.BatchNorm2d(1, affine=False, momentum=momentum) for _ in range(2))
    track, statistics = [(0.0, 1.0)], []
    for indices in batches:
        trained(values[indices])
        track.append((float(trained.running_mean), float(trained.running_var)))
        statistics.append((float(values[indices].mean()), float(values[indices].var(correction=0))))
    layer = trained.eval() if state.evaluation else watching
    outputs = [layer(values[[state.image, *indices[1:]]])[0, 0] for indices in batches]
    return np.array(statistics), np.array(track), torch.stack(outputs).numpy()


def check(explorer, maps):
    state, reading = explorer.state, explorer.reading
    get = {name: control.value for name, control in explorer.controls.items()}
    assert get == {name: getattr(state, name) for name in get}
    assert reading.batches.shape == (state.draws, state.batch_size)
    scene = explorer.scene()
    assert escape(scene.alt) in explorer._text.value and to_svg(scene) in explorer._picture.value
    if reading.refusal:
        assert (state.batch_size, state.scope) == (1, "cell") and "torch refuses" in scene.alt
        assert named(scene, "batch-mean") == 0
        return
    statistics, track, outputs = oracle(maps, state, reading.batches)
    np.testing.assert_allclose(np.stack([reading.mean, reading.var], 1), statistics, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(reading.running, track, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(reading.outputs, outputs, rtol=2e-3, atol=2e-3)
    at = (2, 3) if state.scope == "map" else (0, 0)
    np.testing.assert_array_equal(reading.watched, reading.outputs[:, at[0], at[1]])
    for name in ("batch-mean", "batch-variance", "watched"):
        assert named(scene, name) == state.draws
    shown = re.search(r"running mean (\S+), running variance (\S+) ", scene.alt).groups()
    np.testing.assert_allclose([float(s.replace("−", "-")) for s in shown], track[-1], rtol=6e-3, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_events_agree_with_torch(seed):
    dice, explorer, maps = random.Random(seed), nv.explore_batches(), nv.digit_features(1797)
    for _ in range(70):
        turn_one(explorer, dice)
        check(explorer, maps)
    assert explorer.twin().alt == explorer.scene().alt


def test_batch_means_scatter_as_the_band_says():
    population = view.population_of()
    for scope in view.SCOPES:
        for size in (1, 4, 64):
            states = [
                view.make_state(population, batch_size=size, draws=40, seed=s, scope=scope) for s in range(10)
            ]
            values = population.channel(3, scope).double()[
                np.concatenate([view.read(population, state).batches for state in states])
            ]
            means = values.mean((1, 2, 3))  # (400,)
            # 400 draws know their standard deviation to about 3.5 %
            assert float(means.std()) == pytest.approx(view.read(population, states[0]).error, rel=0.15)


def test_a_larger_batch_contains_the_smaller_and_seeds_differ():
    population = view.population_of()
    draw = lambda **choices: view.read(population, view.make_state(population, **choices)).batches  # noqa: E731
    np.testing.assert_array_equal(draw(batch_size=64)[:, :4], draw(batch_size=4))
    np.testing.assert_array_equal(draw(draws=40)[:20], draw(draws=20))
    assert (draw(seed=0) != draw(seed=1)).any()


def test_one_image_is_refused_as_torch_does_and_evaluates_all_the_same():
    explorer = nv.explore_batches(batch_size=1, scope="cell", image=3)
    with pytest.raises(ValueError):
        nn.BatchNorm1d(1)(torch.ones(1, 1))
    assert "torch refuses" in explorer.twin().alt and "has no output" in explorer.twin().alt
    explorer.controls["evaluation"].value = True
    # Nothing was trained: mean 0 and variance 1 leave the value as it is
    assert explorer.reading.watched == pytest.approx(float(explorer.reading.raw[0, 0]), abs=1e-4)


def test_of_a_pair_the_sign_alone_is_left():
    watched = nv.explore_batches(batch_size=2, scope="cell", draws=40).reading.watched
    np.testing.assert_allclose(np.abs(watched[watched != 0]), 1, atol=0.01)


def test_in_evaluation_company_does_not_matter_and_in_training_it_does():
    explorer = nv.explore_batches(batch_size=4)
    assert np.ptp(explorer.reading.watched) > 0.1
    explorer.controls["evaluation"].value = True
    assert np.ptp(explorer.reading.watched) == 0


def test_a_population_of_the_readers_own():
    x = torch.randn(50, 1, 3, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    explorer = nv.explore_batches(x, batch_size=16)
    dice = random.Random(0)
    for _ in range(20):
        turn_one(explorer, dice)
    assert explorer.population.names == ("0",) and "channel ‘0’" in explorer.twin().alt


def test_a_constant_channel_is_drawn():
    assert "running variance" in nv.draw_batches(torch.ones(10, 2, 2, 2), channel=1).alt


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"batch_size": 3}, "batch_size=3"),
        ({"draws": 0}, "draws=0"),
        ({"draws": 41}, "draws=41"),
        ({"momentum": 0.2}, "momentum=0.2"),
        ({"scope": "row"}, "scope='row'"),
        ({"channel": 8}, "channel=8"),
        ({"image": 1797}, "image=1797"),
        ({"seed": -1}, "seed=-1"),
        ({"x": torch.zeros(3, 2)}, "shape (3, 2)"),
        ({"x": torch.zeros(1, 2, 2, 2)}, "at least 2 images"),
        ({"x": torch.full((3, 2, 2, 2), float("nan"))}, "not finite"),
    ],
)
def test_bad_input_is_named(options, word):
    for call in (nv.explore_batches, nv.draw_batches):
        with pytest.raises(ValueError) as caught:
            call(**options)
        assert word in str(caught.value)


def test_a_population_that_is_no_tensor():
    with pytest.raises(TypeError, match="must be a tensor"):
        nv.explore_batches("digits")


def test_saved_notebooks_get_pictures():
    for explorer in (nv.explore_batches(), nv.explore_outlier()):
        data, metadata = explorer._repr_mimebundle_()
        assert data["image/png"].startswith(b"\x89PNG")
        assert metadata["image/png"]["alt"] == explorer.scene().alt


# One extreme sample -------------------------------------------------------------------------------------------


def test_the_outlier_under_random_events():
    dice, explorer = random.Random(0), nv.explore_outlier()
    for _ in range(40):
        turn_one(explorer, dice)
        state, reading = explorer.state, explorer.reading
        x = torch.from_numpy(nv.digit_features(state.size, 8, 2, 2)).double().flatten(1)
        x[0] *= state.factor
        column = x[:, outlier.FEATURE].numpy()
        z = (column - column.mean()) / column.std()
        np.testing.assert_allclose(reading.values["batch"], z, rtol=1e-9)
        per_token = nn.LayerNorm(32, eps=0.0, elementwise_affine=False, dtype=torch.float64)(x)
        np.testing.assert_allclose(reading.values["layer_token"], per_token[:, outlier.FEATURE], rtol=1e-9)
        assert reading.bound == pytest.approx(np.sqrt(state.size - 1))
        scene = explorer.scene()
        assert f"gives it {abs(z[0]):.2f}" in scene.alt and escape(scene.alt) in explorer._text.value
        assert named(scene, "others-batch") == state.size - 1 == named(scene, "others-layer_token")


@pytest.mark.parametrize("size", outlier.SIZES)
def test_the_outlier_nears_its_bound_and_never_passes_it(size):
    reading = outlier.read(outlier.State(size, 1000))
    assert (reading.peaks["batch"] <= reading.bound).all()
    assert reading.peaks["batch"][-1] == pytest.approx(reading.bound, rel=1e-3)
    assert reading.spreads["batch"][-1] < 0.01 * reading.spreads["batch"][0]


def test_layernorm_does_not_notice_the_outlier():
    usual, extreme = (outlier.read(outlier.State(16, k)).values["layer_token"] for k in (1, 1000))
    np.testing.assert_array_equal(usual[1:], extreme[1:])


def test_outlier_refuses_what_it_does_not_offer():
    for options, word in (({"size": 5}, "size=5"), ({"factor": 7}, "factor=7")):
        for call in (nv.explore_outlier, nv.draw_outlier):
            with pytest.raises(ValueError, match=word):
                call(**options)


# Histograms side by side ----------------------------------------------------------------------------------------


def test_histograms_tell_mean_and_deviation():
    scene = histogram_row({"a": torch.tensor([1.0, 3.0]), "b": np.array([-2.0, np.nan, -2.0])})
    assert "a: mean 2.00, σ 1.00; b: mean −2.00, σ 0.00" in scene.alt
    bars = [item for item in scene.items if isinstance(item, Shapes) and item.name == "histogram-set"]
    assert len(bars) == 2
    for panels in ({}, {"a": [np.nan]}):
        with pytest.raises(ValueError, match="panels"):
            nv.draw_histograms(panels)
    with pytest.raises(TypeError):
        nv.draw_histograms({"a": "text"})
