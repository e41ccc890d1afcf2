"""How soon the pages answer, in headless Chromium, and what they weigh: part `pages` of `python -m benchmarks`.

Everything in one run.  The pages are built into a scratch folder and served from this machine; the axes explorer runs
in a real JupyterLab, too.  Moves and keys are the browser's own, sent from outside of the page.  For each of them there
are two times, both up to the message that is handled after the frame's style, layout and paint: `ms` from the event's
own stamp, which includes the wait for the next frame (up to 16.7 ms at 60 Hz), and `work_ms` without that wait, which
is what the page makes of a frame.  `interactive_ms` is from the start of the navigation, with an empty cache, until the
page's first explorer (for a page without one, its first replay) has painted its answer to a key or a move of a slider,
sent the moment it is there.
"""

from __future__ import annotations

import re
import statistics
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser.chromium import find_chromium, launch  # noqa: E402 (the tests are no package)
from browser.pages import LabPage  # noqa: E402
from browser.servers import LAB, jupyter, static, write_notebook, write_settings  # noqa: E402

from tools.site.build import build, weight  # noqa: E402

VIEWPORT = {"width": 1366, "height": 768}
OPENINGS, KEYS, CELLS = 7, 40, 60  # openings of a page; keys and moves of the pointer for each explorer

# Times every event of a kind: when the picture of `root` changes, and when the frame that shows it is done
PROBE = """([root, kind]) => {
    window.stop?.();
    window.took = [];
    let event = null;
    const heard = one => { event = {stamp: one.timeStamp, began: performance.now()}; };
    const watch = new MutationObserver(() => {
        if (!event) return;
        const {stamp, began} = event, handled = performance.now() - began;
        event = null;
        requestAnimationFrame(() => {
            const frame = performance.now(), channel = new MessageChannel();
            channel.port1.onmessage = () => {
                const now = performance.now();
                took.push([now - stamp, handled + now - frame]);
            };
            channel.port2.postMessage(0);
        });
    });
    document.addEventListener(kind, heard, true);
    const parts = kind === 'keydown' ? '.nv-front' : '.nv-rim';
    for (const part of root.querySelectorAll(parts)) {
        watch.observe(part, {childList: true, subtree: true, attributes: true, attributeFilter: ['d']});
    }
    window.stop = () => { watch.disconnect(); document.removeEventListener(kind, heard, true); };
}"""
# Before the page's own scripts: the first explorer or replay comes into the window and is moved as soon as it is there
ARRIVAL = """(() => {
    const painted = () => requestAnimationFrame(() => {
        const channel = new MessageChannel();
        channel.port1.onmessage = () => { window.interactive ??= performance.now(); };
        channel.port2.postMessage(0);
    });
    const answered = (element, move) => {
        const watch = new MutationObserver(() => { watch.disconnect(); painted(); });
        watch.observe(element, {childList: true, subtree: true, characterData: true, attributes: true});
        move();
    };
    addEventListener('nv:ready', ({target}) => setTimeout(() => {
        if (window.moved) return;
        window.moved = true;
        const hold = target.querySelector('.nv-hold'), key = hold?.getAttribute('aria-keyshortcuts').split(' ')[0];
        const control = [...target.querySelectorAll('select, input')].find(one => !one.disabled);
        const front = target.querySelector('.nv-front');
        let changed = false;
        target.addEventListener('nv:state', () => { changed = true; });
        answered(front, () => {
            if (key) hold.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
            if (changed || !control) return;
            if (control.type === 'checkbox') control.checked = !control.checked;
            else if (control.tagName === 'SELECT') control.selectedIndex = control.selectedIndex ? 0 : 1;
            else control.value = Number(control.value) ? 0 : 1;
            control.dispatchEvent(new Event(control.type === 'range' ? 'input' : 'change', {bubbles: true}));
        });
    }), true);
    const there = () => {
        const first = document.querySelector('[data-explorer]');
        if (first) return first.scrollIntoView();
        const replay = document.querySelector('[data-replay]');
        if (!replay) return;
        replay.scrollIntoView();
        const slider = replay.querySelector('input[type=range]');
        answered(replay.querySelector('output'), () => {
            slider.value = 1;
            slider.dispatchEvent(new Event('input', {bubbles: true}));
        });
    };
    document.addEventListener('DOMContentLoaded', () => setTimeout(there));
})()"""


def measure(tell=print) -> dict:
    """By chapter its weight and times, and the widget's in JupyterLab; milliseconds and bytes."""
    with tempfile.TemporaryDirectory() as folder, launch(find_chromium()) as browser:
        pages = [file for file in build(Path(folder, "site")) if re.match(r"\d\d_", file.name)]
        found = {"browser": f"Chromium {browser.version}", "packages": _packages(), "chapters": {}}
        with static(Path(folder, "site")) as address:
            for file in pages:
                row = found["chapters"][file.stem] = _chapter(browser, f"{address}/{file.name}") | {
                    "bytes": weight(file)
                }
                tell(
                    f"{file.stem:28} {row['bytes'] / 1000:4.0f} kB, answers after {row['interactive_ms']['median']} ms"
                )
                for name, times in row["explorers"].items():
                    tell(f"    {name:24} {_told(times)}")
        every = [times for row in found["chapters"].values() for times in row["explorers"].values()]
        for kind in ("key", "hover"):
            found[f"{kind}, worst p95 of work_ms"] = max(one[kind]["work_ms"]["p95"] for one in every if kind in one)
            found[f"{kind}, worst p95 of ms"] = max(one[kind]["ms"]["p95"] for one in every if kind in one)
        found["widget in JupyterLab"] = _widget(browser, Path(folder))
        tell(f"{'axes, in JupyterLab':28} {_told(found['widget in JupyterLab'])}")
    return found


def _packages() -> dict[str, str]:
    versions = {}
    for name in ("jupyterlab", "anywidget", "ipywidgets", "playwright"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _told(times: dict) -> str:
    return "; ".join(f"{kind}: work p50 {row['work_ms']['median']} p95 {row['work_ms']['p95']}, to paint p50 "
                     f"{row['ms']['median']} p95 {row['ms']['p95']} ms" for kind, row in times.items())  # fmt: skip


def _chapter(browser, address: str) -> dict:
    arrivals = []
    for _ in range(OPENINGS):
        context = browser.new_context(viewport=VIEWPORT, reduced_motion="reduce")
        page = context.new_page()
        page.add_init_script(ARRIVAL)
        page.goto(address)
        page.wait_for_function("window.interactive", timeout=30_000)
        arrivals.append(page.evaluate("window.interactive"))
        context.close()
    context = browser.new_context(viewport=VIEWPORT, reduced_motion="reduce")
    page = context.new_page()
    page.goto(address)
    explorers: dict[str, dict] = {}
    for root in page.locator("[data-explorer]").all():
        root.scroll_into_view_if_needed()
        page.wait_for_function("root => root.dataset.ready", arg=root.element_handle())
        page.wait_for_timeout(300)
        title = root.locator(".nv-controls").get_attribute("aria-label")
        times = {"key": _keys(page, root)}
        if root.locator(".nv-stage [data-cell]").count():
            times["hover"] = _hovers(page, root)
        explorers[title.split(":")[0]] = {kind: row for kind, row in times.items() if row}
    context.close()
    ms = sorted(arrivals)
    return {
        "interactive_ms": {"median": round(statistics.median(ms)), "most": round(ms[-1]), "n": len(ms)},
        "explorers": explorers,
    }


def _summary(rows: list) -> dict | None:
    if len(rows) < 8:
        return None
    found = {}
    for name, values in (("ms", [row[0] for row in rows]), ("work_ms", [row[1] for row in rows])):
        values = sorted(values)
        p95 = values[round(0.95 * (len(values) - 1))]
        found[name] = {"median": round(statistics.median(values), 1), "p95": round(p95, 1), "n": len(values)}
    return found


def _keys(page, root) -> dict | None:
    """Keys on the picture's first handle, else on the first control that has several values; one there, one back."""
    page.evaluate(PROBE, [root.element_handle(), "keydown"])
    target = root.locator(".nv-hold, .nv-controls :is(select, input):enabled").first
    if (hold := root.locator(".nv-hold")).count():
        target = hold.first
        keys = ("ArrowRight", "ArrowLeft")
    else:
        keys = ("ArrowDown", "ArrowUp")
    target.focus()
    for i in range(KEYS):
        page.keyboard.press(keys[i // 2 % 2])
        page.wait_for_timeout(45)
    return _summary(page.evaluate("took")[2:])


def _hovers(page, root) -> dict | None:
    """The pointer from cell to cell."""
    root.locator(".nv-stage").evaluate("stage => stage.scrollIntoView({block: 'center'})")
    spots = root.evaluate("""root => [...root.querySelectorAll('.nv-stage [data-cell]')].map(face => {
        const box = face.getBoundingClientRect();
        return [box.x + box.width / 2, box.y + box.height / 2];
    }).filter(([x, y]) => y > 0 && y < innerHeight)""")
    page.evaluate(PROBE, [root.element_handle(), "pointermove"])
    for x, y in spots[:: max(1, len(spots) // CELLS)]:
        page.mouse.move(x, y)
        page.wait_for_timeout(45)
    page.mouse.move(2, 2)
    return _summary(page.evaluate("took")[2:])


def _widget(browser, folder: Path) -> dict:
    """The axes explorer as a widget: hover, of which the kernel hears nothing, and a key, which it answers."""
    home, notebooks = folder / "home", folder / "notebooks"
    home.mkdir(), notebooks.mkdir()
    write_settings(home)
    with jupyter(LAB, notebooks, home) as address:
        lab = LabPage(browser, address)
        lab.open(
            write_notebook(notebooks, "axes.ipynb", "import normviz as nv", 'nv.explore.axes(method="layer_token")')
        )
        lab.run_all()
        root = lab.page.locator(".normviz:has(.nv-stage)").first
        root.locator(".nv-stage [data-cell]").first.wait_for()
        lab.page.wait_for_timeout(2000)
        times = {"hover": _hovers(lab.page, root), "key": _keys(lab.page, root)}
        lab.close()
    return {kind: row for kind, row in times.items() if row}
