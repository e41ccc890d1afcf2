"""Ten planted faults, each found where it is and with the right advice; and the same networks without them."""

import pytest
import torch
from sick_networks import SICK, convnet, photos, trained
from torch import nn

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
