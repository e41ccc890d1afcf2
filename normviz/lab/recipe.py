"""A recipe says everything that a training run depends on: equal recipes give equal histories."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType

from normviz.lab.models import model_class

_CHOICES = MappingProxyType(
    {
        "ffn": ("gelu", "swiglu"),
        "data": ("digits", "cifar10", "digits-longer"),
        "schedule": ("cosine", "constant"),
        "precision": ("fp32", "bf16", "fp16", "auto"),
    }
)
_INTEGERS = MappingProxyType(  # and the least that each takes
    dict.fromkeys(("depth", "width", "heads", "patch", "ffn_ratio", "steps", "eval_every", "eval_images"), 1)
    | dict.fromkeys(("seed", "warmup", "crop", "probe_every"), 0)
    | {"batch": 1, "num_groups": 1}
)
_NUMBERS = ("sigma", "sigma_from", "weight_decay")


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class Recipe:
    """One training run, frozen and serialisable; change it with `dataclasses.replace`.

    Raises ValueError, naming the field, the value and what is allowed, when it is made.
    """

    name: str = "custom"
    model: str = "vit"  # a row of `normviz.lab.models.MODELS`
    arm: str = "ln"  # of the model's `arms`: which method sits in which norm slot
    ffn: str = "gelu"
    data: str = "digits"
    seed: int = 0  # initialisation, order of the images, augmentation

    depth: int = 16
    width: int = 48
    heads: int = 3
    patch: int = 2  # pixels a side
    ffn_ratio: int = 4  # hidden features of the FFN per feature of a token
    num_groups: int = 8  # of a convolutional network's GroupNorm

    steps: int = 400
    batch: int = 64  # images
    lr: float = 4e-3
    schedule: str = "cosine"
    warmup: int = 40  # steps
    weight_decay: float = 0.05
    clip: float | None = None  # largest total gradient norm; None: no clipping

    sigma: float = 0.0  # contrast jitter: a training image is multiplied by exp(sigma·z), z normal
    sigma_from: float = 0.0  # the share of the steps after which the jitter begins
    flip: bool = False
    crop: int = 0  # pixels of random shift either way

    precision: str = "fp32"  # "auto": on a GPU bf16, or fp16 where bf16 is missing; fp32 on a CPU
    eval_every: int = 50  # steps
    eval_images: int = 1000  # the first so many test images
    probe_every: int = 10  # steps; 0: no probes

    def __post_init__(self):
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} is unknown; it takes one of {', '.join(allowed)}"
                )
        arms = model_class(self.model).arms
        if self.arm not in arms:
            raise ValueError(
                f"arm={self.arm!r} is unknown; it takes one of {', '.join(arms)} (of model={self.model!r})"
            )
        for name, least in _INTEGERS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value!r} must be an integer >= {least}")
        for name in _NUMBERS:
            if not _is_number(getattr(self, name)) or getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)!r} must be a number >= 0")
        if not _is_number(self.lr) or self.lr <= 0:
            raise ValueError(f"lr={self.lr!r} must be a positive number")
        if self.clip is not None and (not _is_number(self.clip) or self.clip <= 0):
            raise ValueError(f"clip={self.clip!r} must be a positive number, or None for no clipping")
        if self.sigma_from > 1:
            raise ValueError(f"sigma_from={self.sigma_from!r} is a share of the steps: it takes 0 to 1")
        if self.model == "vit" and self.width % self.heads:
            raise ValueError(f"heads={self.heads} does not divide width={self.width}")

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

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> Recipe:
        """The recipe that `to_dict` wrote.  Raises ValueError for a field that recipes do not have."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(
                f"{', '.join(unknown)}: no such field in a recipe; it takes {', '.join(sorted(known))}"
            )
        return cls(**values)


_CIFAR = {
    "data": "cifar10", "flip": True, "crop": 4,
    "depth": 12, "width": 64, "heads": 4, "patch": 4, "steps": 300,
}  # fmt: skip

#: A small convolutional network on digits: a quarter of an hour of a laptop is two hundred such runs.
_CONV = {"model": "conv", "depth": 4, "width": 32, "steps": 200, "warmup": 10, "probe_every": 0}

#: A recurrent network over a digit's ink pixels: half a minute of one core each.
_GRU = {
    "model": "gru",
    "depth": 1,
    "width": 48,
    "steps": 400,
    "warmup": 20,
    "eval_every": 100,
    "probe_every": 0,
}

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
        raise ValueError(f"preset={name!r} is unknown; it takes one of {', '.join(PRESETS)}")
    return replace(Recipe(**PRESETS[name], name=name, arm=arm, seed=seed), **overrides)
