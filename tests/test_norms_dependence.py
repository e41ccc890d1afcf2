"""A layer that is asked by its gradients says what the table says."""

import pytest
import torch
from torch import nn

import normviz as nv
from normviz.norms.dependence import computed_sets, moved_by_neighbours


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
