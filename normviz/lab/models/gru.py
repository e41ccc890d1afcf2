"""A gated recurrent unit on one page, its norm slots in sight: it reads a digit's ink pixel by pixel.

Sequences of unlike length are handled by packing: at step t only the sequences that are still alive are computed, so
a norm sees no padding unless an arm asks for it.  The cell is the GRU of Cho et al. (2014, arXiv:1406.1078) as torch
writes it; norms sit on what comes from the input and on what comes from the state, as in Ba et al. (2016,
arXiv:1607.06450) and Cooijmans et al. (2016, arXiv:1603.09025).
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from normviz import torch_layer
from normviz.lab.recipe import slots_of
from normviz.samples import ink_sequences


class SharedNorm(nn.BatchNorm1d):
    """BatchNorm whose running statistics all steps share.

    Where one sequence is left there is no variance: torch refuses, this layer takes the running statistics.
    """

    def forward(self, x: Tensor, step: int | None = None) -> Tensor:
        if self.training and len(x) == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class StepNorm(nn.BatchNorm1d):
    """BatchNorm with running statistics of every step, and one weight and bias for all of them.

    A step that training never saw takes the statistics of the last one that it saw (Cooijmans et al. 2016, section 3).
    """

    def __init__(self, features: int, steps: int):
        super().__init__(features)
        self.running_mean = torch.zeros(steps, features)
        self.running_var = torch.ones(steps, features)
        self.register_buffer("seen", torch.zeros(steps, dtype=torch.long))  # batches that reached the step

    def forward(self, x: Tensor, step: int) -> Tensor:
        if self.training and len(x) > 1:
            if not self.track_running_stats:
                return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)
            self.seen[step] += 1
            # Few batches reach a late step: the first that does replaces the initial 0 and 1
            momentum = max(self.momentum, 1 / int(self.seen[step]))
            mean, var = self.running_mean[step], self.running_var[step]
            return F.batch_norm(x, mean, var, self.weight, self.bias, True, momentum, self.eps)
        step = max((i for i, count in enumerate(self.seen[: step + 1].tolist()) if count), default=step)
        mean, var = self.running_mean[step], self.running_var[step]
        return F.batch_norm(x, mean, var, self.weight, self.bias, eps=self.eps)


#: What is in a slot, `input` (on W x) or `hidden` (on U h) -> (features, most steps) -> module.  An arm's `masked` says
#: whether statistics leave the padding out.
SLOTS: MappingProxyType[str | None, Callable[[int, int], nn.Module]] = MappingProxyType(
    {
        None: lambda features, steps: nn.Identity(),
        "batch": lambda features, steps: SharedNorm(features),
        "step": StepNorm,
        "layer_token": lambda features, steps: torch_layer("layer_token", (1, 1, features), layout="BTD"),
    }
)


class InkGRU(nn.Module):
    """Images (B, 1, H, W), of any scale and offset, to logits (B, classes): the last state of a GRU over the ink.

    Raises ValueError for an unknown arm, or images of several channels.
    """

    def __init__(
        self, arm: str = "ln", *, channels: int = 1, size: int = 8, classes: int = 10, width: int = 48,
        seed: int | None = None,
    ):  # fmt: skip
        super().__init__()
        slots = slots_of(arm, "gru")
        if channels != 1:
            raise ValueError(f"channels={channels}: model='gru' follows the ink, and takes images of one channel")
        self.size, self.width, self.masked = size, width, slots.get("masked", True)
        self.tokens = size * size  # the most steps that one image can have
        self.input = nn.Linear(3, 3 * width)
        self.hidden = nn.Linear(width, 3 * width, bias=False)
        self.norm_input = SLOTS[slots["input"]](3 * width, self.tokens)
        self.norm_hidden = SLOTS[slots["hidden"]](3 * width, self.tokens)
        self.head = nn.Linear(width, classes)
        self.reset(seed)

    @torch.no_grad()
    def reset(self, seed: int | None = None) -> None:
        """Orthogonal recurrent matrices, Xavier for the rest, no biases; the same numbers for every arm."""
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        for layer in (self.input, self.head):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
        for gate in self.hidden.weight.chunk(3):
            nn.init.orthogonal_(gate, generator=generator)

    def cell(self, a: Tensor, h: Tensor, step: int) -> Tensor:
        """One step: a (n, 3·width) from the input, h (n, width) the state so far; returns the new state."""
        b = _norm(self.norm_hidden, self.hidden(h), step)  # (n, 3·width)
        gates = 2 * self.width
        reset, keep = torch.sigmoid(a[:, :gates] + b[:, :gates]).chunk(2, 1)
        new = torch.tanh(a[:, gates:] + reset * b[:, gates:])
        return torch.lerp(new, h, keep)

    def forward(self, images: Tensor) -> Tensor:
        steps, lengths = ink_sequences(images)  # (B, T, 3), (B,)
        last = (self.size - 1) / 2
        places = steps[..., :2] / last - 1  # -1 to 1
        real = torch.arange(steps.shape[1], device=steps.device) < lengths[:, None]
        steps = torch.cat([places, steps[..., 2:]], dim=2) * real[..., None]
        return self.head(self.read(steps, lengths))

    def read(self, steps: Tensor, lengths: Tensor) -> Tensor:
        """The state (B, width) after the last real step of padded sequences (B, T, 3) with their lengths (B,)."""
        # Longest first, then step by step: the rows of step 0, of step 1, …, of sequences still alive
        packed = pack_padded_sequence(steps, lengths.cpu(), batch_first=True, enforce_sorted=False)
        alive = packed.batch_sizes.tolist()
        cells, rows = packed.data, alive
        if not self.masked:
            cells = steps[packed.sorted_indices].transpose(0, 1).flatten(0, 1)  # (T·B, 3)
            rows = [len(steps)] * steps.shape[1]
        a = self.input(cells)  # (cells, 3·width)
        if isinstance(self.norm_input, StepNorm):
            a = [self.norm_input(part, step) for step, part in enumerate(a.split(rows))]
        else:
            a = self.norm_input(a).split(rows)  # one mean over all cells of all steps
        h, ended = steps.new_zeros(len(steps), self.width), []
        for step, left in enumerate((*alive[1:], 0)):
            h = self.cell(a[step], h[: rows[step]], step)
            ended.append(h[left : alive[step]])  # those of which this was the last step
        return torch.cat(ended[::-1])[packed.unsorted_indices]


def _norm(norm: nn.Module, x: Tensor, step: int) -> Tensor:
    return norm(x, step) if isinstance(norm, nn.BatchNorm1d) else norm(x)
