"""A layer that is asked by its gradients says what the table says."""

import numpy as np
import pytest
import torch
from torch import nn

import normviz as nv
from normviz.norms import normalize_steps
from normviz.norms.dependence import asked, computed_sets, moved_by_neighbours, resized


@pytest.mark.parametrize(("method", "groups"), [(m, 2 if row.grouped else None) for m, row in nv.METHODS.items()])
def test_computed_sets_agree_with_the_table(method, groups):
    shape = (2, 4, 2, 2)
    layer = nv.torch_layer(method, shape, groups)
    expected = nv.count_statistics(method, shape, num_groups=groups).sets
    assert computed_sets(layer, shape) == expected
    assert computed_sets(layer.eval(), shape) == (0 if nv.METHODS[method].running else expected)


def test_asking_leaves_the_layer_as_it_was():
    layer = nn.BatchNorm2d(4)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    computed_sets(layer, (2, 4, 2, 2))
    assert moved_by_neighbours(layer, torch.randn(2, 4, 2, 2), torch.randn(2, 4, 2, 2)) > 0
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert layer.weight.dtype == torch.float32


def test_neighbours_move_batch_norm_in_training_alone():
    x, others = torch.randn(4, 6, 3, 3), torch.randn(4, 6, 3, 3)
    for method, row in nv.METHODS.items():
        layer = nv.torch_layer(method, x.shape, 2 if row.grouped else None)
        assert (moved_by_neighbours(layer, x, others) > 0) == row.running
        assert moved_by_neighbours(layer.eval(), x, others) == 0
    with pytest.raises(ValueError, match="others has shape"):
        moved_by_neighbours(layer, x, others[:2])


@pytest.mark.parametrize(("method", "groups"), [(m, 2 if row.grouped else None) for m, row in nv.METHODS.items()])
def test_one_gradient_gives_the_sets_of_the_table(method, groups):
    shape = (3, 4, 2, 5)
    cut = nv.cut(method, shape, groups)
    found = asked(cut.torch_layer(affine=False), shape)
    assert np.array_equal(found.labels, cut.labels) and found.set_size == cut.set_size and found.regular
    assert found.centred == nv.METHODS[method].centred
    x = 7 + 2 * torch.randn(shape)
    view, mean, var = found.statistics(x)
    assert view.numel() == x.numel() and mean.numel() == cut.count.sets
    steps = normalize_steps(x.double(), cut)
    if found.centred:
        torch.testing.assert_close(mean.flatten().double().sort()[0], steps.mean.unique(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(var.flatten().double().sort()[0], steps.var.unique(), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    "layer",
    [nn.ReLU(), nn.Tanh(), nn.Softmax(-1), nn.Linear(4, 4), nn.Conv1d(6, 6, 3, padding=1), nn.Sigmoid(), nn.Hardtanh(),
     nn.LocalResponseNorm(2), nn.MaxPool1d(3, 1, 1), nn.BatchNorm1d(6).eval(), nn.Identity(), nn.GLU()],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_what_is_no_norm_layer_has_no_sets(layer):
    def call(x):
        y = layer(x)
        return y if y.shape == x.shape else torch.cat([y, y], -1)

    found = asked(call, (5, 6, 4))
    assert found is None or found.set_size == 1


def test_sets_that_are_no_blocks_and_norms_with_a_gate():
    def shuffled(x):  # every other channel
        return torch.cat([nn.functional.normalize(x[:, k::2], dim=1) for k in (0, 1)], 1)

    def gated(x):
        return x * torch.sigmoid(x) / x.std((1, 2), keepdim=True)

    assert not asked(shuffled, (3, 6)).regular
    found = asked(gated, (3, 4, 5))
    assert found.spans == (1, 4, 5) and found.set_size == 20 and found.axes == (1, 2)
    assert resized(found, (9, 4, 7)).spans == (1, 4, 7)
    assert asked(lambda x: x - x.mean(1, keepdim=True), (3, 4)) is None  # a mean alone keeps the scale
