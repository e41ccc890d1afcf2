"""An explorer on a page: driven by the keyboard alone, and held to what its state draws and says in this process."""

import json
from collections.abc import Iterator
from dataclasses import replace

from browser.pages import NotebookPage
from playwright.sync_api import Locator, TimeoutError, expect
from starts import start

from normviz.explore import EXPLORERS
from normviz.explore.base import Control, Explorer, tidy
from normviz.picture.svg import backdrop_svg, front_svg, to_svg

WAIT_MS = 15_000  # a busy machine
# What the kernel says of every explorer that it shows: its name and what it was set to
TELL = """
import gc as _gc, json as _json
from normviz.explore.live import Live as _Live
def _tell(state):
    fields = {name: getattr(state, name) for name in state.__dataclass_fields__}
    told = {name: v for name, v in fields.items() if v is None or isinstance(v, (bool, int, float, str, tuple))}
    if "record" in fields:  # this machine's own times
        told["record"] = fields["record"].value
    return type(state).__name__.lower(), told
"""
TOLD = "_json.dumps([_tell(shown.state) for shown in _gc.get_objects() if isinstance(shown, _Live)])"

# What every control reads, by its label
READ = """root => Object.fromEntries([...root.querySelectorAll(
        '.widget-inline-hbox:not(.widget-html), .widget-toggle-buttons')].map(box => {
    const text = element =>
        element.textContent.replaceAll('\\u00a0', ' ').replaceAll('\\u200b', '').replace('\\u2212', '-').trim();
    const tick = box.querySelector('input[type=checkbox]');
    return tick ? [text(box), tick.checked]
        : [text(box.querySelector('.widget-label')), text(box.querySelector('.widget-readout, .mod-active') ?? box)];
}).filter(([label]) => label))"""
# Whether the pictures drawn are those of a markup, and why not
SAME = """([root, markup]) => {
    const wanted = document.createElement('div');
    wanted.innerHTML = markup;
    return wanted.innerHTML === [...root.querySelectorAll('svg')].map(svg => svg.outerHTML).join('');
}"""
# What a reader could not read: words that are cut off, or too faint on what is behind them
FAULTS = """root => {
    const light = color => {
        const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        const [r, g, b] = color.match(/[\\d.]+/g).map(v => linear(v / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
    };
    const faults = [];
    for (const one of root.querySelectorAll('.widget-label, .widget-readout, .widget-toggle-button, p, pre, svg')) {
        const name = one.tagName === 'svg' ? 'the picture' : one.textContent.trim(), style = getComputedStyle(one);
        if (!name || !one.getClientRects().length) continue;
        const words = document.createRange(), sheet = one.tagName === 'svg' ? one.closest('.widget-box') : one;
        words.selectNodeContents(one);
        const room = sheet.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
        const width = one.tagName === 'svg' ? sheet.scrollWidth : words.getBoundingClientRect().width;
        if (sheet.clientWidth && width > room + 0.1) faults.push(`${name}: ${width} px in ${room}`);
        let behind = one;
        while (behind && getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
        if (!behind || one.tagName === 'svg') continue;
        const [low, high] = [light(style.color), light(getComputedStyle(behind).backgroundColor)].sort((a, b) => a - b);
        if (high / low < 4.5 && !one.closest('[disabled], .ui-state-disabled'))
            faults.push(`${name}: contrast ${(high / low).toFixed(1)}`);
    }
    return faults;
}"""


class Driver:
    """The explorer of a page that has the controls of `state`; AssertionError if it ever shows anything else.

    `state` follows the keys by `turn`, and nothing that the page or its kernel says.
    """

    def __init__(self, page: NotebookPage, state: Explorer):
        self.page, self.state = page, state
        self.name = type(state).__name__.lower()
        self.root = self._root()
        self.shows()

    def _root(self) -> Locator:
        labels = {control.label for control in self.state.controls().values()}
        roots = self.page.page.locator(".widget-vbox").filter(has=self.page.page.locator("p[role=status]"))
        for _ in range(WAIT_MS // 100):
            for root in roots.all():
                if set(root.evaluate(READ)) == labels:
                    return root
            self.page.page.wait_for_timeout(100)
        raise AssertionError(f"no explorer has the controls {labels}: {[root.evaluate(READ) for root in roots.all()]}")

    def shows(self) -> None:
        """Caption, picture and controls are those of the state, or will be in a moment."""
        scene = self.state.scene()
        expect(self.root.locator("p[role=status]")).to_have_text(scene.alt, timeout=WAIT_MS)
        expect(self.root.locator("svg[role=img]")).to_have_attribute("aria-label", scene.alt, timeout=WAIT_MS)
        markup = backdrop_svg(scene) + front_svg(scene) if scene.backdrop else to_svg(scene)
        try:
            self.page.page.wait_for_function(SAME, arg=[self.root.element_handle(), markup], timeout=WAIT_MS)
        except TimeoutError:
            raise AssertionError(f"the picture is not the one of {self.state}") from None
        wanted = {control.label: reads(control) for control in self.state.controls().values()}
        assert (found := self.root.evaluate(READ)) == wanted, f"{found} are not {wanted}"

    def turn(self, name: str, value) -> None:
        """Set a control by as many keys as it takes; after each the page shows what the state says."""
        while (control := self.state.controls()[name]).value != value:
            keys, control = self._press(control, value), control
            self.state = self.state.turn(**{name: keys})
            self.shows()

    def _press(self, control: Control, value):
        """One key that leads to a value or a step towards it; returns where it leads."""
        if control.kind == "flag":
            self._strike(self.root.locator(".widget-checkbox", has_text=control.label).locator("input"), "Space")
            return not control.value
        place = self.page.widget(control.label, self.root)
        if (buttons := place.locator(".widget-toggle-button")).count():
            self._strike(buttons.nth(control.values.index(value)), "Enter")
            return value
        offered = control.values or (control.value, value)
        forward = offered.index(value) > offered.index(control.value) if control.values else value > control.value
        self._strike(self.page.handle(place), "ArrowRight" if forward else "ArrowLeft")
        return step(control, 1 if forward else -1)

    def _strike(self, target: Locator, key: str) -> None:
        target.focus()
        self.page.page.keyboard.press(key)

    def walk(self) -> None:
        """Every control that is enabled when it is reached, by one step; flags there and back."""
        for name in self.state.controls():
            control = self.state.controls()[name]
            if control.kind == "flag":
                self.turn(name, not control.value)
                self.turn(name, control.value)
            elif control.enabled:
                self.turn(name, neighbour(control))

    def is_legible(self) -> None:
        """Nothing is cut off, and every word stands out from what is behind it."""
        assert not (faults := self.root.evaluate(FAULTS)), "\n".join(faults)

    def screenshot(self, name: str) -> None:
        self.page.screenshot(f"{self.name}-{name}", self.root)


def reads(control: Control) -> str | bool:
    """What a control reads on a page."""
    if control.kind == "flag":
        return control.value
    if control.kind == "choice":
        return control.labels[control.values.index(control.value)].strip()
    digits = len(f"{control.step:g}".partition(".")[2]) if control.kind == "number" else 0
    return f"{control.value:.{digits}f}"


def step(control: Control, by: int):
    """The value one step on, up or down."""
    if control.values:
        return control.values[control.values.index(control.value) + by]
    return tidy(control.value + by * control.step, control.step)


def neighbour(control: Control):
    """The next value that a control offers, or the one before the last."""
    at_the_end = control.value == control.values[-1] if control.values else control.value + control.step > control.high
    return step(control, -1 if at_the_end else 1)


def explorers(page: NotebookPage) -> Iterator[Driver]:
    """Every explorer that the notebook shows, as it opens there."""
    for name, fields in json.loads(page.ask(TELL, TOLD)):
        fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
        begin = EXPLORERS[name](fields.pop("record")) if "record" in fields else start(name)
        yield Driver(page, replace(begin, **fields))
