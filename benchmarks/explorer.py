"""How fast the explorers answer, the axes explorer against a matplotlib `ax.voxels` redraw of the same block.

    python -m benchmarks.explorer [--out results/explorer_latency.json]

Everything in one run: an event of every explorer in Python, and the voxels in turn with them; in headless Chromium on
a real JupyterLab, the time from the keydown event of an arrow key on a slider to the first task after the frame that
holds the new picture; importing normviz in fresh processes.  Needs the `test` extra and a Chromium.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from playwright.sync_api import TimeoutError

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser.chromium import find_chromium, launch  # noqa: E402 (the tests are no package)
from browser.pages import LabPage  # noqa: E402
from browser.servers import LAB, OPEN, jupyter, write_notebook, write_settings  # noqa: E402
from starts import start  # noqa: E402

from normviz.explore import Explorer  # noqa: E402
from normviz.picture.svg import to_svg  # noqa: E402

#: Rows of an explorer: the control that is moved, and what is set before
ROWS: dict[str, tuple[str, dict]] = {
    "axes": ("c", {"method": "layer_token"}), "axes, another size": ("C", {"method": "layer_token"}),
    "batches": ("batch_size", {"batch_size": 16}), "outlier": ("factor", {"factor": 10}), "geometry": ("azimuth", {}),
    "invariance": ("scale", {}), "groups": ("num_groups", {}), "time": ("step", {}), "epsilon": ("eps", {}),
    "cost": ("batch", {}), "inside": ("block", {"block": 6}), "scaling": ("factor", {}), "gradient": ("depth", {}),
    "evaluation": ("look", {"arm": "bn+ffnbn"}),
}  # fmt: skip
SHAPE = (4, 8, 4, 4)
#: The same block as voxels; also the source of the notebook cell that is measured in the browser
VOXELS = """
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import normviz as nv
from normviz.picture.color import HUES

def voxels(c=0, figure=None):
    labels = nv.partition("layer_token", (4, 8, 4, 4)).transpose(1, 0, 2, 3).reshape(8, 4, 16)
    colors = np.array(HUES)[labels % len(HUES)]
    colors[c] = "#000000"
    figure = figure or Figure(figsize=(4.3, 4))
    ax = figure.add_subplot(projection="3d")
    ax.voxels(np.ones(labels.shape, bool), facecolors=colors, edgecolor="white", linewidth=0.3)
    return figure
"""
PROBE = """selector => {
    window.took = {start: null, ms: null};
    document.addEventListener('keydown', () => { took.start = performance.now(); took.ms = null; }, true);
    const observer = new MutationObserver(changes => {
        const start = took.start, picture = changes[0].target.querySelector('img');
        if (start === null) return;
        const painted = () => requestAnimationFrame(() => {
            const channel = new MessageChannel();  // its message comes after the frame has been painted
            channel.port1.onmessage = () => { if (took.ms === null) took.ms = performance.now() - start; };
            channel.port2.postMessage(0);
        });
        picture ? picture.decode().then(painted, () => {}) : painted();
    });
    // A picture in layers has a root for each: whichever changes is the new picture
    for (const root of document.querySelectorAll(selector)) observer.observe(root, {childList: true, subtree: true});
}"""


def summary(seconds: list[float]) -> dict:
    """Median and 95th percentile in ms."""
    ms = sorted(1000 * s for s in seconds)
    return {
        "median_ms": round(statistics.median(ms), 2),
        "p95_ms": round(ms[int(0.95 * (len(ms) - 1))], 2),
        "n": len(ms),
    }


def opened(row: str) -> Explorer:
    """The explorer of a row, as it is before anything is moved."""
    return start(row.partition(",")[0]).turn(**ROWS[row][1])


def in_python(rounds: int = 40) -> dict:
    """By row, an event: turn, read, draw, write; between them, a redraw as voxels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    names: dict = {}
    exec(VOXELS, names)
    seconds: dict[str, list[float]] = {row: [] for row in [*ROWS, "voxels"]}
    states = {row: opened(row) for row in ROWS}
    for i in range(rounds):
        for row, (control, _) in ROWS.items():
            values = opened(row).controls()[control].offers(rounds)
            began = time.perf_counter()
            states[row] = states[row].turn(**{control: values[i % len(values)]})
            to_svg(states[row].scene())
            seconds[row].append(time.perf_counter() - began)
        if i % 4 == 0:
            began = time.perf_counter()
            FigureCanvasAgg(names["voxels"](i % 8)).draw()
            seconds["voxels"].append(time.perf_counter() - began)
    return {row: summary(took[1:]) for row, took in seconds.items()}


PICTURE = ".widget-html-content:has(svg)"


def cell(row: str) -> tuple[str, str, str]:
    """The source of the cell that shows a row, where its picture is, the label of the slider that is moved."""
    control, turned = ROWS[row]
    source = f"{OPEN}start({row.partition(',')[0]!r}).turn(**{turned!r})"
    return source, PICTURE, opened(row).controls()[control].label


#: What the explorers are compared with: source, place of the picture, label of the slider
COMPARED = {
    # The floor: what Jupyter and the browser take when there is next to nothing to draw
    "slider to HTML": (
        "import ipywidgets as w\nslider, text = w.IntSlider(3, 0, 7, description='c'), w.HTML('<svg></svg>')\n"
        "def follow(change):\n    text.value = f'<svg data-c={change[\"new\"]}></svg>'\n"
        "slider.observe(follow, 'value')\nw.VBox([slider, text])",
        PICTURE,
        "c",
    ),
    "interact": (
        VOXELS + "import ipywidgets as w\nfrom IPython.display import Image, display\nimport io\n"
        "def show(c=0):\n    b = io.BytesIO(); voxels(c).savefig(b, format='png'); display(Image(b.getvalue()))\n"
        "w.interact(show, c=w.IntSlider(3, 0, 7, description='c'));",
        ".widget-output",
        "c",
    ),
}


def in_browser(cells: dict[str, tuple[str, str, str]], presses: int = 72, options=LAB) -> dict:
    """From keydown to paint, for cells as `cell` gives them, in a JupyterLab started with these options."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        home, notebooks = Path(folder, "home"), Path(folder, "notebooks")
        home.mkdir(), notebooks.mkdir()
        write_settings(home)
        with launch(find_chromium()) as browser, jupyter(options, notebooks, home) as address:
            for i, (name, (source, *place)) in enumerate(cells.items()):
                page = LabPage(browser, address)
                page.open(write_notebook(notebooks, f"{i}.ipynb", "import normviz as nv\n" + source))
                page.run_all()
                count = presses // 6 if name == "interact" else presses
                found[name] = summary(press_and_wait(page, *place, count)[3:])
                page.close()
    return found


def press_and_wait(page, selector: str, slider: str, presses: int) -> list[float]:
    """Seconds from keydown to paint; four steps one way, four the other."""
    page.page.wait_for_selector(selector)
    page.page.wait_for_timeout(2000)
    page.page.evaluate(PROBE, selector)
    times = []
    for i in range(presses):
        page.handle(page.widget(slider)).focus()
        page.page.keyboard.press("ArrowRight" if i // 4 % 2 else "ArrowLeft")
        try:
            page.page.wait_for_function("took.ms !== null", timeout=4000, polling=20)
        except TimeoutError:  # the slider stood at its end: nothing to redraw
            continue
        times.append(page.page.evaluate("took.ms") / 1000)
        page.page.wait_for_timeout(60)
    return times


def importing(rounds: int = 7) -> dict:
    """`import normviz` in fresh processes, and whether torch came along."""
    code = "import sys, time; t = time.perf_counter(); import normviz; "
    code += "print(time.perf_counter() - t, 'torch' in sys.modules)"
    lines = [subprocess.check_output([sys.executable, "-c", code], text=True).split() for _ in range(rounds)]
    return summary([float(line[0]) for line in lines]) | {"torch_imported": any(line[1] == "True" for line in lines)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.explorer", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "explorer_latency.json")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    python = in_python()
    cells = {row: cell(row) for row in ROWS} | COMPARED
    prompt = in_browser(cells)
    # Jupyter Server as it comes, without `make lab`'s connection
    as_it_comes = [option for option in LAB if "connection_class" not in option]
    plain = in_browser({name: cells[name] for name in ("axes", "slider to HTML")}, options=as_it_comes)
    record = {
        "shape": SHAPE,
        "python": python,
        "browser": prompt,
        "browser, JupyterLab as it comes": plain,
        "import": importing(),
        "ratios": {
            "voxels / axes": ratio(python, "voxels", "axes"),
            **{f"interact / {row}": ratio(prompt, "interact", row) for row in ROWS},
        },
        "machine": {"cores": os.cpu_count(), "load": load, "python": platform.python_version()},
        "versions": {name: version(name) for name in ("numpy", "torch", "matplotlib", "ipywidgets", "jupyterlab")},
    }
    options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(table(record))


def ratio(record: dict, slow: str, fast: str) -> float:
    return round(record[slow]["median_ms"] / record[fast]["median_ms"], 1)


def table(record: dict) -> str:
    """The record as lines of text."""
    lines = [f"{'':44} {'median':>9} {'p95':>9} {'n':>5}"]
    for part in ("python", "browser", "browser, JupyterLab as it comes"):
        for name, found in record[part].items():
            label = f"{part}: {name}"
            lines.append(f"{label:44} {found['median_ms']:6.1f} ms {found['p95_ms']:6.1f} ms {found['n']:5}")
    lines.append(f"{'import normviz':44} {record['import']['median_ms']:6.1f} ms")
    lines += [f"{name:44} {value:6.1f} x" for name, value in record["ratios"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
