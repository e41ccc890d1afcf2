"""Our ViT against the same network from other libraries: inference and training step, in one process, in turn.

The same shape for all: tokens, width, depth, heads, GELU FFN of four times the width, mean over the tokens (the class
token of transformers is dropped after its embedding), no dropout.  The products that each computes are counted and
recorded, so that nobody is faster by doing less; the counter does not see into fused attention on a CPU, which all but
vit-pytorch use.  A peer that is not installed is left out and named.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from normviz.lab import ViT
from normviz.lab.timing import NETWORKS, compile_problem, paired

OURS = {"channels": 1, "size": 8, "classes": 10, "patch": 2} | NETWORKS["ours"]
SHAPES = {"ours": OURS, "deit-s": NETWORKS["deit-s"]}
#: shape, batch, what, mode; a step of DeiT-S compiled takes a CPU minutes to compile
CASES = (
    ("ours", 1, "inference", "eager"), ("ours", 64, "inference", "eager"), ("ours", 64, "training", "eager"),
    ("deit-s", 1, "inference", "eager"), ("deit-s", 2, "training", "eager"),
    ("ours", 64, "inference", "compiled"), ("ours", 64, "training", "compiled"),
)  # fmt: skip


def _normviz(channels, size, classes, patch, depth, width, heads) -> nn.Module:
    return ViT(
        "ln", channels=channels, size=size, classes=classes, patch=patch, depth=depth, width=width, heads=heads, seed=0
    )


def _transformers(channels, size, classes, patch, depth, width, heads) -> nn.Module:
    from transformers import ViTConfig, ViTModel

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            config = ViTConfig(
                hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=4 * width,
                image_size=size, patch_size=patch, num_channels=channels, hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0, attn_implementation="sdpa",
            )  # fmt: skip
            self.vit = ViTModel(config, add_pooling_layer=False)
            self.vit.embeddings.register_forward_hook(lambda module, inputs, out: out[:, 1:])  # no class token
            self.head = nn.Linear(width, classes)

        def forward(self, x):
            return self.head(self.vit(pixel_values=x).last_hidden_state.mean(1))

    return Mean()


def _timm(channels, size, classes, patch, depth, width, heads) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=size, patch_size=patch, in_chans=channels, num_classes=classes, global_pool="avg", class_token=False,
        embed_dim=width, depth=depth, num_heads=heads, fc_norm=False,
    )  # fmt: skip


def _vit_pytorch(channels, size, classes, patch, depth, width, heads) -> nn.Module:
    from vit_pytorch.simple_vit import SimpleViT

    return SimpleViT(
        image_size=size, patch_size=patch, num_classes=classes, dim=width, depth=depth, heads=heads,
        mlp_dim=4 * width, channels=channels, dim_head=width // heads,
    )  # fmt: skip


BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "normviz": _normviz, "transformers": _transformers, "timm": _timm, "vit-pytorch": _vit_pytorch,
}  # fmt: skip


def installed() -> dict[str, Callable[..., nn.Module]]:
    """The builders whose library is here; ours first."""
    return {name: build for name, build in BUILDERS.items() if find_spec(name.replace("-", "_"))}


def compare(shape: str, batch: int, what: str, mode: str, *, device="cpu", rounds: int = 15) -> dict:
    """One case of CASES: seconds of each library and the ratio of ours to it, with what each computes."""
    sizes = SHAPES[shape]
    x = torch.randn(batch, sizes["channels"], sizes["size"], sizes["size"], device=device)
    y = torch.randint(sizes["classes"], (batch,), device=device)
    torch.compiler.reset()
    calls, products, weights = {}, {}, {}
    for name, build in installed().items():
        model = build(**sizes).to(device).train(what == "training")
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(x)
        products[name], weights[name] = counter.get_total_flops(), sum(p.numel() for p in model.parameters())
        run = torch.compile(model, dynamic=False) if mode == "compiled" else model
        calls[name] = _step(run, model, x, y) if what == "training" else lambda run=run: run(x)
    with torch.set_grad_enabled(what == "training"):
        found = paired(calls, rounds=rounds, warmup=2, least=5e-3, device=device)
    return {
        "shape": shape, "batch": batch, "what": what, "mode": mode, "products": products, "parameters": weights,
        "seconds": {name: found.median(name) for name in calls},
        "ours_to": {name: found.ratio("normviz", name)._asdict() for name in calls if name != "normviz"},
    }  # fmt: skip


def _step(run, model, x, y) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step():
        optimizer.zero_grad()
        F.cross_entropy(run(x), y).backward()
        optimizer.step()

    return step


def measure(device="cpu", tell=print) -> dict:
    """All cases.  The compiled ones are left out, and the reason told, where torch.compile does not work."""
    problem = compile_problem(device)
    missing = [name for name in BUILDERS if name not in installed()]
    cases = []
    for case in CASES:
        if case[-1] == "compiled" and problem:
            continue
        cases.append(compare(*case, device=device))
        for name, ratio in cases[-1]["ours_to"].items():
            took = cases[-1]["seconds"]
            tell(
                f"{' '.join(map(str, case)):32} ours {1e3 * took['normviz']:8.2f} ms   {name:12} "
                f"{1e3 * took[name]:8.2f} ms   ours / theirs {ratio['median']:.3f} "
                f"({ratio['low']:.3f}–{ratio['high']:.3f})"
            )
    if problem:
        tell(f"not compiled: {problem}")
    if missing:
        tell(f"not installed, left out: {', '.join(missing)}")
    return {"cases": cases, "not_compiled": problem, "not_installed": missing}
