"""Page objects: an open notebook in JupyterLab or in the classic notebook 6.5, with the same small methods."""

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from playwright.sync_api import Browser, Locator, Page, Route

ARTIFACTS = Path(__file__).resolve().parents[2] / "test-artifacts"
LOAD_TIMEOUT_MS = 90_000
RUN_TIMEOUT_MS = 900_000
VIEWPORT = {"width": 1366, "height": 768}

ELSEWHERE = re.compile(r"^https?://(?!127\.0\.0\.1[:/])")
# The only thing a notebook shows from elsewhere: the picture of the "Open in Colab" badge.
BADGES = "https://colab.research.google.com/assets/"
BADGE_SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="117" height="20"><rect width="117" height="20"/></svg>'

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
    ASK: ClassVar[str]  # the script that has the kernel run code and evaluate expressions

    browser: Browser
    address: str
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page: Page = self.browser.new_page(viewport=VIEWPORT, reduced_motion="reduce")
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

    def ask(self, code: str, expression: str):
        """Have the kernel run some code and tell the value of an expression: a literal."""
        reply = self.page.evaluate(self.ASK, [code, {"told": expression}])
        assert reply["status"] == "ok" and reply["user_expressions"]["told"]["status"] == "ok", reply
        return ast.literal_eval(reply["user_expressions"]["told"]["data"]["text/plain"])

    # What a reader does to a widget; ipywidgets 7 and 8 differ only in the slider's handle.

    def widget(self, label: str, within: Locator | None = None) -> Locator:
        """The first control whose label reads `label`."""
        exact = re.compile(rf"^\s*{re.escape(label)}\s*$")
        labelled = self.page.locator(".widget-label", has_text=exact)
        return (within or self.page).locator(".widget-inline-hbox, .widget-toggle-buttons").filter(has=labelled).first

    def handle(self, widget: Locator) -> Locator:
        """What takes the focus in a slider."""
        return widget.locator(".noUi-handle, .ui-slider-handle").first

    def screenshot(self, name: str, target: Locator | None = None) -> Path:
        """A picture of the page, or of `target`, as test-artifacts/<name>.png."""
        ARTIFACTS.mkdir(exist_ok=True)
        path = ARTIFACTS / f"{name}.png"
        self.page.mouse.move(0, 0)  # no hover
        if target is None:
            self.page.screenshot(path=path)
            return path
        self.page.set_viewport_size(VIEWPORT | {"height": 1400})  # what is longer than its pane would be cut off
        target.scroll_into_view_if_needed()
        target.screenshot(path=path)
        self.page.set_viewport_size(VIEWPORT)
        return path

    def screenshot_notebook(self, name: str) -> Path:
        """The whole notebook from top to bottom in one picture (up to 12000 px), for a person to look at."""
        height = self.page.evaluate(f"document.querySelector({self.SCROLLED!r}).scrollHeight") + 200
        self.page.set_viewport_size(VIEWPORT | {"height": min(height, 12_000)})
        self.page.evaluate(f"document.querySelector({self.SCROLLED!r}).scrollTop = 0")
        path = self.screenshot(name)
        self.page.set_viewport_size(VIEWPORT)
        return path


class LabPage(NotebookPage):
    """A notebook in JupyterLab 4, which shows itself to the page as `jupyterapp` (see servers.LAB)."""

    SCROLLED = ".jp-WindowedPanel-outer"
    SHUT_DOWN = "jupyterapp.shell.currentWidget.sessionContext.shutdown()"
    ASK = """async ([code, user_expressions]) => {
        const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
        return (await kernel.requestExecute({code, user_expressions, silent: true}).done).content;
    }"""

    def open(self, name: str) -> None:
        self.page.goto(f"{self.address}/lab/tree/{name}?reset")  # nothing is open but this notebook
        self.page.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext")
        self.page.evaluate(LAB_READY)

    def theme(self, dark: bool) -> None:
        """Light or dark, as a reader chooses it."""
        self.page.emulate_media(color_scheme="dark" if dark else "light")
        name = f"JupyterLab {'Dark' if dark else 'Light'}"
        self.page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", name)
        self.page.wait_for_selector(f"body[data-jp-theme-name='{name}']", state="attached")

    def start(self) -> None:
        # The command ends when every cell has run or one has failed.
        self.page.evaluate("() => { window.ran = jupyterapp.commands.execute('notebook:run-all-cells'); }")

    def finish(self) -> None:
        self.page.evaluate("window.ran")
        assert not (found := self.cell_errors()), "\n".join(found)
        counts = [cell["execution_count"] for cell in self.cells() if "".join(cell["source"]).strip()]
        assert counts == list(range(1, len(counts) + 1)), f"not every cell has run: {counts}"

    def run_cell(self, number: int) -> None:
        """Run one cell, counted from 0, and wait for it."""
        self.page.evaluate(
            """async number => {
                jupyterapp.shell.currentWidget.content.activeCellIndex = number;
                await jupyterapp.commands.execute('notebook:run-cell');
            }""",
            number,
        )

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
    ASK = """([code, user_expressions]) => new Promise(done => Jupyter.notebook.kernel.execute(
        code, {shell: {reply: message => done(message.content)}}, {user_expressions, silent: true}))"""

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
