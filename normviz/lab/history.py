"""The record of a run: one object, plain numbers, readable by anything that reads JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np

from normviz.files import write_atomic
from normviz.lab.recipe import Recipe


@dataclass
class History:
    """The record of a training run.

    loss: training loss of every step, NaN and infinity included.
    grad_norm: norm of all gradients of every step, as the optimizer would get them without clipping; empty in runs
        without probes and in records of before it was taken.
    evals: one dict per evaluation: `step` (steps done), `loss` and `accuracy` on the test images as a user
        would get them (running statistics), `batch_loss` and `batch_accuracy` with the batch's own
        statistics as in training, `train_loss` (mean since the evaluation before), `nonfinite` (images whose
        logits are not finite); the last one has `hits`, see there.
    probes: columns; `step`, and per probed step a list over the blocks (see `probe.py`).
    meta: device, versions, sizes, `seconds`, `first_nonfinite` and `stopped` (a step or None).
    """

    recipe: Recipe
    loss: list[float] = field(default_factory=list)
    grad_norm: list[float] = field(default_factory=list, kw_only=True)
    evals: list[dict] = field(default_factory=list)
    probes: dict[str, list] = field(default_factory=dict)
    meta: dict = field(default_factory=dict)

    @property
    def chance(self) -> float:
        """The loss of a model that says the same for every image: ln(number of classes)."""
        return math.log(self.meta.get("classes", 10))

    @property
    def hits(self) -> np.ndarray | None:
        """Which test images the trained model has right, bool (images,); None where it was not recorded."""
        last = self.evals[-1] if self.evals else {}
        if "hits" not in last:
            return None
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(last["hits"]), np.uint8)).astype(bool)
        return bits[: self.meta["test_images"]]

    def to_dict(self, digits: int | None = None) -> dict:
        """A dict that JSON can hold to the letter: NaN and infinities become strings.

        digits: significant digits to keep; by default all, so that `from_dict` gives an equal history.
        """
        return {"recipe": self.recipe.to_dict()} | {
            part.name: encode(getattr(self, part.name), digits) for part in fields(self)[1:]
        }

    @classmethod
    def from_dict(cls, values: dict) -> History:
        """The history that `to_dict` wrote; fields that it does not know (of a study) are ignored."""
        parts = {part.name: decode(values[part.name]) for part in fields(cls)[1:] if part.name in values}
        return cls(Recipe.from_dict(values["recipe"]), **parts)

    def save(self, path) -> None:
        """Writes JSON, whole or not at all."""
        write_atomic(path, json.dumps(self.to_dict(), allow_nan=False))

    @classmethod
    def load(cls, path) -> History:
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))


def encode(value, digits: int | None = None):
    """Lists, dicts and numbers as JSON can hold them: NaN and infinities as strings, floats of so many digits."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)  # "nan", "inf", "-inf"
        return value if digits is None else float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {key: encode(item, digits) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item, digits) for item in value]
    return value


def decode(value):
    """What `encode` was given."""
    if isinstance(value, str):
        return float(value) if value in ("nan", "inf", "-inf") else value
    if isinstance(value, dict):
        return {key: decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decode(item) for item in value]
    return value
