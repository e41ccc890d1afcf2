"""Ten planted faults, each found where it is and with the right advice; and the same networks without them."""

import pytest
import torch
from sick_networks import SICK, convnet, photos, trained
from torch import nn
from torch.nn import functional as F

import normviz as nv


@pytest.mark.parametrize("plant", SICK, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found(plant):
    torch.manual_seed(0)
    sick = plant()
    report = nv.inspect(sick.model, sick.batch, **dict(sick.options))
    found = [f for f in report.findings if f.kind == sick.kind and f.layer == sick.layer]
    assert found, f"{report}"
    assert found[0].severity == sick.severity
    assert sick.advice in found[0].advice
    # Nothing else is called a fault, but what fails or follows from the same cause
    others = {f.kind for f in report.faults} - {sick.kind}
    assert others <= {"batch_of_one": {"fails_in_training"}}.get(sick.kind, set()), f"{report}"
    assert sick.kind in str(report.of(sick.severity)) and sick.layer in str(report)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, lambda c: nn.GroupNorm(4, c)], ids=["batch", "group"])
def test_the_same_network_is_sound_without_a_fault(norm):
    torch.manual_seed(0)
    for model in (convnet(norm), trained(convnet(norm), steps=100)):
        report = nv.inspect(model, photos())
        assert not report.faults and not report.of("warning"), f"{report}"


def test_the_cures_cure():
    torch.manual_seed(0)
    sick = SICK[0]()
    for layer in sick.model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
            layer.reset_running_stats()
    trained(sick.model, steps=20, make=lambda: photos(16, 5, 20))
    assert not nv.inspect(sick.model, sick.batch).faults
    one = SICK[5]()
    nv.swap_norms(one.model, "layer_token", batch=torch.randn(4, 6))
    assert not nv.inspect(one.model, one.batch).faults


class Swish(nn.Module):
    """SiLU as people write it themselves: two functions of one tensor, multiplied."""

    def forward(self, x):
        return x * torch.sigmoid(x)


class Slope(nn.Module):
    """PReLU as a function, its slope given by name."""

    def forward(self, x):
        return F.prelu(x, weight=torch.full((1,), 0.1))


BETWEEN = {
    "nothing": nn.Identity(), "relu": nn.ReLU(), "in place": nn.ReLU(inplace=True), "swish": Swish(),
    "dropout": nn.Sequential(nn.GELU(), nn.Dropout(0.5)), "pool": nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)),
    "pad": nn.Sequential(nn.ZeroPad2d(1), nn.LeakyReLU(), nn.AvgPool2d(3, 1, 1)),
    "one slope": nn.PReLU(), "slopes": nn.Sequential(nn.PReLU(5, 0.1), nn.Dropout(0.1)), "by name": Slope(),
}  # fmt: skip


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("between", BETWEEN.values(), ids=BETWEEN)
def test_the_wrong_axis_is_found_beyond_an_activation(between, affine):
    torch.manual_seed(0)
    norm = nn.LayerNorm(8, elementwise_affine=affine)
    network = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), norm, between, nn.Conv2d(5, 4, 3))
    report = nv.inspect(network, photos())
    assert [(f.kind, f.layer) for f in report.faults] == [("wrong_axis", "1")], f"{report}"
    assert "3 after it takes axis 1" in report.faults[0].text and "LayerNorm(5)" in report.faults[0].advice
    assert report["1"].cut == "statistics over position (axis 3)"


class Turned(nn.Module):
    """The right LayerNorm in a convolutional network: features last, an activation, and back again."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x):
        return self.norm(x.movedim(1, -1)).relu().movedim(-1, 1)


class Mixer(nn.Module):
    """A Linear over positions that takes them where features were: the axes are turned after an activation."""

    def __init__(self):
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(6), nn.Linear(5, 5)

    def forward(self, x):
        return self.mix(self.norm(x).tanh().transpose(1, 2))


class Sum(nn.Module):
    """Whatever is added, nobody knows which axis the sum's features are on."""

    def __init__(self):
        super().__init__()
        self.norm, self.conv = nn.LayerNorm(8), nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(self.norm(x).relu() + x)


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (nn.Sequential(nn.Conv2d(3, 5, 1), Turned(5), nn.Conv2d(5, 2, 1)), (4, 3, 8, 8)),
        (Mixer(), (4, 5, 6)), (Sum(), (4, 3, 8, 8)),
        (nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 2)), (4, 5, 6)),
        (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 4, 1)),
            (4, 3, 8, 8),
        ),
        (nn.Sequential(nn.InstanceNorm2d(3, affine=True), nn.ReLU(), nn.Conv2d(3, 4, 3)), (4, 3, 8, 8)),
    ],
    ids=["features last", "mixer", "sum", "tokens", "groups", "instance"],
)  # fmt: skip
def test_the_right_axis_is_no_fault_beyond_an_activation(network, shape):
    torch.manual_seed(0)
    report = nv.inspect(network, torch.randn(shape))
    assert not report.faults and not report.of("warning"), f"{report}"


def test_what_stands_after_an_activation_is_no_place_to_fold_into():
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)).eval()
    changes = nv.fold_batchnorm(network, torch.randn(4, 6))
    assert not changes.done and "0" in changes.refused
