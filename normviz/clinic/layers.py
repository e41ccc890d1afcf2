"""A norm layer of somebody's model: what it says when it is asked, and what it does to a real batch.

Nothing here goes by the name of a class.  A layer is asked as a function of its input, with random weights and with
copies of its buffers (`torch.func.functional_call`), so that it neither changes nor is copied.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call

from normviz.clinic.flow import stored
from normviz.clinic.watch import Visit, alike, in_mode, mapped, silent, taken
from normviz.norms import METHODS, Axes
from normviz.norms.dependence import Sharing, asked, resized

#: Cells of the random input that a layer is asked with; larger batches are cut to four samples
MOST_CELLS = 1_000_000
#: Larger sets are estimated so well that evaluation and training agree
SMALL_SET = 64


@dataclass
class Layer:
    """What is known of one norm layer.

    name, kind: its place in the model, and its class.  shape: of its input.  batch, channel: axes, None where there is
    none; per_sample: cells of the batch axis that belong to one sample (windows, flattened tokens).
    training, evaluation: the sets whose statistics it computes in that mode, None where it computes none; mixes: in
    training (True) and in evaluation (False), whether they reach over the samples of a batch, be there one or many.
    running: names of its buffers of running statistics; momentum, mismatch: of those, as it was asked: the weight
    of the newest batch, and by how much evaluation shrinks what training gives once they have settled.
    tracked: batches that they have seen, None where it does not count.  frozen: in evaluation mode though the model
    trains.  gap: how far they are from the batch, as (|Δmean| in σ, σ of the batch over the running σ), medians.
    outlier, bound: the longest token over the root-mean-square one after normalization, and the most that a set allows.
    constant: share of the sets whose values are all alike.  padding: how much real tokens change with the padding.
    folds_into: the linear layers that can take it over in evaluation, before it if folds_back; why_not: why none can.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    batch: int | None = None
    per_sample: int = 1
    channel: int = 1
    training: Sharing | None = None
    evaluation: Sharing | None = None
    mixes: dict[bool, bool] = field(default_factory=dict)
    running: dict[str, str] = field(default_factory=dict)
    momentum: float | None = None
    mismatch: float = 0.0
    tracked: int | None = None
    calls: int = 0
    frozen: bool = False
    gap: tuple[float, float] | None = None
    outlier: float | None = None
    bound: float | None = None
    constant: float = 0.0
    finite: bool = True
    padding: float = 0.0
    folds_into: tuple[str, ...] = ()
    folds_back: bool = False
    why_not: str = ""

    @property
    def sharing(self) -> Sharing | None:
        """The sets in training; in evaluation where training computes none."""
        return self.training or self.evaluation

    def company(self, training: bool) -> bool:
        """Whether a sample's output depends on the other samples of its batch."""
        return self.mixes.get(training, False)

    @property
    def order(self) -> list[int]:
        """The axes in the order batch, channel, positions; the batch axis is left out where there is none."""
        first = [i for i in (self.batch, self.channel) if i is not None]
        return first + [i for i in range(len(self.shape)) if i not in first]

    @property
    def axes(self) -> Axes:
        """The shape as (N, C, positions), positions of three axes or more as one, with letters."""
        *first, channel = self.order[: 1 if self.batch is None else 2]
        sizes = [self.shape[i] for i in self.order if i not in (*first, channel)]
        sizes = [math.prod(sizes)] if len(sizes) > 2 else sizes
        samples = math.prod(self.shape[i] for i in first)
        return Axes((samples, self.shape[channel], *sizes), "NC" + ("", "L", "HW")[len(sizes)])

    @property
    def method(self) -> tuple[str, int | None] | None:
        """Which method of `nv.METHODS` cuts the tensor into the same sets, and its groups; None: no method does."""
        sharing = self.sharing
        if sharing is None or not sharing.regular:
            return None
        roles = {self.batch: "sample", self.channel: "channel"}
        groups = self.shape[self.channel] // sharing.spans[self.channel]
        for row in sorted(METHODS.values(), key=lambda row: len(row.over)):  # per token, where two are the same
            spans = [size if roles.get(i, "position") in row.over else 1 for i, size in enumerate(self.shape)]
            if row.grouped:
                spans[self.channel] = sharing.spans[self.channel]
            proper = not row.grouped or 1 < groups < self.shape[self.channel]
            if tuple(spans) == sharing.spans and row.centred == sharing.centred and proper:
                return row.key, groups if row.grouped else None
        return None

    @property
    def cut(self) -> str:
        """Its sets in words: the method, or the axes that share."""
        if self.sharing is None:
            return "stored statistics"
        if self.sharing.set_size == 1:
            return "statistics of a batch of one" if self.company(training=True) else "single values"
        if self.method:
            key, groups = self.method
            return METHODS[key].name + (f", G={groups}" if groups else "")
        if not self.sharing.regular:
            return "sets of no regular shape"
        roles = {self.batch: "batch", self.channel: "channel"}
        return "statistics over " + ", ".join(f"{roles.get(i, 'position')} (axis {i})" for i in self.sharing.axes)

    def draw(self):
        """The tensor as (N, C, positions), cut into the layer's sets: a matplotlib Figure, its alt text as `alt`.

        Raises ValueError for a layer that computes no statistics from its input.
        """
        from normviz.clinic.picture import sets_scene
        from normviz.picture.png import figure

        if self.sharing is None:
            raise ValueError(f"{self.name!r} normalizes by stored statistics: it cuts its input into no sets")
        labels = self.sharing.labels.transpose(self.order).reshape(self.axes.shape)
        return figure(sets_scene(self.axes, labels, f"{self.name}: {self.cut}"))

    def with_samples(self, samples: int) -> tuple[int, ...]:
        """The shape with so many samples; as it is where there is no batch axis."""
        return tuple(samples * self.per_sample if i == self.batch else size for i, size in enumerate(self.shape))


def may_be(visit: Visit) -> bool:
    """Whether a module is worth being asked: it gives what it takes, changed, and its parameters are few."""
    x, y = visit.x, visit.y
    if x is None or y is None or x.ndim < 2 or not x.numel() or isinstance(visit.module, torch.jit.ScriptModule):
        return False
    if y is x or isinstance(x, nn.Parameter):  # nothing done, or done to weights
        return False
    sizes = [p.squeeze().shape for p in visit.module.parameters()]
    return all(len(size) < x.ndim and set(size) <= set(x.shape) for size in sizes)


class Interview:
    """A module as a function of its input alone: random weights, copies of its buffers, float32, no hooks.

    visit: a real call, whose other arguments are taken along, cut along the axis `batch`.
    """

    def __init__(self, visit: Visit, batch: int | None):
        self.visit, self.batch = visit, batch
        device = visit.x.device
        generator = torch.Generator(device).manual_seed(1)
        self.state: dict[str, Tensor] = {}
        for name, p in visit.module.named_parameters():
            # Away from 0, which would hide everything; several layers must not look alike
            self.state[name] = torch.rand(p.shape, device=device, generator=generator) + 0.5
        self.fresh = dict(visit.module.named_buffers())

    def begin(self, training: bool) -> Interview:
        """Buffers as the model has them, in that mode; one that counts has counted some batches."""
        for name, b in self.fresh.items():
            b = b.detach().clone()
            counts = b.ndim == 0 and b.dtype == torch.long
            self.state[name] = b.float() if b.is_floating_point() else b.clamp_min(100) if counts else b
        in_mode(self.visit.module, training)
        return self

    def __call__(self, x: Tensor) -> Tensor:
        old, axis = self.visit.x, self.batch

        def suit(t: Tensor) -> Tensor:
            if t is old:
                return x.clone()  # it may write to it
            if axis is not None and t.ndim > axis and t.shape[axis] == old.shape[axis] != x.shape[axis]:
                t = taken(t, axis, x.shape[axis])
            return t.float() if t.is_floating_point() else t

        args, kwargs = mapped((self.visit.args, self.visit.kwargs), suit)
        y = alike(functional_call(self.visit.module, self.state, args, kwargs), x)
        if y is None:
            raise ValueError("gives no tensor of the shape that came")
        return y


def interview(visit: Visit, batch: int | None, per_sample: int) -> Layer | None:
    """A `Layer` with all that it says of itself, or None for what is no norm layer.

    It is a norm layer if its output is invariant to the scale of its input and depends on more than its own cell, in
    training or in evaluation; or if it keeps a mean and a variance.
    """
    module, x = visit.module, visit.x
    layer = Layer(visit.name, type(module).__name__, tuple(x.shape), batch, per_sample, running=stored(module))
    with silent(module), torch.autocast(x.device.type, enabled=False):
        said = Interview(visit, batch)
        layer.training, layer.mixes[True] = _sharing(said.begin(training=True), layer)
        layer.evaluation, layer.mixes[False] = _sharing(said.begin(training=False), layer)
        if layer.sharing is None and not layer.running:
            return None
        if layer.training and said.fresh:
            _ask_running(layer, said.begin(training=True))
    layer.channel = _channel(layer, module)
    return layer


def batches_seen(module: nn.Module) -> int | None:
    """How many batches the running statistics of a module have seen, None where it does not count them."""
    counters = [b for b in module.buffers(recurse=False) if b.ndim == 0 and b.dtype == torch.long]
    return int(counters[0]) if counters else None


def _sharing(said: Interview, layer: Layer) -> tuple[Sharing | None, bool]:
    """The sets on a tensor of the layer's shape, and whether they reach over samples.

    Asked with at least four samples, as two values alone would hide what they share, and of a large batch with four.
    """
    shape, batch = layer.shape, layer.batch
    few = 4 if batch is None or math.prod(shape) > MOST_CELLS else max(4, shape[batch] // layer.per_sample)
    for attempt in dict.fromkeys((layer.with_samples(few), shape)):
        with suppress(RuntimeError, ValueError, IndexError, TypeError):  # it does not take that shape
            found = asked(said, attempt, device=said.visit.x.device)
            if found is not None and found.set_size == 1:
                # One value a set?  With three there would be something to share
                wide = tuple(3 if size == 1 else size for size in attempt) if 1 in attempt[1:] else (*attempt, 3)
                found = asked(said, wide, device=said.visit.x.device)
                if found is None or found.set_size == 1:
                    return None, False
                found = Sharing(wide[: len(shape)], found.spans[: len(shape)], found.centred)
            mixes = found is not None and batch is not None and found.spans[batch] > layer.per_sample
            return found and resized(found, shape), mixes
    return None, False


def _ask_running(layer: Layer, said: Interview) -> None:
    """Which buffers learn in training, how fast, and what evaluation gives once they have settled on a batch."""
    device = said.visit.x.device
    shape = layer.with_samples(4) if math.prod(layer.shape) > MOST_CELLS else layer.shape
    x = 2 * torch.randn(shape, device=device, generator=torch.Generator(device).manual_seed(2)) + 3
    floats = [name for name, b in said.fresh.items() if b.is_floating_point()]
    with torch.no_grad(), suppress(RuntimeError, ValueError):
        states = [{name: said.state[name].clone() for name in floats}]
        for _ in range(2):
            trained = said(x)
            states.append({name: said.state[name].clone() for name in floats})
        moving = [name for name in floats if not torch.equal(states[0][name], states[1][name])]
        layer.running = layer.running or ({"mean": moving[0]} if moving else {})
        if not moving:
            layer.momentum = 0.0 if layer.running else None
            return
        first, second = (torch.cat([(b[n] - a[n]).flatten() for n in moving]) for a, b in pairwise(states))
        told = first.abs() > 1e-6 * first.abs().max()
        layer.momentum = 1 - float((second[told] / first[told]).median())
        if layer.training.set_size <= SMALL_SET and 0 < layer.momentum <= 1:
            # A running average goes to b₀ + (b₁ − b₀)/m when it sees one batch for ever
            for name in moving:
                said.state[name] = states[0][name] + (states[1][name] - states[0][name]) / layer.momentum
            in_mode(said.visit.module, training=False)
            settled = said(x)
            sets = resized(layer.training, shape)
            ratio = (sets.statistics(settled)[2] / sets.statistics(trained)[2]).sqrt()
            layer.mismatch = 1 - float(ratio.nanmedian())


def _channel(layer: Layer, module: nn.Module) -> int:
    """The axis of the channels: the one that parameters or buffers have a number for each of."""
    shape, sharing = layer.shape, layer.sharing
    own = [t.squeeze() for t in (*module.parameters(), *module.buffers())]
    sizes = {len(t) for t in own if t.ndim == 1}
    axes = [i for i, size in enumerate(shape) if size in sizes and i != layer.batch]
    spans = sharing.spans if sharing else (1,) * len(shape)
    if len(axes) > 1:  # of two axes of one size it is the one that is in groups; that is shared alone; that is not
        grouped = [i for i in axes if 1 < spans[i] < shape[i]]
        alone = [i for i in axes if spans[i] > 1] if sum(s > 1 for s in spans) == 1 else []
        free = [i for i in axes if spans[i] == 1]
        axes = grouped or alone or free or axes
    if axes:
        return axes[0]
    if sharing and sharing.axes == (len(shape) - 1,):
        return len(shape) - 1
    return 1 if layer.batch != 1 else len(shape) - 1


def measure(layer: Layer, visit: Visit) -> None:
    """What a real batch is when it comes to the layer in training, before its running statistics learn from it."""
    x, module = visit.x.detach(), visit.module
    layer.finite &= bool(torch.isfinite(x).all())
    if not layer.finite:
        return
    # Frozen: compared with the statistics that it would have computed
    sharing = layer.sharing
    if sharing is None or (layer.running and layer.training is None):
        spans = tuple(1 if i == layer.channel else size for i, size in enumerate(x.shape))
        sharing = Sharing(tuple(x.shape), spans)
    if sharing.shape != tuple(x.shape) or not sharing.regular:
        return
    view, mean, var = sharing.statistics(x)
    flat = var <= (1e-6 * mean).square() + 1e-30
    layer.constant = max(layer.constant, float(flat.float().mean()))
    if layer.running:
        _measure_gap(layer, module, mean, var)
    others = sharing.set_size // sharing.spans[layer.channel]
    if others > 1 and not flat.all():
        z = ((view - mean) * (var + 1e-12).rsqrt()).reshape(x.shape)
        tokens = z.square_().sum(layer.channel)
        layer.outlier = max(layer.outlier or 0.0, float((tokens.max() / tokens.mean()).sqrt()))
        layer.bound = math.sqrt(max(1, others - 1))


def _measure_gap(layer: Layer, module: nn.Module, mean: Tensor, var: Tensor) -> None:
    running = [module._buffers.get(layer.running.get(kind, "")) for kind in ("mean", "var")]
    if any(r is None or r.numel() != mean.numel() for r in running):
        return
    stored_mean, stored_var = (r.float().flatten() for r in running)
    mean, var = mean.flatten(), var.flatten()
    live = var > 1e-12
    if live.any():
        off = (mean - stored_mean).abs() / stored_var.clamp_min(1e-12).sqrt()
        ratio = (var / stored_var.clamp_min(1e-12)).sqrt()
        gap = float(off[live].median()), float(ratio[live].median())
        layer.gap = max(filter(None, (layer.gap, gap)), key=lambda gap: abs(math.log(gap[1])) + gap[0])


def moved_by_padding(layer: Layer, visit: Visit, real: Tensor) -> float:
    """How much the outputs at real positions change when nothing but the padding does, of their root mean square.

    real: (N, T) bool.  0.0 where the layer has no axis of T positions beside its batch axis.
    """
    x = visit.x.detach()
    times = [i for i, size in enumerate(x.shape) if size == real.shape[1] and i not in (layer.batch, layer.channel)]
    if layer.batch is None or x.shape[layer.batch] != len(real) or not times:
        return 0.0
    shape = [1] * x.ndim
    shape[layer.batch], shape[times[0]] = real.shape
    keep = (real if layer.batch < times[0] else real.T).reshape(shape).to(x.device).expand(x.shape)
    outputs = []
    with silent(visit.module), torch.no_grad():
        state = {name: b.detach().clone() for name, b in visit.module.named_buffers()}
        for other in (x, torch.where(keep, x, x + 3 * x.float().std().to(x.dtype) + 1)):
            args, kwargs = mapped((visit.args, visit.kwargs), lambda t, x=other: x.clone() if t is visit.x else t)
            outputs.append(alike(functional_call(visit.module, dict(state), args, kwargs), x)[keep].float())
    one, two = outputs
    return float((one - two).square().mean().sqrt() / one.square().mean().sqrt().clamp_min(1e-12))
