"""The table, the partitions and the counts, against definitions written independently of them."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from strategies import cases

import normviz as nv
from normviz.norms import ROLES, axes_of, cut
from normviz.norms.layers import torch_call


def brute_force(method, shape, groups, layout):
    """Labels by the definition: walk over the cells, name each set by what its members have in common."""
    axes = axes_of(shape, layout)
    names, labels = {}, np.empty(shape, dtype=np.int64)
    for cell in itertools.product(*map(range, shape)):
        sample, channel = cell[0], cell[axes.channel]
        position = tuple(cell[i] for i in axes.positions)
        key = {
            "batch": (channel,),
            "layer": (sample,),
            "layer_token": (sample, position),
            "rms": (sample, position),
            "instance": (sample, channel),
            "group": (sample, channel * (groups or 1) // axes.channels),
        }[method]
        labels[cell] = names.setdefault(key, len(names))
    return labels


@given(cases())
def test_partition_is_the_definition(case):
    method, shape, groups, layout = case
    labels = nv.partition(method, shape, groups, layout)
    assert labels.dtype == np.int64 and labels.flags.writeable
    np.testing.assert_array_equal(labels, brute_force(*case))


@given(cases())
def test_count_is_the_number_of_labels(case):
    method, shape, groups, layout = case
    count = nv.count_statistics(method, shape, groups, layout)
    assert count.sets == len(np.unique(nv.partition(*case)))
    assert count.values == count.sets * (1 if method == "rms" else 2)
    sizes = dict(zip(axes_of(shape, layout).letters, shape, strict=True)) | {"G": groups, "2": 2}
    assert np.prod([sizes[letter] for letter in count.formula]) == count.values


def test_the_articles_count():
    assert nv.count_statistics("layer_token", (4, 6, 3, 3)) == (36, 72, "2NHW")
    formulas = {m: nv.count_statistics(m, (4, 6, 3, 3), 2 if m == "group" else None).formula for m in nv.METHODS}
    assert formulas == {
        "batch": "2C", "layer": "2N", "layer_token": "2NHW", "instance": "2NC", "group": "2NG", "rms": "NHW",
    }  # fmt: skip
    assert nv.count_statistics("layer_token", (8, 16, 32), layout="BTD").formula == "2BT"


def test_order_is_the_fields():
    assert list(nv.METHODS) == ["batch", "layer", "layer_token", "instance", "group", "rms"]
    assert all(set(row.over) <= set(ROLES.values()) for row in nv.METHODS.values())


@given(cases(methods=("group",)))
def test_extreme_groups_are_layer_and_instance(case):
    _, shape, _, layout = case
    channels = axes_of(shape, layout).channels
    np.testing.assert_array_equal(nv.partition("group", shape, 1, layout), nv.partition("layer", shape, None, layout))
    assert "layer" in cut("group", shape, 1, layout).same_as
    assert "instance" in cut("group", shape, channels, layout).same_as


def test_coincidences_are_said_only_where_true():
    assert cut("batch", (4, 6, 3, 3)).same_as == []
    assert cut("batch", (1, 6, 3, 3)).same_as == ["instance"]
    assert cut("rms", (4, 6, 3, 3)).same_as == []  # the same sets as layer_token, but no mean


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: nv.partition("bacth", (2, 3)), ["method='bacth'", "Did you mean 'batch'?", "rms"]),
        (lambda: nv.partition("batch", (2, 3), layout="NHWC"), ["layout='NHWC'", "NCHW", "BTD"]),
        (lambda: nv.partition("batch", (2, 3, 4, 5, 6)), ["shape=(2, 3, 4, 5, 6)", "rank 5", "(N, C, H, W)"]),
        (lambda: nv.partition("batch", (2, 3), layout="BTD"), ["rank 2", "(B, T, D)"]),
        (lambda: nv.partition("batch", (2, 0, 3, 3)), ["C=0", "empty"]),
        (lambda: nv.partition("group", (2, 6, 3, 3), 4), ["num_groups=4", "C=6", "[1, 2, 3, 6]"]),
        (lambda: nv.partition("group", (2, 6, 3, 3)), ["num_groups=None", "[1, 2, 3, 6]"]),
        (lambda: nv.partition("group", (2, 6, 3, 3), True), ["num_groups=True"]),
        (lambda: nv.partition("layer", (2, 6, 3, 3), 2), ["num_groups=2", "'layer'"]),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError) as error:
        call()
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("shape", [7, (4.7, 6.2), "4633", {4, 6}, (float("inf"), 3), None])
def test_a_shape_is_a_sequence_of_integers(shape):
    with pytest.raises(TypeError, match=r"shape=.*integers"):
        nv.cut("batch", shape)


def test_counting_takes_no_memory():
    assert nv.count_statistics("layer", (10**9, 3, 10**6, 10**6)).values == 2 * 10**9


@given(cases())
def test_view_and_dims_are_the_sets(case):
    """Summed over `dims`, the view has one number a set: the count of its cells."""
    c = nv.cut(*case)
    cells = np.ones(c.view).sum(c.dims, keepdims=True)
    assert cells.size == c.count.sets and (cells == c.set_size).all()
    np.testing.assert_array_equal(np.sort(np.bincount(c.labels.ravel())), np.sort(cells.ravel()))
    with pytest.raises(ValueError, match="read-only"):
        c.labels[...] = 0


def test_caption_tells_the_picture():
    text = cut("layer_token", (4, 6, 3, 3)).caption(size=6, mean=0.5, std=2.0)
    assert text == (
        "LayerNorm (per token): tensor N=4×C=6×H=3×W=3; the cursor cell shares its mean and variance with "
        "5 other cells; μ=0.5, σ=2; 36 sets in all (2NHW = 72 statistics)."
    )
    assert "root mean square=2" in cut("rms", (4, 6, 3, 3)).caption(size=6, mean=0.0, std=2.0)
    assert "no other cell" in cut("instance", (4, 6, 1, 1)).caption(size=1)


def test_torch_call_reads_as_code():
    call = torch_call(cut("layer_token", (4, 6, 3, 3)))
    assert call.constructor == "nn.LayerNorm(normalized_shape=6, eps=1e-05, elementwise_affine=True)"
    assert call.forward == "layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)"
