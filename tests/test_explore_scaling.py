"""The scaling explorer against torch: its draws, its activations, its curves from the FFN of the lab."""

import math
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normviz.explore.scaling import (
    FACTORS,
    FEATURES,
    FFNS,
    HIDDEN,
    TOKENS,
    Scaling,
    activation,
    batch_norm,
    erf,
    torch_randn,
)
from normviz.lab.models.vit import FFN


def test_draws_are_torchs():
    """So the numbers of chapter 07 are those that torch gives."""
    for seed in (0, 7):
        g, words = torch.Generator().manual_seed(seed), np.random.RandomState(seed)
        for shape in ((TOKENS, FEATURES), (16,), (FEATURES, 2 * HIDDEN)):
            expected = torch.randn(*shape, generator=g, dtype=torch.float64)
            np.testing.assert_allclose(torch_randn(words, *shape), expected, rtol=1e-14, atol=1e-15)


def test_erf_is_as_good_as_it_says():
    x = np.linspace(-7, 7, 20001)
    assert np.abs(erf(x) - np.array([math.erf(v) for v in x])).max() <= 1.5e-7


def test_activations_are_torchs():
    x = np.random.default_rng(0).normal(0, 5, (100, 2 * HIDDEN))
    t = torch.from_numpy(x)
    np.testing.assert_allclose(activation("gelu", x), F.gelu(t), atol=1e-6)
    gate, value = t.chunk(2, -1)
    np.testing.assert_allclose(activation("swiglu", x), F.silu(gate) * value, rtol=1e-12, atol=1e-12)


def test_batch_norm_is_torchs():
    g = torch.Generator().manual_seed(3)
    usual, x = (torch.randn(32, 5, generator=g, dtype=torch.float64) for _ in range(2))
    layer = nn.BatchNorm1d(5, affine=False, dtype=torch.float64)
    np.testing.assert_allclose(batch_norm(x.numpy(), usual.numpy(), False), layer(x))
    layer.running_mean, layer.running_var = usual.mean(0), usual.var(0, correction=0)
    np.testing.assert_allclose(batch_norm(x.numpy(), usual.numpy(), True), layer.eval()(x))


def front_of(name: str) -> nn.Module:
    if name == "ln":
        return nn.LayerNorm(FEATURES, elementwise_affine=False, dtype=torch.float64)
    return norm(FEATURES) if name == "bn" else nn.Identity()


def norm(features: int) -> nn.Module:
    return nn.BatchNorm1d(features, affine=False, momentum=1.0, dtype=torch.float64)


@torch.no_grad()
def growth(kind: str, front: str, ffn_bn: bool, evaluation: bool) -> list[float]:
    """The curve again from the lab's own FFN and torch's layers, which store their statistics themselves."""
    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    usual, wide = draw(TOKENS, FEATURES), HIDDEN * (2 if kind == "swiglu" else 1)
    network = nn.Sequential(front_of(front), FFN(kind, FEATURES, HIDDEN, norm(HIDDEN) if ffn_bn else nn.Identity()))
    network = network.double()
    network[1].fc1.weight.copy_(draw(FEATURES, wide).T / FEATURES**0.5)
    network[1].fc2.weight.copy_(draw(HIDDEN, FEATURES).T / HIDDEN**0.5)
    network[1].fc1.bias.zero_(), network[1].fc2.bias.zero_()
    if evaluation:
        network(usual)
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm1d):
                layer.running_var.mul_((TOKENS - 1) / TOKENS)  # torch stores the unbiased one
        network.eval()
    lengths = []
    for factor in FACTORS:
        x = usual.clone()
        x[0] *= factor
        lengths.append(network(x)[0].norm().item())
    return [length / lengths[0] for length in lengths]


@pytest.mark.parametrize(
    ("front", "ffn_bn", "evaluation"), list(product(("none", "ln", "bn"), (False, True), (False, True)))
)
def test_it_shows_the_growth_that_the_labs_ffn_has(front, ffn_bn, evaluation):
    state = Scaling(front=front, ffn_bn=ffn_bn, evaluation=evaluation)
    expected = {kind: growth(kind, front, ffn_bn, evaluation) for kind in FFNS}
    for at, factor in enumerate(FACTORS):
        state = state.turn(factor=factor)
        reading, scene = state.read(), state.scene()
        for kind, style in FFNS.items():
            assert reading.curves[kind] == pytest.approx(expected[kind], rel=1e-6)
            assert reading.growth[kind] == pytest.approx(expected[kind][at], rel=1e-6)
            assert f"{style.name} × {float(f'{expected[kind][at]:.3g}'):,g}" in scene.alt
            (line,) = [item for item in scene.items if getattr(item, "name", "") == f"curve-{kind}"]
            (left, right) = line.points[[0, -1], [0, 1]]  # slopes in the picture are powers of k
            decades = (left - right)[1] / 264 * np.log10(8192 / 0.5)
            assert decades == pytest.approx(np.log10(expected[kind][-1]), abs=1e-5)
    assert f"{'evaluation' if evaluation else 'training'}: token × 64 gives" in scene.alt


def test_gelu_is_linear_and_swiglu_quadratic():
    curves = Scaling().read().curves
    wide = np.log(FACTORS[-1] / FACTORS[-4])
    slopes = {kind: np.log(curve[-1] / curve[-4]) / wide for kind, curve in curves.items()}
    assert slopes == pytest.approx({"gelu": 1, "swiglu": 2}, abs=0.05)


def test_layer_norm_before_the_ffn_cancels_the_factor():
    for curve in Scaling(front="ln").read().curves.values():
        np.testing.assert_allclose(curve, 1, rtol=1e-3)
