"""`nv.inspect`: two or three forward passes of a model, under observation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from normviz.clinic.findings import BATCH_OF_ONE, RULES, Circumstances, Finding
from normviz.clinic.flow import LINEAR, Flow, mixed_after
from normviz.clinic.layers import Layer, batches_seen, interview, may_be, measure, moved_by_padding
from normviz.clinic.plan import find_folds
from normviz.clinic.report import Report
from normviz.clinic.watch import ForwardError, Visit, noise, place_of, resampled, run, samples_of, tensors, untouched
from normviz.fields import whole


def inspect(model: nn.Module, batch=None, *, mask: Tensor | None = None, accumulate: int = 1) -> Report:
    """What the norm layers of any torch model share, and what is wrong with them: a `Report`.

    batch: what the model takes: a tensor, a tuple of positional arguments, a mapping of keyword arguments; on the
    model's device, a real training batch for choice.  None: random numbers of a guessed shape.
    mask: (N, T), True at real tokens; by default an "attention_mask" in the batch.
    accumulate: how many such batches make one step of the optimizer.

    The model is left as it was: modes, buffers, gradients, hooks, random numbers.  It runs three times without
    gradients: in evaluation with fewer samples, in evaluation and in training; a model that comes in train() keeps the
    modes of its parts, so that what is frozen stays so.
    Raises ForwardError, which names the module, if the model fails in evaluation; TypeError for no module, ValueError
    for `accumulate` below 1, a mask of a wrong shape, or a shape that cannot be guessed.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model={type(model).__name__} must be a torch.nn.Module")
    whole("accumulate", accumulate)
    model = unwrapped(model)
    batch = guessed_batch(model) if batch is None else batch
    real = _real_tokens(batch, mask)
    with untouched(model):
        layers, flow, findings = _watched(model, batch, real)
    # From here on the buffers are again as they came
    for layer in layers.values():
        layer.tracked = batches_seen(model.get_submodule(layer.name))
    find_folds(model, layers, flow)
    trained = any(layer.tracked for layer in layers.values())
    padded = 0.0 if real is None else 1 - float(real.float().mean())
    seen = Circumstances(model, flow, samples_of(batch), accumulate, padded, trained)
    findings += [found for layer in layers.values() for judge in RULES if (found := judge(layer, seen))]
    return Report(type(model).__name__, layers, findings, seen.samples)


def _watched(model: nn.Module, batch, real: Tensor | None) -> tuple[dict[str, Layer], Flow, list[Finding]]:
    """The norm layers with all that three forward passes show, the data flow, and what is found at the model itself."""
    samples, findings, layers = samples_of(batch), [], {}
    modes = {name: module.training for name, module in model.named_modules()}
    trains = model.training
    model.eval()
    few = None if samples is None else samples - 1 if samples > 1 else 2
    shapes = _shapes_with(model, batch, samples, few)

    strangers: set = set()

    def ask(visit: Visit) -> None:
        """What a module says of itself, where it may be a norm layer, and whether what it gives is finite."""
        inner = any(name.startswith(f"{visit.name}." if visit.name else "") for name in layers)
        if visit.name not in layers and not inner and may_be(visit) and (kind := _kind(visit)) not in strangers:
            axis, size = _batch_axis(tuple(visit.x.shape), shapes.get(visit.name), samples, few)
            if layer := interview(visit, axis, size):
                layers[visit.name] = layer
            elif kind:
                strangers.add(kind)
        if (layer := layers.get(visit.name)) and (y := visit.y) is not None:
            layer.finite &= bool(torch.isfinite(y).all())

    with Flow() as flow:

        def leave(visit: Visit) -> None:
            flow.watching = False
            ask(visit)
            flow.watching = True
            flow.leave(visit)

        output = run(model, batch, enter=flow.enter, leave=leave)
    for layer in layers.values():
        _, features = mixed_after(layer.name, model, flow)
        if features is not None and not layer.running:  # one with stored statistics has said which they are
            layer.channel = features
    findings += _company(shapes.get("output"), output, samples, layers)

    for name, module in model.named_modules():
        module.training = modes[name]
    if not trains:
        model.train()

    def look(visit: Visit) -> None:
        if (layer := layers.get(visit.name)) and visit.x is not None:
            layer.calls += 1
            layer.frozen = not visit.module.training
            measure(layer, visit)
            if real is not None and layer.sharing:
                layer.padding = max(layer.padding, moved_by_padding(layer, visit, real))

    try:
        run(model, batch, enter=look, leave=ask)  # some layers run in training alone
    except ForwardError as error:
        text, advice = f"it runs in evaluation and fails in training: {error}", "read the error that is named"
        if "value per channel" in str(error):
            advice = f"BatchNorm needs more than one value a channel. {BATCH_OF_ONE}"
        findings.append(Finding("fault", "fails_in_training", "", text, advice))
    return layers, flow, findings


def _shapes_with(model: nn.Module, batch, samples: int | None, few: int | None) -> dict:
    """Shapes that came to every module with `few` samples instead, and the model's "output"; {} if it refuses."""
    shapes: dict = {}
    if samples is None:
        return shapes

    def note(visit: Visit) -> None:
        if visit.x is not None:
            shapes.setdefault(visit.name, tuple(visit.x.shape))

    try:
        shapes["output"] = run(model, resampled(batch, samples, few), leave=note)
    except ForwardError:
        shapes.clear()  # the whole batch will say what is wrong
    return shapes


def _batch_axis(shape, other, samples: int | None, few: int | None) -> tuple[int | None, int]:
    """The axis that grows with the batch, and how many of its cells are of one sample."""
    if other and len(other) == len(shape):
        grown = [i for i, (a, b) in enumerate(zip(shape, other, strict=True)) if a * few == b * samples and a != b]
        return (grown[0], shape[grown[0]] // samples) if grown else (None, 1)
    fits = samples and shape[0] % samples == 0
    return (0, shape[0] // samples) if fits else (None, 1)


def _company(alone, output, samples: int | None, layers: dict[str, Layer]) -> list[Finding]:
    """Whether the model's output for the first sample depends on the last one, in evaluation."""
    first = [next((t for t in tensors(o) if t.is_floating_point() and t.ndim), None) for o in (alone, output)]
    if alone is None or samples in (None, 1) or any(t is None for t in first) or len(first[1]) != samples:
        return []
    one, two = (t[0].float() for t in first)
    if one.shape != two.shape or (one - two).square().mean() <= 1e-4 * two.square().mean() + 1e-12:
        return []
    if any(layer.company(training=False) for layer in layers.values()) or not torch.isfinite(two).all():
        return []
    text = "in evaluation its output for a sample changes with the batch, or from run to run; no norm layer is to blame"
    advice = "look for F.batch_norm(training=True), dropout that does not look at self.training, or sampling"
    return [Finding("warning", "company_in_evaluation", "", text, advice)]


def _kind(visit: Visit) -> tuple | None:
    """What modules without numbers of their own that do the same have in common; None for one with numbers."""
    module = visit.module
    bare = next(module.parameters(), None) is None and next(module.buffers(), None) is None
    return (type(module), repr(module), tuple(visit.x.shape[1:])) if bare else None


def _real_tokens(batch, mask: Tensor | None) -> Tensor | None:
    """(N, T) bool, True at real tokens; None where nothing is padded, or nobody says so."""
    if mask is None and isinstance(batch, Mapping):
        mask = batch.get("attention_mask")
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        raise ValueError(f"mask={getattr(mask, 'shape', mask)!r} must be a tensor (N, T), True at real tokens")
    return None if mask.all() else mask.bool()


def unwrapped(model: nn.Module) -> nn.Module:
    """The module within torch.compile, DataParallel and DistributedDataParallel."""
    wrapper = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    inner = model.module if isinstance(model, wrapper) else getattr(model, "_orig_mod", model)
    return inner if inner is model else unwrapped(inner)


def guessed_batch(model: nn.Module):
    """Two random samples of the kind that a model seems to take, on its device.

    transformers' `dummy_inputs` and timm's `default_cfg` are asked; otherwise the first layer says how many channels.
    Raises ValueError where nothing tells.
    """
    device = place_of(model).device
    if getattr(model, "dummy_inputs", None):
        return {key: value.to(device) for key, value in model.dummy_inputs.items()}
    shape = (getattr(model, "default_cfg", None) or {}).get("input_size")
    if shape is None:
        for layer in model.modules():
            if isinstance(layer, nn.Embedding):
                return torch.arange(16, device=device).reshape(2, 8) % layer.num_embeddings
            if isinstance(layer, LINEAR):
                dims = layer.weight.ndim - 2
                shape = (layer.in_features,) if isinstance(layer, nn.Linear) else (layer.in_channels, *[64] * dims)
                break
        else:
            raise ValueError("batch=None: the model has no layer that tells what it takes; give a batch")
    return noise(model, (2, *shape))
