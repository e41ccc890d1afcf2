"""What the norm layers of a vision transformer cost on this machine: layer by layer, and as ratios of whole networks.

`python -m normviz bench` records both in results/cost-DEVICE.json; chapter 06 and the claims ledger read them there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn

from normviz.costs import LAYERS, Machine
from normviz.lab.bench import Paired, compile_problem, environment, paired, threads
from normviz.lab.folding import fold
from normviz.lab.history import write_atomic
from normviz.lab.vit import ViT

#: The networks that are timed.  DeiT-S (Touvron et al. 2021, arXiv:2012.12877) has 197 tokens, one of them a class
#: token; our ViT averages over its 196 patches instead.
NETWORKS = {
    "ours": {"depth": 16, "width": 48, "heads": 3},
    "deit-s": {
        "channels": 3, "size": 224, "classes": 1000, "patch": 16, "depth": 12, "width": 384, "heads": 6,
    },
}  # fmt: skip
NETWORK_NAMES = {"ours": "our ViT", "deit-s": "DeiT-S"}
#: One image, and a large batch, by kind of device
BATCHES = {"cpu": {"ours": (1, 64), "deit-s": (1, 4)}, "cuda": {"ours": (1, 256), "deit-s": (1, 128)}}
VARIANTS = ("ln", "bn", "bn+ffnbn", "folded", "removed")
MODES = {"eager": None, "compiled": "default", "cuda-graphs": "reduce-overhead"}

GRID = {"batch": (1, 4, 16, 64), "tokens": (16, 64, 197), "width": (48, 192, 384)}
_COPIES = tuple(2**k for k in range(12, 28, 2))  # bytes moved: 4 KiB to 64 MiB


@torch.no_grad()
def calibrate(device="cpu") -> Machine:
    """A quick measurement (about a second) of what `normviz.costs.predict` needs to know of a machine.

    None of it is fitted to the layers on real sizes: a call is timed on one token, bandwidth on copies, arithmetic
    on multiply-adds in the cache and on one matrix product.
    """

    def seconds(call, least=1e-3):
        return paired({"it": call}, rounds=9, least=least, device=device).best("it")

    call = {kind: seconds(layer) for kind, layer in layer_calls(1, 8, device).items()}
    bandwidth = []
    for size in _COPIES:
        source = torch.ones(size // 8, device=device)
        target = torch.empty_like(source)
        least = seconds(lambda: target[:1].copy_(source[:1])) if size == _COPIES[0] else least  # noqa: B023, F821
        took = seconds(lambda: target.copy_(source))  # noqa: B023
        bandwidth.append((size, size / max(took - least, took / 10)))
    x, s, t = (torch.rand(128, 256, device=device) for _ in range(3))  # 128 KiB each: in a core's cache
    vector = 2 * x.numel() / max(1e-9, seconds(lambda: torch.addcmul(t, x, s, out=t)) - call["line"] / 2)
    linear, tokens = nn.Linear(384, 1152, device=device), torch.rand(1024, 384, device=device)
    matrix = LAYERS["linear"].operations(1024, 384) / seconds(lambda: linear(tokens), 1e-2)
    return Machine(call, tuple(bandwidth), vector, matrix)


def layer_calls(tokens: int, width: int, device="cpu") -> dict[str, Callable[[], Tensor]]:
    """The layers of `normviz.costs.LAYERS` that run, on random tokens (tokens, width), as functions to be timed."""
    x = torch.randn(tokens, width, device=device)
    s, t = torch.rand(width, device=device), torch.rand(width, device=device)
    layers = nn.LayerNorm(width), nn.BatchNorm1d(width).eval(), nn.Linear(width, 3 * width)
    ln, bn, linear = (layer.to(device) for layer in layers)
    return {
        "ln": lambda: ln(x),
        "bn": lambda: bn(x),
        "line": lambda: torch.addcmul(t, x, s),
        "linear": lambda: linear(x),
    }


@torch.no_grad()
def time_layers(batch: int, tokens: int, width: int, *, device="cpu", rounds: int = 7, tell=None) -> dict:
    """Seconds of each layer on batch × tokens tokens of `width` features, timed in turn, the best round of each.

    Returns {"batch", "tokens", "width", "seconds": {layer: seconds}}; a folded BatchNorm takes none.
    Raises ValueError for sizes below 1.
    """
    for name, value in (("batch", batch), ("tokens", tokens), ("width", width)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}={value!r} must be an integer >= 1")
    calls = layer_calls(batch * tokens, width, device)
    found = paired(calls, rounds=rounds, warmup=1, least=3e-4, device=device, tell=tell)
    seconds = {kind: found.best(kind) for kind in calls} | {"folded": 0.0}
    return {"batch": batch, "tokens": tokens, "width": width, "seconds": seconds}


def measure_layers(grid=GRID, *, device="cpu", number_of_threads: int | None = 1, rounds: int = 7, tell=None) -> dict:
    """A calibration and the time of every layer on a grid of sizes: what `explore_cost` shows.

    grid: name -> values for batch, tokens and width; tell: called with a line for every point.
    Returns {"environment", "machine", "layers": rows of `time_layers`}, plain numbers.
    """
    with threads(number_of_threads):
        machine, rows = calibrate(device), []
        points = list(product(grid["batch"], grid["tokens"], grid["width"]))
        for i, (batch, tokens, width) in enumerate(points, 1):
            rows.append(time_layers(batch, tokens, width, device=device, rounds=rounds))
            if tell is not None:
                tell(f"layers {i}/{len(points)}: {batch} × {tokens} tokens of {width}")
        plain = {"call": dict(machine.call), "bandwidth": machine.bandwidth}
        plain |= {"vector": machine.vector, "matrix": machine.matrix}
        return {"environment": environment(device), "machine": plain, "layers": rows}


def build(network: str, variant: str, device="cpu") -> ViT:
    """One of NETWORKS in evaluation, with random statistics in its BatchNorms.

    variant: an arm; "folded" (of bn+ffnbn); or "removed", where the norms are gone and nothing replaces them, which
    no folding can beat.  Raises ValueError for an unknown name.
    """
    if network not in NETWORKS or variant not in VARIANTS:
        raise ValueError(
            f"network={network!r}, variant={variant!r}: known are {', '.join(NETWORKS)}; {', '.join(VARIANTS)}"
        )
    model = ViT({"folded": "bn+ffnbn", "removed": "bn"}.get(variant, variant), seed=0, **NETWORKS[network]).eval()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d):
            nn.init.normal_(layer.running_mean), nn.init.uniform_(layer.running_var, 0.5, 2.0)
    if variant == "folded":
        model = fold(model)
    if variant == "removed":
        for block in model.blocks:
            block.norm1 = block.norm2 = nn.Identity()
        model.final = nn.Identity()
    return model.to(device)


def time_networks(
    network: str, batch: int, mode: str = "eager", *, device="cpu", rounds: int = 11, variants=VARIANTS, tell=None
) -> Paired:
    """Inference of all variants of a network on `batch` images, timed in turn, eager or compiled (a key of MODES)."""
    torch.compiler.reset()  # each model counts as a recompilation of the same forward, and there is a limit
    options = {"channels": 1, "size": 8} | NETWORKS[network]
    x = torch.randn(batch, options["channels"], options["size"], options["size"], device=device)
    calls = {}
    for variant in variants:
        model = build(network, variant, device)
        if MODES[mode]:
            model = torch.compile(model, mode=MODES[mode], dynamic=False)
        calls[variant] = lambda model=model: model(x)
    with torch.no_grad():
        for variant, call in calls.items():
            if tell is not None:
                tell(f"{network}, batch {batch}, {mode}: first call of {variant}")
            call()
        return paired(calls, rounds=rounds, warmup=2, least=5e-3, device=device)


def measure_costs(
    *,
    device="cpu",
    number_of_threads: int | None = 1,
    compiled: bool = True,
    quick: bool = False,
    tell=print,
    save: Callable[[dict], object] | None = None,
) -> dict:
    """The record of this machine: `measure_layers`, and for every network, batch and mode its time over LN's.

    compiled: also with torch.compile, where it works (the record says why not); quick: few rounds, small sizes.
    save: called with the record so far after every comparison, so that an interrupted measurement leaves what it has.
    """
    device = torch.device(device)
    problem = "left out on demand" if not compiled else compile_problem(device)
    modes = ["eager"] + ([] if problem else ["compiled"])
    if device.type == "cuda" and not problem:
        modes.append("cuda-graphs")
    grid = {name: values[:1] for name, values in GRID.items()} if quick else GRID
    with threads(number_of_threads):
        record = measure_layers(grid, device=device, number_of_threads=None, rounds=3 if quick else 7, tell=tell)
        record |= {"about": __doc__.splitlines()[0], "not_compiled": problem, "networks": []}
        for mode, network in product(modes, ("ours",) if quick else NETWORKS):
            for batch in BATCHES.get(device.type, BATCHES["cpu"])[network]:
                if network == "deit-s" and device.type == "cpu" and mode != "eager" and batch == 1:
                    continue  # half a minute of compiling for each variant; the large batch is the one that pays
                # Compiled, "removed" is to the letter the program that "folded" is
                variants = VARIANTS if mode == "eager" else VARIANTS[:-1]
                rounds = 3 if quick else 9 if network == "deit-s" else 15
                found = time_networks(network, batch, mode, device=device, rounds=rounds, variants=variants, tell=tell)
                record["networks"].append(_row(network, batch, mode, found))
                tell(_line(record["networks"][-1]))
                if save is not None:
                    save(record)
    return record


def _row(network: str, batch: int, mode: str, found: Paired) -> dict:
    ratios = {variant: found.ratio(variant, "ln")._asdict() for variant in found.seconds}
    seconds = {variant: found.median(variant) for variant in found.seconds}
    limit = found.ratio("folded", "removed")._asdict() if {"folded", "removed"} <= set(seconds) else None
    row = {"network": network, "batch": batch, "mode": mode, "seconds": seconds}
    return row | {"ratio_to_ln": ratios, "folded_to_removed": limit}


def _line(row: dict) -> str:
    told = ", ".join(
        f"{variant} {ratio['median']:.3f} ({ratio['low']:.3f}–{ratio['high']:.3f})"
        for variant, ratio in row["ratio_to_ln"].items()
        if variant != "ln"
    )
    ms = 1e3 * row["seconds"]["ln"]
    return f"{row['network']:7} batch {row['batch']:3} {row['mode']:12} LN {ms:8.2f} ms; times over LN's: {told}"


def cost_path(record: dict, folder) -> Path:
    """results/cost-cpu.json, or results/cost-nvidia-h100.json: one file a kind of device."""
    found = record["environment"]
    name = "cpu" if found["device"] == "cpu" else re.sub(r"\W+", "-", found["name"].lower()).strip("-")
    return Path(folder) / f"cost-{name}.json"


def save_costs(record: dict, folder) -> Path:
    """Writes the record with four significant digits, whole or not at all."""
    path = cost_path(record, folder)
    write_atomic(path, (json.dumps(rounded(record), indent=1, ensure_ascii=False) + "\n").encode())
    return path


def rounded(value):
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, (list, tuple)) else value


def load_costs(folder=None) -> list[dict]:
    """The records of all devices, the CPU's first; folder: by default the project's own results."""
    from normviz.lab.study import results_folder

    paths: Iterable[Path] = Path(results_folder() if folder is None else folder).glob("cost-*.json")
    paths = sorted(paths, key=lambda path: (path.name != "cost-cpu.json", path.name))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def run_layer(kind: str, x: Tensor, statistics: Tensor) -> Tensor:
    """LN or evaluation BN from simple kernels, one step a line, for a counter to watch.

    x: (N, D); statistics: (4, D), that is γ, β, and for BN also the stored mean and variance.
    """
    weight, bias, mean, var = statistics
    if kind == "ln":
        centred = x - x.mean(-1, keepdim=True)  # (N, D)
        var = centred.square().mean(-1, keepdim=True)  # (N, 1)
        return centred / (var + 1e-5).sqrt() * weight + bias
    scale = weight / (var + 1e-5).sqrt()  # (D,)
    shift = bias - mean * scale
    return x * scale + shift
