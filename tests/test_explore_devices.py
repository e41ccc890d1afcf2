"""The explorer of a batch on K devices, against torch's own layers on its own chunks of the batch."""

import numpy as np
import pytest
import torch
from test_explorers import walk
from torch import nn

from normviz.explore import devices
from normviz.explore.devices import SHARES, WAYS, C, N


def by_torch(way: str, parts: int, x: torch.Tensor) -> torch.Tensor:
    """What torch gives on so many devices, (N, C, H, W)."""
    if way == "layer":
        norm = nn.LayerNorm(C, elementwise_affine=False)
        return torch.cat([norm(chunk.movedim(1, -1)).movedim(-1, 1) for chunk in x.chunk(parts)])
    norm = nn.BatchNorm2d(C, affine=False).double()  # in training: every call by its own statistics
    return torch.cat([norm(chunk) for chunk in x.chunk(1 if way == "sync" else parts)])


@pytest.mark.parametrize("order", ["mixed", "sorted"])
@pytest.mark.parametrize("parts", SHARES)
@pytest.mark.parametrize("way", WAYS)
def test_it_agrees_with_torch(way, parts, order):
    reading = devices(way, parts, order).read()
    x = torch.from_numpy(reading.x)
    np.testing.assert_allclose(reading.outputs, by_torch(way, parts, x), atol=1e-12)
    whole = (by_torch(way, parts, x) - by_torch(way, 1, x)).square().mean().sqrt()
    assert reading.apart[way][SHARES.index(parts)] == pytest.approx(float(whole), abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
def test_who_shares_statistics_is_who_moves_the_output(seed):
    """A cell is changed: exactly the cells of its set answer, whatever device they are on."""
    for state in walk("devices", 12, seed):
        reading = state.read()
        x, rng = torch.from_numpy(reading.x).clone(), np.random.default_rng(seed)
        cell = tuple(rng.integers(size) for size in x.shape)
        before = by_torch(state.way, state.devices, x)
        x[cell] += 1
        moved = (by_torch(state.way, state.devices, x) - before).abs() > 1e-9
        assert np.array_equal(moved.numpy(), reading.labels == reading.labels[cell])


def test_more_devices_more_difference_and_none_for_those_that_do_not_care():
    for order in ("mixed", "sorted"):
        apart = devices("batch", 8, order).read().apart
        assert apart["batch"] == sorted(apart["batch"]) == apart["accumulate"]
        assert apart["batch"][0] == 0 < apart["batch"][1]
        assert apart["sync"] == [0.0] * 4 and max(apart["layer"]) < 1e-12


def test_the_caption_counts():
    assert "16 sets, each of 16 values from 4 samples" in devices("batch", 4).scene().alt
    assert "4 sets, each of 64 values from 16 samples" in devices("sync", 8).scene().alt
    assert "on 8 micro-batches of 2. 32 sets, each of 8 values from 2 samples" in devices("accumulate", 8).scene().alt
    assert f"{4 * N} sets, each of 4 values from 1 sample" in devices("layer", 2).scene().alt


def test_the_means_that_are_charted_are_those_of_the_devices():
    for way, parts in (("batch", 4), ("accumulate", 8), ("sync", 4)):
        state = devices(way, parts, "sorted")
        scene, x = state.scene(), state.read().x
        dots = [item.points.mean(axis=(0, 1))[1] for item in scene.drawn if getattr(item, "name", "") == "mean"]
        means = [chunk[:, 3].mean() for chunk in np.split(x, parts)] if way != "sync" else [x[:, 3].mean()] * parts
        assert len(dots) == parts
        if way == "sync":
            assert np.ptp(dots) < 1e-9
        else:  # a larger mean stands higher
            assert np.corrcoef(dots, means)[0, 1] == pytest.approx(-1, abs=1e-6)


def test_hovering_lights_a_set_on_every_device():
    cells = [item for item in devices("sync", 8).scene().drawn if getattr(item, "name", "") == "cell"]
    lit = {place.split(",")[0] for item in cells for place, k in item.data if k == 0}
    assert lit == {str(n) for n in range(N)}
