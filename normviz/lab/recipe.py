"""A recipe says everything that a training run depends on: equal recipes give equal histories."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType

from normviz.arms import arms_of
from normviz.fields import check, choice, flag, integer, number, text, unknown


def slots_of(arm: str, model: str) -> Mapping:
    """What fills the norm slots of a model, off the table of arms.  Raises ValueError where there is no such arm."""
    if arm not in (arms := arms_of(model)):
        raise ValueError(f"{unknown('arm', arm, arms)} (of model={model!r})")
    return arms[arm].slots[model]


@dataclass(frozen=True)
class Recipe:
    """One training run, frozen and serialisable; change it with `dataclasses.replace`.

    Raises ValueError, naming the field, the value and what is allowed, when it is made.
    """

    name: str = text("custom", help="of the regime")
    model: str = choice("vit", ("vit", "conv", "gru"), help="the network")
    arm: str = text("ln", help="what sits in the norm slots: ln, bn, bn+ffnbn, rms, …")
    ffn: str = choice("gelu", ("gelu", "swiglu"), help="kind of FFN")
    data: str = choice("digits", ("digits", "cifar10", "digits-longer"), help="the images")
    seed: int = integer(0, 0, 2**63 - 1, help="of the initialisation, the order of the images and the augmentation")

    depth: int = integer(16, 1, help="blocks")
    width: int = integer(48, 1, help="features of a token")
    heads: int = integer(3, 1, help="of the attention")
    patch: int = integer(2, 1, help="pixels a side")
    ffn_ratio: int = integer(4, 1, help="hidden features of the FFN per feature of a token")
    num_groups: int = integer(8, 1, help="of a convolutional network's GroupNorm")

    steps: int = integer(400, 1, help="of the optimizer")
    batch: int = integer(64, 1, help="images")
    optimizer: str = choice("adamw", ("adamw", "sgd"), help="sgd: with momentum 0.9")
    lr: float = number(4e-3, above=0, help="learning rate after the warm-up")
    beta2: float = number(0.999, least=0, most=0.99999, help="AdamW's decay of the squared gradients' mean")
    schedule: str = choice("cosine", ("cosine", "constant"), help="of the learning rate")
    warmup: int = integer(40, help="steps")
    weight_decay: float = number(0.05, least=0, help="of the matrices")
    clip: float | None = number(None, above=0, none="for no clipping", help="largest total gradient norm")
    clip_steps: int | None = integer(None, none="for all steps", help="clip in the first so many steps only")

    # Interventions of the studies: each changes one thing about the optimizer or the statistics
    reset_at: int | None = integer(None, none="for never", help="step before which the optimizer forgets its state")
    poison: float = number(1.0, above=0, help="factor on all gradients in the first poison_steps steps")
    poison_steps: int = integer(10, help="steps")
    bn_momentum: float = number(0.1, least=0, most=1, help="weight of a batch in BatchNorm's running statistics")
    ghost_tokens: int | None = integer(
        None, 2, none="for all of the batch", help="BatchNorm's statistics are those of groups of so many tokens"
    )
    rbn: float = number(0.1, least=0, help="weight of the penalty of the arm rbn")
    prepbn_until: float = number(
        0.5, above=0, most=1, help="part of the steps at which the arm prepbn has left LayerNorm altogether"
    )

    sigma: float = number(0.0, least=0, help="contrast jitter: an image is multiplied by exp(sigma·z), z normal")
    sigma_from: float = number(0.0, least=0, most=1, help="part of the steps after which the jitter begins")
    flip: bool = flag(False, help="mirror every other training image")
    crop: int = integer(0, help="pixels of random shift either way")

    precision: str = choice(
        "fp32", ("fp32", "bf16", "fp16", "auto"),
        help="auto: on a GPU bf16, or fp16 where bf16 is missing; fp32 on a CPU",
    )  # fmt: skip
    eval_every: int = integer(50, 1, help="steps")
    eval_images: int = integer(1000, 1, help="the first so many test images")
    probe_every: int = integer(10, help="steps; 0: no probes")

    def __post_init__(self):
        check(self)
        slots_of(self.arm, self.model)
        if self.model == "vit" and self.width % self.heads:
            raise ValueError(f"heads={self.heads} does not divide width={self.width}")

    @property
    def title(self) -> str:
        """The run in a few words."""
        return f"{self.name} {self.arm} seed {self.seed}"

    def lr_at(self, step: int) -> float:
        """Learning rate of step 0, 1, …: a linear warm-up, then constant or half a cosine down to 0."""
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if self.schedule == "constant":
            return self.lr * warm
        rest = max(0, step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, rest)))

    def sigma_at(self, step: int) -> float:
        """Contrast jitter of step 0, 1, …"""
        return self.sigma if step >= self.sigma_from * self.steps else 0.0

    def clip_at(self, step: int) -> float | None:
        """Largest total gradient norm of step 0, 1, …; None: as it comes."""
        return self.clip if self.clip_steps is None or step < self.clip_steps else None

    def poison_at(self, step: int) -> float:
        """Factor on the gradients of step 0, 1, …"""
        return self.poison if step < self.poison_steps else 1.0

    def prepbn_at(self, step: int) -> float:
        """Weight of LayerNorm in the arm prepbn at step 0, 1, …: from 1 down to 0, in a straight line."""
        return max(0.0, 1 - step / (self.prepbn_until * self.steps))

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> Recipe:
        """The recipe that `to_dict` wrote.  Raises ValueError for a field that recipes do not have."""
        known = {field.name for field in fields(cls)}
        if strange := sorted(set(values) - known):
            raise ValueError(f"{', '.join(strange)}: no such field in a recipe; it takes {', '.join(sorted(known))}")
        return cls(**values)


_CIFAR = {
    "data": "cifar10", "flip": True, "crop": 4,
    "depth": 12, "width": 64, "heads": 4, "patch": 4, "steps": 300,
}  # fmt: skip

#: A small convolutional network on digits: a quarter of an hour of a laptop is two hundred such runs.
_CONV = {"model": "conv", "depth": 4, "width": 32, "steps": 200, "warmup": 10, "probe_every": 0}

#: A recurrent network over a digit's ink pixels: half a minute of one core each.
_GRU = {"model": "gru", "depth": 1, "width": 48, "steps": 400, "warmup": 20, "eval_every": 100, "probe_every": 0}

#: The regimes of the study.  What each one shows is recorded in `results/` under the same name.
PRESETS = MappingProxyType(
    {
        "tame": {},
        "heavy": {"sigma": 1.0},
        "deep": {"depth": 32, "batch": 128, "sigma": 1.0},
        "swiglu": {"ffn": "swiglu"},
        "swiglu-deep": {"ffn": "swiglu", "depth": 24},
        "midrun": {
            "ffn": "swiglu", "depth": 8, "lr": 2e-3, "steps": 600, "schedule": "constant",
            "sigma": 1.0, "sigma_from": 0.5,
        },
        "conv": _CONV,
        "gru": _GRU,
        "gru-longer": _GRU | {"data": "digits-longer"},
        "cifar10-tame": _CIFAR,
        "cifar10-heavy": _CIFAR | {"sigma": 0.7},
        "cifar10-swiglu": _CIFAR | {"ffn": "swiglu"},
    }
)  # fmt: skip


def preset(name: str, arm: str = "ln", seed: int = 0, **overrides) -> Recipe:
    """The recipe of a named regime, with an arm, a seed and any field of `Recipe` changed.

    Raises ValueError for an unknown name, TypeError for a field that recipes do not have.
    """
    if name not in PRESETS:
        raise ValueError(unknown("preset", name, PRESETS))
    return Recipe(**{"name": name, "arm": arm, "seed": seed} | dict(PRESETS[name]) | overrides)
