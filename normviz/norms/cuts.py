"""A method bound to a shape, and everything that follows from it without computing a single mean.  numpy only."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from normviz.fields import unknown
from normviz.norms.layers import torch_call
from normviz.norms.table import LAYOUTS, METHODS, ROLES, Method, method_row

if TYPE_CHECKING:
    from torch import nn


class Statistics(NamedTuple):
    """How many numbers a method computes for one tensor.

    `sets` is the number of sets, `values` the statistics in all (mean and variance of each set; RMSNorm has one value
    a set), `formula` the same as a product of axis sizes, in the letters of the layout.
    """

    sets: int
    values: int
    formula: str


class Axes(NamedTuple):
    """A checked shape with the meaning of its axes: `letters[i]` names the axis of size `shape[i]`."""

    shape: tuple[int, ...]
    letters: str

    @property
    def roles(self) -> tuple[str, ...]:
        """ "sample", "channel" or "position", for each axis."""
        return tuple(ROLES[letter] for letter in self.letters)

    @property
    def channel(self) -> int:
        """Index of the channel axis."""
        return self.roles.index("channel")

    @property
    def channels(self) -> int:
        return self.shape[self.channel]

    @property
    def positions(self) -> tuple[int, ...]:
        """Indices of the position axes, none for (N, C)."""
        return tuple(i for i, role in enumerate(self.roles) if role == "position")

    def to_ncp(self) -> tuple[int, ...]:
        """The permutation that brings sample, channel, positions into this order."""
        return (0, self.channel, *self.positions)

    def __str__(self) -> str:
        """N=4×C=6×H=3×W=3."""
        return "×".join(f"{letter}={size}" for letter, size in zip(self.letters, self.shape, strict=True))


@dataclass(frozen=True)
class Cut:
    """How a method cuts tensors of one shape into sets; made by `cut`, which checks it.

    groups: of the channel axis, 1 where the method has none.
    """

    row: Method
    axes: Axes
    groups: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        return self.axes.shape

    @property
    def num_groups(self) -> int | None:
        """What torch and `cut` call the groups: None for a method without them."""
        return self.groups if self.row.grouped else None

    @cached_property
    def view(self) -> tuple[int, ...]:
        """The shape with the channel axis C as two, G and C/G."""
        c = self.axes.channel
        return (*self.shape[:c], self.groups, self.axes.channels // self.groups, *self.shape[c + 1 :])

    @cached_property
    def dims(self) -> tuple[int, ...]:
        """The axes of `view` that one set spans."""
        roles = list(self.axes.roles)
        roles.insert(self.axes.channel, "group" if self.row.grouped else "channel")  # one group is all of C
        return tuple(i for i, role in enumerate(roles) if role in self.row.over)

    @cached_property
    def set_size(self) -> int:
        """Cells in each set."""
        return math.prod(self.view[i] for i in self.dims)

    @cached_property
    def labels(self) -> np.ndarray:
        """Which cells share their statistics: int64, of `shape`, read-only; equal labels for cells of one set.

        Labels are 0 … S-1 in the order in which a row-major walk over the tensor first meets them.
        """
        sets = [1 if i in self.dims else size for i, size in enumerate(self.view)]
        labels = np.arange(math.prod(sets), dtype=np.int64).reshape(sets)
        labels = np.broadcast_to(labels, self.view).reshape(self.shape)
        labels.flags.writeable = False
        return labels

    @cached_property
    def count(self) -> Statistics:
        """How many sets, and statistics in all: two a set, one for a method that subtracts no mean."""
        letters, c = list(self.axes.letters), self.axes.channel
        letters[c : c + 1] = ("G", "") if self.row.grouped else ("", letters[c])  # those of `view`
        kept = "".join(letter for i, letter in enumerate(letters) if i not in self.dims)
        sets, each = math.prod(self.shape) // self.set_size, 2 if self.row.centred else 1
        return Statistics(sets, each * sets, f"{'2' if each == 2 else ''}{kept}")

    @property
    def title(self) -> str:
        """The method's name as headings show it, with its number of groups."""
        return f"{self.row.name}, G={self.groups}" if self.row.grouped else self.row.name

    @cached_property
    def same_as(self) -> list[str]:
        """Keys of other methods that compute the very same statistics on this shape, the partitions being equal.

        GroupNorm with one group is "layer", with one channel a group "instance"; a batch of one makes "batch" another
        "instance".  Methods with groups are left out: their answer would depend on the groups.
        """
        kin = (row for row in METHODS.values() if row.centred == self.row.centred and not row.grouped)
        others = {row.key: Cut(row, self.axes).labels for row in kin if row != self.row}
        return [method for method, labels in others.items() if np.array_equal(self.labels, labels)]

    @property
    def affine_shape(self) -> tuple[int, ...]:
        """The shape of weight and bias: (C,), or a whole sample for "layer"."""
        return self.shape[1:] if self.row.affine_per == "sample" else (self.axes.channels,)

    def statistics_text(self, mean: float, std: float) -> str:
        """μ and σ of a set; RMSNorm knows only the root mean square."""
        if abs(mean) < 1e-6 * std:
            mean = 0.0  # rounding, which would read differently on every machine
        return f"μ={mean:.3g}, σ={std:.3g}" if self.row.centred else f"root mean square={std:.3g}"

    def caption(self, size: int | None = None, mean: float | None = None, std: float | None = None) -> str:
        """The sentence under a picture, which is its alt text too (the one template of the project).

        size: cells in the cursor's set; mean, std: its statistics; without them the sentence tells of the sets alone.
        """
        text = f"{self.title}: tensor {self.axes}; "
        if size is not None:
            shared = "mean and variance" if self.row.centred else "mean square"
            others = "no other cell" if size == 1 else f"{size - 1} other cell{'s' if size > 2 else ''}"
            text += f"the cursor cell shares its {shared} with {others}; "
        if mean is not None and std is not None:
            text += f"{self.statistics_text(mean, std)}; "
        sets, values, formula = self.count
        return f"{text}{sets} set{'s' if sets > 1 else ''} in all ({formula} = {values} statistics)."

    def torch_layer(self, *, dtype=None, device=None, **options):
        """The `torch.nn` module that does the same, wrapped where torch wants other axes.

        options: eps, momentum and affine, torch's own.  Raises as `torch_layer`.
        """
        return torch_call(self, **options).build(dtype, device)

    def snippet(self, eps: float = 1e-5, gamma: float = 1.0, beta: float = 0.0, double: bool = False) -> str:
        """PyTorch code that does the same to x; double: for a float64 x, which layers made in float32 turn down."""
        call = torch_call(self, eps=eps)
        lines = [f"layer = {call.constructor}" + (".double()" if double else "")]
        if gamma != 1:
            lines.append(f"nn.init.constant_(layer.weight, {gamma:g})")
        if beta != 0 and self.row.centred:
            lines.append(f"nn.init.constant_(layer.bias, {beta:g})")
        return "\n".join([*lines, f"y = {call.forward}  # ({', '.join(self.axes.letters)}) = {self.shape}"])


def divisors(channels: int) -> list[int]:
    """The numbers of groups that `channels` can be cut into."""
    return [g for g in range(1, channels + 1) if channels % g == 0]


def axes_of(shape: Iterable[int], layout: str = "NCHW") -> Axes:
    """`shape`, checked against `layout`, with its axes named.

    Raises ValueError for an unknown layout, a rank that it does not have, or an axis of size 0; TypeError for what is
    no sequence of integers.
    """
    if layout not in LAYOUTS:
        raise ValueError(unknown("layout", layout, LAYOUTS))
    try:
        if isinstance(shape, (str, bytes, set, frozenset, dict)):
            raise TypeError
        sizes = tuple(operator.index(size) for size in shape)
    except TypeError:
        raise TypeError(f"shape={shape!r} is no sequence of integers, such as (4, 6, 3, 3)") from None
    ranks = LAYOUTS[layout]
    if len(sizes) not in ranks:
        takes = " or ".join(f"({', '.join(letters)})" for letters in ranks.values())
        raise ValueError(f"shape={sizes} has rank {len(sizes)}; layout {layout!r} takes {takes}")
    axes = Axes(sizes, ranks[len(sizes)])
    for size, letter in zip(*axes, strict=True):
        if size < 1:
            raise ValueError(f"shape={sizes} has an empty axis: {letter}={size}; every axis needs at least 1 cell")
    return axes


def cut(method: str, shape: Iterable[int], num_groups: int | None = None, layout: str = "NCHW") -> Cut:
    """A method bound to a shape: a checked `Cut`, which then answers everything.

    method: a key of `METHODS`; "group" needs `num_groups`, a divisor of C.  shape: (N, C), (N, C, L) or (N, C, H, W)
    for layout "NCHW", (B, T, D) for "BTD".

    Raises ValueError, naming the argument, for an unknown method or layout, a wrong rank, an empty axis, groups that do
    not divide C or go with no groups; TypeError for a method that is no string or a shape that is none of integers.

    >>> cut("group", (1, 4), num_groups=2).labels
    array([[0, 0, 1, 1]])
    >>> cut("layer_token", (4, 6, 3, 3)).count
    Statistics(sets=36, values=72, formula='2NHW')
    """
    if isinstance(method, Cut):
        return method
    row, axes = method_row(method), axes_of(shape, layout)
    if not row.grouped:
        if num_groups is not None:
            raise ValueError(f"num_groups={num_groups!r} does not go with method {row.key!r}, which has no groups")
        return _known(row, axes, 1)
    allowed = divisors(axes.channels)
    if isinstance(num_groups, (bool, float)) or num_groups not in allowed:
        raise ValueError(f"num_groups={num_groups!r} does not divide C={axes.channels}; it takes one of {allowed}")
    return _known(row, axes, int(num_groups))


_known = lru_cache(maxsize=256)(Cut)  # an explorer asks for the same few cuts over and over


def partition(method: str, shape: Iterable[int], num_groups: int | None = None, layout: str = "NCHW") -> np.ndarray:
    """Which cells share their statistics: `cut(…).labels`, as an array of your own.  Arguments and errors as `cut`."""
    return cut(method, shape, num_groups, layout).labels.copy()


def count_statistics(
    method: str, shape: Iterable[int], num_groups: int | None = None, layout: str = "NCHW"
) -> Statistics:
    """How many sets and statistics a method has on a tensor of `shape`: `cut(…).count`, errors as there."""
    return cut(method, shape, num_groups, layout).count


def torch_layer(
    method, shape, num_groups=None, *, eps=1e-5, momentum=0.1, affine=True, layout="NCHW", dtype=None, device=None
) -> nn.Module:
    """The `torch.nn` module that agrees with `normalize` on tensors of `shape`, wrapped where torch wants other axes.

    method, shape, num_groups, layout: as in `cut`; eps, momentum, affine: torch's own.
    Raises what `cut` raises, and ValueError for eps below 0 or not finite, or a momentum outside of 0 to 1.
    """
    sets = cut(method, shape, num_groups, layout)
    return sets.torch_layer(eps=eps, momentum=momentum, affine=affine, dtype=dtype, device=device)
