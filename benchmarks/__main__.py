"""All measurements in one command, a table as they come, a file each in results/.

    python -m benchmarks [peers limit house notebooks pages] [--device cpu] [--threads 1] [--out results]

peers: our ViT against other libraries (install them with the extra: pip install -e ".[bench]"); limit: a folded network
against the same one with its norms removed; house: imports and memory; notebooks: the time of each; pages: how soon
the site's pages answer, and their weight, in `page_latency.json` (wants the `test` extra and a Chromium).  The
explorers' latency is `python -m benchmarks.explorer`, the norms' own cost `python -m normviz bench`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from benchmarks import house, peers
from normviz.files import write_atomic
from normviz.lab.history import encode
from normviz.lab.timing import environment, threads, time_networks


def limit(device="cpu", tell=print) -> dict:
    """Time of the folded network over that of one whose norms were removed: 1 is the limit of what folding can give."""
    found = {}
    for network, batch in (("ours", 1), ("ours", 64), ("deit-s", 1)):
        pair = time_networks(network, batch, device=device, rounds=31, variants=("removed", "folded"))
        ratio = pair.ratio("folded", "removed")
        found[f"{network}, batch {batch}"] = ratio._asdict() | {"seconds": pair.median("folded")}
        tell(f"folded / norms removed, {network}, batch {batch}: {ratio} (quartiles {ratio.low:.3f}–{ratio.high:.3f})")
    return found


def measure_pages() -> dict:
    from benchmarks import pages  # needs playwright

    return pages.measure()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    names = ("peers", "limit", "house", "notebooks", "pages")
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(names)}; all without")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1, as in the studies)")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "results")
    options = parser.parse_args()
    if unknown := sorted(set(options.parts) - set(names)):
        parser.error(f"unknown part {', '.join(unknown)}; it takes {', '.join(names)}")
    with threads(options.threads):
        for name in options.parts or names:
            before = environment(options.device)  # the load before we add to it
            found = {
                "peers": lambda: peers.measure(options.device),
                "limit": lambda: limit(options.device),
                "house": house.measure,
                "notebooks": house.measure_notebooks,
                "pages": measure_pages,
            }[name]()
            record = {"environment": before, **encode(found, 4)}
            path = options.out / ("page_latency.json" if name == "pages" else f"bench_{name}.json")
            write_atomic(path, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
            print(f"recorded in {path.name}", flush=True)


if __name__ == "__main__":
    main()
