"""Would `torch.compile`, or several seeds stacked into one network, make the studies faster on this machine?

    python -m benchmarks.replicas [--out results/bench_replicas.json]

A step of one run as the studies take it, against the same step compiled, and against LN networks of several
seeds stacked with `torch.func` (gradients of all replicas at once; the optimizer is left out, in its favour).  CPU time
of one thread, the median of steps taken in turn; ratios to the plain step, and what compiling costs before the first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from normviz.files import write_atomic
from normviz.lab import build, preset
from normviz.lab.timing import environment

ROOT = Path(__file__).resolve().parents[1]


def stepper(recipe, compiled: bool = False):
    """A training step of a recipe's network on random images."""
    model = build(recipe).train()
    call = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    x, y = torch.randn(recipe.batch, 1, 8, 8), torch.randint(0, 10, (recipe.batch,))

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(call(x), y).backward()
        optimizer.step()

    return step


def stacked(recipe, replicas: int):
    """Loss and gradients of so many networks at once."""
    models = [build(preset(recipe.name, recipe.arm, seed)) for seed in range(replicas)]
    weights, _ = stack_module_state(models)
    x, y = torch.randn(replicas, recipe.batch, 1, 8, 8), torch.randint(0, 10, (replicas, recipe.batch))

    def loss(weights, x, y):
        return F.cross_entropy(functional_call(models[0], weights, (x,)), y)

    together = vmap(grad_and_value(loss))
    return lambda: together(weights, x, y)


def in_turn(steps: dict, rounds: int) -> dict[str, float]:
    """Median CPU seconds of each, taken in turn."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step(), step()
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.process_time()
            step()
            times[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def measure(rounds: int = 9, tell=print) -> dict:
    torch.set_num_threads(1)
    rows = {}
    for name, arm in (("heavy", "bn"), ("swiglu", "bn"), ("heavy", "ln")):
        recipe = preset(name, arm)
        start = time.perf_counter()
        compiled = stepper(recipe, compiled=True)
        compiled()
        row = {"compile_seconds": round(time.perf_counter() - start, 1)}
        steps = {"plain": stepper(recipe), "compiled": compiled}
        if arm == "ln":  # BatchNorm's buffers would have to be written functionally
            steps["stacked"] = stacked(recipe, 4)
        seconds = in_turn(steps, rounds)
        if "stacked" in seconds:
            seconds["stacked"] /= 4
        row |= {"plain_ms": round(1e3 * seconds["plain"], 1)}
        row |= {f"{key}_ratio": round(seconds[key] / seconds["plain"], 3) for key in seconds if key != "plain"}
        rows[f"{name} {arm}"] = row
        tell(f"{name} {arm}: {row}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replicas", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "bench_replicas.json")
    out = parser.parse_args().out
    rows = measure()
    record = {"environment": environment(), **rows}
    write_atomic(out, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
