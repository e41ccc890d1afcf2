"""Changing the norm layers of anybody's model: swapped for others, or folded away.  Both work on the model given."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from html import escape

import torch
from torch import Tensor, nn
from torch.func import functional_call

from normviz.clinic.examine import guessed_batch, inspect, unwrapped
from normviz.clinic.layers import Layer
from normviz.clinic.plan import small
from normviz.clinic.report import table_row
from normviz.clinic.watch import ForwardError, alike, in_mode, place_of, run, silent, tensors, untouched
from normviz.fields import unknown
from normviz.lab.folding import absorb_input, absorb_output, straight_line
from normviz.norms import METHODS, divisors
from normviz.norms.dependence import resized
from normviz.norms.permuted import Permuted
from normviz.picture.text import plural


@dataclass
class Changes:
    """What was done to a model, layer by layer: `done` and `refused` map names to what happened, or why it did not.

    model: the model itself, changed in place.  error: how much its outputs on the batch moved, relative to their root
    mean square (of a fold: rounding; of a swap: a measure of how much is to be learned anew).
    """

    model: nn.Module
    done: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    error: float = 0.0

    def __str__(self) -> str:
        layers = plural(len(self.done), "norm layer")
        head = f"{type(self.model).__name__}: {layers} changed, {len(self.refused)} left"
        rows = [f"  {mark} {name}: {text}" for name, mark, text in self._rows()]
        return "\n".join([f"{head}; outputs moved by {self.error:.1g}", *rows])

    __repr__ = __str__

    def _rows(self) -> list[tuple[str, str, str]]:
        return [(n, "✓", t) for n, t in self.done.items()] + [(n, "–", t) for n, t in self.refused.items()]

    def _repr_html_(self) -> str:
        return f"<p>{escape(str(self).splitlines()[0])}</p><table>{''.join(map(table_row, self._rows()))}</table>"


def fold_batchnorm(model: nn.Module, batch=None, *, tolerance: float = 1e-3) -> Changes:
    """Folds every BatchNorm that can be into the Linear or Conv before or after it, in `model` itself.

    The model is put in evaluation mode, as the fold holds in no other; nothing else than BatchNorms and the weights and
    biases of their neighbours changes, and a folded layer is an `nn.Identity`, or the activation that was part of it.
    To keep the model as it is, fold a `copy.deepcopy` of it.

    batch: as in `inspect`; the data flow is traced with it, and the outputs before and after are compared on it:
    a fold that moves them by more than `tolerance`, of their root mean square, is undone and reported.
    Returns `Changes`.  Raises as `inspect`.
    """
    model, batch = unwrapped(model), guessed_batch(model) if batch is None else batch
    report = inspect(model, batch)
    model.eval()
    told = Changes(model)
    told.refused = {layer.name: layer.why_not for layer in report if not layer.folds_into}
    foldable = [layer for layer in report if layer.folds_into]
    return _changed(told, batch, foldable, _fold, tolerance)


def swap_norms(
    model: nn.Module, method: str, where: Callable[[Layer], bool] | str | None = None, batch=None, *,
    num_groups: int | None = None,
) -> Changes:  # fmt: skip
    """Puts a norm of another method in the place of a model's norm layers, in `model` itself.

    method: a key of `nv.METHODS`: "batch", "layer_token" (the LayerNorm of transformers), "layer" (a whole sample, as
    GroupNorm with one group), "instance", "group", "rms".  num_groups: for "group"; by default at
    most 32, of at least four channels each.
    where: which layers: a pattern such as "blocks.*.norm2", or a function of the `Layer`; None: all.
    batch: as in `inspect`.

    New layers take over weight, bias and what follows in the old one (an activation); running statistics start anew.
    Each is tried in the model, in evaluation, and put back if that fails.
    Returns `Changes`.  Raises ValueError for an unknown method, groups that the method has not, and as `inspect`.
    """
    if method not in METHODS:
        raise ValueError(unknown("method", method, METHODS))
    if num_groups is not None and not METHODS[method].grouped:
        raise ValueError(f"num_groups={num_groups!r} does not go with method {method!r}, which has no groups")
    model, batch = unwrapped(model), guessed_batch(model) if batch is None else batch
    report = inspect(model, batch)
    wanted = where if callable(where) else lambda layer: fnmatchcase(layer.name, where or "*")

    def swap(model: nn.Module, layer: Layer) -> str:
        old = model.get_submodule(layer.name)
        new = _replacement(old, layer, method, num_groups)
        new.train(old.training)
        model.set_submodule(layer.name, new)
        return f"{layer.kind} → {new[0] if isinstance(new, nn.Sequential) else new}"

    return _changed(Changes(model), batch, [layer for layer in report if wanted(layer)], swap, math.inf)


def _changed(told: Changes, batch, layers: list[Layer], change: Callable[[nn.Module, Layer], str], tolerance: float):
    """All changes at once, compared before and after; if the model does not bear them, one by one."""
    model = told.model
    before = _outputs(model, batch)

    def attempt(some: list[Layer]) -> bool:
        """Changes some layers, and undoes it if the outputs move too much."""
        kept = {}
        for layer in some:
            old = model.get_submodule(layer.name)
            into = [(m, dict(m._parameters)) for m in map(model.get_submodule, layer.folds_into)]
            try:
                told.done[layer.name] = change(model, layer)
                told.refused.pop(layer.name, None)
                kept[layer.name] = old, into
            except ValueError as error:
                told.refused[layer.name] = str(error)
        try:
            told.error = _distance(before, _outputs(model, batch))
            if told.error <= tolerance:
                return True
            why = f"undone: the outputs moved by {told.error:.2g}"
        except ForwardError as error:
            why = f"undone: {error}"
        for name, (old, into) in reversed(kept.items()):
            model.set_submodule(name, old)
            for linear, parameters in into:
                linear._parameters.update(parameters)
            del told.done[name]
            told.refused[name] = why
        return False

    if layers and not attempt(layers):
        for layer in layers:
            attempt([layer])
        told.error = _distance(before, _outputs(model, batch))
    return told


def _fold(model: nn.Module, layer: Layer) -> str:
    module = model.get_submodule(layer.name)
    with silent(module):
        scale, shift, rest = straight_line(module, small(layer), layer.channel)
    for name in layer.folds_into:
        (absorb_output if layer.folds_back else absorb_input)(model.get_submodule(name), scale, shift)
    model.set_submodule(layer.name, rest)
    return f"into {', '.join(layer.folds_into)}, {'before' if layer.folds_back else 'after'} it"


def _outputs(model: nn.Module, batch) -> list[Tensor]:
    with untouched(model):
        return [t.float() for t in tensors(run(in_mode(model, training=False), batch)) if t.is_floating_point()]


def _distance(before: list[Tensor], after: list[Tensor]) -> float:
    """The largest root-mean-square difference of two outputs, relative to the first."""
    if [t.shape for t in before] != [t.shape for t in after]:
        return math.inf
    square = [((a - b).square().mean(), a.square().mean().clamp_min(1e-12)) for a, b in zip(before, after, strict=True)]
    return max((float((d / s).sqrt()) for d, s in square), default=0.0)


def _replacement(old: nn.Module, layer: Layer, method: str, num_groups: int | None) -> nn.Module:
    """The new module in the old one's place.  Raises ValueError, saying why, where there can be none."""
    channels, rank, row = layer.shape[layer.channel], len(layer.shape), METHODS[method]
    if layer.method and layer.method[0] == method and num_groups in (None, layer.method[1]):
        raise ValueError(f"it is {row.name} already")
    if row.key not in ("batch", "layer_token", "rms") and (layer.batch != 0 or layer.channel == 0):
        raise ValueError(f"its batch is not axis 0 of {layer.shape}, where {row.name} wants it")
    if (row.feature_axis == "first" and not 2 <= rank <= 5) or (row.over == {"position"} and rank < 3):
        raise ValueError(f"{row.name} does not take {rank} axes")
    affine, rest = _affine(old, layer)
    like = {"device": place_of(old).device, "dtype": place_of(old).dtype}
    eps = getattr(old, "eps", None) or getattr(old, "variance_epsilon", None) or 1e-5
    if row.grouped or method == "layer":
        groups = (num_groups or _groups(channels)) if row.grouped else 1
        if channels % groups:
            raise ValueError(f"num_groups={groups} does not divide its {channels} channels")
        new: nn.Module = nn.GroupNorm(groups, channels, eps=eps, **like)
    else:
        make = getattr(nn, row.torch_class.format(d=max(1, rank - 2)))
        new = make(channels, eps=eps, **{row.torch_affine: True}, **like)
    for name, values in zip(("weight", "bias"), affine, strict=True):
        if (own := getattr(new, name, None)) is not None:
            own.data.copy_(values)
            own.requires_grad_(all(p.requires_grad for p in old.parameters()))
    to = rank - 1 if row.feature_axis == "last" else 1
    if layer.channel != to:
        new = Permuted(new, ("movedim", (layer.channel, to)), ("movedim", (to, layer.channel)))
    return new if isinstance(rest, nn.Identity) else nn.Sequential(new, rest)


def _groups(channels: int) -> int:
    """At most 32 groups of at least four channels (Wu & He 2018 take 32 groups, or 16 channels a group)."""
    return max(g for g in divisors(channels) if g <= 32 and (channels >= 4 * g or g == 1))


@torch.no_grad()
def _affine(old: nn.Module, layer: Layer) -> tuple[tuple[Tensor, Tensor], nn.Module]:
    """The weight and bias, one a channel, of a norm layer, and what it does after them (an activation).

    They are read off its outputs, put to the test on random numbers.  Raises ValueError for a layer that does more.
    """
    if layer.sharing is None or not layer.sharing.regular:
        raise ValueError("it normalizes by stored statistics, or by sets of no regular shape")
    n, place = layer.shape[layer.channel], place_of(old).device
    shape = tuple(max(s, 4) if i == layer.batch else s for i, s in enumerate(layer.shape))
    sets = resized(layer.sharing, shape)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(place)
    view, mean, var = sets.statistics(x)
    z = (view - mean) / var.sqrt() if sets.centred else view / (var + mean.square()).sqrt()
    z = z.reshape(shape).movedim(layer.channel, 0).reshape(n, -1)  # (C, rest)
    state = {k: v.detach().float().clone() if v.is_floating_point() else v.clone() for k, v in old.state_dict().items()}
    try:
        with silent(old):
            old.train(layer.training is not None)
            y = alike(functional_call(old, state, (x,)), x)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"it takes more than one tensor, or one of another kind: {error}") from None
    y = y.movedim(layer.channel, 0).reshape(n, -1)
    own = (getattr(old, name, None) for name in ("weight", "bias"))
    weight, b = (
        p.float() if p is not None and p.shape == (n,) else torch.full((n,), default, device=place)
        for p, default in zip(own, (1.0, 0.0), strict=True)
    )
    for w in (weight, 1 + weight):  # Gemma's RMSNorm stores what is added to 1
        line = z * w[:, None] + b[:, None]
        for rest in (nn.Identity(), nn.Sequential(*old.children())):
            if torch.allclose(rest(line.clone()), y, rtol=1e-2, atol=1e-2):
                return (w, b), rest
    raise ValueError("it does more than normalize, scale and shift each channel")
