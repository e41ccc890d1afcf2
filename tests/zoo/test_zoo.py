"""`nv.inspect`, `nv.fold_batchnorm` and `nv.swap_norms` on architectures that others wrote: `make test-zoo`.

The class of a layer is the oracle here; the package itself never looks at it.
"""

import random
import time

import pytest
import torch
from torch import nn
from zoo.architectures import ARCHITECTURES, photos

import normviz as nv

SEEN: dict[str, int] = {}
#: Containers and others that bear the word in their names and normalize nothing by statistics of their input's scale
NO_NORMS = ("GlobalResponseNorm", "_WeightNorm")


def built(name):
    torch.manual_seed(0)
    random.seed(0)
    model, batch = ARCHITECTURES[name]()
    return model, batch


def expected(layer: nn.Module, shape: tuple[int, ...]) -> tuple[tuple[int, ...] | None, bool]:
    """How many neighbouring cells a set spans along each axis in training, None for no statistics; whether centred."""
    kind, rank = type(layer).__name__, len(shape)
    if "Frozen" in kind:
        return None, True
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        return tuple(1 if i == 1 else size for i, size in enumerate(shape)), True
    if kind.startswith("FilterResponseNorm"):
        return (1, 1, *shape[2:]), False
    if isinstance(layer, nn.GroupNorm) or kind.startswith("EvoNorm"):
        groups = layer.num_groups if isinstance(layer, nn.GroupNorm) else layer.groups
        return (1, shape[1] // groups, *shape[2:]), True
    first = kind == "LayerNorm2d" or getattr(layer, "data_format", "") == "channels_first"
    if first:
        return tuple(size if i == 1 else 1 for i, size in enumerate(shape)), True
    centred = isinstance(layer, nn.LayerNorm)
    assert centred or "RMSNorm" in kind or kind == "T5LayerNorm", f"no oracle for {kind}"
    axes = len(layer.normalized_shape) if centred else 1
    return (*[1] * (rank - axes), *shape[rank - axes :]), centred


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_norm_layer_is_found_with_its_axes_and_nothing_is_called_a_fault(name):
    model, batch = built(name)
    report = nv.inspect(model, batch)
    assert not report.faults, f"{report}"
    for layer in report:
        module = model.get_submodule(layer.name)
        spans, centred = expected(module, layer.shape)
        assert (layer.training and layer.training.spans) == spans, layer
        if spans is not None and layer.training.set_size > 1:
            assert layer.training.regular and (layer.training.centred == centred or "Evo" in layer.kind), layer
        stored = hasattr(module, "running_mean") or "Frozen" in layer.kind
        assert (layer.evaluation and layer.evaluation.spans) == (None if stored else spans), layer
        assert layer.company(training=True) == (stored and "Frozen" not in layer.kind), layer
        assert not layer.company(training=False), layer
    missed = calling_themselves_norms(model, batch) - {layer.name for layer in report}
    assert not missed, missed
    SEEN[name] = len(report)


def calling_themselves_norms(model: nn.Module, batch) -> set[str]:
    """Names of modules that are called, bear the word in their class, and hold no other such and no linear layer."""

    def plain(module: nn.Module) -> bool:
        others = list(module.modules())[1:]
        inner = any("Norm" in type(m).__name__ or isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d)) for m in others)
        return "Norm" in type(module).__name__ and not inner and not type(module).__name__.startswith(NO_NORMS)

    called: set[str] = set()
    for name, module in model.named_modules():
        if plain(module):
            module.register_forward_hook(lambda m, i, o, name=name: called.add(name))
    with torch.no_grad():
        run(model.train(), batch)
    return called


def run(model: nn.Module, batch) -> torch.Tensor:
    """The first tensor of the model's output."""
    return next(tensors(model(**batch) if isinstance(batch, dict) else model(batch)))


@pytest.mark.parametrize("name", ["timm: resnet18", "timm: regnetx_002", "timm: xcit_nano_12_p16_224"])
def test_a_network_with_learned_statistics_is_sound_too(name):
    model, batch = built(name)
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.momentum = None
    with torch.no_grad():
        model.train()(batch)
    report = nv.inspect(model.eval(), batch)
    assert not report.faults and not [f for f in report.of("warning") if f.kind != "bessel"], f"{report}"


#: name → BatchNorms that are folded, and all
FOLDED = {
    "timm: resnet18": (20, 20), "timm: mobilenetv3_small_050": (34, 34), "timm: efficientnet_b0": (49, 49),
    "timm: repvgg_a0": (44, 61), "timm: densenet121": (9, 21), "timm: regnetx_002": (44, 44),
    "timm: levit_128s": (52, 52), "torchvision: googlenet": (57, 59),
    "torchvision: shufflenet_v2_x0_5": (56, 56),
    "torchvision: detection.backbone": (20, 20), "transformers: MobileNetV2Model": (52, 52),
}  # fmt: skip


def lived_in(model: nn.Module) -> nn.Module:
    """Weights and statistics of its BatchNorms as if it had been trained."""
    with torch.no_grad():
        for layer in model.modules():
            if hasattr(layer, "running_mean"):
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.normal_(std=0.2)
                layer.running_mean.normal_(std=0.2)
                layer.running_var.uniform_(0.5, 2.0)
    return model.eval()


@pytest.mark.parametrize("name", FOLDED)
def test_folding_keeps_the_answers(name):
    model, batch = built(name)
    lived_in(model)
    with torch.no_grad():
        before = run(model, batch)
        changes = nv.fold_batchnorm(model, batch)
        after = run(model, batch)
    left = [name for name in changes.refused if hasattr(model.get_submodule(name), "running_mean")]
    assert (len(changes.done), len(changes.done) + len(left)) == FOLDED[name], f"{changes}"
    assert all(changes.refused.values())
    assert (before - after).square().mean().sqrt() <= 1e-3 * before.square().mean().sqrt()


_EVERYWAY = ("timm: swin_tiny_patch4_window7_224", "timm: convnext_atto", "transformers: LlamaModel")
SWAPPED = [(name, method) for name in _EVERYWAY for method in nv.METHODS]
SWAPPED += [("timm: mobilenetv3_small_050", "group"), ("timm: resnet18", "layer_token")]


@pytest.mark.parametrize(("name", "method"), SWAPPED)
def test_norms_are_swapped(name, method):
    model, batch = built(name)
    before = nv.inspect(model, batch)
    changes = nv.swap_norms(model, method, batch=batch)
    after = nv.inspect(model, batch)
    assert set(changes.done) | set(changes.refused) == {layer.name for layer in before}
    assert all(changes.refused.values())
    methods = {layer.method and layer.method[0] for layer in after if not any(r in layer.name for r in changes.refused)}
    same = {"instance": {"group"}, "group": {"layer", "instance"}, "layer": {"layer_token"}}.get(method, set())
    assert methods <= {method} | same, f"{changes}"
    if method in ("batch", "layer_token", "rms"):
        already = [why for why in changes.refused.values() if "already" in why]
        assert len(changes.done) + len(already) == len(before), f"{changes}"


def test_deit_s_costs_at_most_ten_forward_passes():
    import timm

    model, batch = timm.create_model("deit_small_patch16_224", pretrained=False).eval(), photos(224, 4)

    def seconds(do):
        start = time.process_time()
        do()
        return time.process_time() - start

    with torch.no_grad():
        forward = min(seconds(lambda: model(batch)) for _ in range(2))
    whole = seconds(lambda: nv.inspect(model, batch))
    print(f"DeiT-S, batch of 4: forward {forward:.2f} s, inspect {whole:.2f} s, {whole / forward:.1f} forward passes")
    assert whole / forward <= 10


def test_enough_was_seen():
    if len(SEEN) < len(ARCHITECTURES):
        pytest.skip("only some of the architectures were asked for")
    print(f"{len(SEEN)} architectures, {sum(SEEN.values())} norm layers, no false alarm")
    assert len(SEEN) >= 30 and sum(SEEN.values()) > 1000


def tensors(tree):
    if isinstance(tree, torch.Tensor):
        yield tree
    elif hasattr(tree, "values") or isinstance(tree, (list, tuple)):
        for part in tree.values() if hasattr(tree, "values") else tree:
            yield from tensors(part)
