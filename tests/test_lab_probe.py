"""The probes: each number against its definition, and no trace left behind."""

import copy
import math
from pathlib import Path

import pytest
import torch

from normviz.lab import Looks, Probe, ViT, load_images, preset, token_norms, train
from normviz.lab.looks import longest_in_test
from normviz.lab.probe import METRICS, attention_entropy, outlier_bound, token_lengths
from normviz.series import LENGTH_EDGES


def outlier_ratio(x):
    squares = x.square().sum(-1)
    return (squares.max() / squares.mean()).sqrt()


def test_outlier_ratio_and_its_bound():
    assert outlier_ratio(torch.ones(7, 3)).item() == pytest.approx(1)
    x = torch.zeros(100, 4)
    x[17] = 5.0
    assert outlier_ratio(x).item() == pytest.approx(10)  # one token owns all: √N
    # After BatchNorm the same batch attains Samuelson's bound
    normed = torch.nn.BatchNorm1d(4, eps=1e-8)(x)
    assert outlier_ratio(normed).item() == pytest.approx(outlier_bound(100), rel=1e-4)
    assert math.isnan(outlier_ratio(torch.tensor([[1.0], [math.nan]])))


@pytest.mark.parametrize("seed", range(5))
def test_batchnorm_never_exceeds_the_bound(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(64, 8, generator=generator).exp() ** 4  # heavy tails
    assert outlier_ratio(torch.nn.BatchNorm1d(8)(x)).item() <= outlier_bound(64) * 1.0001


def test_attention_entropy_of_uniform_and_of_sharp_attention():
    q = torch.zeros(2, 3, 16, 8)
    assert attention_entropy(q, torch.randn_like(q)).item() == pytest.approx(math.log(16), rel=1e-5)
    sharp = 1000 * torch.eye(16)[None, None]
    assert attention_entropy(sharp, sharp).item() == pytest.approx(0, abs=1e-5)


def watched(model, x):
    probe = Probe(model)
    with probe.watching():
        loss = model(x).square().mean()
    loss.backward()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.3)
    probe.record(3)
    before = copy.deepcopy(model.state_dict())
    optimizer.step()
    probe.record_update(optimizer)
    model.load_state_dict(before)
    return probe.columns


@pytest.mark.parametrize("arm", ["bn+ffnbn", "ln", "ffnbn"])
def test_numbers_are_what_their_names_say(arm):
    torch.manual_seed(0)
    model = ViT(arm, ffn="swiglu", depth=3, width=24, seed=0)
    x = torch.randn(16, 1, 8, 8) * torch.randn(16, 1, 1, 1).exp()
    columns = watched(model, x)
    assert columns["step"] == [3]
    assert {name: len(columns[name][0]) for name in METRICS} == dict.fromkeys(METRICS, 3)

    tokens = model.embedding(x)
    block = model.blocks[0]
    norm1 = block.norm1(tokens)
    middle = tokens + block.attention(norm1)
    norm2 = block.norm2(middle)
    hidden = block.ffn.hidden(norm2)
    lengths = norm1.norm(dim=-1)
    q, k, _ = block.attention.split(block.attention.qkv(norm1))
    gradients = torch.cat([p.grad.flatten() for p in block.parameters()])
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    expected = {
        "norm1_outlier": lengths.max() / lengths.square().mean().sqrt(),
        "norm2_outlier": norm2.norm(dim=-1).max() / norm2.norm(dim=-1).square().mean().sqrt(),
        "hidden_rms": hidden.square().mean().sqrt(),
        "hidden_max": hidden.abs().max(),
        "ffn_rms": block.ffn(norm2).square().mean().sqrt(),
        "attention_entropy": -(weights * weights.log()).sum(-1).mean(),
        "grad_norm": gradients.norm(),
        # AdamW's first step is g/(|g| + ε) times the learning rate, whatever the gradient
        "update": (gradients / (gradients.abs() + 1e-8)).square().mean().sqrt(),
    }
    for name, value in expected.items():
        assert columns[name][0][0] == pytest.approx(value.item(), rel=1e-4), name
    total = torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item()
    assert columns["grad_norm_total"] == [pytest.approx(total, rel=1e-4)]


def test_running_gap_is_the_distance_of_the_two_variances():
    model = ViT("bn", depth=1, width=24, seed=0)
    x = torch.randn(16, 1, 8, 8)
    gap = watched(model, x)["running_gap"][0][0]
    tokens = model.embedding(x)
    middle = tokens + model.blocks[0].attention(model.blocks[0].norm1(tokens))
    variance = middle.flatten(0, 1).var(0)
    running = 0.9 + 0.1 * variance  # after one batch, with momentum 0.1
    assert gap == pytest.approx((running / variance).log().abs().median().item(), rel=1e-4)
    assert math.isnan(watched(ViT("ln", depth=1, width=24, seed=0), x)["running_gap"][0][0])


def test_no_hook_stays_behind():
    model = ViT("bn", depth=2, width=24)
    watched(model, torch.randn(4, 1, 8, 8))
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(RuntimeError), Probe(model).watching():
        model(torch.randn(4, 1, 7, 7))
    assert not any(module._forward_hooks for module in model.modules())


def test_token_norms_leave_the_running_statistics_alone():
    model = ViT("bn", depth=2, width=24, seed=0).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = token_norms(model, torch.randn(6, 1, 8, 8))
    assert {site: lengths.shape for site, lengths in found.items()} == dict.fromkeys(
        ("norm1", "norm2", "stream"), (2, 6, 16)
    )
    # BatchNorm in training mode: the mean square length is the width
    assert found["norm2"][0].square().mean().item() == pytest.approx(24, rel=1e-3)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_lengths_beyond_the_square_root_of_float32_are_told():
    x = torch.tensor([[3e25, 4e25], [3.0, 4.0], [0.0, 0.0]])
    torch.testing.assert_close(token_lengths(x), torch.tensor([5e25, 5.0, 0.0]))


def test_the_longest_test_token_by_batch_and_by_running_statistics():
    images = load_images("digits")
    model = ViT("bn", ffn="swiglu", depth=3, width=24, seed=0).train()
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.mul_(0.01)  # as if training had seen shorter tokens than the test has
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = longest_in_test(model, images, 64)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    # Again, token by token, with the model's own forward pass cut open
    for name, training in (("batch", True), ("running", False)):
        other = ViT("bn", ffn="swiglu", depth=3, width=24)
        other.load_state_dict(before)
        other.train(training)
        streams = []
        with torch.no_grad():
            for part in images.test_x.split(64):
                x, seen = other.embedding(images.standardise(part)), []
                for block in other.blocks:
                    x = block(x)
                    seen.append(x.double().norm(dim=-1))
                streams.append(torch.stack(seen))
        lengths = torch.cat(streams, dim=1)
        for (length, image, patch), block in zip(found[name], lengths, strict=True):
            assert length == pytest.approx(block.max().item(), rel=1e-4)
            assert block[image, patch].item() == pytest.approx(length, rel=1e-4)
    assert found["running"][-1][0] > 10 * found["batch"][-1][0]


def test_looks_inside_find_the_loudest_image_and_change_nothing():
    images = load_images("digits")
    recipe = preset("heavy", "bn", depth=2, width=24, steps=8, warmup=1, sigma=1.5)
    inside = Looks((0, 5))
    history = train(recipe, images=images, device="cpu", progress=False, on_batch=inside)
    assert history.loss == train(recipe, images=images, device="cpu", progress=False).loss
    assert [look["step"] for look in inside.looks] == [0, 5]
    for look in inside.looks:
        assert [len(look["test"][name]) for name in ("batch", "running")] == [2, 2]
        assert len(look["images"]) == len(look["contrast"]) == 64
        for block in look["norm2"]:
            assert sum(block["counts"]) == 64 * 16
            _, patch, ratio = block["longest"][0]
            assert 0 <= patch < 16 and ratio == block["ratio"] > 1
            assert block["counts"][LENGTH_EDGES.searchsorted(ratio) - 1] > 0
        # With σ = 1.5 the longest token at the first block belongs to one of the images of highest contrast
        loudest = sorted(range(64), key=lambda i: -look["contrast"][i])[:5]
        assert look["norm1"][0]["longest"][0][0] in loudest


def test_the_cost_of_a_probe_can_be_measured(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1])
    from benchmarks.probes import compare, table

    row = compare("heavy", "bn", load_images("digits"), pairs=3)
    assert row["run_percent"] == pytest.approx(row["probed_step_percent"] / row["probe_every"], abs=1e-3)
    assert row["plain_ms"] > 0 and row["quartiles_percent"][0] <= row["quartiles_percent"][1]
    assert f"{row['plain_ms']:.1f} ms" in table([row])
