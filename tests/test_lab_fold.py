"""Folding: the same answers without any normalization, for every arm made of BatchNorm; the others say why not."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shortened import mostly_long
from torch import nn

from normviz.arms import arms_of
from normviz.lab import ViT, fold, fold_into, load_images, preset, train

FOLDABLE = ("bn", "bn+ffnbn", "ffnbn", "bn+ffnbn-before", "bn+gain", "rbn")
CLOSE = {torch.float32: 1e-5, torch.float64: 1e-10}


def lived_in(model, seed=0):
    """Gives every parameter and running statistic of the BatchNorms a value of its own."""
    g = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d):
            nn.init.uniform_(layer.weight, 0.5, 1.5, generator=g)
            nn.init.normal_(layer.bias, generator=g)
            nn.init.normal_(layer.running_mean, generator=g)
            nn.init.uniform_(layer.running_var, 0.25, 4.0, generator=g)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.bias, std=0.5, generator=g)
    return model


def off(one, two):
    """The largest difference, in units of the largest answer where that is above 1."""
    return float((one - two).abs().max() / two.abs().max().clamp_min(1))


def norms(model):
    return [m for m in model.modules() if "Norm" in type(m).__name__ or type(m).__name__ in ("Permuted", "Cap")]


@settings(max_examples=60, deadline=None)
@given(
    arm=st.sampled_from(FOLDABLE),
    ffn=st.sampled_from(["gelu", "swiglu"]),
    depth=st.integers(1, 5),
    heads=st.integers(1, 3),
    head_width=st.integers(1, 12),
    ratio=st.integers(1, 4),
    patch=st.sampled_from([1, 2, 4]),
    dtype=st.sampled_from(list(CLOSE)),
    seed=st.integers(0, 2**31 - 1),
)
def test_the_folded_network_gives_the_same_answers(arm, ffn, depth, heads, head_width, ratio, patch, dtype, seed):
    width = heads * head_width
    model = ViT(arm, ffn=ffn, depth=depth, width=width, heads=heads, ffn_ratio=ratio, patch=patch, seed=seed)
    model = lived_in(model, seed).to(dtype).eval()
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(seed)).to(dtype)
    folded = fold(model)
    # What is squared has twice the relative error; a block that nothing normalizes in evaluation squares it again
    doubled = 2**depth if ffn == "swiglu" else 1
    with torch.no_grad():
        assert off(folded(x), model(x)) < CLOSE[dtype] * doubled
    assert not norms(folded)


@pytest.mark.parametrize("ffn", mostly_long(["gelu", "swiglu"], ("gelu",)))
@pytest.mark.parametrize("arm", FOLDABLE)
def test_a_trained_network_is_folded_exactly(arm, ffn):
    images, kept = load_images("digits"), []
    recipe = preset("tame", arm, ffn=ffn, depth=2, steps=20, warmup=5, eval_every=20)
    train(recipe, images=images, device="cpu", progress=False, probes=False, on_batch=lambda s, m, x, b: kept.append(m))
    model, x = kept[-1], images.standardise(images.test_x[:64])
    assert model.training  # as the training left it
    folded = fold(model)
    assert model.training and not folded.training
    model.eval()
    with torch.no_grad():
        assert off(folded(x), model(x)) < CLOSE[torch.float32]
        assert off(fold(model.double())(x.double()), model(x.double())) < CLOSE[torch.float64]


def test_the_model_stays_as_it_was():
    model = lived_in(ViT("bn+ffnbn", depth=2)).train()
    before = copy.deepcopy(model.state_dict())
    folded = fold(model)
    with torch.no_grad():
        for parameter in folded.parameters():
            parameter.zero_()  # nothing is shared
    assert model.training and all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert len(norms(model)) == 2 * (3 * 2 + 1)  # each BatchNorm within a turn


def test_a_folded_network_may_be_folded_again_and_trained_on():
    folded = fold(lived_in(ViT("bn", depth=1)))
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(fold(folded)(x), folded(x), rtol=0, atol=0)
    folded(x).sum().backward()
    assert all(p.grad is not None and p.requires_grad for p in folded.parameters())


@pytest.mark.parametrize("arm", [arm for arm in arms_of("vit") if arm not in FOLDABLE])
def test_the_other_arms_say_why_they_cannot(arm):
    with pytest.raises(ValueError) as caught:
        fold(ViT(arm, depth=1))
    why = {"bn+cap": "not linear", "dyt": "holds DyT", "derf": "holds Derf", "prepbn": "holds PRepBN"}
    where = {
        "ffn-ln": "blocks[0].norm2",
        "bn+ffnln": "blocks[0].ffn.norm",
        "bn+ffnrms": "blocks[0].ffn.norm",
        "bn+embedln": "embed_norm",
    }
    why, where = why.get(arm, "statistics depend on the token"), where.get(arm, "blocks[0].norm1")
    assert why in str(caught.value) and where in str(caught.value)


def test_what_else_cannot_be_folded_is_named():
    with pytest.raises(TypeError, match="model=Linear"):
        fold(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="norm has 4 features, linear takes 5"):
        fold_into(nn.Linear(5, 1), nn.BatchNorm1d(4))
    with pytest.raises(ValueError, match="track_running_stats=False"):
        fold_into(nn.Linear(4, 1), nn.BatchNorm1d(4, track_running_stats=False))
    with pytest.raises(ValueError, match="holds Tanh"):
        fold_into(nn.Linear(4, 1), nn.Tanh())


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_fold_into_one_linear(affine, bias):
    norm, linear = nn.BatchNorm1d(4, affine=affine).double().eval(), nn.Linear(4, 3, bias=bias).double()
    nn.init.normal_(norm.running_mean), nn.init.uniform_(norm.running_var, 0.5, 2)
    x = torch.randn(7, 4, dtype=torch.float64)
    torch.testing.assert_close(fold_into(linear, norm)(x), linear(norm(x)))
