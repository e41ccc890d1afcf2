"""Every notebook with explorers in JupyterLab: their cells run, every control turned by the keyboard."""

import json
import re
import symtable

import numpy as np
import pytest
from browser.driver import Driver, explorers
from browser.hover import HOVER
from browser.oracle import is_the_partition
from browser.pages import ARTIFACTS
from browser.servers import ROOT, write_notebook
from playwright.sync_api import expect
from shortened import mostly_long, shorten
from starts import looks

from normviz.arms import style_of
from normviz.explore import EXPLORERS

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def live_in(cell: dict) -> list[str]:
    """The explorer that a cell shows live, by its last line: `nv.explore.NAME(…)`."""
    last = "".join(cell["source"]).strip().rsplit("\n", 1)[-1]
    return re.findall(r"^nv\.explore\.([a-z]+)\(.*(?<!figure\(\))$", last) if cell["cell_type"] == "code" else []


NOTEBOOKS = {path.name: json.loads(path.read_text("utf-8")) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
LIVE = {name: [live for cell in notebook["cells"] for live in live_in(cell)] for name, notebook in NOTEBOOKS.items()}


def uses(table: symtable.SymbolTable) -> set[str]:
    """The global names that a piece of code reads, in its functions too."""
    top = table.get_type() == "module"
    here = {s.get_name() for s in table.get_symbols() if s.is_referenced() and (top or s.is_global())}
    return here.union(*map(uses, table.get_children()))


def blank_what_is_not_needed(notebook: dict) -> dict:
    """The notebook with the code emptied that no live explorer depends on: nbval runs all of it, trainings too."""
    needed: set[str] = set()
    for cell in reversed([cell for cell in notebook["cells"] if cell["cell_type"] == "code"]):
        table = symtable.symtable("".join(cell["source"]), "cell", "exec")
        binds = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
        if live_in(cell) or binds & needed or "setup" in cell["metadata"].get("tags", []):
            needed = (needed - binds) | uses(table)
        else:
            cell["source"] = ""
    return notebook


def the_sets_are_those_of_torch(axes: Driver) -> None:
    """From state to state: the cells drawn are cut as torch's own layer cuts them."""
    for name, value in (
        ("method", "batch"), ("C", 8), ("method", "layer"), ("method", "group"), ("groups", 4), ("C", 6), ("N", 3),
        ("W", 3), ("c", 5),
    ):  # fmt: skip
        axes.turn(name, value)
        is_the_partition(axes)
        axes.is_legible()  # the longest name of a method too


def its_images_load(groups: Driver) -> None:
    sources = groups.root.locator("image").evaluate_all("all => all.map(image => image.href.baseVal)")
    decode = "source => { const image = new Image(); image.src = source; return image.decode(); }"
    assert len(sources) > 1
    for source in sources:
        groups.page.page.evaluate(decode, source)  # raises for what is no picture


def it_measures(cost: Driver) -> None:
    """The button times this machine, at a size that the notebook did not."""
    assert "not measured" in cost.state.scene().alt
    button = cost.root.get_by_role("button", name="measure here")
    button.focus()
    cost.page.page.keyboard.press("Space")
    caption = cost.root.locator("p[role=status]")
    expect(caption).to_contain_text("Measured: LayerNorm", timeout=60_000)
    assert re.search(r"LayerNorm [\d.]+ [mµn]?s, BatchNorm in evaluation [\d.]+ [mµn]?s", caption.inner_text())
    assert not cost.root.locator("[role=alert]").count()
    expect(button).to_be_enabled()


def it_shows_the_record_of_tokens(inside: Driver) -> None:
    record = looks()[0][inside.state.arm][inside.state.look]
    blocks, here = record[inside.state.site], record[inside.state.site][inside.state.block]
    image, patch, _ = here["longest"][0]
    said = inside.root.locator("p[role=status]").inner_text()
    assert f"{style_of(inside.state.arm).name}, step {record['step']}, block {inside.state.block}," in said
    assert f"is {here['ratio']:.3g} times" in said and f"patch {patch} of image {image} of" in said
    titles = inside.root.locator(".ratio title").all_text_contents()
    assert titles == [f"block {i}: {block['ratio']:.4g}" for i, block in enumerate(blocks)]
    assert inside.root.locator(".patch").count() == len(here["longest"])


def it_shows_the_record_of_test_tokens(evaluation: Driver) -> None:
    record = looks()[0][evaluation.state.arm][evaluation.state.look]
    batch, running = (np.array([row[0] for row in record["test"][name]], float) for name in ("batch", "running"))
    image, patch = record["test"]["running"][np.flatnonzero(np.isfinite(running))[-1]][1:]
    said = evaluation.root.locator("p[role=status]").inner_text()
    assert f"{style_of(evaluation.state.arm).name}, step {record['step']}:" in said
    assert f"has length {float(f'{batch[-1]:.3g}'):,g} by each batch's own" in said
    assert ("no longer finite" in said) == (not np.isfinite(running[-1]))
    assert f"patch {patch} of test image {image}." in said


#: What is asked of an explorer beside its walk, of something else than its own reading
ORACLES = {
    "axes": the_sets_are_those_of_torch,
    "groups": its_images_load,
    "cost": it_measures,
    "inside": it_shows_the_record_of_tokens,
    "evaluation": it_shows_the_record_of_test_tokens,
}


def test_the_notebooks_show_the_explorers():
    in_no_chapter = {"epsilon", "devices"}
    assert {name for names in LIVE.values() for name in names} >= set(EXPLORERS) - in_no_chapter


CHAPTERS = [name for name, live in LIVE.items() if live]
IN_SHORT = ("01_axes.ipynb", "04_instance_and_group_norm.ipynb")  # by cells and by images


@pytest.mark.parametrize("name", mostly_long(CHAPTERS, IN_SHORT))
def test_the_explorers_obey_the_keyboard(open_lab, lab, name):
    notebook = json.loads(json.dumps(NOTEBOOKS[name]))
    shorten(notebook, name)
    (lab[1] / name).write_text(json.dumps(blank_what_is_not_needed(notebook)), encoding="utf-8")
    page = open_lab(name)
    page.run_all()
    page.screenshot_notebook(f"{name[:-6]}-light")
    shown = list(explorers(page))
    assert sorted(driver.name for driver in shown) == sorted(LIVE[name])
    for driver in shown:
        driver.screenshot("light")
        driver.is_legible()
        driver.walk()
        driver.is_legible()
        driver.grasp()
        driver.fits()
        driver.is_accessible()
        ORACLES.get(driver.name, Driver.shows)(driver)
    page.theme(dark=True)
    for driver in shown:
        expect(driver.root).to_have_attribute("data-nv-theme", "dark")
        driver.screenshot("dark")
        driver.is_legible()
        driver.is_accessible()


def test_a_cell_that_runs_again_frees_what_it_showed(open_lab, lab):
    """Twenty times: the kernel has as many widgets as after the first."""
    count = "import ipywidgets as _w"
    page = open_lab(write_notebook(lab[1], "again.ipynb", "import normviz as nv", "nv.explore.outlier()"))
    page.run_all()
    counts = []
    for _ in range(20):
        page.run_cell(1)
        counts.append(int(page.ask(count, "len(_w.widgets.widget._instances)")))
        expect(page.page.locator(".normviz p[role=status]")).to_have_count(1)
    assert len(set(counts)) == 1, counts


def test_hover_lights_the_set_within_a_frame(open_lab, lab):
    """In the widget, without a word to the kernel."""
    page = open_lab(write_notebook(lab[1], "hover.ipynb", "import normviz as nv", "nv.explore.axes()"))
    page.run_all()
    (axes,) = explorers(page)
    before = page.ask("import gc", "str([w.hand for w in gc.get_objects() if type(w).__name__ == 'Sheet'])")
    times = np.array(page.page.evaluate(HOVER, [axes.root.locator(".nv-picture").element_handle(), 7]))
    assert len(times) > 50 and np.median(times) < 16, np.quantile(times, (0.5, 0.95, 1.0))
    assert page.ask("import gc", "str([w.hand for w in gc.get_objects() if type(w).__name__ == 'Sheet'])") == before
    ARTIFACTS.joinpath("hover-lab.json").write_text(json.dumps(np.quantile(times, (0.5, 0.95, 1.0)).tolist()))
    axes.page.page.mouse.move(2, 2)
    axes.root.locator(".nv-stage").dispatch_event("pointerleave")
    axes.shows()
