"""One training on several processes, as `torchrun` starts them: each takes its part of every batch, the first writes.

    torchrun --nproc-per-node=2 -m normviz train --preset heavy --arm bn --out runs/bn [--sync-batchnorm]

Gradients are averaged by torch's DistributedDataParallel, over gloo on CPUs and NCCL on GPUs, so that a network whose
norms look at one image at a time trains as it does in one process.  BatchNorm sees its part alone, unless the processes
exchange its statistics: `SyncBatchNorm`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from normviz.lab.models.layers import PRepBN


def place() -> tuple[int, int]:
    """Which of how many processes this is; (0, 1) where it is alone."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


@contextmanager
def joined(device=None) -> Iterator[Any]:
    """Within, this process is one of those that torchrun started; yields the device that it works on.

    device: "cpu", "cuda" (each process takes one of its own), by default the GPUs if there are some.  Where torchrun
    started nobody, or one process alone, nothing is changed.
    """
    if not (dist.is_available() and dist.is_torchelastic_launched()) or int(os.environ["WORLD_SIZE"]) == 1:
        yield device
        return
    from normviz.lab.training import usable_device

    device = usable_device(device)
    if device.type == "cuda":
        if device.index is None:
            device = usable_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def by_the_first(call: Callable[[], Any]) -> Any:
    """What `call` returns in the first process, or the error that it raises there, in every process."""
    rank, processes = place()
    if processes == 1:
        return call()
    result: list = [None, None]
    if rank == 0:
        try:
            result[0] = call()
        except Exception as error:
            result[1] = error
    dist.broadcast_object_list(result)
    if result[1] is not None:
        raise result[1]
    return result[0]


def average_(x: Tensor) -> Tensor:
    """The mean over the processes, in place."""
    _, processes = place()
    if processes > 1:
        dist.all_reduce(x)
        x /= processes
    return x


def data_parallel(model: nn.Module) -> nn.Module | None:
    """The model with its gradients averaged over the processes; None where there is one process."""
    if place()[1] == 1:
        return None
    # PRepBN leaves its LayerNorm alone in the end, and its parameters without gradients
    leaves = any(isinstance(module, PRepBN) for module in model.modules())
    return nn.parallel.DistributedDataParallel(model, find_unused_parameters=leaves)


class _Sum(torch.autograd.Function):
    """The sum over the processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient


class SyncBatchNorm(_BatchNorm):
    """BatchNorm whose statistics in training are those of all processes' batches together, (N, C, …) or (N, C).

    torch's own works on GPUs alone; this one also over gloo.  Parameters and buffers bear BatchNorm's names.
    """

    short = "SyncBN"

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim < 2:
            raise ValueError(f"x of shape {tuple(x.shape)} must be (N, C) or (N, C, …)")

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        self._check_input_dim(x)
        dims, shape = [0, *range(2, x.ndim)], (-1, *(1,) * (x.ndim - 2))
        values = x.float()
        count = _Sum.apply(values.new_tensor(values.numel() / values.shape[1]))
        mean = _Sum.apply(values.sum(dims)) / count  # (C,)
        centred = values - mean.view(shape)
        var = _Sum.apply(centred.square().sum(dims)) / count
        if self.track_running_stats and self.running_mean is not None:
            self._learn(mean.detach(), var.detach() * count / (count - 1).clamp_min(1))
        y = centred * (var + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)

    @torch.no_grad()
    def _learn(self, mean: Tensor, var: Tensor) -> None:
        self.num_batches_tracked += 1
        weight = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(var, weight)


def synchronized(model: nn.Module) -> nn.Module:
    """The model with every BatchNorm in it replaced by a `SyncBatchNorm`, with its parameters and statistics.

    Raises ValueError for a BatchNorm of a kind of its own (ghost statistics, RBN, those of the GRU), which would no
    longer be what it is.
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) in (nn.BatchNorm1d, nn.BatchNorm2d):
                own = SyncBatchNorm(
                    child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats
                )
                own.load_state_dict(child.state_dict())
                setattr(module, name, own)
            elif isinstance(child, _BatchNorm):
                raise ValueError(f"sync_batchnorm=True: there is no {type(child).__name__} over several processes")
    return model
