"""`python -m tools.site [--out site]` builds the pages; `--moving FILE` draws the README's moving picture instead."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tools.site.build import ROOT, build


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.site", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "site", help="folder to build; made anew (default: site)")
    parser.add_argument("--moving", type=Path, metavar="FILE", help="draw the README's moving picture into FILE")
    chosen = parser.parse_args(arguments)
    began = time.perf_counter()
    if chosen.moving:
        from tools.site.moving import write_moving

        write_moving(chosen.moving)
        print(f"{chosen.moving}: {chosen.moving.stat().st_size / 1000:.0f} kB")
        return
    pages = build(chosen.out)
    print(f"{len(pages)} pages in {chosen.out}, {time.perf_counter() - began:.0f} s. Open {chosen.out / 'index.html'}")


if __name__ == "__main__":
    main()
