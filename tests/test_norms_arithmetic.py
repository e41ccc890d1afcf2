"""The from-scratch norms against torch's own layers: outputs, gradients, running statistics, errors."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import cases, random_tensor, torch_refuses

import normviz as nv
from normviz.norms import normalize_steps

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
dtypes = st.sampled_from(list(TOLERANCE))
seeds = st.integers(0, 2**16)


def layer_with_random_affine(case, dtype, affine, seed):
    method, shape, groups, layout = case
    layer = nv.torch_layer(method, shape, groups, affine=affine, layout=layout, dtype=dtype)
    if affine:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=dtype))
    return layer


def assert_close(got, expected, dtype, scale=1.0):
    # Relative to the largest value (1e-5 of it in float32), or to the terms that a caller knows to be summed
    scale = max(1.0, scale, float(expected.detach().abs().max()))
    assert got.shape == expected.shape and got.dtype == expected.dtype
    assert float((got - expected).detach().abs().max()) <= TOLERANCE[dtype] * scale


@torch.no_grad()
def condition(x, method, groups, layout):
    """How much rounding may grow, and 1/σ.

    Rounding goes with the terms that are subtracted, |x|/σ, not with the small difference that may be left: a set
    of two almost equal values is as ill-conditioned for torch as for us.
    """
    sigma = float(normalize_steps(x, method, groups, layout=layout).var.add(1e-5).sqrt().min())
    return max(1.0, float(x.abs().max()) / sigma), max(1.0, 1 / sigma)


@given(cases(), dtypes, st.booleans(), seeds)
def test_agrees_with_torch_and_so_do_gradients(case, dtype, affine, seed):
    assume(not torch_refuses(*case))
    method, shape, groups, layout = case
    layer = layer_with_random_affine(case, dtype, affine, seed)
    ours, theirs = (random_tensor(shape, seed, dtype).requires_grad_() for _ in range(2))
    parameters = {k: getattr(layer, k, None) for k in ("weight", "bias")}
    copies = {k: None if p is None else p.detach().clone().requires_grad_() for k, p in parameters.items()}
    got = nv.normalize(ours, method, groups, layout=layout, **copies)
    expected = layer(theirs)
    upstream = random_tensor(shape, seed + 1, dtype)
    (got * upstream).sum().backward()
    (expected * upstream).sum().backward()

    gain = 1.0 if parameters["weight"] is None else max(1.0, float(parameters["weight"].detach().abs().max()))
    growth, steepness = condition(ours, method, groups, layout)
    terms = gain * growth * steepness * max(1.0, float(upstream.abs().max()))
    assert_close(got, expected, dtype, scale=gain * growth)
    assert_close(ours.grad, theirs.grad, dtype, scale=terms)
    for name, parameter in parameters.items():
        if parameter is not None:
            assert_close(copies[name].grad, parameter.grad, dtype, scale=terms)


@given(cases(methods=("batch",)), dtypes, st.sampled_from([0.1, 0.5, 1.0, None]), seeds)
def test_running_statistics_follow_torch(case, dtype, momentum, seed):
    assume(not torch_refuses(*case))
    method, shape, _, layout = case
    layer = nv.torch_layer(method, shape, momentum=momentum, affine=False, layout=layout, dtype=dtype)
    inner = getattr(layer, "layer", layer)
    running = nv.RunningStats.fresh(inner.num_features, like=torch.empty(0, dtype=dtype))
    for step in range(4):
        x = random_tensor(shape, seed + step, dtype) * (step + 1)
        got = nv.normalize(x, method, running=running, momentum=momentum, layout=layout)
        assert_close(got, layer(x), dtype, scale=condition(x, method, None, layout)[0])
        assert_close(running.mean, inner.running_mean, dtype)
        assert_close(running.var, inner.running_var, dtype)
        assert running.count == inner.num_batches_tracked
    layer.eval()
    before = [s.clone() for s in running]
    got = nv.normalize(x, method, running=running, training=False, layout=layout)
    growth = max(1.0, float(x.abs().max() / running.var.min().add(1e-5).sqrt()))
    assert_close(got, layer(x), dtype, scale=growth)
    assert all(torch.equal(a, b) for a, b in zip(before, running, strict=True))


@given(cases(methods=tuple(m for m in nv.METHODS if m != "batch")), seeds)
def test_the_others_do_the_same_in_evaluation(case, seed):
    assume(not torch_refuses(*case))
    method, shape, groups, layout = case
    x = random_tensor(shape, seed, torch.float64)
    layer = nv.torch_layer(method, shape, groups, layout=layout, dtype=torch.float64).eval()
    got = nv.normalize(x, method, groups, training=False, layout=layout)
    assert torch.equal(got, nv.normalize(x, method, groups, layout=layout))
    assert_close(got, layer(x), torch.float64, scale=condition(x, method, groups, layout)[0])


def test_a_pair_of_tensors_serves_as_running_statistics():
    x = torch.randn(8, 3)
    pair = (torch.zeros(3), torch.ones(3))
    nv.normalize(x, "batch", running=pair)
    torch.testing.assert_close(pair[0], 0.1 * x.mean(0))
    torch.testing.assert_close(pair[1], 0.9 + 0.1 * x.var(0, unbiased=True))


def test_double_precision_gradients_by_finite_differences():
    x = torch.randn(3, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    for method in nv.METHODS:
        groups = 2 if nv.METHODS[method].grouped else None
        assert torch.autograd.gradcheck(lambda x, m=method, g=groups: nv.normalize(x, m, g), (x,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    x = (torch.randn(4, 512) * 3 + 100).to(dtype)
    got, expected = nv.normalize(x, "layer_token"), torch.nn.functional.layer_norm(x, (512,))
    assert got.dtype == dtype
    torch.testing.assert_close(got, expected, rtol=2e-2, atol=2e-2)


def test_large_offsets_do_not_cancel():
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(0)) + 1e4
    exact = nv.normalize(x.double(), "layer_token").float()
    # A float32 mean of 1e4 is known to 5e-4; E[x²] - E[x]² would be off by whole units
    torch.testing.assert_close(nv.normalize(x, "layer_token"), exact, rtol=0, atol=2e-3)


def test_input_is_left_alone():
    x = torch.randn(2, 4, 3, 3)
    before = x.clone()
    for method in nv.METHODS:
        nv.normalize(x, method, 2 if nv.METHODS[method].grouped else None)
    assert torch.equal(x, before)


X = torch.randn(2, 6, 3, 3)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: nv.normalize(X.long(), "layer"), TypeError, ["x", "int64", "x.float()"]),
        (lambda: nv.normalize([1.0], "layer"), TypeError, ["x", "list"]),
        (lambda: nv.normalize(X, "lyer"), ValueError, ["method='lyer'"]),
        (lambda: nv.normalize(X, "layer", layout="XYZ"), ValueError, ["layout='XYZ'"]),
        (lambda: nv.normalize(X[0, 0, 0], "layer"), ValueError, ["rank 1", "(N, C)"]),
        (lambda: nv.normalize(X[:0], "layer"), ValueError, ["N=0", "empty"]),
        (lambda: nv.normalize(X, "group", 4), ValueError, ["num_groups=4", "[1, 2, 3, 6]"]),
        (lambda: nv.normalize(X[:1, :, :1, :1], "batch"), ValueError, ["single value per channel", "(1, 6, 1, 1)"]),
        (lambda: nv.normalize(X[:, :, :1, :1], "instance"), ValueError, ["single value per channel"]),
        (lambda: nv.normalize(X, "layer", weight=torch.ones(6)), ValueError, ["weight", "(6,)", "(6, 3, 3)"]),
        (lambda: nv.normalize(X, "batch", bias=torch.ones(5)), ValueError, ["bias", "(5,)", "(6,)"]),
        (lambda: nv.normalize(X, "layer", eps=-1.0), ValueError, ["eps=-1.0"]),
        (lambda: nv.normalize(X, "layer", eps=float("nan")), ValueError, ["eps=nan"]),
        (lambda: nv.normalize(X, "batch", training=False), ValueError, ["training=False", "running"]),
        (lambda: nv.normalize(X, "layer", running=nv.RunningStats.fresh(6)), ValueError, ["running", "'layer'"]),
        (lambda: nv.normalize(X, "batch", running=nv.RunningStats.fresh(5)), ValueError, ["running mean", "(6,)"]),
        (
            lambda: nv.normalize(X, "batch", running=(torch.zeros(6), torch.ones(6)), momentum=None),
            ValueError,
            ["momentum=None", "count"],
        ),
        (lambda: nv.torch_layer("group", (2, 6, 3, 3), 5), ValueError, ["num_groups=5"]),
    ],
)
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error) as caught:
        call()
    for word in words:
        assert word in str(caught.value)


def test_a_refused_call_leaves_running_statistics_alone():
    running = nv.RunningStats.fresh(6)
    with pytest.raises(ValueError):
        nv.normalize(X[:1, :, :1, :1], "batch", running=running)
    assert running.count == 0 and running.mean.eq(0).all() and running.var.eq(1).all()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: nv.normalize(X, "layer", eps="1"), ValueError, ["eps='1'"]),
        (lambda: nv.torch_layer("layer", X.shape, eps=-1), ValueError, ["eps=-1"]),
        (lambda: nv.torch_layer("batch", X.shape, momentum=1.5), ValueError, ["momentum=1.5"]),
        (lambda: nv.normalize(X, "batch", running=nv.RunningStats.fresh(6), momentum="0.1"), ValueError, ["'0.1'"]),
        (lambda: nv.normalize(X, "batch", weight=[1.0] * 6), TypeError, ["weight", "Tensor", "list"]),
        (lambda: nv.normalize(X, "batch", bias=np.ones(6)), TypeError, ["bias", "Tensor", "ndarray"]),
        (lambda: nv.normalize(X.numpy(), "batch", bias=torch.ones(6)), TypeError, ["bias", "ndarray", "Tensor"]),
        (lambda: nv.normalize(X, "batch", running=0.5, training=False), TypeError, ["running", "float"]),
        (lambda: nv.normalize(X[:1, :, :1, :1], "group", 6), ValueError, ["single value per group"]),
        (lambda: normalize_steps(X, nv.cut("layer", (3, 3))), ValueError, ["x has shape (2, 6, 3, 3)", "(3, 3)"]),
    ],
)
def test_misfits_are_named(call, error, words):
    with pytest.raises(error) as caught:
        call()
    for word in words:
        assert word in str(caught.value)


@given(cases(), dtypes, seeds)
def test_arrays_and_tensors_are_one_arithmetic(case, dtype, seed):
    assume(not torch_refuses(*case))
    method, shape, groups, layout = case
    x = random_tensor(shape, seed, dtype)
    ours, theirs = (normalize_steps(v, method, groups, layout=layout) for v in (x, x.numpy()))
    for name in ("centred", "scaled", "affine", "mean", "var"):
        array = getattr(theirs, name)
        assert isinstance(array, np.ndarray)
        assert_close(
            torch.from_numpy(np.array(array)), getattr(ours, name), dtype, condition(x, method, groups, layout)[0]
        )


def test_running_statistics_of_arrays_follow_those_of_tensors():
    batches = np.random.default_rng(0).normal(3, 2, (5, 8, 6, 2, 2))
    for momentum in (0.1, None):
        arrays = nv.RunningStats.fresh(6, like=batches)
        tensors = nv.RunningStats.fresh(6, like=torch.from_numpy(batches))
        for batch in batches:
            nv.normalize(batch, "batch", running=arrays, momentum=momentum)
            nv.normalize(torch.from_numpy(batch), "batch", running=tensors, momentum=momentum)
        for ours, theirs in zip(arrays, tensors, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-12)
        y = nv.normalize(batches[0], "batch", running=arrays, training=False)
        np.testing.assert_allclose(y[:, 2], (batches[0, :, 2] - arrays.mean[2]) / np.sqrt(arrays.var[2] + 1e-5))
