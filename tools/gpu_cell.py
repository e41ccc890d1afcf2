"""Run the section "On a GPU" of notebook 08 as a script, and keep what it says and draws.

    NORMVIZ_CIFAR10=FOLDER python tools/gpu_cell.py --out DIR [--measure | --only-measure]

DIR gets said.txt (what the cells print), race.png and replay.png (how the race ends), and one history a network, as
ARM.json.  --measure times a step first, of one arm: as it is, as a CUDA graph, with compiled blocks, and both; to
measured.json.  Without a GPU the cells take a few steps on the CPU, as `CHECK = True` in the notebook does.
"""

import argparse
import json
import os
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "08_loss_crash.ipynb"


def sources(heading: str = "## On a GPU") -> list[str]:
    """The notebook's setup, then the code cells from that heading to the next one of its rank."""
    found, inside = [], False
    for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            for line in source.splitlines():
                inside = line == heading if line.startswith("## ") else inside
        elif inside or "setup" in cell["metadata"].get("tags", []) or source.startswith("torch.set_num_threads"):
            found.append(source)
    return found


class Tee:
    """Writes to several files."""

    def __init__(self, *files):
        self.files = files

    def write(self, text: str) -> int:
        for file in self.files:
            file.write(text)
            file.flush()
        return len(text)

    def flush(self) -> None:
        for file in self.files:
            file.flush()


def seconds_a_step(run, warm: int, count: int) -> float:
    """Of a training: the time of `count` steps after `warm` others, each with all its work done."""
    import torch

    def go(steps: int) -> None:
        for _ in range(steps):
            run.advance()
        run.read()  # waits for the device
        if run.device.type == "cuda":
            torch.cuda.synchronize()

    go(warm)
    began = time.perf_counter()
    go(count)
    return (time.perf_counter() - began) / count


def measure(names: dict, arm: str = "bn+ffnbn") -> dict:
    """Seconds a step of one arm at the cells' own size, by how it is run; what cannot be run says why."""
    gpu, (pictures, regime) = names["GPU"], names["photographs"](None if names["GPU"] else "nowhere")
    ways = {"as it is": (False, False), "CUDA graph": (True, False), "compiled blocks": (False, True)}
    ways["compiled blocks in a CUDA graph"] = (True, True)
    found = {}
    for way, (replay, compiled) in ways.items():
        if not gpu and way != "as it is":
            continue
        recipe = names["preset"](regime, arm, probe_every=0, **names["work"])
        try:
            run = names["steps"](recipe, images=pictures, device=names["device"], replay=replay)
            for block in run.model.blocks if compiled else ():
                block.compile()  # equal blocks are compiled once
            # Every way in four lots: the machine's moods show in the spread
            lots = [seconds_a_step(run, 20 if gpu else 1, 40 if gpu else 1) for _ in range(4 if gpu else 1)]
            found[way] = {"seconds a step": lots, "loss": run.history.loss[-1]}
        except Exception as error:  # a compiler that is missing, an operation that a graph does not take
            found[way] = {"failed": f"{type(error).__name__}: {str(error)[:300]}"}
        print(f"{way:32} {found[way]}")
    return {"arm": arm, "device": run.history.meta["device"], "precision": run.history.meta["precision"], "ways": found}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for what is said and drawn")
    parser.add_argument("--measure", action="store_true", help="time a step first, run in several ways")
    parser.add_argument("--only-measure", action="store_true", help="and do not race")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(ROOT))
    import torch

    if not torch.cuda.is_available():
        os.environ["NORMVIZ_RUN"] = "short"
    names: dict = {}
    *before, race = sources()
    with (args.out / "said.txt").open("w", encoding="utf-8") as file, redirect_stdout(Tee(sys.stdout, file)):
        for source in before:
            exec(compile(source, NOTEBOOK.name, "exec"), names)
        names["display"] = lambda shown: None  # there is nobody to look
        if args.measure or args.only_measure:
            (args.out / "measured.json").write_text(json.dumps(measure(names), indent=1) + "\n", encoding="utf-8")
        if args.only_measure:
            return
        began = time.perf_counter()
        exec(compile(race, NOTEBOOK.name, "exec"), names)
        print(f"The race's cell took {time.perf_counter() - began:.0f} s.")
    ended = names["gpu_race"]
    for arm, history in ended.histories.items():
        history.save(args.out / f"{arm}.json")
    for name, figure in (("race", ended.figure()), ("replay", ended.replay())):
        figure.savefig(args.out / f"{name}.png")
        (args.out / f"{name}.txt").write_text(figure.alt + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
