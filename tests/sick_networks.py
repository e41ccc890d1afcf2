"""Small networks with one planted fault each, modelled on threads in which people ask what is wrong with theirs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Sick:
    """A network with its batch and options of `nv.inspect`, and what is expected: kind, layer, a word of the advice."""

    model: nn.Module
    batch: object
    kind: str
    layer: str
    advice: str
    severity: str = "fault"
    options: tuple = ()


def photos(n: int = 16, scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    """(n, 3, 8, 8), each with a contrast of its own."""
    contrast = 0.5 + torch.rand(n, 1, 1, 1)
    return scale * contrast * torch.randn(n, 3, 8, 8) + shift


def convnet(norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), norm(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1), norm(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip


def trained(model: nn.Module, steps: int = 40, make: Callable[[], torch.Tensor] = photos, each=None) -> nn.Module:
    """A few steps of SGD on a made-up task; `each` is called after every step."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.train()
    for _ in range(steps):
        x = make()
        loss = nn.functional.cross_entropy(model(x), (x.std((1, 2, 3)) > 1).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if each:
            each(model)
    return model


def worse_in_evaluation() -> Sick:
    """pytorch/pytorch#4741: model.eval() gives a high error.  The running statistics have not caught up."""
    model = trained(convnet(lambda c: nn.BatchNorm2d(c, momentum=0.003)), make=lambda: photos(16, 5, 20))
    return Sick(model, photos(16, 5, 20), "running_gap", "1", "have not caught up")


def bessel() -> Sick:
    """pytorch/pytorch#19902: normalized by the biased variance, remembered by the unbiased one."""
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    return Sick(trained_rows(model), torch.randn(4, 6), "bessel", "1", "larger batches")


def ema_without_buffers() -> Sick:
    """CuriousAI/mean-teacher#9: the teacher's weights are averaged, its running statistics stay 0 and 1."""
    student = convnet()
    teacher = copy.deepcopy(student).requires_grad_(False)

    @torch.no_grad()
    def average(student: nn.Module) -> None:
        for mean, p in zip(teacher.parameters(), student.parameters(), strict=True):
            mean.lerp_(p, 0.1)

    trained(student, each=average)
    return Sick(teacher.eval(), photos(), "never_updated", "1", "buffers")


def frozen_that_drifts() -> Sick:
    """pytorch/pytorch#86590: requires_grad=False does not reach the running statistics."""
    model = trained(convnet())
    for layer in model[:6]:
        layer.requires_grad_(False)
    return Sick(model.train(), photos(), "frozen_drifts", "4", "call .eval() on this layer")


def accumulated() -> Sick:
    """giotto-ai/giotto-deep#75: gradients are accumulated, statistics are not."""
    options = (("accumulate", 8),)
    return Sick(trained(convnet()), photos(), "accumulation", "1", "nv.swap_norms", "warning", options)


def batch_of_one() -> Sick:
    """pytorch/pytorch#4534: Expected more than 1 value per channel when training."""
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    return Sick(trained_rows(model), torch.randn(1, 6), "batch_of_one", "1", "drop_last=True")


def wrong_axis() -> Sick:
    """Qualcomm-AI-research/geometric-algebra-transformer#8: LayerNorm over other axes than meant, here rows."""
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1), nn.LayerNorm(8), nn.Conv2d(5, 4, 3), nn.Flatten(), nn.LazyLinear(2)
    )
    model(photos())
    return Sick(model, photos(), "wrong_axis", "1", "axis 1 last for LayerNorm(5)")


class Padded(nn.Module):
    """Sequences (N, T) of symbols, padded with 0, through a BatchNorm over all their positions."""

    def __init__(self):
        super().__init__()
        self.embedding, self.norm, self.head = nn.Embedding(20, 12), nn.BatchNorm1d(12), nn.Linear(12, 3)

    def forward(self, input_ids, attention_mask):
        x = self.norm(self.embedding(input_ids).transpose(1, 2)).transpose(1, 2)  # (N, T, D)
        real = attention_mask[..., None]
        return self.head((x * real).sum(1) / real.sum(1))


def padded() -> Sick:
    """pytorch/pytorch#25910: how to use batch norm when there is padding?"""
    mask = (torch.arange(10) < torch.tensor([10, 7, 3, 2, 5, 9])[:, None]).long()
    batch = {"input_ids": torch.randint(1, 20, (6, 10)) * mask, "attention_mask": mask}
    return Sick(Padded(), batch, "padding", "norm", "x[mask]")


def stale() -> Sick:
    """mosaicml/composer#624: the weights change, the running statistics do not (fine-tuning, averaging)."""
    model = trained(convnet(lambda c: nn.BatchNorm2d(c, momentum=0.2)))
    with torch.no_grad():
        model[3].weight.mul_(6)
        model[3].bias.add_(4)
    return Sick(model.eval(), photos(), "running_gap", "4", "stale")


def constant_group_norm() -> Sick:
    """pytorch/pytorch#19250: GroupNorm with one value a group gives all zeros and does not complain."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.GroupNorm(8, 8), nn.Flatten(), nn.Linear(8, 2)
    )
    return Sick(model, photos(), "single_value", "2", "fewer groups")


def trained_rows(model: nn.Module) -> nn.Module:
    """The running statistics of a few hundred batches of four rows."""
    model.train()
    with torch.no_grad():
        for _ in range(100):
            model(torch.randn(4, 6))
    return model


SICK = (
    worse_in_evaluation, bessel, ema_without_buffers, frozen_that_drifts, accumulated, batch_of_one, wrong_axis, padded,
    stale, constant_group_norm,
)  # fmt: skip
