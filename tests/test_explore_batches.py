"""The explorer of batches against `nn.BatchNorm2d`, under random events."""

import re

import numpy as np
import pytest
import torch
from torch import nn
from turns import named, walk

from normviz.explore.batches import SCOPES, Batches, channel_of
from normviz.picture.scene import Shapes
from normviz.samples import digit_features


def oracle(values, state, batches):
    """Statistics of every batch, running statistics, and the image's outputs, from torch.  values: (n, 1, P, Q)."""
    trained, watching = (nn.BatchNorm2d(1, affine=False, momentum=state.momentum).double() for _ in range(2))
    track, statistics = [(0.0, 1.0)], []
    for indices in batches:
        trained(values[indices])
        track.append((float(trained.running_mean), float(trained.running_var)))
        statistics.append((float(values[indices].mean()), float(values[indices].var(correction=0))))
    layer = trained.eval() if state.evaluation else watching
    outputs = [layer(values[[state.image, *indices[1:]]])[0, 0] for indices in batches]
    return np.array(statistics), np.array(track), torch.stack(outputs).numpy()


def check(state, maps, cell):
    reading = state.read()
    scene = state.scene(reading)
    assert reading.batches.shape == (state.draws, state.batch_size)
    if reading.refusal:
        assert (state.batch_size, state.scope) == (1, "cell") and "torch refuses" in scene.alt
        assert not named(scene, "batch-mean")
        return
    values = torch.from_numpy(maps)[:, state.channel, None]
    if state.scope == "cell":
        values = values[:, :, cell[0], cell[1], None, None]
    statistics, track, outputs = oracle(values, state, reading.batches)
    np.testing.assert_allclose(np.stack([reading.mean, reading.var], 1), statistics, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(reading.running, track, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(reading.outputs, outputs, rtol=1e-6, atol=1e-6)
    centre, spread = float(values.mean()), float(values.var(correction=0))
    np.testing.assert_allclose(reading.ideal, (values[state.image, 0] - centre) / (spread + 1e-5) ** 0.5, atol=1e-9)
    at = cell if state.scope == "map" else (0, 0)
    np.testing.assert_array_equal(reading.watched, reading.outputs[:, at[0], at[1]])
    for name in ("batch-mean", "batch-variance", "watched"):
        assert sum(len(item.points) for item in named(scene, name)) == state.draws
    shown = re.search(r"running mean (\S+), running variance (\S+) ", scene.alt).groups()
    np.testing.assert_allclose([float(s.replace("−", "-")) for s in shown], track[-1], rtol=6e-3, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_events_agree_with_torch(seed):
    maps = digit_features(1797).astype(float)
    for state in walk(Batches(), 70, seed):
        check(state, maps, (2, 3))


def test_a_population_of_the_readers_own_agrees_with_torch():
    x = torch.randn(50, 1, 3, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    first = Batches(x, batch_size=16)
    assert "channel ‘0’" in first.scene().alt and not first.controls()["channel"].enabled
    for state in walk(first, 30, 0):
        check(state, x.double().numpy(), (1, 2))


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("size", [1, 4, 64])
def test_batch_means_scatter_as_the_band_says(scope, size):
    readings = [Batches(batch_size=size, draws=40, seed=s, scope=scope).read() for s in range(10)]
    means = channel_of(None, 3, scope)[np.concatenate([r.batches for r in readings])].mean((1, 2, 3))  # (400,)
    # 400 draws know their standard deviation to about 3.5 %
    assert means.std() == pytest.approx(readings[0].error, rel=0.15)


def test_a_larger_batch_contains_the_smaller_and_seeds_differ():
    draw = lambda **choices: Batches(**choices).read().batches  # noqa: E731
    np.testing.assert_array_equal(draw(batch_size=64)[:, :4], draw(batch_size=4))
    np.testing.assert_array_equal(draw(draws=40)[:20], draw(draws=20))
    assert (draw(seed=0) != draw(seed=1)).any()


def test_one_image_is_refused_as_torch_does_and_evaluates_all_the_same():
    state = Batches(batch_size=1, scope="cell", image=3)
    with pytest.raises(ValueError):
        nn.BatchNorm1d(1)(torch.ones(1, 1))
    assert "torch refuses" in state.scene().alt and "has no output" in state.scene().alt
    # Nothing was trained: mean 0 and variance 1 leave the value as it is
    reading = state.turn(evaluation=True).read()
    assert reading.watched == pytest.approx(float(reading.raw[0, 0]), abs=1e-4)


def test_of_a_pair_the_sign_alone_is_left():
    watched = Batches(batch_size=2, scope="cell", draws=40).read().watched
    np.testing.assert_allclose(np.abs(watched[watched != 0]), 1, atol=0.01)


def test_in_evaluation_the_rest_of_the_batch_does_not_matter_and_in_training_it_does():
    state = Batches(batch_size=4)
    assert np.ptp(state.read().watched) > 0.1
    assert np.ptp(state.turn(evaluation=True).read().watched) == 0


def test_the_picture_shows_that_one_image_has_many_outputs():
    """The differences from the ideal output are drawn on a scale on which an eye tells them apart."""
    tiles = [item for item in Batches(batch_size=4).scene().items if isinstance(item, Shapes) and item.titles]
    below = [tile for tile in tiles if tile.points[0, 0, 1] > 390]
    assert len(below) == 5 and len({tuple(tile.fills) for tile in below}) == 5
    watched = [float(tile.titles[2 * 8 + 3].replace("−", "-")) for tile in below]
    assert np.ptp(watched) > 0.2 * 0.6  # of the scale, ±0.3


def test_a_constant_channel_is_drawn():
    assert "running variance 0.122 (population 1 and 0)" in Batches(torch.ones(10, 2, 2, 2), channel=1).scene().alt


@pytest.mark.parametrize("scale", [1e-3, 1e12, 1e69])
def test_values_of_any_size_are_told_and_drawn(scale):
    x = digit_features(60, 2, 4, 4).astype(float)
    usual, scaled = Batches(x, channel=1, batch_size=4), Batches(x * scale, channel=1, batch_size=4)
    scene, values = scaled.scene(), np.array(scaled.read().var)
    assert scene.labels_outside() == [] and len(scene.alt) < 450
    np.testing.assert_allclose(values, scale**2 * usual.read().var, rtol=1e-9)
    shown = re.search(r"batch variances by ±(\S+);", scene.alt)[1]
    assert float(shown.replace("−", "-")) == pytest.approx(values.std(), rel=6e-3)


@pytest.mark.parametrize(("options", "word"), [
    ({"batch_size": 3}, "batch_size=3"), ({"draws": 41}, "draws=41"), ({"momentum": 0.2}, "momentum=0.2"),
    ({"channel": 8}, "channel=8"), ({"image": 1797}, "image=1797"), ({"x": torch.zeros(3, 2)}, "shape (3, 2)"),
    ({"x": torch.zeros(1, 2, 2, 2)}, "at least 2 images"),
    ({"x": torch.full((3, 2, 2, 2), float("nan"))}, "not finite"), ({"x": np.full((3, 2, 2, 2), 1e300)}, "not finite"),
])  # fmt: skip
def test_bad_input_is_named(options, word):
    with pytest.raises(ValueError) as caught:
        Batches(**options)
    assert word in str(caught.value)


def test_a_population_that_is_no_tensor():
    with pytest.raises(TypeError, match="must be a tensor"):
        Batches("digits")
