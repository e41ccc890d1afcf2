"""What norms cost on this machine: layers and whole networks timed in turn, kernels counted, and the record of both.

`python -m normviz bench` records layers and networks in results/cost-DEVICE.json; chapter 06 and the claims ledger read
them there.  Calls that are compared take turns: whatever else the machine does meets all of them alike.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from normviz.costs import LAYERS, Machine
from normviz.fields import unknown, whole
from normviz.files import write_atomic
from normviz.lab.folding import fold
from normviz.lab.history import encode
from normviz.lab.models.vit import ViT


class Ratio(NamedTuple):
    """Ratio of two times over rounds: median, quartiles, and a 95 % bootstrap interval of the median."""

    median: float
    low: float
    high: float
    ci: tuple[float, float]
    rounds: int

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.ci[0]:.3f}–{self.ci[1]:.3f})"


class Paired(NamedTuple):
    """Seconds of each call in each round, as `paired` measured them: (name -> (rounds,))."""

    seconds: dict[str, np.ndarray]

    def median(self, name: str) -> float:
        return float(np.median(self.seconds[name]))

    def best(self, name: str) -> float:
        """The fastest round: what the call takes when nothing disturbs it, since other work only ever adds time."""
        return float(self.seconds[name].min())

    def ratio(self, name: str, to: str) -> Ratio:
        """Time of `name` over time of `to`, round by round; below 1: `name` is faster."""
        ratios = self.seconds[name] / self.seconds[to]
        draws = np.random.default_rng(0).integers(0, len(ratios), (2000, len(ratios)))
        ci = np.quantile(np.median(ratios[draws], axis=1), (0.025, 0.975))
        low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
        return Ratio(float(middle), float(low), float(high), (float(ci[0]), float(ci[1])), len(ratios))


def paired(
    calls: Mapping[str, Callable[[], object]], *, rounds: int = 15, warmup: int = 3, least: float = 2e-3, device="cpu",
    tell: Callable[[str], None] | None = None,
) -> Paired:  # fmt: skip
    """Times all calls in turn, A B C, C B A, A B C, …: a drift of the machine cancels from their ratios.

    rounds: how often each is measured; warmup: calls of each before that; least: seconds that one measurement lasts
    at least, by repeating a short call; device: where the work runs.  Time is CPU time where torch has one thread, wall
    time where it has several, and that of CUDA events on a GPU.
    tell: called with a line whenever a round is done.

    Raises ValueError for no calls or fewer than one round.
    """
    if not calls:
        raise ValueError("calls={} is empty; it takes name -> a function to be timed")
    whole("rounds", rounds)
    clock = _clock(torch.device(device))
    repeats = {}
    for name, call in calls.items():
        clock(call, max(1, warmup))
        repeats[name] = max(1, math.ceil(least / max(clock(call, 1), 1e-9)))
        if repeats[name] > 1:  # one short call is mostly the clock; now that it is warm, look again
            repeats[name] = max(1, math.ceil(least / clock(call, min(repeats[name], 10))))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds):
        for name in list(calls) if i % 2 == 0 else reversed(list(calls)):
            seconds[name].append(clock(calls[name], repeats[name]))
        if tell:
            tell(f"round {i + 1} of {rounds}")
    return Paired({name: np.array(values) for name, values in seconds.items()})


def _clock(device: torch.device) -> Callable[[Callable, int], float]:
    """A function (call, repeats) -> seconds a call."""
    # One thread's own time leaves out what the machine did for others meanwhile; several threads need the wall's
    now = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter

    def on_cpu(call, repeats):
        start = now()
        for _ in range(repeats):
            call()
        return (now() - start) / repeats

    def on_gpu(call, repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record()
        for _ in range(repeats):
            call()
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end) / 1000 / repeats

    return on_gpu if device.type == "cuda" else on_cpu


@contextmanager
def threads(number: int | None) -> Iterator[int]:
    """Torch's CPU threads fixed within the block; None: as they are.  Yields the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def environment(device="cpu") -> dict:
    """What a timing depends on: device, cores, threads, load, versions."""
    device, one = torch.device(device), torch.get_num_threads() == 1
    gpu, versions = device.type == "cuda", {}
    for package in ("torch", "numpy", "transformers", "timm", "vit-pytorch"):
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "device": device.type, "clock": "CUDA events" if gpu else "CPU time of the thread" if one else "wall clock",
        "name": torch.cuda.get_device_name(device) if gpu else _cpu_name(), "cores": os.cpu_count(),
        "threads": torch.get_num_threads(), "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "precision": "float32", "matmul_precision": torch.get_float32_matmul_precision(),
        "python": platform.python_version(), "versions": versions,
    }  # fmt: skip


def _cpu_name() -> str:
    """What the processor calls itself, as far as the system says."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def compile_problem(device="cpu") -> str | None:
    """Why `torch.compile` cannot work here, in words; None where it can.

    On a CPU inductor writes C++ and needs a compiler; it looks for $CXX, then g++ or clang++ (cl on Windows).
    """
    if torch.device(device).type == "cpu":
        wanted = [os.environ["CXX"]] if os.environ.get("CXX") else ["cl"] if os.name == "nt" else ["g++", "clang++"]
        if not any(map(shutil.which, wanted)):
            return f"torch.compile needs a C++ compiler on a CPU, and there is no {' or '.join(wanted)} here"
    try:
        torch.compile(lambda x: x * 2 + 1)(torch.ones(2, device=device))
    except Exception as error:  # whatever the back end lacks: the reason is kept, and the rest is measured
        return f"torch.compile does not work here: {type(error).__name__}: {str(error).splitlines()[0]}"
    return None


# Layers and networks

#: The networks that are timed.  DeiT-S (Touvron et al. 2021, arXiv:2012.12877) has 197 tokens, one of them a class
#: token; our ViT averages over its 196 patches instead.
NETWORKS = {
    "ours": {"depth": 16, "width": 48, "heads": 3},
    "deit-s": {
        "channels": 3, "size": 224, "classes": 1000, "patch": 16, "depth": 12, "width": 384, "heads": 6,
    },
}  # fmt: skip
#: One image, and a large batch, by kind of device
BATCHES = {"cpu": {"ours": (1, 64), "deit-s": (1, 4)}, "cuda": {"ours": (1, 256), "deit-s": (1, 128)}}
NETWORK_NAMES = {"ours": "our ViT", "deit-s": "DeiT-S"}
VARIANTS = ("ln", "bn", "bn+ffnbn", "folded", "removed")  # rows of `normviz.arms`
MODES = {"eager": None, "compiled": "default", "cuda-graphs": "reduce-overhead"}

GRID = {"batch": (1, 4, 16, 64), "tokens": (16, 64, 197), "width": (48, 192, 384)}


@torch.no_grad()
def calibrate(device="cpu") -> Machine:
    """A quick measurement (about a second) of what `normviz.costs.predict` needs to know of a machine.

    None of it is fitted to the layers on real sizes: a call is timed on one token, bandwidth on copies, arithmetic
    on multiply-adds in the cache and on one matrix product.
    """

    def seconds(call, least=1e-3):
        return paired({"it": call}, rounds=9, least=least, device=device).best("it")

    call = {kind: seconds(layer) for kind, layer in layer_calls(1, 8, device).items()}
    few, bandwidth = torch.ones(2, device=device), []
    least = seconds(lambda: few[:1].copy_(few[1:]))
    for size in (2**k for k in range(12, 28, 2)):  # bytes moved: 4 KiB to 64 MiB
        source = torch.ones(size // 8, device=device)
        took = seconds(partial(torch.empty_like(source).copy_, source))
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
    calls = {"ln": lambda: ln(x), "bn": lambda: bn(x), "line": lambda: torch.addcmul(t, x, s)}
    return calls | {"linear": lambda: linear(x)}


@torch.no_grad()
def time_layers(batch: int, tokens: int, width: int, *, device="cpu", rounds: int = 7, tell=None) -> dict:
    """Seconds of each layer on batch × tokens tokens of `width` features, timed in turn, the best round of each.

    Returns {"batch", "tokens", "width", "seconds": {layer: seconds}}; a folded BatchNorm takes none.
    Raises ValueError for sizes below 1.
    """
    for name, value in (("batch", batch), ("tokens", tokens), ("width", width)):
        whole(name, value)
    calls = layer_calls(batch * tokens, width, device)
    took = paired(calls, rounds=rounds, warmup=1, least=3e-4, device=device, tell=tell)
    seconds = {kind: took.best(kind) for kind in calls} | {"folded": 0.0}
    return {"batch": batch, "tokens": tokens, "width": width, "seconds": seconds}


def measure_layers(grid=GRID, *, device="cpu", number_of_threads: int | None = 1, rounds: int = 7, tell=None) -> dict:
    """A calibration and the time of every layer on a grid of sizes: what `explore_cost` shows.

    grid: name -> values for batch, tokens and width; tell: called with a line for every point.
    Returns {"environment", "machine", "layers": rows of `time_layers`}, plain numbers.
    """
    with threads(number_of_threads):
        machine, rows = asdict(calibrate(device)), []
        points = list(product(grid["batch"], grid["tokens"], grid["width"]))
        for i, (batch, tokens, width) in enumerate(points, 1):
            rows.append(time_layers(batch, tokens, width, device=device, rounds=rounds))
            if tell is not None:
                tell(f"layers {i}/{len(points)}: {batch} × {tokens} tokens of {width}")
        return {"environment": environment(device), "machine": machine, "layers": rows}


def network(name: str, variant: str, device="cpu") -> ViT:
    """One of NETWORKS in evaluation, with random statistics in its BatchNorms.

    variant: an arm; "folded" (of bn+ffnbn); or "removed", where the norms are gone and nothing replaces them, which
    no folding can beat.  Raises ValueError for an unknown name.
    """
    for what, value, known in (("network", name, NETWORKS), ("variant", variant, VARIANTS)):
        if value not in known:
            raise ValueError(unknown(what, value, known))
    arm = {"folded": "bn+ffnbn", "removed": "bn"}.get(variant, variant)
    model = ViT(arm, seed=0, **NETWORKS[name]).eval()
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
    name: str, batch: int, mode: str = "eager", *, device="cpu", rounds: int = 11, variants=VARIANTS, tell=None
) -> Paired:
    """Inference of all variants of a network on `batch` images, timed in turn, eager or compiled (a key of MODES)."""
    torch.compiler.reset()  # each model counts as a recompilation of the same forward, and there is a limit
    size = NETWORKS[name].get("size", 8)
    x = torch.randn(batch, NETWORKS[name].get("channels", 1), size, size, device=device)
    calls = {}
    for variant in variants:
        model = network(name, variant, device)
        if MODES[mode]:
            model = torch.compile(model, mode=MODES[mode], dynamic=False)
        calls[variant] = lambda model=model: model(x)
    with torch.no_grad():
        for variant, call in calls.items():
            if tell is not None:
                tell(f"{name}, batch {batch}, {mode}: first call of {variant}")
            call()
        return paired(calls, rounds=rounds, warmup=2, least=5e-3, device=device)


def measure_costs(
    *,
    device="cpu",
    number_of_threads: int | None = 1,
    compiled: bool = True,
    quick: bool = False,
    tell=print,
    save=None,
) -> dict:
    """The record of this machine: `measure_layers`, and for every network, batch and mode its time over LN's.

    compiled: also with torch.compile, where it works (the record says why not); quick: few rounds, small sizes.
    save: called with the record so far after every comparison, so that an interrupted measurement leaves what it has.
    """
    device = torch.device(device)
    problem = "left out on demand" if not compiled else compile_problem(device)
    modes = ["eager"] if problem else ["eager", "compiled", "cuda-graphs"][: 3 if device.type == "cuda" else 2]
    grid = {name: values[:1] for name, values in GRID.items()} if quick else GRID
    with threads(number_of_threads):
        record = measure_layers(grid, device=device, number_of_threads=None, rounds=3 if quick else 7, tell=tell)
        record |= {"about": __doc__.splitlines()[0], "not_compiled": problem, "networks": []}
        for mode, name in product(modes, ("ours",) if quick else NETWORKS):
            for batch in BATCHES.get(device.type, BATCHES["cpu"])[name]:
                if name == "deit-s" and device.type == "cpu" and mode != "eager" and batch == 1:
                    continue  # half a minute of compiling for each variant; the large batch is the one that pays
                # Compiled, "removed" is to the letter the program that "folded" is
                variants = VARIANTS if mode == "eager" else VARIANTS[:-1]
                rounds = 3 if quick else 9 if name == "deit-s" else 15
                took = time_networks(name, batch, mode, device=device, rounds=rounds, variants=variants, tell=tell)
                record["networks"].append(_row(name, batch, mode, took))
                tell(_line(record["networks"][-1]))
                if save is not None:
                    save(record)
    return record


def _row(name: str, batch: int, mode: str, took: Paired) -> dict:
    return {
        "network": name, "batch": batch, "mode": mode,
        "seconds": {variant: took.median(variant) for variant in took.seconds},
        "ratio_to_ln": {variant: took.ratio(variant, "ln")._asdict() for variant in took.seconds},
        "folded_to_removed": took.ratio("folded", "removed")._asdict() if "removed" in took.seconds else None,
    }  # fmt: skip


def _line(row: dict) -> str:
    ratios = ", ".join(
        f"{variant} {ratio['median']:.3f} ({ratio['low']:.3f}–{ratio['high']:.3f})"
        for variant, ratio in row["ratio_to_ln"].items()
        if variant != "ln"
    )
    took = f"{row['network']:7} batch {row['batch']:3} {row['mode']:12} LN {1e3 * row['seconds']['ln']:8.2f} ms"
    return f"{took}; times over LN's: {ratios}"


def cost_path(record: dict, folder, prefix: str = "") -> Path:
    """results/cost-cpu.json, or results/cost-nvidia-h100.json: one file a kind of device.

    prefix: "quick-" or "partial-", for what is no full record and must not take the place of one.
    """
    where = record["environment"]
    name = "cpu" if where["device"] == "cpu" else re.sub(r"\W+", "-", where["name"].lower()).strip("-")
    return Path(folder) / f"{prefix}cost-{name}.json"


def save_costs(record: dict, folder, prefix: str = "") -> Path:
    """Writes the record with four significant digits, whole or not at all; prefix: as in `cost_path`."""
    path = cost_path(record, folder, prefix)
    write_atomic(path, json.dumps(encode(record, 4), indent=1, ensure_ascii=False) + "\n")
    return path


def load_costs(folder=None) -> list[dict]:
    """The records of all devices, the CPU's first; folder: by default the project's own results."""
    from normviz.lab.study import results_folder

    paths = Path(results_folder() if folder is None else folder).glob("cost-*.json")
    paths = sorted(paths, key=lambda path: (path.name != "cost-cpu.json", path.name))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


# Counting: checks the formulas of `normviz.costs` against what torch does, rather than against themselves


class Counted(NamedTuple):
    """calls: kernels run, views not counted; bytes: of the tensors that they read and write, each tensor once a call.

    elementwise: operations of the pointwise and reducing kernels (a fused norm kernel hides its own: 0);
    matmul: operations of the matrix products, by `torch.utils.flop_counter`.
    """

    calls: int
    bytes: int
    elementwise: int
    matmul: int


class _Watch(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = self.bytes = self.elementwise = 0

    def __torch_dispatch__(self, kernel, types, args=(), kwargs=None):
        out = kernel(*args, **(kwargs or {}))
        if kernel.is_view or kernel.overloadpacket is torch.ops.aten.detach:
            return out
        outputs = _tensors(out if isinstance(out, (tuple, list)) else [out])
        inputs = _tensors([*args, *(kwargs or {}).values()])
        touched = sum(t.numel() * t.element_size() for t in (*inputs, *outputs))
        self.calls += touched > 0  # an empty place holder is no kernel
        self.bytes += touched
        name = kernel.overloadpacket.__name__
        if torch.Tag.pointwise in kernel.tags:
            self.elementwise += outputs[0].numel() * (2 if name == "addcmul" else 1)
        elif name in ("mean", "sum", "var", "var_mean", "amax"):  # one operation for each cell that goes in
            self.elementwise += inputs[0].numel()
        return out


def _tensors(values) -> list[Tensor]:
    return [value for value in values if isinstance(value, Tensor)]


@torch.no_grad()
def count(call: Callable[[], object]) -> Counted:
    """What happens in `call()`, without gradients."""
    watch, products = _Watch(), FlopCounterMode(display=False)
    with products, watch:
        call()
    return Counted(watch.calls, watch.bytes, watch.elementwise, products.get_total_flops())


def run_layer(kind: str, x: Tensor, statistics: Tensor) -> Tensor:
    """LN or evaluation BN from simple kernels, one step a line, for a counter to watch.

    x: (N, D); statistics: (4, D), that is γ, β, and for BN also the stored mean and variance.  Raises
    ValueError for another kind.
    """
    if kind not in ("ln", "bn"):
        raise ValueError(unknown("kind", kind, ("ln", "bn")))
    weight, bias, mean, var = statistics
    if kind == "ln":
        centred = x - x.mean(-1, keepdim=True)  # (N, D)
        var = centred.square().mean(-1, keepdim=True)  # (N, 1)
        return centred / (var + 1e-5).sqrt() * weight + bias
    scale = weight / (var + 1e-5).sqrt()  # (D,)
    shift = bias - mean * scale
    return x * scale + shift
