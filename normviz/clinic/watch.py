"""Running somebody's model under observation, and leaving it exactly as it was."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn


class ForwardError(RuntimeError):
    """The model failed in its own forward pass; the message names the module, and the model's own error is chained."""


class Visit(NamedTuple):
    """One call of a module: its name in the model ("" for the model itself), what came and what it gave."""

    name: str
    module: nn.Module
    args: tuple
    kwargs: dict
    output: Any = None

    @property
    def x(self) -> Tensor | None:
        """The first floating-point tensor that came."""
        return next((t for t in tensors((self.args, self.kwargs)) if t.is_floating_point()), None)

    @property
    def y(self) -> Tensor | None:
        """The first tensor of the output that is like `x`."""
        return None if self.x is None else alike(self.output, self.x)


def alike(output, x: Tensor) -> Tensor | None:
    """The first floating-point tensor of an output that has the shape of x."""
    return next((t for t in tensors(output) if t.shape == x.shape and t.is_floating_point()), None)


def tensors(tree) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists, mappings and dataclass-like outputs, in order."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (tuple, list, Mapping)):
        for part in tree.values() if isinstance(tree, Mapping) else tree:
            yield from tensors(part)


def mapped(tree, change: Callable[[Tensor], Tensor]):
    """The same nest of tuples, lists and mappings, with every tensor changed."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, Mapping):
        return {key: mapped(part, change) for key, part in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(mapped(part, change) for part in tree))
    return type(tree)(mapped(part, change) for part in tree) if isinstance(tree, (tuple, list)) else tree


def taken(x: Tensor, axis: int, size: int) -> Tensor:
    """The first `size` indices of an axis, begun again where it has fewer."""
    return x.index_select(axis, torch.arange(size, device=x.device) % x.shape[axis])


def samples_of(batch) -> int | None:
    """How many samples a batch holds: the first size of its first tensor, or the length of a list of tensors."""
    for part in batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, tuple) else (batch,):
        if isinstance(part, list) and any(True for _ in tensors(part)):
            return len(part)
        if isinstance(part, Tensor) and part.ndim:
            return len(part)
    return None


def resampled(batch, old: int, new: int):
    """The batch with `new` of its `old` samples, begun again where there are fewer."""
    if isinstance(batch, list) and len(batch) == old:
        return [batch[i % old] for i in range(new)]
    if isinstance(batch, Mapping):
        return {key: resampled(part, old, new) for key, part in batch.items()}
    if isinstance(batch, tuple):
        return tuple(resampled(part, old, new) for part in batch)
    fits = isinstance(batch, Tensor) and batch.ndim and len(batch) == old
    return taken(batch, 0, new) if fits else batch


@contextmanager
def untouched(model: nn.Module):
    """Whatever happens within, the model leaves it as it came: modes, buffers, attributes, hooks and random numbers.

    Parameters are not copied: nothing within may write to them.
    """
    modules = [m for m in model.modules() if not isinstance(m, torch.jit.ScriptModule)]
    attributes = [(m, dict(m.__dict__), dict(m._buffers)) for m in modules]
    buffers = [(b, b.detach().clone()) for b in model.buffers()]
    modes = [(m, m.training) for m in model.modules()]
    devices = sorted({t.device.index or 0 for t in (*model.parameters(), *model.buffers()) if t.is_cuda})
    python, numpy, fast = random.getstate(), np.random.get_state(), torch.backends.mha.get_fastpath_enabled()
    # torch's fused transformer layer calls none of its submodules
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        random.setstate(python)
        np.random.set_state(numpy)
        for module, kept, kept_buffers in attributes:
            module.__dict__.clear()
            module.__dict__.update(kept)
            module._buffers.clear()
            module._buffers.update(kept_buffers)
        for module, mode in modes:
            if module.training != mode:
                module.training = mode
        with torch.no_grad():
            for buffer, value in buffers:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


@contextmanager
def silent(module: nn.Module):
    """A module whose hooks, and those of its parts, are not called; they get back the modes that they came in."""
    kept = [
        (part, part.training, dict(part._forward_hooks), dict(part._forward_pre_hooks)) for part in module.modules()
    ]
    for part, *_ in kept:
        part._forward_hooks.clear()
        part._forward_pre_hooks.clear()
    try:
        yield
    finally:
        for part, training, hooks, pre_hooks in kept:
            part.training = training
            part._forward_hooks.update(hooks)
            part._forward_pre_hooks.update(pre_hooks)


def in_mode(module: nn.Module, training: bool) -> nn.Module:
    """The module with all its parts in training or in evaluation, whatever its own `train` leaves frozen."""
    for part in module.modules():
        part.training = training
    return module


def place_of(module: nn.Module) -> Tensor:
    """A parameter or buffer, floating-point for choice, that says on which device and in which dtype a module is."""
    own = [*module.parameters(), *module.buffers(), torch.zeros(())]
    return next(t for t in own if t.is_floating_point())


def noise(model: nn.Module, shape: Iterable[int]) -> Tensor:
    """Random numbers of `shape` where the model is."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    return x.to(place_of(model).device, place_of(model).dtype)


def _ignore(visit: Visit) -> None:
    pass


def run(model: nn.Module, batch, *, enter: Callable[[Visit], None] = _ignore, leave: Callable[[Visit], None] = _ignore):
    """The model's output for a batch, in the mode that it is in and without gradients.

    batch: a mapping is taken for keyword arguments, a tuple for positional ones, anything else for the one argument.
    enter, leave: called with every `Visit` of a module, before and after it.
    Raises ForwardError, chained to the model's own error, which names the innermost module that did not return.
    """
    stack: list[Visit] = []

    def before(name, module, args, kwargs):
        stack.append(Visit(name, module, args, kwargs))
        enter(stack[-1])

    def after(name, module, args, kwargs, output):
        while stack and stack.pop().module is not module:
            pass  # left by an exception that the model itself caught
        leave(Visit(name, module, args, kwargs, output))

    handles = []
    for name, module in model.named_modules():
        with suppress(RuntimeError):  # compiled by torch.jit: a module without hooks
            handles.append(module.register_forward_pre_hook(partial(before, name), with_kwargs=True))
            handles.append(module.register_forward_hook(partial(after, name), with_kwargs=True))
    named = isinstance(batch, Mapping)
    args, kwargs = () if named else batch if isinstance(batch, tuple) else (batch,), dict(batch) if named else {}
    try:
        with torch.no_grad():
            return model(*args, **kwargs)
    except Exception as error:
        place = stack[-1] if stack else Visit("", model, args, kwargs)
        shapes = ", ".join(str(tuple(t.shape)) for t in tensors((place.args, place.kwargs)))
        where = f"in {place.name!r} ({type(place.module).__name__})" if place.name else "in the model itself"
        mode = "training" if place.module.training else "evaluation"
        raise ForwardError(
            f"{type(model).__name__} fails in {mode}, {where}, on {shapes or 'no tensor'}: "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
