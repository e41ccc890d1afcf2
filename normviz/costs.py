"""The cost of a normalization layer: bytes, operations and calls, counted, and the time that they should take.

A layer is a row of `LAYERS`; everything else follows from its numbers.  The time is a roofline (Williams, Waterman &
Patterson 2009, doi:10.1145/1498765.1498785) with one more term, since a call costs something before it does anything:

    seconds = call + max(bytes / bandwidth, operations / rate).

Without torch: the pictures use it without torch, the lab calibrates it on a machine (`normviz.lab.calibrate`).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from normviz.fields import unknown, whole


class Layer(NamedTuple):
    """Work on N tokens of D features, all counted for the layer in evaluation and one pass over memory.

    per_cell, per_token, per_feature: operations for each of the N·D cells, N tokens, D features; per_weight: for each
    of 3·D² weights; moved: cells read and written, in units of N·D; token_numbers, feature_numbers, weights: numbers
    read or written besides, for each token, each feature, each of D² weights; statistics: computed for each token.
    """

    name: str
    per_cell: int = 0
    per_token: int = 0
    per_feature: int = 0
    per_weight: int = 0
    moved: int = 2
    token_numbers: int = 0
    feature_numbers: int = 0
    weights: int = 0
    statistics: int = 0

    def operations(self, tokens: int, width: int) -> int:
        cells = self.per_cell * tokens * width + self.per_token * tokens + self.per_feature * width
        return cells + self.per_weight * tokens * width**2

    def bytes(self, tokens: int, width: int, itemsize: int = 4) -> int:
        numbers = self.moved * tokens * width + self.token_numbers * tokens + self.feature_numbers * width
        return itemsize * (numbers + self.weights * width**2)


LAYERS: Mapping[str, Layer] = MappingProxyType(
    {
        # mean, centre, square, mean, divide, γ, β; ε and the root once a token, which also keeps its mean and σ
        "ln": Layer("LayerNorm", 7, per_token=2, token_numbers=2, feature_numbers=2, statistics=2),
        # s and t once a feature, from stored statistics (five operations); then one multiplication, one addition a cell
        "bn": Layer("BatchNorm, evaluation", 2, per_feature=5, feature_numbers=4),
        # one call that multiplies and adds
        "line": Layer("the same as s·x + t", 2, feature_numbers=2),
        # part of the next Linear
        "folded": Layer("BatchNorm, folded", moved=0),
        # what a norm is read beside: queries, keys and values
        "linear": Layer("the Linear after it (D → 3D)", per_weight=6, moved=4, feature_numbers=3, weights=3),
    }
)


@dataclass(frozen=True)
class Machine:
    """A calibrated machine.

    call: seconds that a call of each layer takes before it does anything; bandwidth: (bytes moved, bytes per second)
    of copies of growing size, from cache to memory; vector, matrix: operations per second.
    """

    call: Mapping[str, float]
    bandwidth: tuple[tuple[float, float], ...]
    vector: float
    matrix: float

    def bandwidth_at(self, moved: float) -> float:
        """Bytes per second when `moved` bytes are touched: between two calibrated sizes along the logarithm."""
        above = bisect_right(self.bandwidth, (moved,))
        if above in (0, len(self.bandwidth)):
            return self.bandwidth[min(above, len(self.bandwidth) - 1)][1]
        (size, rate), (larger, its) = self.bandwidth[above - 1 : above + 1]
        part = math.log(moved / size) / math.log(larger / size)
        return rate ** (1 - part) * its**part

    @classmethod
    def from_dict(cls, values: Mapping) -> Machine:
        bandwidth = tuple((size, rate) for size, rate in values["bandwidth"])
        return cls(dict(values["call"]), bandwidth, values["vector"], values["matrix"])


class Prediction(NamedTuple):
    """Seconds of the three parts; memory and arithmetic overlap."""

    call: float
    memory: float
    arithmetic: float

    @property
    def seconds(self) -> float:
        return self.call + max(self.memory, self.arithmetic)

    @property
    def bound(self) -> str:
        """Which part decides: "call", "memory" or "arithmetic"; "nothing" for a layer that is gone."""
        return max(self._fields, key=lambda name: getattr(self, name)) if self.seconds else "nothing"


def predict(kind: str, tokens: int, width: int, machine: Machine) -> Prediction:
    """How long one call of a layer of `LAYERS` on (tokens, width) float32 cells should take.

    Raises ValueError for an unknown layer or sizes below 1.
    """
    if kind not in LAYERS:
        raise ValueError(unknown("kind", kind, LAYERS))
    whole("tokens", tokens)
    whole("width", width)
    layer = LAYERS[kind]
    moved, operations = layer.bytes(tokens, width), layer.operations(tokens, width)
    if not moved:
        return Prediction(0.0, 0.0, 0.0)
    rate = machine.matrix if layer.per_weight else machine.vector
    return Prediction(machine.call[kind], moved / machine.bandwidth_at(moved), operations / rate)


def device_words(environment: Mapping) -> str:
    """The device of a timing's record, on a CPU with its threads: "AMD EPYC, 1 thread"."""
    threads = environment["threads"]
    cores = f", {threads} thread{'s' * (threads > 1)}" if environment["device"] == "cpu" else ""
    return environment["name"] + cores
