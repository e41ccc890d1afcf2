"""Where the output of a layer goes: every torch function that takes it, seen while the model runs."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from normviz.clinic.watch import Visit, mapped, tensors

#: What a straight line per channel can be folded into
LINEAR = (nn.Linear, nn.modules.conv._ConvNd)


def stored(module: nn.Module) -> dict[str, str]:
    """The names of a module's own buffers of running statistics: {"mean": …, "var": …}, or {} where it has not both."""
    kinds = {k: [n for n, b in module._buffers.items() if b is not None and n.endswith(k)] for k in ("mean", "var")}
    return {kind: names[0] for kind, names in kinds.items()} if all(kinds.values()) else {}


class Use(NamedTuple):
    """Something that takes a layer's output.

    by: the name of the linear or norm layer that does; None for anything else, such as a sum.
    axes: for each axis of the tensor that it takes, the axis of the output that it is; None where that is not known,
    or where it is no longer that axis (pooled).
    rank: of the output.
    """

    by: str | None
    axes: tuple[int | None, ...]
    rank: int


class _Made(NamedTuple):
    """Where a tensor comes from: the layer, the places of its axes in memory, and which axes of the output they are."""

    by: str
    places: tuple[tuple[int, int], ...]  # (size, stride) of each axis
    axes: tuple[int | None, ...]
    rank: int
    direct: bool  # the layer's very output, not a function of it

    def seen_as(self, t: Tensor) -> tuple[int | None, ...]:
        """For each axis of t, a view of the same numbers, the axis of the layer's output that it is."""
        places = zip(t.shape, t.stride(), strict=True)
        return tuple(self.axes[self.places.index(p)] if self.places.count(p) == 1 else None for p in places)


def feature_axis(layer: nn.Module, rank: int) -> int:
    """The axis of a linear layer's features, of an input or output with `rank` axes."""
    return rank - 1 if isinstance(layer, nn.Linear) else rank - layer.weight.ndim + 1


def mixed_after(name: str, model: nn.Module, flow: Flow) -> tuple[str, int | None]:
    """The linear layer that takes a layer's output, and the axis of it that it mixes; ("", None) for none.

    Activations, pooling and padding may stand between them.
    """
    for use in (*flow.uses.get(name, ()), *flow.beyond.get(name, ())):
        module = use.by and model.get_submodule(use.by)
        if isinstance(module, LINEAR) and len(use.axes) == use.rank:
            features = feature_axis(module, use.rank)
            in_place = all(axis in (i, None) for i, axis in enumerate(use.axes))  # transposed ones are meant to be so
            if in_place and use.axes[features] == features:
                return use.by, features
    return "", None


class Flow(TorchFunctionMode):
    """Watches the outputs of linear layers, of norm layers, and of all other modules that have no parts.

    with Flow() as flow:
        run(model, batch, enter=flow.enter, leave=flow.leave)

    uses: name → list of `Use`, in order; no entry for what was never called.  beyond: the same for functions of a norm
    layer's output alone, such as ReLU.  calls: name → how often it was called.
    watching: False while others compute something beside.
    """

    def __init__(self):
        super().__init__()
        self.uses: dict[str, list[Use]] = {}
        self.beyond: dict[str, list[Use]] = {}
        self.calls: Counter[str] = Counter()
        self.watching = True
        self._made = WeakTensorKeyDictionary()
        self._stack: list[str] = []
        self._mixing: set[str] = set()

    def enter(self, visit: Visit) -> None:
        if stored(visit.module) or not any(True for _ in visit.module.children()):
            self._stack.append(visit.name)

    def leave(self, visit: Visit) -> None:
        if visit.name in self._stack:
            del self._stack[self._stack.index(visit.name) :]
            out, linear = visit.output, isinstance(visit.module, LINEAR)
            own = (*visit.module._parameters.values(), *visit.module._buffers.values())
            # A norm without weights is worth following too; an activation's output has its source already
            heavy = any(p is not None for p in own) and not isinstance(visit.module, nn.PReLU)
            if isinstance(out, Tensor) and (linear or heavy or out not in self._made):
                self.uses.setdefault(visit.name, [])
                self.calls[visit.name] += 1
                places = tuple(zip(out.shape, out.stride(), strict=True))
                self._made[out] = _Made(visit.name, places, tuple(range(out.ndim)), out.ndim, True)
                if linear:
                    self._mixing.add(visit.name)
        if visit.name == "":
            for out in tensors(visit.output):  # whoever called the model
                self._use(out, None)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not self.watching:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        # Of reshape_as and zeros_like the last tensor gives its shape alone
        read = () if name.endswith("_like") else args[:1] if name.endswith("_as") else (args, kwargs)
        came = [(t, t._version) for t in tensors(read) if t in self._made]
        out = func(*args, **kwargs)
        gave = list(tensors(out)) if came else []
        for t, version in came:
            if not gave or any(o is t for o in gave):
                if t._version != version:
                    self._use(t, None)  # written to
            elif all(o._is_view() and o.untyped_storage().data_ptr() == t.untyped_storage().data_ptr() for o in gave):
                for o in gave:  # the same numbers, seen in another way
                    self._made[o] = self._made[t]
            else:
                self._use(t, self._stack[0] if self._stack else None)
                self._follow(func, args, kwargs, t, out)
        return out

    def _use(self, t: Tensor, by: str | None) -> None:
        made = self._made.get(t)
        if made and by != made.by:
            uses = self.uses if made.direct else self.beyond
            uses.setdefault(made.by, []).append(Use(by, made.seen_as(t), made.rank))

    def _follow(self, func, args, kwargs, t: Tensor, out) -> None:
        """Notes where `out` comes from, if it is a function of one norm layer's output alone and keeps axes of it."""
        prelu = getattr(func, "__name__", "") == "prelu"  # the one activation with a weight
        slope = (*args, *kwargs.values())[1] if prelu else None
        made, given = self._made[t], [x for x in tensors((args, kwargs)) if x.ndim and x is not slope]
        like = isinstance(out, Tensor) and out.is_floating_point() and out.ndim == t.ndim
        sources = {(m := self._made.get(x)) and (m.by, m.seen_as(x)) for x in given}
        if not like or made.by in self._mixing or sources - {(made.by, made.seen_as(t))}:
            return

        def keeps(axis: int) -> bool:
            """Whether the function, asked with an axis flipped, gives what it gave, flipped."""
            turned = slope.flip(0) if slope is not None and axis == 1 else slope
            flipped = mapped((args, kwargs), lambda x: turned if x is slope else x.flip(axis) if x.ndim else x)
            again = func(*flipped[0], **flipped[1])
            return again.shape == out.shape and torch.allclose(again, out.flip(axis), rtol=1e-4, atol=1e-6)

        axes = tuple(
            axis if axis is not None and t.shape[i] == out.shape[i] and keeps(i) else None
            for i, axis in enumerate(made.seen_as(t))
        )
        self._made[out] = _Made(made.by, tuple(zip(out.shape, out.stride(), strict=True)), axes, made.rank, False)
