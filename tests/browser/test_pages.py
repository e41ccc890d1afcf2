"""Every explorer on a page of its own, from a file, without a kernel: operated by keyboard, mouse and finger."""

import json
import re
from base64 import b64encode

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser.driver import SAME, meant, slide
from browser.hover import HOVER
from browser.pages import ARTIFACTS, ELSEWHERE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from paged import as_paged, markup
from playwright.sync_api import expect
from shortened import mostly_long
from starts import start

from normviz.explore import EXPLORERS, page
from normviz.norms import METHODS, cut, normalize, normalize_steps

pytestmark = [pytest.mark.browser, pytest.mark.slow]
#: How many states a page of the tests has; the axes explorer has a state a set beside
MOST = {"axes": 9, "outlier": 65, "geometry": 32}
#: What light and dark pages say of a text: its colour against the paper, where nothing lies between them
CONTRAST = """root => {
    const light = color => {
        const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        const [r, g, b] = color.match(/[\\d.]+/g).map(v => linear(v / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
    };
    const paper = light(getComputedStyle(root.querySelector('.nv-stage')).backgroundColor), faults = [];
    for (const text of root.querySelectorAll('svg text[fill^=var]')) {
        const [low, high] = [paper, light(getComputedStyle(text).fill)].sort((a, b) => a - b);
        if (high / low < 4.5) faults.push(`${text.textContent}: ${(high / low).toFixed(2)}`);
    }
    return faults;
}"""


@pytest.fixture(scope="module")
def open_page(chromium, tmp_path_factory):
    """`open_page(name)`: the page of an explorer, from a file, and its data; nothing is asked elsewhere or fails."""
    folder, errors, made, opened = tmp_path_factory.mktemp("pages"), [], {}, []

    def show(name: str, **options):
        if name not in made:
            most = MOST.get(name, 12)
            (folder / f"{name}.html").write_text(start(name).html(most=most), encoding="utf-8")
            made[name] = json.loads(json.dumps(page.data(start(name), most=most)))
        context = chromium.new_context(**{"viewport": {"width": 1366, "height": 768}} | options)
        tab = context.new_page()
        opened.append(context)
        tab.on("console", lambda m: m.type == "error" and errors.append(m.text))
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.route(ELSEWHERE, lambda route: (errors.append(route.request.url), route.abort()))
        tab.goto((folder / f"{name}.html").as_uri())
        tab.wait_for_selector("[data-explorer][data-ready]")
        return tab, made[name]

    yield show
    for context in opened:
        context.close()
    assert not errors, "\n".join(errors)


@pytest.fixture(params=list(EXPLORERS))
def name(request):
    return request.param


class Paged:
    """An explorer on a page, held to what Python's state says and draws."""

    def __init__(self, tab, data: dict, state):
        self.tab, self.data, self.state = tab, data, state
        self.root = tab.locator("[data-explorer]")

    def shows(self) -> None:
        scene = self.state.scene()
        expect(self.root.locator("p[role=status]")).to_have_text(scene.alt)
        self.tab.wait_for_function(SAME, arg=[self.root.element_handle(), markup(as_paged(scene))], timeout=5000)


def test_controls_by_keyboard_alone(open_page, name):
    tab, data = open_page(name)
    shown = Paged(tab, data, start(name))
    shown.shows()
    at = data["start"]
    order = [*tab.locator(".nv-controls :is(select, input)").all()]
    for k, control in enumerate(data["controls"]):
        chosen, texts, moves = data["states"][at]["controls"][k]
        if len(data["lists"][texts]["texts"]) < 2:
            continue
        other = chosen + 1 if chosen + 1 < len(data["lists"][texts]["texts"]) else chosen - 1
        order[k].focus()
        assert order[k].evaluate("one => getComputedStyle(one).outlineStyle") != "none" or control["kind"] == "flag"
        key = "Space" if control["kind"] == "flag" else ("ArrowDown" if control["kind"] == "choice" else "ArrowRight")
        if other < chosen:
            key = {"ArrowDown": "ArrowUp", "ArrowRight": "ArrowLeft"}.get(key, key)
        tab.keyboard.press(key)
        value = data["lists"][texts]["values"][other]
        offered = shown.state.controls()[control["name"]]
        shown.state = shown.state.turn(**{control["name"]: meant(offered, value) if offered.values else value})
        at = data["moves"][moves][other]
        shown.shows()


def test_the_hand(open_page, name):
    """Every handle by the keyboard, the mouse and a finger, as far as the page's states reach."""
    tab, data = open_page(name, has_touch=True)
    shown = Paged(tab, data, start(name))
    offered = {control["name"] for control in data["controls"]}
    held = [one for one in shown.state.scene().handles if one.sets or offered & set(one.fields)]  # the others are gone
    expect(tab.locator(".nv-hold")).to_have_count(len(held))
    for i, handle in enumerate(held):
        hold = tab.locator(".nv-hold").nth(i)
        hold.focus()
        tab.keyboard.press("Tab")
        tab.keyboard.press("Shift+Tab")
        assert (
            hold.evaluate("hold => hold === document.activeElement && getComputedStyle(hold).outlineStyle") == "solid"
        )
        assert hold.get_attribute("aria-label") and hold.get_attribute("role") in ("slider", "application")
        if handle.cells and handle.sets:
            for press, field, by in (("Shift+ArrowRight", "c", 1), ("ArrowDown", "h", 1), ("Shift+ArrowUp", "n", -1)):
                tab.keyboard.press(press)
                shown.state = shown.state.turn(**{field: shown.state.controls()[field].value + by})
                shown.shows()
            stage = tab.locator(".nv-stage")
            for touch, cell in ((False, "2,6,1,3"), (True, "3,1,2,0")):
                box = stage.locator(f".sheet-cell [data-cell='{cell}']").bounding_box()
                x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
                tab.touchscreen.tap(x, y) if touch else tab.mouse.click(x, y)
                tab.mouse.move(2, 2)
                shown.state = shown.state.turn(**dict(zip("nchw", map(int, cell.split(",")), strict=True)))
                shown.shows()
        for field in handle.at:
            k = next((k for k, control in enumerate(data["controls"]) if control["name"] == field), None)
            if k is None:
                continue
            _, texts, _ = data["states"][data["start"]]["controls"][k]
            values, (_, places) = data["lists"][texts]["values"], handle.at[field]
            spots = [spot for spot in places if spot[1] in values]
            assert len(spots) > 1
            for touch, (px, value) in ((False, spots[0]), (True, spots[-1])):
                stage = tab.locator(".nv-stage").bounding_box()
                share = stage["width"] / shown.state.scene().width
                x, y = stage["x"] + share * px, stage["y"] + share * handle.box.center[1]
                tab.touchscreen.tap(x, y) if touch else tab.mouse.click(x, y)
                tab.mouse.move(2, 2)
                shown.state = shown.state.turn(**{field: meant(shown.state.controls()[field], value)})
                shown.shows()


def test_a_picture_keeps_the_pieces_that_stay_in_order(open_page):
    """As many elements as a longest common subsequence of the old and the new picture has."""
    tab, _ = open_page("groups")
    tab.locator(".nv-hold").focus()
    pieces = tab.locator(".nv-front .nv-piece")
    mark = "all => all.map(one => { const known = one.known; one.known = true; return [one.innerHTML, !!known]; })"
    before = [text for text, _ in pieces.evaluate_all(mark)]
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
        tab.keyboard.press(key)
        now = pieces.evaluate_all(mark)
        most = [0] * (len(now) + 1)
        for old in before:
            row = [0]
            for k, (new, _) in enumerate(now):
                row.append(most[k] + 1 if new == old else max(row[k], most[k + 1]))
            most = row
        assert len(now) != len(before) and 20 < most[-1] < len(now)
        assert sum(known for _, known in now) >= most[-1]
        before = [text for text, _ in now]


def test_the_page_below_does_not_jump_while_a_hand_moves(open_page):
    tab, _ = open_page("outlier", viewport={"width": 460, "height": 768})
    tab.locator(".nv-hold").first.focus()
    sentences, heights = set(), []
    for key in ["ArrowRight"] * 5 + ["ArrowLeft"] * 9 + ["ArrowRight"] * 9:
        tab.keyboard.press(key)
        words = tab.locator(".nv-words")
        sentences.add(words.evaluate("one => one.firstElementChild.offsetHeight"))
        heights.append(words.evaluate("one => one.getBoundingClientRect().height"))
    assert len(sentences) > 1 and heights == sorted(heights)
    tab.locator(".nv-controls select").first.press("ArrowDown")  # another picture altogether
    assert not tab.locator(".nv-words").evaluate("one => one.style.minHeight")


#: Sizes of the words as they are on the screen, and those that leave the picture or its sheet
WORDS = """() => [...document.querySelectorAll('.nv-stage svg text')].filter(text => text.textContent).map(text => {
    const svg = text.ownerSVGElement, sheet = svg.getBoundingClientRect(), box = text.getBoundingClientRect();
    const size = parseFloat(getComputedStyle(text).fontSize) * sheet.width / svg.viewBox.baseVal.width;
    const across = Math.max(sheet.left - box.left, box.right - sheet.right);
    const out = Math.max(across, sheet.top - box.top, box.bottom - sheet.bottom);
    return [text.textContent, size, out];
})"""


def test_words_can_be_read_on_a_telephone(open_page, name):
    """At least 9 px, none cut off; and the picture is what it was once there is room again."""
    tab, _ = open_page(name, has_touch=True)
    for width in (390, 360):
        tab.set_viewport_size({"width": width, "height": 800})
        tab.wait_for_selector(".nv-folded")
        found = tab.evaluate(WORDS)
        assert len(found) > 5
        small = [row for row in found if row[1] < 8.85 or row[2] > 2]
        assert not small, small
    ARTIFACTS.mkdir(exist_ok=True)
    tab.screenshot(path=ARTIFACTS / f"page-{name}-360.png", full_page=True)
    tab.set_viewport_size({"width": 1366, "height": 768})
    expect(tab.locator(".nv-folded")).to_have_count(0)
    Paged(tab, None, start(name)).shows()


def test_a_finger_finds_its_cell_on_a_telephone(open_page):
    """Where parts have moved, the cell under the finger is the one that is shown there."""
    tab, _ = open_page("axes", has_touch=True, viewport={"width": 390, "height": 800})
    tab.wait_for_selector(".nv-folded")
    for cell in ("0,1,2,3", "3,6,0,1"):
        face = tab.locator(f".sheet-cell [data-cell='{cell}']")
        face.scroll_into_view_if_needed()
        box = face.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        tab.touchscreen.tap(x, y)
        said = start("axes").turn(**dict(zip("nchw", map(int, cell.split(",")), strict=True))).scene().alt
        expect(tab.locator("p[role=status]")).to_have_text(said)
        marked = tab.evaluate("""([x, y]) => {
            const box = document.querySelector('.nv-light .nv-mark').getBoundingClientRect();
            const light = document.querySelector('.nv-light').getBoundingClientRect();
            return box.top < y && box.bottom > y && box.left < light.right;
        }""", [x, y])  # fmt: skip
        assert marked, "the mark is not around the cell"


def test_a_finger_drags_along_a_scale(open_page):
    """Down on one end, along to the other: every stop on the way is shown, and the page does not scroll."""
    tab, data = open_page("outlier", has_touch=True)
    shown = Paged(tab, data, start("outlier"))
    handle = next(one for one in shown.state.scene().handles if one.at)
    ((field, (_, places)),) = handle.at.items()
    k = next((k for k, control in enumerate(data["controls"]) if control["name"] == field), None)
    if k is None:
        pytest.fail(f"the page lacks {field}")
    tab.locator(".nv-stage").evaluate("stage => stage.scrollIntoView({block: 'center'})")
    stage = tab.locator(".nv-stage").bounding_box()
    share = stage["width"] / shown.state.scene().width
    y, top = stage["y"] + share * handle.box.center[1], tab.evaluate("scrollY")
    slide(tab, [(stage["x"] + share * place[0], y) for place in (places[0], places[len(places) // 2], places[-1])])
    values = data["lists"][data["states"][data["start"]]["controls"][k][1]]["values"]
    assert places[-1][1] in values
    shown.state = shown.state.turn(**{field: meant(shown.state.controls()[field], places[-1][1])})
    shown.shows()
    assert tab.evaluate("scrollY") == top


@pytest.mark.parametrize("width", [1366, 390])
def test_a_finger_turns_the_ball(open_page, width):
    """180 px of the picture to the right are 90°, on a telephone too, where the panels lie one under another."""
    tab, _ = open_page("geometry", has_touch=True, viewport={"width": width, "height": 900})
    shown = Paged(tab, None, start("geometry"))
    tab.locator(".nv-stage").evaluate("stage => stage.scrollIntoView({block: 'start'})")
    tab.wait_for_timeout(300)
    stage = tab.locator(".nv-stage").bounding_box()
    sheet = tab.evaluate("document.querySelector('.nv-front svg').viewBox.baseVal.width")
    share, top = stage["width"] / sheet, tab.evaluate("scrollY")
    x, y = stage["x"] + share * 40, stage["y"] + share * 60
    slide(tab, [(x, y), (x + share * 90, y), (x + share * 180, y)])
    shown.state = shown.state.turn(azimuth=340.0)
    expect(tab.locator(".nv-hold").first).to_have_attribute("aria-label", re.compile("azimuth 340"))
    assert tab.evaluate("scrollY") == top
    tab.set_viewport_size({"width": 1366, "height": 900})
    shown.shows()


@pytest.mark.parametrize("scheme", mostly_long(["light", "dark"], ("light",)))
def test_nothing_is_cut_off_and_every_word_stands_out(open_page, name, scheme):
    tab, _ = open_page(name, color_scheme=scheme)
    expect(tab.locator("[data-explorer]")).to_have_attribute("data-nv-theme", scheme)
    for width in (360, 390, 768, 1366, 1600):
        tab.set_viewport_size({"width": width, "height": 768})
        wide, stage = tab.evaluate("""() => [document.documentElement.scrollWidth,
            document.querySelector('.nv-stage').getBoundingClientRect().right]""")
        assert wide <= width and stage <= width, (width, wide, stage)
    tab.set_viewport_size({"width": 1366, "height": 768})
    assert tab.locator("[data-explorer]").evaluate(CONTRAST) == []
    ARTIFACTS.mkdir(exist_ok=True)
    tab.screenshot(path=ARTIFACTS / f"page-{name}-{scheme}.png", full_page=True)
    found = Axe().run(tab)
    assert found.violations_count == 0, found.generate_report()


def test_the_host_s_theme_is_followed(open_page):
    tab, _ = open_page("outlier")
    root = tab.locator("[data-explorer]")
    expect(root).to_have_attribute("data-nv-theme", "light")
    tab.evaluate("document.body.style.background = '#101010'")
    expect(root).to_have_attribute("data-nv-theme", "dark")
    tab.emulate_media(color_scheme="dark")
    tab.evaluate("document.body.style.background = '#fafafa'")
    expect(root).to_have_attribute("data-nv-theme", "light")


def test_hover_lights_the_set_within_a_frame(open_page):
    tab, _ = open_page("axes")
    root = tab.locator("[data-explorer]")
    times = np.array(tab.evaluate(HOVER, [root.element_handle(), 7]))
    (ARTIFACTS / "hover.json").write_text(json.dumps({"median": float(np.median(times)), "p95": float(
        np.quantile(times, 0.95)), "most": float(times.max()), "cells": len(times)}))  # fmt: skip
    assert len(times) > 50 and np.median(times) < 16, np.quantile(times, (0.5, 0.95, 1.0))
    box = tab.locator(".sheet-cell [data-cell='1,2,0,3']").bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    reading = start("axes").turn(n=1, c=2, h=0, w=3)
    read = reading.read()
    said = tab.locator(".nv-tip").inner_text().replace("−", "-")
    assert said.startswith("n=1 c=2 h=0 w=3: ") and f"{read.size} cells" in said
    numbers = [float(part.strip(" ,")) for part in said.split("μ = ")[1].split(", σ² = ")]
    np.testing.assert_allclose(numbers, [read.mean, read.std**2], rtol=1e-3)


@pytest.fixture(scope="module")
def module(chromium):
    """The ES module in a page of nothing else, as `window.nv`."""
    tab = chromium.new_page()
    source = page.SCRIPT.rsplit("mountAll();", 1)[0]
    tab.goto("about:blank")
    tab.evaluate(
        "async text => { window.nv = await import(`data:text/javascript;base64,${text}`); }",
        b64encode(source.encode()).decode(),
    )
    yield tab
    tab.close()


@st.composite
def cases(draw):
    """A method, its groups, a shape and values."""
    method = draw(st.sampled_from(list(METHODS)))
    n, c = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    shape = (n, c, *draw(st.lists(st.integers(1, 4), max_size=2)))
    groups = draw(st.sampled_from([g for g in range(1, c + 1) if c % g == 0])) if METHODS[method].grouped else None
    floats = st.floats(-1e3, 1e3, width=32)
    return method, groups, draw(arrays(np.float32, shape, elements=floats))


@given(case=cases(), eps=st.sampled_from([1e-8, 1e-5, 1e-2, 1.0]), weight=st.floats(-3, 3), bias=st.floats(-3, 3))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_module_computes_what_python_does(module, case, eps, weight, bias):
    method, groups, x = case
    sets = cut(method, x.shape, groups)
    row = {"over": sorted(sets.row.over), "grouped": sets.row.grouped, "centred": sets.row.centred}
    options = {"eps": eps, "weight": weight, "bias": bias, "centred": row["centred"]}
    roles = list(sets.axes.roles)
    found = module.evaluate(
        """([row, shape, roles, groups, values, options]) => {
            const {view, dims} = nv.viewOf(row, shape, roles, groups ?? 1), labels = nv.labelsOf(view, dims);
            const {size, mean, variance} = nv.statistics(values, labels, row.centred);
            const normal = nv.normalize(values, labels, options);
            return [[...view], [...dims], [...labels], [...size], [...mean], [...variance], [...normal]];
        }""",
        [row, list(x.shape), roles, groups, x.ravel().tolist(), options],
    )
    view, dims, labels, size, mean, variance, normal = found
    assert tuple(view) == sets.view and tuple(dims) == sets.dims
    np.testing.assert_array_equal(labels, sets.labels.ravel())
    wide = x.astype(float).ravel()
    members = [wide[sets.labels.ravel() == label] for label in range(len(size))]
    assert size == [len(some) for some in members]
    about = [some.mean() if row["centred"] else 0.0 for some in members]
    np.testing.assert_allclose(mean, about, rtol=1e-5, atol=1e-5)
    spread = [np.mean((some - m) ** 2) for some, m in zip(members, about, strict=True)]
    np.testing.assert_allclose(variance, spread, rtol=1e-5, atol=1e-5)
    try:
        steps = normalize_steps(x.astype(float), sets, eps=eps)
    except ValueError:  # torch refuses a set of one value, and so do we
        assert sets.set_size == 1 or METHODS[method].single_value != "alone"
        return
    np.testing.assert_allclose(normal, steps.scaled.ravel() * weight + bias, rtol=1e-5, atol=1e-5)
    assert normalize(x, sets).shape == x.shape
