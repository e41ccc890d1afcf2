"""The README's short table of measurements, from the records in results/.

python -m benchmarks.table [--write README.md]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from normviz.files import insert_between, write_atomic

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = ("<!-- bench: written by `python -m benchmarks.table --write README.md` -->", "<!-- end of bench -->")
PEERS = ("transformers", "timm", "vit-pytorch")
SHAPES = {"ours": "our ViT", "deit-s": "DeiT-S"}


def _load(name: str, folder: Path) -> dict | None:
    path = folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _ratio(ratio: dict | None) -> str:
    return f"{ratio['median']:.2f} ({ratio['low']:.2f}–{ratio['high']:.2f})" if ratio else "–"


def markdown(folder: Path) -> str:
    """What is recorded so far; a line says where nothing is."""
    lines = []
    if peers := _load("bench_peers", folder):
        where = peers["environment"]
        lines += [
            "Time of our ViT over that of the same network elsewhere, median and quartiles of paired rounds; below 1 "
            f"ours is faster ({where['name']}, {where['threads']} thread, torch {where['versions']['torch']}):",
            "",
            f"| | {' | '.join(PEERS)} |",
            "|---|" + "---|" * len(PEERS),
        ]
        for case in peers["cases"]:
            name = f"{SHAPES[case['shape']]}, batch {case['batch']}, {case['what']}, {case['mode']}"
            lines.append(f"| {name} | {' | '.join(_ratio(case['ours_to'].get(peer)) for peer in PEERS)} |")
        lines.append("")
    told = []
    if limit := _load("bench_limit", folder):
        ratios = ", ".join(f"{name} {_ratio(limit[name])}" for name in limit if name != "environment")
        told.append(f"A network with its BatchNorms folded over the same one with its norms removed: {ratios}.")
    if explorer := _load("explorer_latency", folder):
        browser = explorer["browser"]
        told.append(
            f"The axes explorer answers a key in Chromium within {browser['axes']['median_ms']:.0f} ms "
            f"(`interact` and matplotlib voxels: {browser['interact']['median_ms']:.0f} ms)."
        )
    if house := _load("bench_house", folder):
        told.append(
            f"`import normviz` takes {house['import normviz']:.2f} s; training the small ViT on a CPU peaks at "
            f"{house['peak_bytes'] / 2**20:.0f} MiB."
        )
    if notebooks := _load("bench_notebooks", folder):
        times = [value for name, value in notebooks.items() if name != "environment"]
        told.append(f"The slowest of the {len(times)} notebooks executes in {max(times):.0f} s.")
    return "\n".join([*lines, *(told or ["Nothing is recorded yet: `make bench`."])])


def insert(text: str, folder: Path) -> str:
    """`text` with the table between its two markers brought up to date.  Raises ValueError where they are missing."""
    return insert_between(text, BEGIN, END, markdown(folder))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, metavar="FILE", help="bring the table in FILE up to date")
    options = parser.parse_args()
    if options.write is None:
        print(markdown(ROOT / "results"))
        return
    text = insert(options.write.read_text(encoding="utf-8"), ROOT / "results")
    write_atomic(options.write, text)


if __name__ == "__main__":
    main()
