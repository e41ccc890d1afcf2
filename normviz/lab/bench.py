"""Paired timing: what is compared runs in turn, so that whatever else the machine does meets all of it alike."""

from __future__ import annotations

import math
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

CLOCKS = {"one": "CPU time of the thread", "many": "wall clock", "cuda": "CUDA events"}


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
        found = self.seconds[name] / self.seconds[to]
        draws = np.random.default_rng(0).integers(0, len(found), (2000, len(found)))
        ci = np.quantile(np.median(found[draws], axis=1), (0.025, 0.975))
        low, middle, high = np.quantile(found, (0.25, 0.5, 0.75))
        return Ratio(float(middle), float(low), float(high), (float(ci[0]), float(ci[1])), len(found))


def paired(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 15,
    warmup: int = 3,
    least: float = 2e-3,
    device="cpu",
    tell: Callable[[str], None] | None = None,
) -> Paired:
    """Times all calls in turn, A B C, C B A, A B C, …: a drift of the machine cancels from their ratios.

    rounds: how often each is measured; warmup: calls of each before that; least: seconds that one measurement lasts
    at least, by repeating a short call; device: where the work runs.  Time is CPU time where torch has one thread, wall
    time where it has several, and that of CUDA events on a GPU.
    tell: called with a line whenever a round is done.

    Raises ValueError for no calls or fewer than one round.
    """
    if not calls:
        raise ValueError("calls={} is empty; it takes name -> a function to be timed")
    if rounds < 1:
        raise ValueError(f"rounds={rounds!r} must be an integer >= 1")
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
        if tell is not None:
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
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    clock = "cuda" if device.type == "cuda" else "one" if torch.get_num_threads() == 1 else "many"
    packages = ("torch", "numpy", "transformers", "timm", "vit-pytorch")
    return {
        "device": device.type, "clock": CLOCKS[clock], "name": name, "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None, "precision": "float32",
        "matmul_precision": torch.get_float32_matmul_precision(), "python": platform.python_version(),
        "versions": {p: v for p in packages if (v := _version(p))},
    }  # fmt: skip


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


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
    except Exception as error:  # whatever the back end lacks: it is told, and the rest is measured
        return f"torch.compile does not work here: {type(error).__name__}: {str(error).splitlines()[0]}"
    return None
