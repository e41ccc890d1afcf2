"""From what was measured at a norm layer to what it means: one rule for each way in which a network falls ill.

A rule takes a `Layer` and its `Circumstances` and gives at most one `Finding`.  Where people ask about it in
public, the thread is named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from normviz.clinic.flow import Flow, mixed_after
from normviz.clinic.layers import Layer

SEVERITIES = ("fault", "warning", "note")
ESTIMATE = (
    "re-estimate them: momentum = None, reset_running_stats(), then some hundred training batches in train() "
    "under no_grad (torch.optim.swa_utils.update_bn does just that)"
)
BATCH_OF_ONE = (
    "Train with several samples a batch (drop_last=True in the DataLoader for a last batch of one), freeze the layer "
    "with .eval(), or nv.swap_norms(model, 'group')"
)


@dataclass(frozen=True)
class Finding:
    """Something that was found: how bad it is, where, what was measured and what to do.

    severity: "fault" (the numbers are wrong or lost), "warning" (they may well be), "note" (good to know).
    kind: a key such as "padding"; layer: a name in the model, "" for the model as a whole.
    """

    severity: str
    kind: str
    layer: str
    text: str
    advice: str


@dataclass
class Circumstances:
    """What a rule may know beside the layer: the model, its flow, samples in the batch, batches to a step.

    padded: share of the positions; trained: whether any layer's running statistics have seen a batch.
    """

    model: nn.Module
    flow: Flow
    samples: int | None
    accumulate: int
    padded: float
    trained: bool

    def module(self, name: str) -> nn.Module:
        return self.model.get_submodule(name)


RULES: list[Callable[[Layer, Circumstances], Finding | None]] = []


def rule(judge: Callable) -> Callable:
    """Adds a rule under its own name: `judge` gives (severity, text, advice) or None."""

    def found(layer: Layer, seen: Circumstances) -> Finding | None:
        told = judge(layer, seen)
        return told and Finding(told[0], judge.__name__, layer.name, *told[1:])

    RULES.append(found)
    return judge


@rule
def not_finite(layer, seen):
    if not layer.finite:
        return (
            "fault", "its output holds NaN or infinite values",
            "look at what comes before it: torch.autograd.set_detect_anomaly(True), a lower learning rate; in half "
            "precision compute the norm in float32",
        )  # fmt: skip


@rule
def single_value(layer, seen):
    """https://github.com/pytorch/pytorch/issues/19250"""
    sharing = layer.sharing
    if sharing and sharing.set_size == 1 and not layer.company(training=True):
        return (
            "fault",
            f"every set of its input {layer.shape} holds one value: value minus mean is 0, the output is its bias",
            "use fewer groups, or LayerNorm over the channels; InstanceNorm and GroupNorm need positions to average",
        )  # fmt: skip


@rule
def constant(layer, seen):
    if layer.sharing and layer.sharing.set_size == 1:
        return None  # of which another rule knows more
    if layer.constant == 1:
        return (
            "fault", "the values in every set are all alike: the output does not depend on the input",
            "something before it is dead: zero weights, a saturated or dying activation, an input of zeros",
        )  # fmt: skip
    if layer.constant > 0.5:
        return (
            "warning", f"{layer.constant:.0%} of its sets hold one value over and over: those outputs are constant",
            "dead channels or padding come in; with dying ReLUs lower the learning rate, else leave the padding out",
        )  # fmt: skip


@rule
def batch_of_one(layer, seen):
    """https://github.com/pytorch/pytorch/issues/4534"""
    if seen.samples == 1 and layer.company(training=True) and not layer.frozen:
        return (
            "fault",
            "the batch holds one sample: training normalizes it by its own statistics, evaluation by stored ones",
            BATCH_OF_ONE,
        )  # fmt: skip


@rule
def bessel(layer, seen):
    """https://github.com/pytorch/pytorch/issues/19902"""
    if layer.training and layer.mismatch > 0.025 and seen.samples != 1:
        return (
            "fault" if layer.mismatch > 0.1 else "warning",
            f"a set holds {layer.training.set_size} values: training divides by their biased variance, evaluation by "
            f"the unbiased running one (Bessel): {layer.mismatch:.0%} smaller outputs even with perfect statistics",
            "use larger batches (from 20 values a channel on it is below 3 %), SyncBatchNorm over devices, or a norm "
            "that does not need the batch: nv.swap_norms(model, 'group')",
        )  # fmt: skip


@rule
def company_in_evaluation(layer, seen):
    if layer.company(training=False):
        return (
            "fault", "in evaluation too a sample's output depends on the other samples of its batch",
            "keep running statistics (track_running_stats=True) and call model.eval(), or use a norm that looks at one "
            "sample: nv.swap_norms(model, 'group')",
        )  # fmt: skip


@rule
def frozen_drifts(layer, seen):
    """https://github.com/pytorch/pytorch/issues/86590"""
    parameters = list(seen.module(layer.name).parameters(recurse=False))
    moves = layer.running and layer.training and layer.momentum and not layer.frozen
    if moves and parameters and not any(p.requires_grad for p in parameters):
        return (
            "fault" if seen.model.training else "warning",
            "its weight and bias are frozen (requires_grad=False), its running statistics drift with every batch in "
            "train()",
            "after each model.train() call .eval() on this layer; requires_grad does not reach buffers",
        )  # fmt: skip


@rule
def never_updated(layer, seen):
    """https://github.com/CuriousAI/mean-teacher/issues/9"""
    if not layer.running or not _untouched(layer, seen):
        return None
    affine = [p for p in seen.module(layer.name).parameters(recurse=False) if p.numel() > 1]
    if len(affine) > 1 and all(p.std() > 1e-3 * p.abs().max() for p in affine):
        return (
            # Learned weights are about 1, where they began; a few networks begin with random ones
            "fault" if 0.5 < affine[0].median() < 2 else "warning",
            "its weights were learned, its running statistics never: they are still the initial 0 and 1",
            "a copy of the weights alone, such as an exponential moving average (EMA), left the buffers out: copy "
            f"model.buffers() too, as torch's AveragedModel does, or {ESTIMATE}",
        )  # fmt: skip
    if seen.trained and not layer.frozen:
        return (
            "warning", "its running statistics were never updated, those of other layers were",
            f"it is skipped in training, or was added later; {ESTIMATE}",
        )  # fmt: skip
    return (
        "note", "its running statistics are 0 and 1: nothing has run in train() yet",
        "train, or load weights with their buffers, before you trust evaluation",
    )  # fmt: skip


@rule
def running_gap(layer, seen):
    """https://github.com/pytorch/pytorch/issues/4741, https://github.com/mosaicml/composer/issues/624"""
    if layer.gap is None or _untouched(layer, seen):
        return None
    off, ratio = layer.gap
    worst = max(off / 2, ratio / 3, 1 / (3 * ratio))
    if worst < 0.6:
        return None
    text = (
        f"its running statistics are far from this batch: mean off by {off:.2g} σ, the batch's σ is {ratio:.2g} times "
        f"the stored one; evaluation will {'be far worse than' if worst > 1 else 'differ from'} training"
    )
    left = _first_day(layer, seen)
    if left > 0.1:
        text += f"; {left:.0%} of them is still the initial 0 and 1"
        advice = f"they have not caught up: momentum is {layer.momentum:.2g} after {layer.tracked} batches; {ESTIMATE}"
    elif layer.frozen or not layer.training:
        advice = "it is frozen on other data: train it, or normalize the input as it was when they were made"
    else:
        advice = f"stale: weights or data changed since (fine-tuning, weight averaging, input scaling); {ESTIMATE}"
    return ("fault" if worst > 1 else "warning"), text, advice


@rule
def momentum(layer, seen):
    if layer.momentum is None or not layer.training:
        return None
    if layer.momentum > 0.5:
        return (
            "warning", f"the newest batch weighs {layer.momentum:.2g} in its running statistics: little else is left",
            "torch's momentum is the weight of the new batch: Keras's 0.99 is torch's 0.01",
        )  # fmt: skip
    if layer.momentum == 0:
        return (
            "warning", "it normalizes by the batch in training, but its running statistics do not learn",
            "set momentum to 0.1, or write the running statistics in forward",
        )  # fmt: skip


@rule
def padding(layer, seen):
    """https://github.com/pytorch/pytorch/issues/25910"""
    if layer.padding > 1e-3:
        return (
            "fault",
            f"padding is in its statistics ({seen.padded:.0%} of the positions): other padding changes real tokens by "
            f"{layer.padding:.0%}",
            "normalize each token by itself (LayerNorm, RMSNorm), or take mean and variance over x[mask] alone",
        )  # fmt: skip


@rule
def accumulation(layer, seen):
    """https://github.com/giotto-ai/giotto-deep/issues/75"""
    if seen.accumulate > 1 and layer.company(training=True):
        return (
            "warning",
            f"gradients are accumulated over {seen.accumulate} batches, its statistics are not: a sample is normalized "
            f"by {seen.samples} of {seen.accumulate * (seen.samples or 1)}, so the step is not that of the large batch",
            "use a norm that looks at one sample (nv.swap_norms(model, 'group')), or make the batch as large as it "
            "goes and momentum smaller by that factor",
        )  # fmt: skip


@rule
def wrong_axis(layer, seen):
    """https://github.com/Qualcomm-AI-research/geometric-algebra-transformer/pull/8"""
    sharing = layer.sharing
    if sharing is None or not sharing.regular:
        return None
    after, features = mixed_after(layer.name, seen.model, seen.flow)
    if features is None:
        return None
    shared, positions = set(sharing.axes), set(range(len(layer.shape))) - {features, layer.batch}
    own = {p.numel() for p in seen.module(layer.name).parameters(recurse=False)}
    # InstanceNorm leaves the features out too, but takes all positions and has a weight for each feature
    elsewhere = own and layer.shape[features] not in own
    if shared and shared <= positions and (elsewhere or shared != positions):
        wrong, size = ", ".join(f"axis {i}" for i in sorted(shared)), layer.shape[features]
        return (
            "fault",
            f"it normalizes along {wrong} of {layer.shape}, but {after} after it takes axis {features} as features",
            f"bring axis {features} last for LayerNorm({size}) and back again (x.movedim), or use GroupNorm(1, {size})",
        )  # fmt: skip


@rule
def outlier(layer, seen):
    if layer.outlier and layer.bound > 10 and layer.outlier > 0.9 * layer.bound:
        return (
            "warning",
            f"one token is {layer.outlier:.3g} times as long as the mean, of {layer.bound:.3g} that a set allows: all "
            "the variance is in it",
            "find the sample; clip it, or normalize each token by itself",
        )  # fmt: skip


@rule
def called_often(layer, seen):
    if layer.calls > 1 and layer.running and layer.training and not layer.frozen:
        return (
            "note", f"it is called {layer.calls} times in one pass: its running statistics are an average of them all",
            "give each place its own BatchNorm unless their inputs are alike",
        )  # fmt: skip


@rule
def frozen(layer, seen):
    if layer.frozen and layer.running and layer.training:
        return "note", "it is in evaluation mode while the model trains", "as it should be if you froze it"


@rule
def foldable(layer, seen):
    if layer.folds_into:
        return (
            "note", f"in evaluation it can be folded into {', '.join(layer.folds_into)}",
            "nv.fold_batchnorm(model, batch) does it: the same answers, one layer less",
        )  # fmt: skip


def _untouched(layer: Layer, seen: Circumstances) -> bool:
    """Whether the running statistics are 0 and 1 to the last bit."""
    kept = [(seen.module(layer.name)._buffers[name], kind == "var") for kind, name in layer.running.items()]
    return bool(kept) and not layer.tracked and all(bool(torch.all(b == value)) for b, value in kept)


def _first_day(layer: Layer, seen: Circumstances) -> float:
    """The share of the initial 0 and 1 in the running statistics; 0 where that cannot be told."""
    average = getattr(seen.module(layer.name), "momentum", 0) is None  # over all batches: nothing of the first day
    return 0.0 if average or layer.tracked is None or not layer.momentum else (1 - layer.momentum) ** layer.tracked
