"""The table of normalization methods, and what follows from it without computing a single mean.

A method is a *partition of the tensor's cells*: the cells of one set share one mean and one variance.  Every row of
`METHODS` says which axes a set spans; everything else here (labels, counts, captions, the matching torch call) is
derived from the row.  The index-set view is that of Wu & He, "Group Normalization" (ECCV 2018), equations 1 to 6.

numpy only: importing this module must stay instant, so torch is met in `functional.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

#: Letters of the axes by layout and rank.  "NCHW" also takes (N, C) and (N, C, L).
LAYOUTS = MappingProxyType({"NCHW": {2: "NC", 3: "NCL", 4: "NCHW"}, "BTD": {3: "BTD"}})

#: What an axis is, whatever the layout calls it.
ROLES = MappingProxyType(
    {"N": "sample", "B": "sample", "C": "channel", "D": "channel"} | dict.fromkeys("HWLT", "position")
)
AXIS_NAMES = MappingProxyType(
    {
        "N": "batch",
        "B": "batch",
        "C": "channel",
        "D": "width",
        "H": "height",
        "W": "width",
        "L": "length",
        "T": "time",
    }
)


@dataclass(frozen=True)
class Method:
    """One row: how a method cuts the tensor, and the torch module that does the same."""

    key: str
    short: str
    name: str
    over: frozenset[str]  # roles that one set spans
    torch_class: str  # "{d}" stands for the number of position axes
    torch_size: str  # the module's size argument
    torch_affine: str  # the module's name for `affine`
    feature_axis: str  # where the module expects the channels: "first", "last" or "any"
    grouped: bool = False  # the channel axis is cut into groups, a set spans one of them
    centred: bool = True  # the mean is subtracted (RMSNorm only divides)
    running: bool = False  # keeps running statistics for evaluation
    single_value: str = "zero"  # a set of one cell: "zero" (only the bias is left) or "refuse", as torch does
    affine_per: str = "channel"  # weight and bias: one per "channel", or one per cell of a "sample"
    used_in: str = ""
    source: str = ""


def _row(key: str, short: str, name: str, over: str, **columns: Any) -> Method:
    return Method(key, short, name, frozenset(over.split()), **columns)


METHODS = MappingProxyType(
    {
        row.key: row
        for row in (
            _row(
                "batch", "BN", "BatchNorm", "sample position",
                torch_class="BatchNorm{d}d", torch_size="num_features", torch_affine="affine", feature_axis="first",
                running=True, single_value="refuse",
                used_in="convolutional networks with large batches (ResNet)",
                source="Ioffe & Szegedy 2015, arXiv:1502.03167",
            ),
            _row(
                "layer", "LN", "LayerNorm (whole sample)", "channel position",
                torch_class="LayerNorm", torch_size="normalized_shape", torch_affine="elementwise_affine",
                feature_axis="any", affine_per="sample",
                used_in="recurrent networks; the LN cube of the Group Normalization paper",
                source="Ba, Kiros & Hinton 2016, arXiv:1607.06450",
            ),
            _row(
                "layer_token", "LN-token", "LayerNorm (per token)", "channel",
                torch_class="LayerNorm", torch_size="normalized_shape", torch_affine="elementwise_affine",
                feature_axis="last",
                used_in="transformers, ViT, ConvNeXt",
                source="Ba, Kiros & Hinton 2016, arXiv:1607.06450; Vaswani et al. 2017, arXiv:1706.03762",
            ),
            _row(
                "instance", "IN", "InstanceNorm", "position",
                torch_class="InstanceNorm{d}d", torch_size="num_features", torch_affine="affine", feature_axis="first",
                single_value="refuse",
                used_in="style transfer, image generation",
                source="Ulyanov, Vedaldi & Lempitsky 2016, arXiv:1607.08022",
            ),
            _row(
                "group", "GN", "GroupNorm", "channel position",
                torch_class="GroupNorm", torch_size="num_channels", torch_affine="affine", feature_axis="first",
                grouped=True,
                used_in="detection, segmentation and diffusion models, where batches are small",
                source="Wu & He 2018, arXiv:1803.08494",
            ),
            _row(
                "rms", "RMS", "RMSNorm", "channel",
                torch_class="RMSNorm", torch_size="normalized_shape", torch_affine="elementwise_affine",
                feature_axis="last", centred=False,
                used_in="large language models (Llama)",
                source="Zhang & Sennrich 2019, arXiv:1910.07467",
            ),
        )
    }
)  # fmt: skip


class Statistics(NamedTuple):
    """How many numbers a method computes for one tensor.

    `sets` is the number of sets, `values` the statistics in all (mean and variance of each set; RMSNorm has one
    value a set), `formula` the same as a product of axis sizes, in the letters of the layout.
    """

    sets: int
    values: int
    formula: str


class Axes(NamedTuple):
    """A checked shape with the meaning of its axes: `letters[i]` names the axis of size `shape[i]`."""

    shape: tuple[int, ...]
    letters: str

    @property
    def channel(self) -> int:
        """Index of the channel axis."""
        return next(i for i, letter in enumerate(self.letters) if ROLES[letter] == "channel")

    @property
    def channels(self) -> int:
        return self.shape[self.channel]

    @property
    def positions(self) -> tuple[int, ...]:
        """Indices of the position axes, none for (N, C)."""
        return tuple(i for i, letter in enumerate(self.letters) if ROLES[letter] == "position")

    def to_ncp(self) -> tuple[int, ...]:
        """The permutation that brings sample, channel, positions into this order."""
        return (0, self.channel, *self.positions)


def method_row(method: str | Method) -> Method:
    """The row of a method's name.  Raises ValueError for a name that the table lacks."""
    if isinstance(method, Method):
        return method
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"method={method!r} is unknown; it takes one of {', '.join(map(repr, METHODS))}")
    return METHODS[method]


def axes_of(shape: Iterable[int], layout: str = "NCHW") -> Axes:
    """Check `shape` against `layout` and name its axes.

    Raises ValueError for an unknown layout, a rank that it does not have, or an axis of size 0.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r} is unknown; it takes one of {', '.join(map(repr, LAYOUTS))}")
    try:
        sizes = tuple(int(size) for size in shape)
    except TypeError:
        raise ValueError(f"shape={shape!r} is no sequence of integers, such as (4, 6, 3, 3)") from None
    ranks = LAYOUTS[layout]
    if len(sizes) not in ranks:
        takes = " or ".join(f"({', '.join(letters)})" for letters in ranks.values())
        raise ValueError(f"shape={sizes} has rank {len(sizes)}; layout {layout!r} takes {takes}")
    axes = Axes(sizes, ranks[len(sizes)])
    for size, letter in zip(*axes, strict=True):
        if size < 1:
            raise ValueError(
                f"shape={sizes} has an empty axis: {letter}={size}; every axis needs at least 1 cell"
            )
    return axes


def divisors(channels: int) -> list[int]:
    """The numbers of groups that `channels` can be cut into."""
    return [g for g in range(1, channels + 1) if channels % g == 0]


def check_groups(row: Method, channels: int, num_groups: int | None) -> int:
    """The number of groups that the channel axis is cut into (1 where the method has none).

    Raises ValueError if the method needs `num_groups` and it is missing or does not divide the channels, or if it
    is given to a method without groups.
    """
    if not row.grouped:
        if num_groups is not None:
            raise ValueError(
                f"num_groups={num_groups!r} does not go with method {row.key!r}, which has no groups"
            )
        return 1
    if isinstance(num_groups, bool) or num_groups not in divisors(channels):
        raise ValueError(
            f"num_groups={num_groups!r} does not divide C={channels}; it takes one of {divisors(channels)}"
        )
    return int(num_groups)


def _kept(row: Method, axes: Axes, groups: int) -> list[tuple[str, int, np.ndarray]]:
    """The axes that tell sets apart: letter, number of steps, and the step of each index along the axis."""
    kept = []
    for letter, size in zip(axes.letters, axes.shape, strict=True):
        index = np.arange(size)
        if row.grouped and ROLES[letter] == "channel":
            kept.append(("G", groups, index // (size // groups)))
        elif ROLES[letter] not in row.over:
            kept.append((letter, size, index))
    return kept


def partition(
    method: str, shape: Iterable[int], num_groups: int | None = None, layout: str = "NCHW"
) -> np.ndarray:
    """Which cells share their statistics: an int64 array of `shape`, equal labels for cells of one set.

    method: a key of `METHODS`; "group" needs `num_groups`, a divisor of C.  shape: (N, C), (N, C, L) or
    (N, C, H, W) for layout "NCHW", (B, T, D) for "BTD".
    Labels are 0 … S-1 in the order in which a row-major walk over the tensor first meets them.
    Raises ValueError for an unknown method or layout, a wrong rank, an empty axis, groups that do not divide C.

    >>> partition("group", (1, 4), num_groups=2)
    array([[0, 0, 1, 1]])
    """
    row, axes = method_row(method), axes_of(shape, layout)
    groups = check_groups(row, axes.channels, num_groups)
    labels = np.zeros((1,) * len(axes.shape), dtype=np.int64)
    for letter, steps, step in _kept(row, axes, groups):
        axis = axes.channel if letter == "G" else axes.letters.index(letter)
        labels = labels * steps + step.reshape([-1 if i == axis else 1 for i in range(len(axes.shape))])
    return np.broadcast_to(labels, axes.shape).copy()


def count_statistics(
    method: str, shape: Iterable[int], num_groups: int | None = None, layout: str = "NCHW"
) -> Statistics:
    """How many sets and statistics (two a set, one for "rms") a method has on a tensor of `shape`.

    Arguments and errors as `partition`.

    >>> count_statistics("layer_token", (4, 6, 3, 3))
    Statistics(sets=36, values=72, formula='2NHW')
    """
    row, axes = method_row(method), axes_of(shape, layout)
    kept = _kept(row, axes, check_groups(row, axes.channels, num_groups))
    sets = math.prod(steps for _, steps, _ in kept)
    letters = "".join(letter for letter, _, _ in kept)
    return Statistics(sets, sets * (2 if row.centred else 1), ("2" if row.centred else "") + letters)


def coincides_with(
    method: str, shape: Iterable[int], num_groups: int | None = None, layout: str = "NCHW"
) -> list[str]:
    """Other methods that compute the very same statistics on this shape, by comparing the partitions themselves.

    GroupNorm with one group is `layer`, with one channel a group `instance`; a batch of one makes `batch` another
    `instance`.  Methods that need `num_groups` are left out: their answer would depend on it.
    """
    row, shape = method_row(method), tuple(shape)
    labels = partition(method, shape, num_groups, layout)
    return [
        other.key
        for other in METHODS.values()
        if other.key != row.key
        and not other.grouped
        and other.centred == row.centred
        and np.array_equal(labels, partition(other.key, shape, None, layout))
    ]


def affine_shape(row: Method, axes: Axes) -> tuple[int, ...]:
    """The shape of weight and bias: (C,), or a whole sample for `layer`."""
    return axes.shape[1:] if row.affine_per == "sample" else (axes.channels,)


def title(method: str, num_groups: int | None = None) -> str:
    """A method's name as headings show it, with its number of groups."""
    row = method_row(method)
    return f"{row.name}, G={num_groups}" if row.grouped else row.name


def sizes_text(axes: Axes) -> str:
    """The shape in words of its axes: N=4×C=6×H=3×W=3."""
    return "×".join(f"{letter}={size}" for letter, size in zip(axes.letters, axes.shape, strict=True))


def statistics_text(row: Method, mean: float, std: float) -> str:
    """μ and σ of a set; RMSNorm knows only the root mean square."""
    if abs(mean) < 1e-6 * std:
        mean = 0.0  # rounding, which would read differently on every machine
    return f"μ={mean:.3g}, σ={std:.3g}" if row.centred else f"root mean square={std:.3g}"


def caption(
    method: str,
    shape: Iterable[int],
    num_groups: int | None = None,
    layout: str = "NCHW",
    size: int | None = None,
    mean: float | None = None,
    std: float | None = None,
) -> str:
    """The sentence under a picture, which is its alt text too (the one template of the project).

    `size` is the number of cells in the cursor's set, `mean` and `std` its statistics; without them the sentence
    tells of the sets alone.
    """
    row, axes = method_row(method), axes_of(shape, layout)
    count = count_statistics(method, axes.shape, num_groups, layout)
    text = f"{title(method, num_groups)}: tensor {sizes_text(axes)}; "
    if size is not None:
        shared = "mean and variance" if row.centred else "mean square"
        others = "no other cell" if size == 1 else f"{size - 1} other cell{'s' if size > 2 else ''}"
        text += f"the cursor cell shares its {shared} with {others}; "
    if mean is not None and std is not None:
        text += f"{statistics_text(row, mean, std)}; "
    return (
        text
        + f"{count.sets} set{'s' if count.sets > 1 else ''} in all ({count.formula} = {count.values} statistics)."
    )


class TorchCall(NamedTuple):
    """The torch module that a method stands for, and how the tensor is turned to suit it.

    `before` and `after` are tensor methods with their arguments, such as ("permute", (0, 2, 3, 1)).
    """

    name: str
    arguments: dict[str, Any]
    before: tuple[tuple[str, tuple], ...] = ()
    after: tuple[tuple[str, tuple], ...] = ()

    @property
    def constructor(self) -> str:
        return f"nn.{self.name}({', '.join(f'{k}={v!r}' for k, v in self.arguments.items())})"

    @property
    def forward(self) -> str:
        def chain(ops):
            return "".join(f".{name}({', '.join(map(repr, arguments))})" for name, arguments in ops)

        return f"layer(x{chain(self.before)}){chain(self.after)}"


def torch_call(
    method: str,
    shape: Iterable[int],
    num_groups: int | None = None,
    *,
    eps: float = 1e-5,
    momentum: float | None = 0.1,
    affine: bool = True,
    layout: str = "NCHW",
) -> TorchCall:
    """How torch spells a method for tensors of `shape`: the row's module, its arguments, the turns around it."""
    row, axes = method_row(method), axes_of(shape, layout)
    groups = check_groups(row, axes.channels, num_groups)
    rank, channel = len(axes.shape), axes.channel
    size = list(affine_shape(row, axes)) if row.affine_per == "sample" else axes.channels
    arguments: dict[str, Any] = {"num_groups": groups} if row.grouped else {}
    arguments |= {row.torch_size: size, "eps": eps}
    if row.running:
        arguments["momentum"] = momentum
    arguments[row.torch_affine] = affine

    name = row.torch_class.format(d=max(1, len(axes.positions)))
    if row.feature_axis == "last" and channel != rank - 1:
        last = (0, *axes.positions, channel)
        back = tuple(last.index(i) for i in range(rank))
        return TorchCall(name, arguments, (("permute", last),), (("permute", back),))
    if row.feature_axis == "first" and channel != 1:
        if {"sample", "position"} <= row.over:
            # Samples and positions share a set, so tokens may be poured into one long batch: no transposed copy.
            return TorchCall(name, arguments, (("flatten", (0, 1)),), (("reshape", (-1, *axes.shape[1:])),))
        return TorchCall(name, arguments, (("transpose", (1, 2)),), (("transpose", (1, 2)),))
    if "{d}" in row.torch_class and not axes.positions and "sample" not in row.over:
        # torch would read (N, C) as one sample of shape (C, L)
        return TorchCall(name, arguments, (("unsqueeze", (-1,)),), (("squeeze", (-1,)),))
    return TorchCall(name, arguments)
