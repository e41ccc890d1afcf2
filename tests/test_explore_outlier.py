"""The outlier explorer against torch's own LayerNorm and BatchNorm's formula."""

import numpy as np
import pytest
import torch
from torch import nn

import normviz as nv
from normviz.explore.outlier import FACTORS, FEATURE
from normviz.picture.scene import Shapes

SIZES = (4, 8, 16, 32, 64)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factor", FACTORS[::3])
def test_the_outputs_are_torchs(size, factor):
    state = nv.explore.outlier(size, factor)
    reading = state.read()
    x = torch.from_numpy(nv.samples.digit_features(size, 8, 2, 2)).double().flatten(1)
    x[0] *= factor
    column = x[:, FEATURE].numpy()
    z = (column - column.mean()) / column.std()
    np.testing.assert_allclose(reading.values["batch"], z, rtol=1e-9)
    per_token = nn.LayerNorm(32, eps=0.0, elementwise_affine=False, dtype=torch.float64)(x)
    np.testing.assert_allclose(reading.values["layer_token"], per_token[:, FEATURE], rtol=1e-9)
    scene = state.scene()
    assert f"gives it {abs(z[0]):.2f}" in scene.alt and f"is {np.sqrt(size - 1):.2f}." in scene.alt
    counts = {item.name: len(item.points) for item in scene.items if isinstance(item, Shapes)}
    assert counts["others-batch"] == size - 1 == counts["others-layer_token"]


@pytest.mark.parametrize("size", SIZES)
def test_the_outlier_nears_its_bound_and_never_passes_it(size):
    reading = nv.explore.outlier(size, 1000).read()
    assert (reading.peaks["batch"] <= reading.bound).all()
    assert reading.peaks["batch"][-1] == pytest.approx(reading.bound, rel=1e-3)
    assert reading.spreads["batch"][-1] < 0.01 * reading.spreads["batch"][0]


def test_layernorm_does_not_notice_the_outlier():
    usual, extreme = (nv.explore.outlier(16, k).read().values["layer_token"] for k in (1, 1000))
    np.testing.assert_array_equal(usual[1:], extreme[1:])
