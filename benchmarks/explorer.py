"""How fast the explorers answer, the axes explorer against a matplotlib `ax.voxels` redraw of the same block.

    python -m benchmarks.explorer [--out results/explorer_latency.json]

Everything in one run: drawing in Python, both ways in turn; in headless Chromium on a real JupyterLab, the time from
the keydown event of an arrow key on a slider to the first task after the frame that holds the new picture; importing
normviz in fresh processes.  Needs the `test` extra and a Chromium.
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

import nbformat
from playwright.sync_api import TimeoutError

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser.chromium import find_chromium, launch  # noqa: E402 (the tests are no package)
from browser.pages import LabPage  # noqa: E402
from browser.servers import LAB, jupyter, write_settings  # noqa: E402

SHAPE = (4, 8, 4, 4)
#: The same block as voxels; also the source of the notebook cell that is measured in the browser
VOXELS = """
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import normviz as nv
from normviz.picture.colors import HUES

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


def in_python(rounds: int = 40) -> dict:
    """Scene and SVG against a voxels redraw, in turn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    import normviz as nv
    from normviz.picture.figures import block_scene
    from normviz.picture.svg import to_svg

    names: dict = {}
    exec(VOXELS, names)
    x, ours, theirs = nv.digit_features(*SHAPE), [], []
    for i in range(rounds):
        start = time.perf_counter()
        to_svg(block_scene(x, "layer_token", cursor=(1, i % 8, 1, 1)))
        ours.append(time.perf_counter() - start)
        if i % 4 == 0:
            start = time.perf_counter()
            FigureCanvasAgg(names["voxels"](i % 8)).draw()
            theirs.append(time.perf_counter() - start)
    return {"scene_and_svg": summary(ours[2:]), "voxels_draw": summary(theirs[1:])}


PICTURE = ".widget-html-content:has(svg)"
RECORDED = """
from normviz.lab import load_images, load_inside
from normviz.lab.cost import load_costs
images = load_images("digits")
looks = {recipe.arm: found for recipe, found in load_inside() if recipe.name == "swiglu"}
"""
EXPLORERS = {
    "axes": ("nv.explore_axes(method='layer_token')", "cursor c"),
    "axes, another size": ("nv.explore_axes(method='layer_token')", "C"),
    "batches": ("nv.explore_batches(batch_size=16)", "batch size"),
    "outlier": ("nv.explore_outlier(size=16, factor=10)", "factor k"),
    "geometry": ("nv.explore_geometry()", "turn"),
    "invariance": ("nv.explore_invariance('token', scale=4.0)", "scale x"),
    "groups": ("nv.explore_groups()", "groups G"),
    "time": ("nv.explore_time(batch_size=16, step=35)", "time step"),
    "cost": (RECORDED + "nv.explore_cost(load_costs()[0])", "batch"),
    "inside": (RECORDED + "nv.explore_inside(looks, images.train_x.numpy(), arm='bn', block=6)", "block"),
    "evaluation": (RECORDED + "nv.explore_evaluation(looks, images.test_x.numpy(), arm='bn+ffnbn')", "step"),
    "scaling": ("nv.explore_scaling(factor=8)", "k"),
}
#: What a reader may turn: the cell that makes it, where its picture is, the slider that is moved
CELLS = {name: (source, PICTURE, slider) for name, (source, slider) in EXPLORERS.items()} | {
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


def in_browser(names, presses: int = 72, options=LAB) -> dict:
    """From keydown to paint, for what is in CELLS, in a JupyterLab started with these options."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        home, notebooks = Path(folder, "home"), Path(folder, "notebooks")
        home.mkdir(), notebooks.mkdir()
        write_settings(home)
        for i, name in enumerate(names):
            notebook = nbformat.v4.new_notebook(
                cells=[nbformat.v4.new_code_cell("import normviz as nv\n" + CELLS[name][0])]
            )
            kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
            notebook.metadata["kernelspec"] = kernel
            nbformat.write(notebook, notebooks / f"{i}.ipynb")
        with launch(find_chromium()) as browser, jupyter(options, notebooks, home) as address:
            for i, name in enumerate(names):
                page = LabPage(browser, address)
                page.open(f"{i}.ipynb")
                page.run_all()
                count = presses // 6 if name == "interact" else presses
                found[name] = summary(press_and_wait(page, *CELLS[name][1:], count)[3:])
                page.close()
    return found


def press_and_wait(page, selector: str, slider: str, presses: int) -> list[float]:
    """Seconds from keydown to paint; four steps one way, four the other."""
    page.page.wait_for_selector(selector)
    page.page.wait_for_timeout(2000)
    page.page.evaluate(PROBE, selector)
    times = []
    for i in range(presses):
        page.press(slider, "ArrowRight" if i // 4 % 2 else "ArrowLeft")
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
    return summary([float(line[0]) for line in lines]) | {
        "torch_imported": any(line[1] == "True" for line in lines)
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.explorer", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "explorer_latency.json")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    python = in_python()
    prompt = in_browser(list(CELLS))
    # Jupyter Server as it comes, without `make lab`'s connection
    plain = in_browser(["axes", "slider to HTML"], options=[o for o in LAB if "connection_class" not in o])
    record = {
        "shape": SHAPE,
        "python": python,
        "browser": prompt,
        "browser, JupyterLab as it comes": plain,
        "import": importing(),
        "ratios": {
            "voxels_draw / scene_and_svg": ratio(python, "voxels_draw", "scene_and_svg"),
            **{f"interact / {name}": ratio(prompt, "interact", name) for name in EXPLORERS},
        },
        "machine": {"cores": os.cpu_count(), "load": load, "python": platform.python_version()},
        "versions": {
            name: version(name) for name in ("numpy", "torch", "matplotlib", "ipywidgets", "jupyterlab")
        },
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
