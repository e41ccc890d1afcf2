"""`nv.inspect` on networks of all kinds: what it says, that it says it of every kind, and that it leaves no trace."""

import copy
import random
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import normviz as nv
from normviz.clinic import ForwardError

SHAPES = {"NCHW": ((4, 6), (4, 6, 5), (4, 6, 3, 2)), "BTD": ((4, 5, 6),)}
CASES = [
    (method, shape, layout)
    for layout, shapes in SHAPES.items() for shape in shapes for method, row in nv.METHODS.items()
    if not (len(shape) == 2 and (row.over == {"position"} or method == "layer"))
]  # fmt: skip


@settings(max_examples=80)
@given(case=st.sampled_from(CASES), groups=st.sampled_from([2, 3]), affine=st.booleans(), seed=st.integers(0, 999))
def test_every_method_is_known_by_its_gradients(case, groups, affine, seed):
    method, shape, layout = case
    row = nv.METHODS[method]
    groups = groups if row.grouped else None
    layer = nv.torch_layer(method, shape, groups, layout=layout, affine=affine)
    torch.manual_seed(seed)
    (found,) = nv.inspect(nn.Sequential(layer), torch.randn(shape))
    cut = nv.cut(method, shape, groups, layout)
    key, number = found.method
    assert nv.cut(key, shape, number, layout).same_as == cut.same_as or (key, number) == (method, groups)
    if not found.name.endswith("layer"):  # no turned axes between: the very labels
        assert np.array_equal(found.sharing.labels, cut.labels)
    assert found.sharing.centred == row.centred
    assert found.company(training=True) == row.running and not found.company(training=False)
    assert (found.evaluation is None) == row.running
    assert found.draw().alt.startswith(f"{found.name}: ")


class Own(nn.Module):
    """A reader's own norm, of no known class: RMS over the last two axes, and a second argument."""

    def __init__(self, gain=1.0):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, x, gate=None):
        y = self.gain * x / (x.square().mean((-1, -2), keepdim=True) + 1e-6).sqrt()
        return y if gate is None else y * torch.sigmoid(gate)


class Norm(nn.Module):
    """A reader's own BatchNorm, that reassigns its buffers and counts in a Python number."""

    def __init__(self, width, unbiased=True):
        super().__init__()
        self.scale, self.offset = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("moving_mean", torch.zeros(width))
        self.register_buffer("moving_var", torch.ones(width))
        self.unbiased, self.steps = unbiased, 0

    def forward(self, x):
        mean, var = self.moving_mean, self.moving_var
        if self.training:
            mean, var = x.mean(0), x.var(0, unbiased=False)
            self.moving_mean = 0.8 * self.moving_mean + 0.2 * mean.detach()
            self.moving_var = 0.8 * self.moving_var + 0.2 * x.detach().var(0, unbiased=self.unbiased)
            self.steps += 1
        return (x - mean) / (var + 1e-5).sqrt() * self.scale + self.offset


def test_a_norm_of_ones_own_is_asked_too():
    report = nv.inspect(nn.Sequential(nn.Linear(5, 8), Norm(8), nn.ReLU()), torch.randn(4, 5))
    (layer,) = report
    assert layer.method == ("batch", None) and layer.kind == "Norm" and layer.company(training=True)
    assert layer.momentum == pytest.approx(0.2, abs=1e-3) and layer.running == {
        "mean": "moving_mean",
        "var": "moving_var",
    }
    assert layer.mismatch == pytest.approx(1 - (3 / 4) ** 0.5, abs=1e-3)  # √((n − 1)/n), of four values
    (other,) = nv.inspect(nn.Sequential(Norm(8, unbiased=False)), torch.randn(4, 8))
    assert other.mismatch == pytest.approx(0, abs=1e-4)
    (own,) = nv.inspect(nn.Sequential(Own(0.0)), torch.randn(4, 3, 8))  # whose weight of 0 hides all it does
    assert own.training.spans == (1, 3, 8) and not own.training.centred


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


class Everything(nn.Module):
    """Whatever makes hooks and forward passes hard."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.norm, self.gated, self.idle = nn.LayerNorm(8), Own(), nn.LayerNorm(3)
        self.linear = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
        self.spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8))
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.batch, self.act = nn.BatchNorm1d(8), nn.ReLU(inplace=True)
        self.again = self.batch  # one module in two places
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens, *, scale=1.0, note="x"):
        x = self.norm(self.embedding(tokens)) * scale
        x = self.gated(x, gate=x)
        x = checkpoint(lambda x: self.act(self.linear(x)), x, use_reentrant=False)
        x = self.encoder(F.dropout(x, 0.1, self.training))
        x = self.again(self.batch(x.transpose(1, 2))).transpose(1, 2)
        return {"logits": self.head(self.spectral(x)), "hidden": (x, [x.mean(1)]), "note": note}


def trace(model):
    """Everything that could be left behind."""
    return (
        {key: value.clone() for key, value in (*model.named_parameters(), *model.named_buffers())},
        [(name, id(p), p.requires_grad, p.grad) for name, p in model.named_parameters()],
        [
            (name, m.training, list(m._forward_hooks), list(m._forward_pre_hooks), sorted(m.__dict__))
            for name, m in model.named_modules()
        ],
        [id(buffer) for buffer in model.buffers()],
        (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()),
        torch.backends.mha.get_fastpath_enabled(),
    )  # fmt: skip


def same(one, two):
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_model_is_left_exactly_as_it_was(dtype, device):
    torch.manual_seed(0)
    model = Everything().to(device, dtype).train()
    model.encoder.eval()
    model.norm.requires_grad_(False)
    heard = []
    model.batch.register_forward_hook(lambda *_: heard.append(1))
    batch = {"tokens": torch.randint(0, 11, (3, 5), device=device), "scale": 0.5}
    sum(t.float().sum() for t in (model(**batch)["logits"],)).backward()
    before, cuda = trace(model), torch.cuda.get_rng_state() if device == "cuda" else None
    report = nv.inspect(model, batch)
    assert same(before, trace(model))
    assert cuda is None or torch.equal(cuda, torch.cuda.get_rng_state())
    kinds = {layer.name: layer.method for layer in report}
    assert kinds["norm"] == kinds["encoder.norm1"] == ("layer_token", None) and kinds["batch"] == ("batch", None)
    assert report["gated"].training.spans == (1, 5, 8)
    assert report["batch"].calls == 2 and "called_often" in {f.kind for f in report.findings}
    assert "idle" not in kinds and len(kinds) == 5 and not report.faults


def test_parameters_are_never_copied():
    class Largest(TorchDispatchMode):
        cells = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if (
                isinstance(out, torch.Tensor)
                and out._base is None
                and not any(out is a for a in args)
                and func.name()[4:] != "::t"
            ):
                Largest.cells = max(Largest.cells, 0 if _is_alias(out, args) else out.numel())
            return out

    def _is_alias(out, args):
        places = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
        return out.untyped_storage().data_ptr() in places

    model = nn.Sequential(nn.Linear(300, 300), nn.BatchNorm1d(300), nn.Linear(300, 300), nn.LayerNorm(300))
    with Largest():
        nv.inspect(model, torch.randn(6, 300))
    assert 0 < Largest.cells <= 6 * 300 < model[0].weight.numel()


@pytest.mark.parametrize("compiled", [False, True])
def test_a_model_that_fails_says_where(compiled):
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(5, 2)))
    model = torch.compile(model) if compiled else model
    with pytest.raises(
        ForwardError, match=r"Sequential fails in evaluation, in '1.1' \(Linear\), on \(3, 4\)"
    ) as caught:
        nv.inspect(model, torch.randn(3, 4))
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(ForwardError, match="in the model itself"):
        nv.inspect(nn.Linear(4, 4), ())
    with pytest.raises(TypeError, match="model=int"):
        nv.inspect(3, torch.randn(3, 4))
    with pytest.raises(ValueError, match="accumulate=0"):
        nv.inspect(nn.LayerNorm(4), torch.randn(3, 4), accumulate=0)
    with pytest.raises(ValueError, match="mask="):
        nv.inspect(nn.LayerNorm(4), torch.randn(3, 4), mask=torch.ones(3))
    with pytest.raises(ValueError, match="batch=None"):
        nv.inspect(nn.ReLU())
    with pytest.raises(KeyError, match="Did you mean '1'"):
        nv.inspect(nn.Sequential(nn.ReLU(), nn.LayerNorm(4)), torch.randn(3, 4))["11"]


def test_what_is_not_finite_is_a_finding():
    class Burst(nn.Module):
        def forward(self, x):
            return x / 0

    report = nv.inspect(nn.Sequential(Burst(), nn.LayerNorm(4)), torch.randn(3, 4))
    assert [(f.kind, f.layer) for f in report.faults] == [("not_finite", "1")]
    report = nv.inspect(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), torch.full((3, 4), float("nan")))
    assert {f.kind for f in report.faults} == {"not_finite"}
    poisoned = nn.Sequential(nn.BatchNorm1d(4))
    poisoned[0].running_var[2] = float("nan")
    assert "not_finite" in {f.kind for f in nv.inspect(poisoned, torch.randn(3, 4)).faults}


def test_what_is_dead_is_a_finding():
    report = nv.inspect(nn.Sequential(nn.Threshold(1e9, 0.0), nn.LayerNorm(4)), torch.randn(3, 4))
    assert [f.kind for f in report.faults] == ["constant"]


def test_company_in_evaluation():
    live = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    report = nv.inspect(live, torch.randn(4, 3, 8, 8))
    assert report["1"].company(training=False) and "company_in_evaluation" in {f.kind for f in report.faults}

    class Careless(nn.Module):
        def forward(self, x):
            return F.batch_norm(x, None, None, training=True).relu() + self.training * 0 * x

    report = nv.inspect(nn.Sequential(nn.Linear(4, 4), nn.Sequential(Careless(), nn.Linear(4, 2))), torch.randn(6, 4))
    assert "company_in_evaluation" in {f.kind for f in report.findings}


def test_a_mask_may_be_given_and_a_layer_that_heeds_it_is_sound():
    class Masked(nn.Module):
        def __init__(self, heed):
            super().__init__()
            self.norm, self.heed = nn.GroupNorm(1, 6), heed

        def forward(self, x):
            return self.norm(x if not self.heed else x.transpose(1, 2).reshape(-1, 6)).reshape(-1)

    x, mask = torch.randn(3, 6, 7), torch.arange(7) < torch.tensor([7, 4, 2])[:, None]
    assert [f.kind for f in nv.inspect(Masked(False), x, mask=mask).faults] == ["padding"]
    assert not nv.inspect(Masked(True), x, mask=mask).faults  # every token by itself
    assert not nv.inspect(Masked(False), x, mask=torch.ones(3, 7)).faults


def test_frozen_as_it_should_be():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).train()
    model[1].eval().requires_grad_(False)
    report = nv.inspect(model, torch.randn(4, 3, 8, 8))
    assert report["1"].frozen and "frozen" in {f.kind for f in report.findings} and not report.faults


@pytest.mark.parametrize(("momentum", "found"), [(0.99, "momentum"), (0.0, "momentum"), (0.1, ""), (None, "")])
def test_momentum_oddities(momentum, found):
    report = nv.inspect(nn.Sequential(nn.BatchNorm2d(4, momentum=momentum)), torch.randn(8, 4, 8, 8))
    assert [f.kind for f in report.of("warning")] == [found] * bool(found)


def test_the_report_in_print_and_as_a_page():
    model = nn.Sequential()
    model.add_module("<b>norm", nn.GroupNorm(4, 4))
    report = nv.inspect(model, torch.randn(3, 4))
    assert "FAULT   <b>norm: every set" in str(report) and report.summary in " ".join(str(report).split())
    page = report.to_html()
    assert "&lt;b&gt;norm" in page and "<b>norm" not in page and page.startswith("<!doctype html>")
    assert not re.search(r"(src|href)=", page)  # nothing from elsewhere
    assert len(report) == 1 and [layer.name for layer in report] == ["<b>norm"]
    with pytest.raises(ValueError, match="severity='bad'"):
        report.of("bad")


def test_a_layer_by_itself():
    report = nv.inspect(nn.LayerNorm(4), torch.randn(3, 4))
    assert report[""].method == ("layer_token", None) and "LayerNorm: 1 norm layer" in str(report)
    assert "0 norm layers (none)" in str(nv.inspect(nn.Linear(4, 4), torch.randn(3, 4)))


def test_a_batch_can_be_guessed():
    assert len(nv.inspect(nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)))) == 1
    assert len(nv.inspect(nn.Sequential(nn.Embedding(9, 4), nn.LayerNorm(4)))) == 1


def test_windows_and_time_first_keep_their_samples_apart():
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.LayerNorm(6), nn.LayerNorm(6), nn.BatchNorm1d(6)

        def forward(self, x):  # (N, T, D)
            x = self.a(x.reshape(-1, 2, 6)).reshape(x.shape)  # (N·T/2, 2, D)
            x = self.b(x.transpose(0, 1))  # (T, N, D)
            return self.c(x.reshape(-1, 6))

    report = nv.inspect(Windows(), torch.randn(5, 8, 6))
    places = {layer.name: (layer.batch, layer.per_sample, layer.company(training=True)) for layer in report}
    assert places == {"a": (0, 4, False), "b": (1, 1, False), "c": (0, 8, True)}


def test_the_gap_is_that_of_the_buffers_before_the_pass():
    model = nn.Sequential(nn.BatchNorm1d(3, momentum=0.5)).train()
    with torch.no_grad():
        model[0].running_mean.copy_(torch.tensor([5.0, 6.0, 7.0]))
        model[0].num_batches_tracked += 9
    before = copy.deepcopy(model.state_dict())
    x = torch.randn(4000, 3)
    off, ratio = nv.inspect(model, x)["0"].gap
    assert off == pytest.approx(6, abs=0.1) and ratio == pytest.approx(1, abs=0.05)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
