"""The pages without a kernel, built once and driven in Chromium with every request to elsewhere refused."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser.servers import static
from playwright.sync_api import Page, expect
from shortened import mostly_long

from tools.site.build import ROOT, build, weight
from tools.site.moving import moving_svg

CHAPTERS = ["01_axes", "02_batch_norm", "03_layer_norm", "04_instance_and_group_norm", "05_sequences",
            "06_what_statistics_cost", "07_inside_the_vit", "08_loss_crash"]  # fmt: skip
LIMIT = 300_000  # bytes of a chapter, compressed, beside its pictures
WIDTHS = (360, 390, 1366, 1600)
NOTEBOOKS = ROOT / "notebooks"
EXTRAS = [f"extras/{file.stem}" for file in sorted((NOTEBOOKS / "extras").glob("*.ipynb"))]
WAIT_MS = 15_000  # a busy machine


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The pages, in a folder whose name a careless link would stumble over."""
    out = tmp_path_factory.mktemp("pages") / "a folder" / "site"
    build(out)
    return out


@pytest.fixture(scope="module")
def address(site) -> Iterator[str]:
    """The same pages from a static host, two folders down."""
    with static(site.parents[1]) as host:
        yield f"{host}/a%20folder/site"


@pytest.fixture
def page(chromium, address) -> Iterator[Page]:
    """A page on which nothing may go wrong: no error, no warning, no request to elsewhere."""
    context = chromium.new_context(viewport={"width": 1366, "height": 768}, reduced_motion="reduce")
    context.set_default_timeout(WAIT_MS)
    wrong: list[str] = []

    def answer(route):
        url = route.request.url
        if url.startswith(("file:", "data:", "blob:", address)):
            return route.continue_()
        wrong.append(f"asks {url}")
        return route.abort()

    context.route("**/*", answer)
    one = context.new_page()
    one.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
    one.on("pageerror", lambda error: wrong.append(str(error)))
    yield one
    context.close()
    assert not wrong, wrong


class Links(HTMLParser):
    """Ids, links and loaded files of a page, and its pictures without words."""

    def __init__(self, html: str):
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.mute: list[dict] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids += [found["id"]] if "id" in found else []
        if tag == "a":
            self.links.append(found["href"])
        elif tag == "link":
            self.loads.append(found["href"])
        elif tag in ("img", "script", "iframe", "source") and "src" in found:
            self.loads.append(found["src"])
        if tag == "img" and not found.get("alt", "").strip():
            self.mute.append(found)


def parsed(site: Path) -> dict[Path, Links]:
    return {file: Links(file.read_text(encoding="utf-8")) for file in sorted(site.rglob("*.html"))}


def test_every_link_leads_somewhere_and_nothing_is_loaded_from_elsewhere(site):
    pages = parsed(site)
    assert {f"{name}.html" for name in (*CHAPTERS, "index", "ledger", "glossary", "search", "record")} <= {
        file.name for file in pages
    }
    for file, page in pages.items():
        assert len(page.ids) == len(set(page.ids)), f"{file.name}: an id twice"
        assert not page.mute, f"{file.name}: pictures without words {page.mute}"
        for load in page.loads:
            assert not urlsplit(load).scheme, f"{file.name} loads {load}"
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https"):
                continue
            assert not parts.scheme, f"{file.name}: {link}"
            assert not link.startswith("/"), f"{file.name}: {link} leaves the folder"
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            assert target.is_file(), f"{file.name}: {link}"
            if parts.fragment:
                assert unquote(parts.fragment) in pages[target].ids, f"{file.name}: {link}"


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_is_light_and_whole(site, name):
    html = (site / f"{name}.html").read_text(encoding="utf-8")
    size = weight(site / f"{name}.html")
    assert size <= LIMIT, f"{size:,} bytes"
    cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
    last = [cell.source.strip().split("\n")[-1] for cell in cells if cell.cell_type == "code"]
    live = [line for line in last if re.match(r"nv\.explore\.[a-z]+\(.*\)$", line) and "figure()" not in line]
    assert html.count(" data-explorer>") == len(live)  # none of them needs a kernel
    assert "$$" not in re.sub(r"<pre.*?</pre>|<script.*?</script>", "", html, flags=re.S)
    assert "<summary>Solution</summary>" in html
    assert 'rel="next"' in html
    assert (name == CHAPTERS[0]) != ('rel="prev"' in html)


def test_a_formula_is_mathml(site):
    html = (site / "06_what_statistics_cost.html").read_text(encoding="utf-8")
    assert html.count("<math") >= 3
    assert "<mfrac>" in html
    assert "<msqrt>" in html


def test_the_moving_picture_is_the_one_committed_and_light():
    drawn = moving_svg()
    assert len(drawn.encode()) <= 300_000
    assert "prefers-reduced-motion" in drawn
    assert (ROOT / "images" / "axes_explorer.svg").read_text(encoding="utf-8") == drawn


def test_a_folder_of_somebody_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        build(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def all_ready(page: Page) -> None:
    for one in page.locator("[data-explorer]").all():
        one.scroll_into_view_if_needed()
        expect(one).to_have_attribute("data-ready", "1", timeout=WAIT_MS)


def violations(page: Page, rules: list[str] | None = None) -> list[str]:
    options = {"preload": False, "resultTypes": ["violations"]}  # a page on a disk cannot fetch its own style sheet
    options |= {"runOnly": {"type": "rule", "values": rules}} if rules else {}
    found = Axe().run(page, options=options).response["violations"]
    return [f"{rule['id']}: {node['html'][:160]} {node['failureSummary']}" for rule in found for node in rule["nodes"]]


PAGES = [*CHAPTERS, *EXTRAS, "index", "ledger", "glossary", "record", "search"]
IN_SHORT = ("01_axes", "06_what_statistics_cost", "index", "ledger", "search")  # one of each kind


@pytest.mark.parametrize("name", mostly_long(PAGES, IN_SHORT))
def test_a_page_from_a_disk_fits_every_width_and_everybody(page, site, name):
    page.emulate_media(color_scheme="light")
    page.goto(f"{(site / name).as_uri()}.html")
    all_ready(page)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_timeout(50)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        wide = page.evaluate(
            """width => [...document.querySelectorAll('main *')].filter(one => {
            const box = one.getBoundingClientRect();
            return box.width && box.right > width + 1 && !one.closest('.scrolls, svg, math, [hidden]')
                && getComputedStyle(one).visibility === 'visible';
        }).map(one => one.outerHTML.slice(0, 120))""",
            width,
        )
        assert not wide, f"{width} px: {wide[:3]}"
    page.set_viewport_size({"width": 1366, "height": 768})
    assert not (found := violations(page)), "\n".join(found[:5])
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(50)
    assert not (found := violations(page, ["color-contrast"])), "\n".join(found[:5])


def test_a_page_from_a_host_is_ready_within_a_second(page, address):
    page.goto(f"{address}/index.html")  # the browser itself is warm
    waited = []
    for name in CHAPTERS:
        page.goto(f"{address}/{name}.html")
        waited.append(page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"))
    assert sorted(waited)[len(waited) // 2] < 1000, waited


def test_an_explorer_answers_to_keys_and_to_the_mouse(page, address):
    page.goto(f"{address}/01_axes.html")
    explorer = page.locator("[data-explorer]")
    explorer.scroll_into_view_if_needed()
    expect(explorer).to_have_attribute("data-ready", "1")
    said = explorer.locator("[role=status]")
    expect(said).to_contain_text("LayerNorm (per token)")
    explorer.locator("select").first.focus()
    page.keyboard.press("ArrowUp")
    expect(said).not_to_contain_text("LayerNorm (per token)")
    explorer.locator("select").first.select_option(label="LayerNorm (per token)")
    before = said.text_content()
    cell = explorer.locator("svg [data-cell='0,1,0,1']").last
    cell.click()
    expect(said).not_to_have_text(before)
    expect(said).to_contain_text("LayerNorm (per token)")


def test_a_replay_is_scrubbed_and_played(page, site):
    page.goto(f"{(site / '08_loss_crash').as_uri()}.html")
    replay = page.locator("[data-replay]").first
    slider, said = replay.locator("input[type=range]"), replay.locator("output")
    shown = replay.locator("clipPath rect").first
    expect(said).to_contain_text("400 of 400. Median loss: LN (5 runs) 0.00")
    whole = float(shown.get_attribute("width"))
    slider.focus()
    page.keyboard.press("Home")
    expect(said).to_contain_text("1 of 400")
    page.keyboard.press("ArrowRight")
    expect(said).to_contain_text("2 of 400")
    assert float(shown.get_attribute("width")) < whole / 4
    assert slider.get_attribute("aria-valuetext").startswith("step 2 of 400")
    replay.locator("button").click()
    page.wait_for_function("one => Number(one.value) > 3", arg=slider.element_handle())
    replay.locator("button").click()
    expect(replay.locator("button")).to_have_text("▶ Play")
    at = slider.input_value()
    page.wait_for_timeout(120)
    assert slider.input_value() == at


def test_the_search_finds_and_leads_there(page, site):
    page.goto(f"{(site / 'extras' / 'ledger').as_uri()}.html")
    page.keyboard.press("/")
    page.keyboard.type("folding batchnorm")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"search\.html\?q=folding"))
    results = page.locator(".results li")
    expect(results.first.locator("a")).to_have_attribute("href", "glossary.html#folding")
    field = page.locator("#ask")
    field.fill("pre-norm")
    expect(page.locator(".found")).to_contain_text("section")
    expect(results.first.locator("a")).to_have_attribute("href", "glossary.html#pre-norm")
    field.fill("zyzzyva")
    expect(page.locator(".found")).to_have_text("Nothing found.")
    expect(results).to_have_count(0)
    field.fill("2NHW")
    results.first.locator("a").click()
    expect(page.locator(":target")).to_be_visible()


def test_the_theme_is_kept_and_nothing_is_folded_on_paper(page, address):
    page.emulate_media(color_scheme="light")
    page.goto(f"{address}/01_axes.html")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Switch to the dark theme").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert light != dark
    page.goto(f"{address}/glossary.html")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark
    page.goto(f"{address}/01_axes.html")
    folded = page.locator("main details:not([open])")
    count = folded.count()
    assert count > 3
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    expect(folded).to_have_count(0)
    expect(page.locator(".top")).to_be_hidden()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    expect(folded).to_have_count(count)


def test_the_keyboard_skips_to_the_text_and_reaches_long_lines(page, site):
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(f"{(site / '01_axes').as_uri()}.html")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    over = page.locator("pre.scrolls").evaluate_all(
        "all => all.filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.tabIndex)"
    )
    assert over
    assert set(over) == {0}


def test_without_a_script_everything_can_be_read(chromium, site):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{(site / '01_axes').as_uri()}.html")
    expect(page.locator("[data-explorer] img")).to_be_visible()
    expect(page.locator("h1")).to_have_text("1 · Which cells share a mean?")
    context.close()
