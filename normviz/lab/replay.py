"""A training step as one CUDA graph: a small network is a thousand small jobs, and Python hands them out too slowly."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from normviz.lab.models.layers import RBN, PRepBN


def replayable(model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> bool:
    """Whether a step depends on nothing but tensors that stay where they are.

    Not so with a gradient scaler, which skips steps, with an optimizer that wants its learning rate as a number, with
    PRepBN, whose λ is a number that changes, and with RBN, whose penalty outlives the step.
    """
    moving = any(isinstance(layer, (PRepBN, RBN)) for layer in model.modules())
    tensors = all(group.get("capturable") for group in optimizer.param_groups)
    return tensors and not scaler.is_enabled() and not moving


class Replay:
    """Takes the steps of a run by replaying a graph of the first one; it computes what the step computes.

    step: the step, called as step(x, y, *settings), which returns tensors.  A graph is captured for every combination
    of settings; capturing takes no step.
    """

    EAGER = 3  # steps that come first, in which optimizer and libraries make what they keep

    def __init__(self, step):
        self.step, self.eager, self._graphs = step, 0, {}

    def __call__(self, x: Tensor, y: Tensor, *settings) -> tuple[Tensor, ...]:
        if self.eager < self.EAGER:
            self.eager += 1
            return self.step(x, y, *settings)
        if (key := (x.shape, *settings)) not in self._graphs:
            self._graphs[key] = self._capture(x.clone(), y.clone(), settings)
        graph, held_x, held_y, taken = self._graphs[key]
        held_x.copy_(x)
        held_y.copy_(y)
        graph.replay()
        return tuple(value.clone() for value in taken)  # the next replay writes to the same place

    def _capture(self, x: Tensor, y: Tensor, settings: tuple):
        torch.cuda.synchronize(x.device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            taken = self.step(x, y, *settings)
        return graph, x, y, taken
