"""The recurrent network: its cell against torch's GRU, its masks, and what its statistics are taken over."""

import pytest
import torch
from torch import nn

from normviz.arms import arms_of
from normviz.lab import History, InkGRU, Recipe, build, load_images, preset, train
from normviz.lab.claims import CLAIMS
from normviz.lab.data import digits_by_ink
from normviz.lab.models.gru import SharedNorm, StepNorm
from normviz.samples import ink_sequences


@pytest.fixture(scope="module")
def batch():
    images = load_images("digits")
    return images.standardise(images.train_x[:12])


def test_ink_sequences_against_a_loop():
    images = load_images("digits").train_x[:40, 0].float()
    steps, lengths = ink_sequences(images)
    for image, found, length in zip(images, steps, lengths.tolist(), strict=True):
        expected = [(r, c, image[r, c]) for r in range(8) for c in range(8) if image[r, c] > 0]
        assert length == len(expected)
        torch.testing.assert_close(found[:length], torch.tensor(expected))
        assert not found[length:].any()
    assert steps.shape[1] == lengths.max()


def test_ink_is_found_whatever_the_scale_and_offset(batch):
    steps, lengths = ink_sequences(batch)
    again, same = ink_sequences(3 * batch + 5)
    assert torch.equal(lengths, same) and torch.equal(steps[..., :2], again[..., :2])
    torch.testing.assert_close(again[..., 2], 3 * steps[..., 2])
    blank, one = ink_sequences(torch.zeros(2, 4, 4))
    assert blank.shape == (2, 1, 3) and one.tolist() == [1, 1] and not blank.any()


def test_ink_sequences_refuses():
    with pytest.raises(TypeError, match="images must be a floating-point tensor or array, got list"):
        ink_sequences([[[0.0]]])
    for shape in ((4, 4), (2, 3, 4, 4), (0, 4, 4)):
        with pytest.raises(ValueError, match=r"it takes \(B, H, W\) or \(B, 1, H, W\)"):
            ink_sequences(torch.zeros(shape))


def test_without_norms_it_is_torchs_gru(batch):
    model = InkGRU("none", width=16, seed=0)
    theirs = nn.GRU(3, 16, batch_first=True)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(model.input.weight)
        theirs.weight_hh_l0.copy_(model.hidden.weight)
        theirs.bias_ih_l0.normal_(generator=torch.Generator().manual_seed(1))
        theirs.bias_hh_l0.zero_()
        model.input.bias.copy_(theirs.bias_ih_l0)
    steps, lengths = ink_sequences(batch)
    packed = nn.utils.rnn.pack_padded_sequence(steps, lengths, batch_first=True, enforce_sorted=False)
    torch.testing.assert_close(model.read(steps, lengths), theirs(packed)[1][0])


@pytest.mark.parametrize("arm", [arm for arm, row in arms_of("gru").items() if row.slots["gru"].get("masked", True)])
def test_more_padding_changes_nothing(arm, batch):
    model, twin = InkGRU(arm, width=16, seed=0), InkGRU(arm, width=16, seed=0)
    steps, lengths = ink_sequences(batch)
    longer = torch.cat([steps, torch.full((len(steps), 9, 3), torch.nan)], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(model.read(longer, lengths), twin.read(steps, lengths))


def test_padding_counts_where_an_arm_says_so(batch):
    model = InkGRU("bn-padded", width=16, seed=0)
    steps, lengths = ink_sequences(batch)
    with torch.no_grad():
        whole = model.input(steps).transpose(0, 1).flatten(0, 1)
        model.read(steps, lengths)
    torch.testing.assert_close(model.norm_input.running_mean, 0.1 * whole.mean(0))


def test_shared_statistics_are_those_of_the_real_steps(batch):
    model = InkGRU("bn-input", width=16, seed=0)
    steps, lengths = ink_sequences(batch)
    real = torch.arange(steps.shape[1]) < lengths[:, None]
    with torch.no_grad():
        values = model.input(steps)[real]
        model.read(steps, lengths)
    torch.testing.assert_close(model.norm_input.running_mean, 0.1 * values.mean(0))
    torch.testing.assert_close(model.norm_input.running_var, 0.9 + 0.1 * values.var(0))


def test_a_step_has_its_own_statistics_and_an_unseen_one_those_of_the_last(batch):
    model = InkGRU("bn-step", width=16, seed=0)
    steps, lengths = ink_sequences(batch)
    with torch.no_grad():
        model.read(steps, lengths)
        norm, values = model.norm_input, model.input(steps)
    for t in (0, 10, 25):
        torch.testing.assert_close(norm.running_mean[t], values[lengths > t, t].mean(0))
        torch.testing.assert_close(norm.running_var[t], values[lengths > t, t].var(0))
    reached = [int((lengths > t).sum()) for t in range(64)]
    assert norm.seen.tolist() == [int(alive > 1) for alive in reached]
    norm.eval()
    last = max(t for t, alive in enumerate(reached) if alive > 1)
    x = torch.randn(3, 48)
    torch.testing.assert_close(norm(x, 63), norm(x, last))
    assert not torch.allclose(norm(x, 0), norm(x, last))


def test_a_lone_sequence_takes_the_running_statistics():
    x = torch.randn(1, 6)
    with pytest.raises(ValueError, match="more than 1 value"):
        nn.BatchNorm1d(6)(x)
    for norm in (SharedNorm(6), StepNorm(6, 4)):
        torch.testing.assert_close(norm(x, 2), x / (1 + norm.eps) ** 0.5)
        assert not norm.running_mean.any()


def test_layer_norm_does_not_know_the_company(batch):
    model = InkGRU("ln", width=16, seed=0)
    with torch.no_grad():
        together = model(batch)
        alone = torch.cat([model(image[None]) for image in batch])
        torch.testing.assert_close(together, alone)
        model = InkGRU("bn-step", width=16, seed=0)
        assert (model(batch) - torch.cat([model(image[None]) for image in batch])).abs().max() > 0.01


def test_arms_start_from_the_same_weights_and_all_of_them_learn(batch):
    first = InkGRU("none", seed=3)
    for arm in arms_of("gru"):
        model = InkGRU(arm, seed=3)
        assert torch.equal(model.hidden.weight, first.hidden.weight)
        model(batch).square().sum().backward()
        weights = (p for name, p in model.named_parameters() if name != "input.bias")  # norms take it away
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in weights)


def test_the_trainer_takes_it(tmp_path):
    recipe = preset("gru", "bn-step", seed=1, steps=6, batch=16, width=8, eval_every=6)
    history = train(recipe, progress=False, out=tmp_path)
    again = train(recipe, progress=False, out=tmp_path, resume=True)
    assert again.loss == history.loss and history.meta["tokens"] == 64


def test_it_learns():
    history = train(preset("gru", "ln", steps=60, width=24, eval_every=60), progress=False)
    assert history.evals[-1]["accuracy"] > 0.3  # chance is 0.1


def test_digits_by_ink_splits_by_length():
    images = digits_by_ink()
    assert len(images.train_x) + len(images.test_x) == 1797
    assert ink_sequences(images.train_x.float())[1].max() == 34
    assert ink_sequences(images.test_x.float())[1].min() == 35


def ledger_row(accuracies):
    """The claim's finding from accuracies by (regime, arm); arms left out are at 0.5."""

    def runs(study, arm, name):
        assert study == "sequences"
        middle = accuracies.get((name, arm), 0.5)
        meta = {"test_images": 10_000}
        return [
            History(preset(name, arm, seed), [0.1], [{"accuracy": middle + off}], meta=meta)
            for seed, off in enumerate((-0.01, 0.0, 0.01))
        ]

    return next(c for c in CLAIMS if c.notebook == "05_sequences").measure(runs)


def test_the_claim_compares_ln_with_the_best_batch_norm():
    ahead = {("gru", "ln"): 0.9, ("gru-longer", "ln"): 0.9}
    found = ledger_row(ahead)
    assert found.verdict == "not decided" and "is ahead of the best BatchNorm on sequences" in found.sentence
    close = ahead | {("gru", "bn-input"): 0.895, ("gru-longer", "bn-step"): 0.97}
    found = ledger_row(close)
    assert "level with the best BatchNorm on sequences as long as in training" in found.sentence
    assert "behind the best BatchNorm on longer ones" in found.sentence
    assert "LN 90.0 ± 1.0 %, BN on the input 89.5 ± 1.0 %" in found.numbers


def test_errors():
    with pytest.raises(ValueError, match=r"arm='rms' is unknown; it takes one of ln, bn, none"):
        Recipe(model="gru", arm="rms")
    with pytest.raises(ValueError, match="takes images of one channel"):
        build(preset("gru", "ln", data="cifar10"))
