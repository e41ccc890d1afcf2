"""What the studies change in a run: each field does what it says at the step it says, and nothing before."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from normviz.lab import FFN, History, ViT, evaluate, fold, load_images, preset, results_folder, steps, train, verdict
from normviz.lab.models.layers import RBN, Cap, Derf, DyT, Gain, GhostBatchNorm, PRepBN, hidden_rms

TINY = {"depth": 2, "width": 24, "steps": 12, "warmup": 2, "eval_every": 6, "probe_every": 4, "batch": 32}


@pytest.fixture(scope="module")
def images():
    return load_images("digits")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def losses(images, arm="bn", name="heavy", **fields):
    return train(preset(name, arm, **TINY | fields), images=images, device="cpu", progress=False).loss


def first_difference(one, two):
    return next((i for i, (a, b) in enumerate(zip(one, two, strict=True)) if a != b), None)


@pytest.mark.parametrize(
    ("fields", "step"),
    [
        ({"reset_at": 5}, 6),  # the state is gone before step 5, whose loss is that of the weights before it
        ({"clip": 1e-3, "clip_steps": 3, "optimizer": "sgd"}, 1),
        ({"poison": 10.0, "poison_steps": 2, "optimizer": "sgd"}, 1),
        ({"ghost_tokens": 64}, 0),
        ({"optimizer": "sgd"}, 1),
    ],
    ids=["reset_at", "clip_steps", "poison", "ghost_tokens", "optimizer"],
)
def test_an_intervention_shows_at_its_step_and_not_before(images, fields, step):
    plain = losses(images, **{"optimizer": "sgd"} if len(fields) > 1 and "optimizer" in fields else {})
    assert first_difference(plain, losses(images, **fields)) == step


def test_a_shorter_memory_shows_from_the_second_step_on(images):
    long, short = losses(images), losses(images, beta2=0.9)
    assert short[:2] == pytest.approx(long[:2], rel=1e-5) and abs(short[4] - long[4]) > 1e-4


def test_clipping_ends_after_its_steps(images):
    run = steps(
        preset("heavy", "bn", **TINY, clip=1e-6, clip_steps=3, optimizer="sgd", weight_decay=0.0),
        images=images,
        device="cpu",
    )
    moved = []
    for _ in range(5):
        before = [p.detach().clone() for p in run.model.parameters()]
        run.advance()
        moved.append(
            sum(float((a - b.detach()).square().sum()) for a, b in zip(before, run.model.parameters(), strict=True))
        )
    assert max(moved[:3]) < 1e-3 * min(moved[3:])
    assert run.recipe.clip_at(2) == 1e-6 and run.recipe.clip_at(3) is None


def test_poison_multiplies_the_gradients_that_the_record_shows(images):
    plain = train(preset("heavy", "ln", **TINY), images=images, device="cpu", progress=False)
    poisoned = train(
        preset("heavy", "ln", **TINY, poison=100.0, poison_steps=1), images=images, device="cpu", progress=False
    )
    assert poisoned.grad_norm[0] == pytest.approx(100 * plain.grad_norm[0], rel=1e-4)
    # AdamW's first step does not see the factor; its second remembers it
    assert poisoned.loss[1] == pytest.approx(plain.loss[1], rel=1e-4) and poisoned.loss[3] != plain.loss[3]


def test_a_cleared_optimizer_takes_a_first_step_again(images):
    run = steps(preset("heavy", "bn", **TINY | {"probe_every": 1}), images=images, device="cpu")
    for history in run:
        if len(history.loss) == 5:
            run.forget()
        if len(history.loss) == 6:
            break
    update = history.probes["update"]
    # Adam's first step moves every weight by about the learning rate
    assert all(0.9 < value <= 1.001 for value in (*update[0], *update[5]))
    assert max(update[4]) < 0.9
    assert run.optimizer.state[next(iter(run.model.parameters()))]["step"] == 1


def test_a_reader_may_drive_a_run_and_gets_what_train_gives(images):
    recipe = preset("swiglu", "bn+ffnbn", **TINY)
    whole = train(recipe, images=images, device="cpu", progress=False)
    seen = []
    for history in steps(recipe, images=images, device="cpu"):
        seen.append(len(history.loss))
    assert seen == list(range(1, 13))
    assert (history.loss, history.grad_norm, history.probes) == (whole.loss, whole.grad_norm, whole.probes)
    assert [e["step"] for e in history.evals] == [6, 12]


def test_the_gradient_norm_is_recorded_at_every_step_and_agrees_with_the_probe(images):
    history = train(preset("heavy", "bn", **TINY), images=images, device="cpu", progress=False)
    assert len(history.grad_norm) == 12
    probed = [history.grad_norm[step] for step in history.probes["step"]]
    assert probed == pytest.approx(history.probes["grad_norm_total"], rel=1e-5)
    quiet = train(preset("heavy", "bn", **TINY), images=images, device="cpu", progress=False, probes=False)
    assert quiet.grad_norm == [] and quiet.loss == history.loss


def test_hits_say_which_images_were_right(images):
    run = steps(preset("heavy", "ln", **TINY), images=images, device="cpu")
    *_, history = run
    run.model.eval()
    with torch.no_grad():
        right = run.model(images.standardise(images.test_x)).argmax(1) == images.test_y
    assert np.array_equal(history.hits, right.numpy())
    assert history.hits.mean() == pytest.approx(history.evals[-1]["accuracy"])
    assert all("hits" not in evaluation for evaluation in history.evals[:-1])
    assert "hits" not in evaluate(run.model, images)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("arm", ["rbn", "prepbn", "derf", "bn+ffnbn-before"])
def test_every_kind_of_layer_trains_in_half_precision(images, arm, precision):
    recipe = preset("swiglu", arm, **TINY | {"steps": 3, "eval_every": 3}, precision=precision)
    history = train(recipe, images=images, device="cpu", progress=False)
    assert all(map(math.isfinite, history.loss)) and math.isfinite(history.evals[-1]["batch_loss"])


def test_momentum_reaches_every_batchnorm():
    model = ViT("bn+ffnbn", depth=2, width=24, bn_momentum=0.02)
    found = [m.momentum for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert found == [0.02] * 7
    assert [m.momentum for m in ViT("rbn", depth=1, width=24, bn_momentum=0.5).modules() if isinstance(m, RBN)] == [
        0.5
    ] * 3


@pytest.mark.parametrize(("batch", "tokens"), [(8, 32), (8, 128), (5, 32), (3, 64)])
def test_ghost_statistics_are_those_of_groups_of_consecutive_tokens(batch, tokens):
    torch.manual_seed(0)
    x = 3 + 2 * torch.randn(batch, 16, 6)
    ghost = GhostBatchNorm(6, tokens)
    nn.init.uniform_(ghost.weight, 0.5, 2), nn.init.normal_(ghost.bias)
    expected = []
    for group in x.flatten(0, 1).split(tokens):
        norm = (group - group.mean(0)) / (group.var(0, correction=0) + ghost.eps).sqrt()
        expected.append(norm * ghost.weight + ghost.bias)
    torch.testing.assert_close(ghost(x), torch.cat(expected).view_as(x), rtol=1e-4, atol=1e-5)


def test_a_ghost_as_large_as_the_batch_is_batchnorm():
    torch.manual_seed(0)
    x, plain, ghost = torch.randn(4, 16, 6), nn.BatchNorm1d(6), GhostBatchNorm(6, 64)
    torch.testing.assert_close(ghost(x), plain(x.flatten(0, 1)).view_as(x))
    torch.testing.assert_close(ghost.running_var, plain.running_var)
    torch.testing.assert_close(ghost.eval()(x), plain.eval()(x.flatten(0, 1)).view_as(x))
    ghost.train()
    ghost.track_running_stats = False  # as in an evaluation by the batch's own statistics
    before = ghost.running_mean.clone()
    ghost(x + 5)
    assert torch.equal(ghost.running_mean, before)


def test_rbn_is_batchnorm_with_a_penalty_without_a_unit():
    torch.manual_seed(0)
    x, plain, rbn = 7 + 3 * torch.randn(4, 16, 6), nn.BatchNorm1d(6), RBN(6)
    torch.testing.assert_close(rbn(x), plain(x.flatten(0, 1)).view_as(x))
    mean, std = x.flatten(0, 1).mean(0), x.flatten(0, 1).std(0, correction=0)
    expected = (mean.square() + (std - 1).square()).mean()  # running statistics are still 0 and 1
    torch.testing.assert_close(rbn.penalty, expected, rtol=1e-4, atol=0)
    for norm, scale in ((RBN(6), 1.0), (RBN(6), 1000.0)):
        norm.running_mean.fill_(5 * scale), norm.running_var.fill_(4 * scale**2)
        norm(x * scale)
        torch.testing.assert_close(
            norm.penalty, ((mean - 5) / 2).square().add((std / 2 - 1).square()).mean(), rtol=1e-4, atol=0
        )


def test_prepbn_goes_from_layernorm_to_batchnorm_and_folds_at_the_end(images):
    recipe = preset("tame", "prepbn", **TINY, prepbn_until=0.5)
    assert [recipe.prepbn_at(step) for step in (0, 3, 6, 11)] == [1.0, 0.5, 0.0, 0.0]
    layer, x = PRepBN(24), torch.randn(4, 16, 24)
    torch.testing.assert_close(layer(x), nn.LayerNorm(24)(x))
    torch.testing.assert_close(layer.eval()(x), nn.LayerNorm(24)(x))
    layer.train().ln_weight = 0.0
    torch.testing.assert_close(layer(x), nn.BatchNorm1d(24)(x.flatten(0, 1)).view_as(x) + x)
    run = steps(recipe, images=images, device="cpu")
    list(run)
    model, x = run.model.eval(), images.standardise(images.test_x[:50])
    with torch.no_grad():
        torch.testing.assert_close(fold(model)(x), model(x), rtol=1e-3, atol=1e-3)


def test_layers_without_statistics_are_their_formulas():
    x = torch.randn(2, 3, 5)
    dyt, derf = DyT(5), Derf(5)
    torch.testing.assert_close(dyt(x), torch.tanh(x / 2))
    torch.testing.assert_close(derf(x), torch.erf(x / 2))
    torch.testing.assert_close(Gain(2.5)(x), 2.5 * x)
    torch.testing.assert_close(Cap(1e9)(x), x)


@pytest.mark.parametrize("kind", ["gelu", "swiglu"])
def test_the_constant_gain_is_what_ffn_bn_does_at_the_start(kind):
    torch.manual_seed(0)
    ffn = FFN(kind, 48, 192, nn.Identity())
    nn.init.xavier_uniform_(ffn.fc1.weight), nn.init.zeros_(ffn.fc1.bias)
    with torch.no_grad():
        found = ffn.hidden(torch.randn(20_000, 48)).square().mean().sqrt()
    assert hidden_rms(kind, 48, 192) == pytest.approx(found.item(), rel=0.03)
    gain = ViT("bn+gain", ffn=kind).blocks[0].ffn.norm.factor
    assert gain == pytest.approx(1 / hidden_rms(kind, 48, 192)) and 2 < gain < 10


def test_the_records_of_before_are_read_with_unchanged_verdicts():
    """A verdict is stored with its run: the rule must still say the same."""
    counted = 0
    for path in sorted(results_folder().glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found = verdict(History.from_dict(row))
            assert (found.kind, found.step) == (row["verdict"]["kind"], row["verdict"]["step"]), path.name
            counted += 1
    assert counted >= 469
