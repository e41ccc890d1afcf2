"""`nv.fold_batchnorm` and `nv.swap_norms` on general models: the same answers, or the reason why not."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils import fusion

import normviz as nv
from normviz.arms import arms_of
from normviz.lab import ViT, fold
from normviz.lab.folding import absorb_input, absorb_output

CONVS = [(nn.Conv1d, nn.ConvTranspose1d), (nn.Conv2d, nn.ConvTranspose2d), (nn.Conv3d, nn.ConvTranspose3d)]
WAYS = list(itertools.product((1, 2, 3), (1, 2)))  # dimensions, groups
BATCH = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def lived_in(model):
    """Gives every weight and running statistic a value of its own."""
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                if layer.affine:
                    layer.weight.uniform_(0.5, 1.5)
                    layer.bias.normal_()
                if layer.running_mean is not None:
                    layer.running_mean.normal_()
                    layer.running_var.uniform_(0.25, 4.0)
    return model.eval()


def folded(model, x):
    """The changes, once the answers are known to be the same."""
    lived_in(model)
    with torch.no_grad():
        before = model(x)
        changes = nv.fold_batchnorm(model, x)
        torch.testing.assert_close(model(x), before, rtol=1e-3, atol=1e-4)
    assert changes.model is model and not model.training
    return changes


@pytest.mark.parametrize(("dims", "groups"), WAYS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_into_the_convolution_before(dims, groups, bias, affine):
    x = torch.randn(3, 4, *[5] * dims)
    for conv in CONVS[dims - 1]:
        norm = BATCH[dims - 1](6, affine=affine)
        model = nn.Sequential(conv(4, 6, 3, padding=1, groups=groups, bias=bias), norm, nn.ReLU())
        changes = folded(model, x)
        assert changes.done == {"1": "into 0, before it"} and isinstance(model[1], nn.Identity), f"{changes}"


@pytest.mark.parametrize(("dims", "groups"), WAYS)
@pytest.mark.parametrize("bias", [True, False])
def test_into_the_convolution_after(dims, groups, bias):
    x, conv = torch.randn(3, 4, *[5] * dims), CONVS[dims - 1][0]
    model = nn.Sequential(nn.ReLU(), BATCH[dims - 1](4), conv(4, 6, 3, groups=groups, bias=bias))
    assert folded(model, x).done == {"1": "into 2, after it"}
    circular = nn.Sequential(BATCH[dims - 1](4), conv(4, 6, 3, padding=1, padding_mode="circular", bias=bias))
    assert folded(circular, x).done == {"0": "into 1, after it"}
    zeros = nn.Sequential(BATCH[dims - 1](4), conv(4, 6, 3, padding="same", bias=bias))
    assert "pads with zeros" in folded(zeros, x).refused["0"]
    centred = nn.Sequential(BATCH[dims - 1](4, affine=False), conv(4, 6, 3, padding=1, bias=bias))
    assert "pads with zeros" in folded(centred, x).refused["0"]  # the running mean is a shift too


def test_our_arithmetic_is_torchs():
    conv, norm = nn.Conv2d(4, 6, 3), lived_in(nn.BatchNorm2d(6))
    weight, bias = fusion.fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    changes = nv.fold_batchnorm(nn.Sequential(conv, norm).eval(), torch.randn(2, 4, 5, 5))
    torch.testing.assert_close(changes.model[0].weight, weight)
    torch.testing.assert_close(changes.model[0].bias, bias)


class Tokens(nn.Module):
    """BatchNorm over tokens, flattened, transposed or seen by several linear layers, as transformers have them."""

    def __init__(self):
        super().__init__()
        self.flat, self.turned, self.after = nn.BatchNorm1d(6), nn.BatchNorm1d(6), nn.BatchNorm1d(6)
        self.q, self.k, self.out, self.last = (nn.Linear(6, 6) for _ in range(4))

    def forward(self, x):  # (B, T, D)
        y = self.flat(x.flatten(0, 1)).reshape(x.shape)
        x = x + self.q(y) * torch.sigmoid(self.k(y))
        x = x + self.out(self.turned(x.transpose(1, 2)).transpose(1, 2))
        return self.after(self.last(x).flatten(0, 1)).reshape_as(x)


def test_tokens_on_their_way_are_followed():
    changes = folded(Tokens(), torch.randn(3, 5, 6))
    assert changes.done == {
        "flat": "into q, k, after it", "turned": "into out, after it", "after": "into last, before it",
    }, f"{changes}"  # fmt: skip


class Awkward(nn.Module):
    """What must not be folded: outputs that others see, layers that are called twice, weights that others own."""

    def __init__(self):
        super().__init__()
        self.seen, self.twice, self.own, self.mixed = (nn.Linear(6, 6) for _ in range(4))
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.BatchNorm1d(6) for _ in range(4))
        self.live, self.tied = nn.BatchNorm1d(6, track_running_stats=False), nn.Linear(6, 6)
        self.tied.weight = self.own.weight
        self.parametrized = nn.utils.parametrizations.weight_norm(nn.Linear(6, 6))
        self.norm5, self.ln = nn.BatchNorm1d(6), nn.LayerNorm(6)

    def forward(self, x):
        y = self.seen(x)
        x = y + self.norm1(y)
        x = self.norm2(self.twice(torch.relu(self.twice(x)))).relu()
        x = self.norm3(self.own(x)).relu() + self.tied(x)
        x = self.norm5(self.parametrized(x)).relu() + self.ln(self.live(x))
        y = self.norm4(x)
        return self.mixed(y) + y


def test_what_cannot_be_folded_says_why():
    changes = folded(Awkward(), torch.randn(8, 6))
    assert not changes.done and set(changes.refused) == {"norm1", "norm2", "norm3", "norm4", "norm5", "live", "ln"}
    assert "depend on the input" in changes.refused["live"] and "depend on the input" in changes.refused["ln"]
    assert "✓" not in str(changes) and "– norm1: no linear layer" in str(changes)


def test_a_fold_that_moves_the_answers_is_undone():
    class Sly(nn.Module):  # reads a weight behind everybody's back
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.other = (
                nn.Conv2d(3, 4, 3),
                nn.BatchNorm2d(4),
                nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)),
            )

        def forward(self, x):
            return self.other(self.norm(self.conv(x)).relu().mean((2, 3))) * self.conv.weight.sum()

    model = lived_in(Sly())
    before = copy.deepcopy(model.state_dict())
    changes = nv.fold_batchnorm(model, torch.randn(4, 3, 6, 6))
    assert (
        changes.done == {"other.1": "into other.0, before it"}
        and "undone: the outputs moved" in changes.refused["norm"]
    )
    assert torch.equal(model.conv.weight, before["conv.weight"]) and isinstance(model.norm, nn.BatchNorm2d)
    assert changes.error < 1e-4


@pytest.mark.parametrize("arm", ["bn", "bn+ffnbn", "bn+ffnbn-before", "rbn"])
def test_it_agrees_with_the_fold_of_our_own_network(arm):
    model, x = lived_in(ViT(arm, depth=2)), torch.randn(4, 1, 8, 8)
    ours = fold(model)
    with torch.no_grad():
        expected = ours(x)
        changes = nv.fold_batchnorm(model, x)
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    assert arm in arms_of("vit") and len(changes.done) >= 4, f"{changes}"


def test_half_precision_and_double():
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.bfloat16, 0.05)):
        model = lived_in(nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8))).to(dtype)
        x = torch.randn(5, 6, dtype=dtype)
        with torch.no_grad():
            before = model(x)
            changes = nv.fold_batchnorm(model, x, tolerance=tolerance)
            assert changes.done and float((model(x) - before).abs().max()) <= 4 * tolerance * float(before.abs().max())


def test_absorbing_says_what_does_not_fit():
    ones = torch.ones(5, dtype=torch.double)
    for absorb in (absorb_input, absorb_output):
        with pytest.raises(ValueError, match="scale has 5 features, the layer"):
            absorb(nn.Linear(4, 4), ones, ones)
    with pytest.raises(ValueError, match="pads with zeros"):
        absorb_input(nn.Conv1d(5, 4, 3, padding=1), ones, ones)


@pytest.mark.parametrize("method", nv.METHODS)
def test_swapped_norms_are_what_they_are_called(method):
    conv = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.GroupNorm(1, 8))
    lived_in(conv)
    gamma = conv[1].weight.detach().clone()
    changes = nv.swap_norms(conv, method, batch=torch.randn(4, 3, 8, 8))
    expected = {"batch": {"4"}, "layer": {"1"}}.get(method, {"1", "4"})
    assert set(changes.done) == expected, f"{changes}"
    for layer in nv.inspect(conv, torch.randn(4, 3, 8, 8)):
        assert layer.method[0] == method and (method != "group" or layer.method[1] == 2)
    new = conv[1].layer if hasattr(conv[1], "layer") else conv[1]
    assert torch.equal(new.weight.detach().flatten(), gamma)  # γ is taken over


def test_where_and_groups():
    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8), nn.LayerNorm(8))
    batch = torch.randn(4, 5, 8)
    changes = nv.swap_norms(model, "batch", "3", batch)
    assert list(changes.done) == ["3"] and isinstance(model[1], nn.LayerNorm)
    assert [layer.company(training=True) for layer in nv.inspect(model, batch)] == [False, True]
    changes = nv.swap_norms(model, "rms", lambda layer: layer.method == ("layer_token", None), batch)
    assert list(changes.done) == ["1"] and isinstance(model[1], nn.RMSNorm)
    changes = nv.swap_norms(nn.Sequential(nn.BatchNorm2d(6)), "group", batch=torch.randn(2, 6, 3, 3), num_groups=4)
    assert changes.refused == {"0": "num_groups=4 does not divide its 6 channels"}
    with pytest.raises(ValueError, match="Did you mean 'batch'"):
        nv.swap_norms(model, "bach", batch=batch)
    with pytest.raises(ValueError, match="num_groups=2 does not go with method 'batch'"):
        nv.swap_norms(model, "batch", batch=batch, num_groups=2)


def test_a_swap_that_the_model_does_not_bear_is_undone():
    class Particular(nn.Module):  # looks into its norm
        def __init__(self):
            super().__init__()
            self.norm, self.other = nn.BatchNorm1d(6), nn.BatchNorm1d(6)

        def forward(self, x):
            return self.other(self.norm(x) + self.norm.running_mean)

    model = Particular()
    changes = nv.swap_norms(model, "layer_token", batch=torch.randn(4, 6))
    assert list(changes.done) == ["other"] and "undone: Particular fails" in changes.refused["norm"]
    assert isinstance(model.norm, nn.BatchNorm1d) and isinstance(model.other, nn.LayerNorm)
    assert "1 norm layer changed, 1 left" in str(changes) and "<table>" in changes._repr_html_()


def test_a_swapped_network_trains():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2)).train()
    model[1].requires_grad_(False)
    nv.swap_norms(model, "group", batch=torch.randn(4, 3, 8, 8))
    assert model[1].training and not any(p.requires_grad for p in model[1].parameters())
    model(torch.randn(4, 3, 8, 8)).sum().backward()
    assert model[0].weight.grad.abs().sum() > 0
