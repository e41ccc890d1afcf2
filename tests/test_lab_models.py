"""The convolutional network, and that any model of the table trains by the same recipe and trainer."""

import pytest
import torch
from torch import nn

from normviz.arms import ARMS, arms_of
from normviz.lab import ConvNet, Recipe, build, preset, train
from normviz.lab.models import MODELS

LAYERS = {"none": nn.Identity, "bn": nn.BatchNorm2d, "ln": nn.LayerNorm, "gn": nn.GroupNorm}


@pytest.mark.parametrize("arm", arms_of("conv"))
def test_shapes_slots_and_gradients(arm):
    model = ConvNet(arm, channels=3, size=16, depth=4, width=16, num_groups=4, seed=0)
    x = torch.randn(5, 3, 16, 16)
    logits = model(x)
    assert logits.shape == (5, 10)
    assert len(model.norms) == 4
    if arm in LAYERS:
        assert all(isinstance(norm, LAYERS[arm]) for norm in model.norms)
    nn.functional.cross_entropy(logits, torch.arange(5)).backward()
    # A norm that is centred per channel takes away the bias of the convolution before it
    weights = [p for name, p in model.named_parameters() if not (name.startswith("convs") and "bias" in name)]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in weights)


def test_arms_start_from_the_same_weights():
    first, second = (ConvNet(arm, seed=3) for arm in ("bn", "gn"))
    for a, b in zip(first.convs, second.convs, strict=True):
        assert torch.equal(a.weight, b.weight)
    assert not torch.equal(first.convs[0].weight, ConvNet("bn", seed=4).convs[0].weight)


def test_instance_norm_is_group_norm_with_a_group_per_channel():
    x = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(ConvNet("in", width=16, seed=1)(x), ConvNet("gn", width=16, num_groups=16, seed=1)(x))
    torch.testing.assert_close(ConvNet("ln", width=16, seed=1)(x), ConvNet("gn", width=16, num_groups=1, seed=1)(x))


@pytest.mark.parametrize("arm", ["bn", "gn"])
def test_the_trainer_takes_it(arm, tmp_path):
    recipe = preset("conv", arm, seed=1, steps=60)
    history = train(recipe, progress=False, out=tmp_path)
    assert history.evals[-1]["accuracy"] > 0.6
    assert history.meta["tokens"] == 64
    assert not history.probes
    again = train(recipe, progress=False, out=tmp_path, resume=True)
    assert again.loss == history.loss


def test_batch_of_one_image():
    history = train(preset("conv", "bn", steps=3, batch=1), progress=False)
    assert len(history.loss) == 3


def test_errors():
    with pytest.raises(ValueError, match=r"arm='rms' is unknown; it takes one of ln, bn, none, in, gn"):
        Recipe(model="conv", arm="rms")
    with pytest.raises(ValueError, match=r"model='mlp' is unknown; it takes one of vit, conv"):
        Recipe(model="mlp")
    with pytest.raises(ValueError, match=r"num_groups=5 does not divide"):
        build(preset("conv", "gn", num_groups=5))
    assert set(MODELS) == {model for row in ARMS.values() for model in row.slots}
