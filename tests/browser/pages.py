"""Page objects: an open notebook in JupyterLab or in the classic notebook 6.5, with the same small methods."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from playwright.sync_api import Browser, Locator, Page, Route

ARTIFACTS = Path(__file__).resolve().parents[2] / "test-artifacts"
LOAD_TIMEOUT_MS = 90_000
RUN_TIMEOUT_MS = 300_000

ELSEWHERE = re.compile(r"^https?://(?!127\.0\.0\.1[:/])")
# The only thing a notebook shows from elsewhere: the picture of the "Open in Colab" badge.
BADGES = "https://colab.research.google.com/assets/"
BADGE_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="117" height="20"><rect width="117" height="20"/></svg>'
)

# Console errors that the frontends make by themselves, each with its reason.
NOT_OURS = (
    # JupyterLab asks for a saved workspace; a new server has none.
    re.compile(r"404.*/lab/api/workspaces/"),
)


@dataclass
class NotebookPage:
    """A notebook in a browser tab. Everything that went wrong so far is in `errors`.

    Subclasses know their frontend: how it opens a notebook, runs all cells, and tells that it is done.
    """

    SCROLLED: ClassVar[str]  # the element that scrolls the notebook
    SHUT_DOWN: ClassVar[str]  # the script that ends its kernel

    browser: Browser
    address: str
    dark: bool = False
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page: Page = self.browser.new_page(
            viewport={"width": 1280, "height": 1000},
            color_scheme="dark" if self.dark else "light",
            reduced_motion="reduce",
        )
        self.page.set_default_timeout(LOAD_TIMEOUT_MS)
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        self.page.route(ELSEWHERE, self._on_request_elsewhere)

    def _on_console(self, message) -> None:
        line = f"{message.text} ({message.location.get('url', '')})"
        if message.type == "error" and not any(known.search(line) for known in NOT_OURS):
            self.errors.append(f"console: {line}")

    def _on_request_elsewhere(self, route: Route) -> None:
        """Nothing leaves this machine: badges are answered here, any other request is an error."""
        if route.request.url.startswith(BADGES):
            route.fulfill(content_type="image/svg+xml", body=BADGE_SVG)
        else:
            self.errors.append(f"asked elsewhere: {route.request.url}")
            route.abort()

    def open(self, name: str) -> None:
        """Open the notebook `name` and wait until its kernel can run cells."""
        raise NotImplementedError

    def start(self) -> None:
        """Have every cell run, and do not wait for it."""
        raise NotImplementedError

    def finish(self) -> None:
        """Wait until all cells have run and the kernel is idle; AssertionError when one failed."""
        raise NotImplementedError

    def run_all(self) -> None:
        """Run every cell, wait until all have run and the kernel is idle; AssertionError when one failed."""
        self.start()
        self.finish()

    def cell_errors(self) -> list[str]:
        """The tracebacks of the cells that failed."""
        raise NotImplementedError

    def close(self) -> None:
        """End the notebook's kernel and close the tab."""
        self.page.evaluate(self.SHUT_DOWN)
        self.page.close()

    # What a reader does to a widget; ipywidgets 7 and 8 differ only in the slider's handle.

    def widget(self, label: str) -> Locator:
        """The first control whose label reads `label`."""
        exact = re.compile(rf"^\s*{re.escape(label)}\s*$")
        labelled = self.page.locator(".widget-label", has_text=exact)
        return self.page.locator(".widget-inline-hbox").filter(has=labelled).first

    def control(self, label: str) -> Locator:
        """What takes the focus in the slider, drop-down list or checkbox `label`."""
        return self.widget(label).locator(".noUi-handle, .ui-slider-handle, select, input").first

    def press(self, label: str, key: str, times: int = 1) -> None:
        """Focus the control `label` and press `key` on the keyboard, without the mouse."""
        self.control(label).focus()
        for _ in range(times):
            self.page.keyboard.press(key)

    def value(self, label: str) -> str:
        """What the slider or drop-down list `label` reads now."""
        widget = self.widget(label)
        if widget.locator("select").count():
            text = widget.locator("select").evaluate("list => list.selectedOptions[0].text")
        else:
            text = widget.locator(".widget-readout").inner_text()
        return text.replace("\N{NO-BREAK SPACE}", " ").strip()

    # What the explorers draw: every visible face of a cell carries the cell's index and the set it belongs to.

    def drawn_sets(self) -> dict[tuple[int, ...], int]:
        """The first block drawn: every visible cell (n, c, h, w) and its set; a cell may show several faces."""
        sets: dict[tuple[int, ...], int] = {}
        for cell, label in self.page.evaluate(DRAWN_SETS):
            index = tuple(int(i) for i in cell.split(","))
            assert sets.setdefault(index, int(label)) == int(label), f"cell {index} is drawn in two sets"
        return sets

    def wait_for_drawn(self, condition, timeout_ms: int = 10_000) -> dict[tuple[int, ...], int]:
        """The drawn sets once `condition(sets)` holds; AssertionError with a few of them when it never does."""
        for _ in range(timeout_ms // 50):
            if condition(sets := self.drawn_sets()):
                return sets
            self.page.wait_for_timeout(50)
        some = dict(list(sets.items())[:: max(1, len(sets) // 20)])
        raise AssertionError(
            f"after {timeout_ms} ms the block still shows {len(set(sets.values()))} sets: {some}"
        )

    def screenshot(self, name: str, target: Locator | None = None) -> Path:
        """A picture of the page, or of `target`, as test-artifacts/<name>.png."""
        ARTIFACTS.mkdir(exist_ok=True)
        path = ARTIFACTS / f"{name}.png"
        if target is not None:
            target.scroll_into_view_if_needed()
        self.page.mouse.move(0, 0)  # no hover
        (target or self.page).screenshot(path=path)
        return path

    def screenshot_notebook(self, name: str) -> Path:
        """The whole notebook from top to bottom in one picture (up to 12000 px), for a person to look at."""
        width = self.page.viewport_size["width"]
        height = self.page.evaluate(f"document.querySelector({self.SCROLLED!r}).scrollHeight") + 200
        self.page.set_viewport_size({"width": width, "height": min(height, 12_000)})
        self.page.evaluate(f"document.querySelector({self.SCROLLED!r}).scrollTop = 0")
        path = self.screenshot(name)
        self.page.set_viewport_size({"width": width, "height": 1000})
        return path

    def explorer(self) -> Locator:
        """The first explorer on the page, controls and picture."""
        return self.page.locator(".widget-vbox").filter(has=self.page.locator("svg [data-cell]")).first


# One block at a time: several pictures on the page may draw the same cells.
DRAWN_SETS = """() => {
    const first = document.querySelector('svg [data-cell]');
    if (!first) return [];
    return [...first.closest('svg').querySelectorAll('[data-cell]')].map(
        element => [element.dataset.cell, element.dataset.set]);
}"""


class LabPage(NotebookPage):
    """A notebook in JupyterLab 4, which shows itself to the page as `jupyterapp` (see servers.LAB)."""

    SCROLLED = ".jp-WindowedPanel-outer"
    SHUT_DOWN = "jupyterapp.shell.currentWidget.sessionContext.shutdown()"

    def open(self, name: str) -> None:
        self.page.goto(f"{self.address}/lab/tree/{name}?reset")  # nothing is open but this notebook
        self.page.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext")
        self.page.evaluate(LAB_READY)

    def start(self) -> None:
        # The command ends when every cell has run or one has failed.
        self.page.evaluate("() => { window.ran = jupyterapp.commands.execute('notebook:run-all-cells'); }")

    def finish(self) -> None:
        self.page.evaluate("window.ran")
        assert not (found := self.cell_errors()), "\n".join(found)
        counts = [cell["execution_count"] for cell in self.cells() if "".join(cell["source"]).strip()]
        assert counts == list(range(1, len(counts) + 1)), f"not every cell has run: {counts}"

    def cells(self) -> list[dict]:
        """The code cells with their outputs, as they would be saved."""
        cells = self.page.evaluate("jupyterapp.shell.currentWidget.content.model.toJSON().cells")
        return [cell for cell in cells if cell["cell_type"] == "code"]

    def cell_errors(self) -> list[str]:
        outputs = [output for cell in self.cells() for output in cell["outputs"]]
        return ["\n".join(output["traceback"]) for output in outputs if output["output_type"] == "error"]


LAB_READY = """async () => {
    const panel = jupyterapp.shell.currentWidget;
    await panel.context.ready;
    await panel.sessionContext.ready;
    await panel.sessionContext.session.kernel.info;
}"""


class ClassicPage(NotebookPage):
    """A notebook in the classic notebook 6.5: the page whose widget manager (7) Colab shares."""

    SCROLLED = "#site"
    SHUT_DOWN = "new Promise(done => Jupyter.notebook.session.delete(done, done))"

    def open(self, name: str) -> None:
        self.page.goto(f"{self.address}/notebooks/{name}")
        # After the kernel connects, the widget manager restores what a kernel may still hold and then draws all
        # widget outputs anew; cells that run before that lose their widgets. It is done when nothing is pending.
        self.page.wait_for_function(CLASSIC_QUIET)

    def start(self) -> None:
        self.page.evaluate("Jupyter.notebook.clear_all_output(); Jupyter.notebook.execute_all_cells()")

    def finish(self) -> None:
        self.page.wait_for_function(CLASSIC_DONE, timeout=RUN_TIMEOUT_MS)
        assert not (found := self.cell_errors()), "\n".join(found)

    def cell_errors(self) -> list[str]:
        return self.page.locator(".output_error").all_inner_texts()


CLASSIC_QUIET = """() => {
    const notebook = window.Jupyter && Jupyter.notebook;
    const kernel = notebook && notebook._fully_loaded && notebook.kernel;
    const quiet = kernel && kernel.is_connected() && kernel.widget_manager
        && Object.keys(kernel._msg_callbacks).length === 0;
    const now = performance.now();
    if (!quiet || !window.quietSince) window.quietSince = now;
    return quiet && now - window.quietSince > 1000;
}"""
CLASSIC_DONE = """() => {
    const cells = Jupyter.notebook.get_cells().filter(c => c.cell_type === 'code' && c.get_text().trim());
    const failed = document.querySelector('.output_error');
    const idle = Jupyter.notebook.kernel.info_reply && !document.querySelector('.kernel_busy_icon');
    return idle && (failed || cells.every(c => Number.isInteger(c.input_prompt_number)));
}"""
