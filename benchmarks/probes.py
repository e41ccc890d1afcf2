"""What the probes cost: a training step with them against the same step without, in turn.

    python -m benchmarks.probes [--out results/probe_cost.json] [--pairs 40] [--threads 1]

For every arm and both kinds of FFN, the default ViT of the study (16 blocks, 64 digits a batch) takes steps A B A B …
on one and the same batch: A plain, B probed.  The cost is the median over the pairs of B/A − 1, with its quartiles;
over a run it is that divided by `probe_every`, as the steps between pay nothing.  Quiet machine, please: what else
runs on the same cores adds to both sides, but unevenly.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F

from normviz.files import write_atomic
from normviz.lab import Probe, build, load_images, preset
from normviz.lab.data import Batches

ROOT = Path(__file__).resolve().parents[1]
CELLS = [(name, arm) for name in ("heavy", "swiglu") for arm in ("ln", "bn", "bn+ffnbn")]


def compare(name: str, arm: str, images, pairs: int) -> dict:
    """Seconds of plain and probed steps, in turn, and what follows from each pair."""
    recipe = preset(name, arm)
    model = build(recipe, images)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)  # so slow that no step is unlike another
    probe = Probe(model)
    x, y = Batches(images, recipe)[0]

    def step(probed: bool) -> float:
        start = time.perf_counter()
        with probe.watching() if probed else nullcontext():
            loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        if probed:
            probe.record(0)
        optimizer.step()
        loss.item()
        return time.perf_counter() - start

    for probed in (False, True) * 3:  # first steps allocate
        step(probed)
    taken = [(step(False), step(True)) for _ in range(pairs)]
    low, middle, high = statistics.quantiles([100 * (b / a - 1) for a, b in taken], n=4)
    return {
        "ffn": recipe.ffn, "arm": arm, "pairs": pairs,
        "plain_ms": round(1000 * statistics.median(a for a, _ in taken), 2),
        "probed_ms": round(1000 * statistics.median(b for _, b in taken), 2),
        "probed_step_percent": round(middle, 2),
        "quartiles_percent": [round(low, 2), round(high, 2)],
        "probe_every": recipe.probe_every,
        "run_percent": round(middle / recipe.probe_every, 3),
    }  # fmt: skip


def table(rows: list[dict]) -> str:
    lines = [f"{'FFN':8}{'arm':10}{'plain':>10}{'probed':>10}{'probed step':>13}{'quartiles':>16}{'over a run':>12}"]
    for row in rows:
        low, high = row["quartiles_percent"]
        lines.append(
            f"{row['ffn']:8}{row['arm']:10}{row['plain_ms']:7.1f} ms{row['probed_ms']:7.1f} ms"
            f"{row['probed_step_percent']:+11.1f} %{f'{low:+.1f} … {high:+.1f}':>16}{row['run_percent']:+10.2f} %"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.probes", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "probe_cost.json")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1, help="as many as a study gives a run: 1")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images = load_images("digits")
    rows = [compare(name, arm, images, options.pairs) for name, arm in CELLS]
    print(table(rows))
    record = {
        "what": "cost of a probed training step, paired with a plain one; see benchmarks/probes.py",
        "rows": rows,
        "machine": {
            "cores": os.cpu_count(), "threads": options.threads, "load": os.getloadavg()[0],
            "machine": platform.machine(), "python": platform.python_version(), "torch": torch.__version__,
        },
    }  # fmt: skip
    write_atomic(options.out, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
