"""The ViT: its slots, its arithmetic against torch's own encoder, gradients through every arm."""

import pytest
import torch
from torch import nn

from normviz.arms import arms_of
from normviz.lab import FFN, Recipe, ViT, build, preset
from normviz.lab.models.layers import Cap, PRepBN

SMALL = {"depth": 2, "width": 24, "heads": 3}


def inner(module):
    """Names of the norm layers in a slot."""
    return [type(m).__name__ for m in module.modules() if "Norm" in type(m).__name__]


@pytest.mark.parametrize(
    ("arm", "norm1", "norm2", "ffn_norm", "final"),
    [
        ("ln", "LayerNorm", "LayerNorm", None, "LayerNorm"),
        ("bn", "BatchNorm1d", "BatchNorm1d", None, "BatchNorm1d"),
        ("bn+ffnbn", "BatchNorm1d", "BatchNorm1d", "BatchNorm1d", "BatchNorm1d"),
        ("rms", "RMSNorm", "RMSNorm", None, "RMSNorm"),
        ("bn+cap", "BatchNorm1d", "BatchNorm1d", None, "BatchNorm1d"),
        ("ffnbn", None, None, "BatchNorm1d", "BatchNorm1d"),
        ("ln+ffnbn", "LayerNorm", "LayerNorm", "BatchNorm1d", "LayerNorm"),
        ("attn-ln", "LayerNorm", "BatchNorm1d", None, "BatchNorm1d"),
        ("ffn-ln", "BatchNorm1d", "LayerNorm", None, "BatchNorm1d"),
        ("bn+ffnbn-before", "BatchNorm1d", "BatchNorm1d", None, "BatchNorm1d"),
        ("bn+ffnln", "BatchNorm1d", "BatchNorm1d", "LayerNorm", "BatchNorm1d"),
        ("bn+ffnrms", "BatchNorm1d", "BatchNorm1d", "RMSNorm", "BatchNorm1d"),
        ("bn+gain", "BatchNorm1d", "BatchNorm1d", None, "BatchNorm1d"),
        ("bn+embedln", "BatchNorm1d", "BatchNorm1d", None, "BatchNorm1d"),
    ],
)
def test_slots_hold_what_the_arm_says(arm, norm1, norm2, ffn_norm, final):
    model = ViT(arm, **SMALL)
    for block in model.blocks:
        found = [inner(block.slots[name]) for name in ("norm1", "norm2", "ffn_norm")]
        assert found == [[name] if name else [] for name in (norm1, norm2, ffn_norm)]
    assert inner(model.final) == [final]


@pytest.mark.parametrize("ffn", ["gelu", "swiglu"])
@pytest.mark.parametrize("arm", arms_of("vit"))
def test_gradients_reach_every_parameter(arm, ffn):
    model = ViT(arm, ffn=ffn, seed=0, **SMALL)
    for layer in model.modules():
        if isinstance(layer, PRepBN):
            layer.ln_weight = 0.5  # at 1 and at 0 one half of it has nothing to say
    logits = model(torch.randn(8, 1, 8, 8))
    assert logits.shape == (8, 10)
    nn.functional.cross_entropy(logits, torch.arange(8)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        # A bias before BatchNorm is taken away again, and softmax does not see the key's: these may be 0
        assert name.endswith("bias") or (parameter.grad != 0).any(), name


def test_bn_slot_averages_over_images_and_patches():
    block = ViT("bn", **SMALL).blocks[0]
    x = 3 + 5 * torch.randn(6, 16, 24)
    y = block.norm1(x)
    torch.testing.assert_close(y.mean((0, 1)), torch.zeros(24), rtol=0, atol=1e-5)
    torch.testing.assert_close(y.var((0, 1), unbiased=False), torch.ones(24), rtol=0, atol=1e-4)


def test_patches_lie_where_their_pixels_are():
    model = ViT("ln", patch=4, **SMALL)
    captured = []
    model.embedding.linear.register_forward_pre_hook(lambda m, inputs: captured.append(inputs[0]))
    x = torch.arange(64.0).view(1, 1, 8, 8)
    model(x)
    assert captured[0].shape == (1, 4, 16)
    assert torch.equal(captured[0][0, 1], x[0, 0, :4, 4:].flatten())


def encoder_like(model: ViT, width: int, heads: int) -> nn.TransformerEncoder:
    """torch's pre-norm encoder with the weights of an LN model."""
    layer = nn.TransformerEncoderLayer(
        width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    encoder = nn.TransformerEncoder(layer, len(model.blocks), norm=nn.LayerNorm(width), enable_nested_tensor=False)
    for theirs, ours in zip(encoder.layers, model.blocks, strict=True):
        pairs = (
            (theirs.self_attn.in_proj_weight, ours.attention.qkv.weight),
            (theirs.self_attn.in_proj_bias, ours.attention.qkv.bias),
            (theirs.self_attn.out_proj.weight, ours.attention.out.weight),
            (theirs.self_attn.out_proj.bias, ours.attention.out.bias),
            (theirs.linear1.weight, ours.ffn.fc1.weight),
            (theirs.linear1.bias, ours.ffn.fc1.bias),
            (theirs.linear2.weight, ours.ffn.fc2.weight),
            (theirs.linear2.bias, ours.ffn.fc2.bias),
            (theirs.norm1.weight, ours.norm1.weight),
            (theirs.norm1.bias, ours.norm1.bias),
            (theirs.norm2.weight, ours.norm2.weight),
            (theirs.norm2.bias, ours.norm2.bias),
        )
        for target, source in pairs:
            target.data.copy_(source.data)
    encoder.norm.load_state_dict(model.final.state_dict())
    return encoder


@pytest.mark.parametrize("seed", range(3))
def test_ln_arm_is_torchs_pre_norm_encoder(seed):
    torch.manual_seed(seed)
    model = ViT("ln", depth=4, width=48, heads=3, seed=seed)
    with torch.no_grad():  # biases and norm weights start at 0 and 1, where an error in them would not show
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    encoder = encoder_like(model, 48, 3)
    x = torch.randn(5, 1, 8, 8)
    tokens = model.embedding(x)
    expected = model.head(encoder(tokens).mean(1))
    logits = model(x)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)

    logits.square().sum().backward()
    ours = [block.attention.qkv.weight.grad for block in model.blocks]
    model.zero_grad()
    expected.square().sum().backward()
    for mine, layer in zip(ours, encoder.layers, strict=True):
        theirs = layer.self_attn.in_proj_weight.grad
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())


@pytest.mark.parametrize(("kind", "power"), [("gelu", 1), ("swiglu", 2)])
def test_ffn_answers_a_long_token_with_its_power(kind, power):
    """GELU's FFN is homogeneous of degree 1 and SwiGLU's of degree 2, once the token is long."""
    torch.manual_seed(0)
    ffn = FFN(kind, 24, 96, nn.Identity())
    nn.init.zeros_(ffn.fc1.bias), nn.init.zeros_(ffn.fc2.bias)
    token = 100 * torch.randn(1, 1, 24)
    with torch.no_grad():
        grown = ffn(4 * token).norm() / ffn(token).norm()
    assert grown.item() == pytest.approx(4**power, rel=0.01)


def test_cap_shortens_long_tokens_alone():
    x = torch.randn(2, 5, 24)
    x /= x.square().mean(-1, keepdim=True).sqrt()
    x[0, 0] *= 20
    y = Cap(3.0)(x)
    assert torch.equal(y[1], x[1])
    torch.testing.assert_close(y[0, 0], x[0, 0] * 3 / 20)


def test_arms_of_one_seed_start_from_the_same_weights():
    models = {arm: build(preset("tame", arm, 5, depth=2)) for arm in ("ln", "bn", "bn+ffnbn")}
    shared = dict(models["ln"].named_parameters())
    for arm in ("bn", "bn+ffnbn"):
        for name, parameter in models[arm].named_parameters():
            if name.endswith("weight") and parameter.ndim == 2:
                assert torch.equal(parameter, shared[name]), name
    other = build(preset("tame", "ln", 6, depth=2))
    assert not torch.equal(other.head.weight, models["ln"].head.weight)


def test_from_recipe_follows_the_recipe():
    recipe = preset("cifar10-swiglu", "bn+ffnbn", depth=3, width=32, heads=2, patch=8, ffn_ratio=2)
    model = build(recipe)
    assert len(model.blocks) == 3 and model.embedding.tokens == 16
    assert model.blocks[0].ffn.fc1.weight.shape == (2 * 64, 32)
    assert model(torch.randn(4, 3, 32, 32)).shape == (4, 10)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("arm", "bm", "arm='bm' is unknown; it takes one of ln, bn, "),
        ("ffn", "relu", "ffn='relu' is unknown; it takes one of gelu, swiglu"),
        ("data", "mnist", "data='mnist' is unknown"),
        ("schedule", "step", "schedule='step' is unknown"),
        ("precision", "fp8", "precision='fp8' is unknown"),
        ("depth", 0, "depth=0 must be an integer >= 1"),
        ("steps", 1.5, "steps=1.5 must be an integer"),
        ("batch", 0, "batch=0 must be an integer >= 1"),
        ("seed", True, "seed=True must be an integer"),
        ("sigma", -1.0, "sigma=-1.0 must be a number >= 0"),
        ("sigma", float("nan"), "sigma=nan must be a number"),
        ("sigma_from", 2.0, "sigma_from=2.0 must be a number >= 0 and <= 1"),
        ("lr", 0.0, "lr=0.0 must be a positive number"),
        ("clip", -1.0, "clip=-1.0 must be a positive number"),
        ("heads", 5, "heads=5 does not divide width=48"),
    ],
)
def test_recipes_refuse_nonsense(field, value, says):
    with pytest.raises(ValueError, match=says.replace("(", r"\(")):
        Recipe(**{field: value})


def test_patch_that_does_not_divide():
    with pytest.raises(ValueError, match="patch=3 does not divide the image's 8 pixels"):
        ViT("ln", patch=3, **SMALL)


def test_recipe_survives_json_and_names_unknown_fields():
    recipe = preset("midrun", "bn", 3, clip=1.0)
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    with pytest.raises(ValueError, match="colour: no such field"):
        Recipe.from_dict({"colour": 1})
    with pytest.raises(ValueError, match="preset='tume' is unknown"):
        preset("tume")


def test_learning_rate_and_jitter_follow_the_recipe():
    recipe = Recipe(steps=100, warmup=10, lr=1.0, sigma=0.7, sigma_from=0.5)
    rates = [recipe.lr_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5, abs=1e-9) and rates[99] < 1e-3
    assert [recipe.sigma_at(step) for step in (0, 49, 50, 99)] == [0, 0, 0.7, 0.7]
    constant = Recipe(schedule="constant", warmup=0, lr=0.5)
    assert {constant.lr_at(step) for step in range(400)} == {0.5}
