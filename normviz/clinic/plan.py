"""Which norm layers can be folded, and into what: those with stored statistics between linear layers."""

from __future__ import annotations

from collections import Counter

from torch import nn

from normviz.clinic.flow import LINEAR, Flow, feature_axis
from normviz.clinic.layers import Layer
from normviz.clinic.watch import silent
from normviz.lab.folding import pads_with_zeros, straight_line


def find_folds(model: nn.Module, layers: dict[str, Layer], flow: Flow) -> None:
    """Fills in `folds_into` and `why_not` of every layer.

    A BatchNorm goes into the one linear layer before it if nothing else takes that layer's output, or into all linear
    layers after it if nothing else takes its own.
    """
    taken: set[str] = set()
    shared = Counter(id(p) for m in model.modules() for p in m._parameters.values() if p is not None)
    names = Counter(id(m) for _, m in model.named_modules(remove_duplicate=False))

    def alone(name: str) -> bool:
        """Whether a layer is called once, under one name, and owns its weights."""
        module = model.get_submodule(name)
        own = list(module.parameters(recurse=False))
        plain = len(list(module.children())) == 0 or not isinstance(module, LINEAR)  # no parametrization
        return flow.calls.get(name) == 1 and names[id(module)] == 1 and plain and all(shared[id(p)] == 1 for p in own)

    for name, layer in layers.items():
        before, after = _before(model, flow, name, layer), _after(model, flow, name, layer)
        if layer.evaluation is not None:
            layer.why_not = "its statistics depend on the input: no constant weights can stand for them"
        elif not layer.running:
            layer.why_not = "it keeps no statistics"
        elif name not in flow.calls:
            layer.why_not = "it does not run in evaluation"
        elif not alone(name):
            layer.why_not = "it is called several times, or shares its weights"
        elif before and alone(before) and before not in taken:
            layer.folds_into, layer.folds_back = (before,), True
        elif after and all(alone(n) and n not in taken for n in after):
            layer.folds_into = after
        else:
            layer.why_not = "no linear layer directly before or after it, with nothing else in between"
        if layer.folds_into and (why := _crooked(model, layer)):
            layer.folds_into, layer.why_not = (), why
        taken.update(layer.folds_into)


def _before(model: nn.Module, flow: Flow, name: str, layer: Layer) -> str | None:
    """The linear layer whose output this layer takes, if nothing else takes it."""
    for source, uses in flow.uses.items():
        module = model.get_submodule(source)
        if uses and all(u.by == name for u in uses) and isinstance(module, LINEAR):
            features = (feature_axis(module, uses[0].rank),)
            if all(u.axes[layer.channel : layer.channel + 1] == features for u in uses):
                return source
    return None


def _after(model: nn.Module, flow: Flow, name: str, layer: Layer) -> tuple[str, ...]:
    """The linear layers that take this layer's output, if nothing else does."""
    uses = flow.uses.get(name, [])
    modules = [u.by and model.get_submodule(u.by) for u in uses]
    fits = (
        isinstance(m, LINEAR) and u.axes and u.axes[feature_axis(m, len(u.axes))] == layer.channel
        for m, u in zip(modules, uses, strict=True)
    )  # fmt: skip
    return tuple(dict.fromkeys(u.by for u in uses)) if uses and all(fits) else ()


def _crooked(model: nn.Module, layer: Layer) -> str:
    """Why the layer cannot be folded where it should go; "" if it can."""
    module = model.get_submodule(layer.name)
    try:
        with silent(module):
            _, shift, rest = straight_line(module.eval(), small(layer), layer.channel)
    except (ValueError, RuntimeError, TypeError) as error:
        return str(error)
    if layer.folds_back:
        return ""
    if not isinstance(rest, nn.Identity):
        return "an activation of its own stands between it and the layer after it"
    pads = [n for n in layer.folds_into if pads_with_zeros(model.get_submodule(n))]
    return f"{pads[0]} pads with zeros, which its shift would have moved" if pads and shift.any() else ""


def small(layer: Layer) -> tuple[int, ...]:
    """A small shape that the layer takes."""
    return tuple(n if i == layer.channel else min(n, 3) for i, n in enumerate(layer.shape))
