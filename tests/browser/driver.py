"""An explorer on a page: driven by the keyboard alone, and held to what its state draws and says in this process."""

import json
from collections.abc import Iterator
from dataclasses import replace

from axe_playwright_python.sync_playwright import Axe
from browser.pages import NotebookPage
from playwright.sync_api import Locator, Page, TimeoutError, expect
from starts import start

from normviz.explore import EXPLORERS
from normviz.explore.base import Control, Explorer, tidy
from normviz.picture.scene import Handle
from normviz.picture.svg import backdrop_svg, front_svg, to_svg

WAIT_MS = 15_000  # a busy machine
# What the kernel says of every explorer that it shows: its name and what it was set to
TELL = """
import gc as _gc, json as _json
from dataclasses import fields as _fields
from normviz.explore.live import Live as _Live
def _tell(state):
    fields = {field.name: getattr(state, field.name) for field in _fields(state)}
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
    const shown = [...root.querySelectorAll('.nv-backdrop > svg, .nv-front > svg')];
    return wanted.innerHTML === shown.map(svg => {
        const bare = svg.cloneNode(true);
        for (const group of bare.querySelectorAll('.nv-piece')) group.replaceWith(...group.childNodes);
        return bare.outerHTML;
    }).join('');
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
        const words = document.createRange(), sheet = one.tagName === 'svg' ? root : one;
        words.selectNodeContents(one);
        const room = sheet.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
        const width = one.tagName === 'svg' ? Math.max(root.scrollWidth, one.getBoundingClientRect().width)
            : words.getBoundingClientRect().width;
        // clientWidth is in whole pixels
        if (sheet.clientWidth && width > room + 0.5) faults.push(`${name}: ${width} px in ${room}`);
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
        labels = {control.label for control in self.state.controls().values() if not control.hand}
        roots = self.page.page.locator(".normviz").filter(has=self.page.page.locator("p[role=status]"))
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
        wanted = {control.label: reads(control) for control in self.state.controls().values() if not control.hand}
        assert (found := self.root.evaluate(READ)) == wanted, f"{found} are not {wanted}"

    def turn(self, name: str, value) -> None:
        """Set a control by as many keys as it takes; after each the page shows what the state says."""
        while (control := self.state.controls()[name]).value != value:
            keys, control = self._press(control, value), control
            self.state = self.state.turn(**{name: keys})
            self.shows()

    def _press(self, control: Control, value):
        """One key that leads to a value or a step towards it; returns where it leads."""
        if control.hand:
            return self._press_in_the_picture(control, value)
        if control.kind == "flag":
            self._strike(self.root.locator(".widget-checkbox", has_text=control.label).locator("input"), "Space")
            return not control.value
        place = self.page.widget(control.label, self.root)
        if (buttons := place.locator(".widget-toggle-button")).count():
            self._strike(buttons.nth(control.values.index(value)), "Enter")
            return value
        order = control.values
        forward = order.index(value) > order.index(control.value) if order else value > control.value
        self._strike(self.page.handle(place), "ArrowRight" if forward else "ArrowLeft")
        return step(control, 1 if forward else -1)

    def _press_in_the_picture(self, control: Control, value):
        """The arrow key that the picture's handle has for a field; returns where it leads."""
        forward = offered(control).index(value) > offered(control).index(control.value)
        i, handle = next((i, one) for i, one in enumerate(self.state.scene().handles) if control.name in one.fields)
        by = 1 if forward else -1
        key = next(key for key, move in handle.keys.items() if tuple(move) == (control.name, by))
        self._strike(self.root.locator(".nv-hold").nth(i), key)
        return step(control, by)

    def grasp(self) -> None:
        """Every handle of the picture by the keyboard alone, by the mouse, and by a finger."""
        for i, handle in enumerate(self.state.scene().handles):
            hold = self.root.locator(".nv-hold").nth(i)
            for name in handle.fields:
                control = self.state.controls()[name]
                if control.enabled and any(name == field for field, _ in handle.keys.values()):
                    value = neighbour(control)
                    self._press_in_the_picture(control, value)
                    assert hold.evaluate("hold => hold.matches(':focus-visible')"), "no visible focus"
                    self.state = self.state.turn(**{name: value})
                    self.shows()
            for finger in (False, True):
                self._point(handle, finger)

    def _point(self, handle: Handle, finger: bool) -> None:
        """One place of a handle that means something else than now, by the mouse or a finger."""
        offered_now = self.state.controls()
        if handle.drag:
            return self._drag(handle, finger)
        if handle.cells:
            faces = self.root.locator(".nv-backdrop [data-cell], .nv-front [data-cell]")
            cells = faces.evaluate_all("all => all.map(one => one.dataset.cell)")
            now, skip = (
                tuple(offered_now[name].value for name in handle.fields),
                handle.only.count(",") + bool(handle.only),
            )
            for k in sorted(range(len(cells)), key=lambda k: (7919 * k) % len(cells)):
                numbers = tuple(map(int, cells[k].split(",")))
                at = numbers[skip:]
                if ",".join(map(str, numbers[:skip])) == handle.only and at != now and self._reachable(faces.nth(k)):
                    self._touch(*middle(faces.nth(k)), finger)
                    self.state = self.state.turn(**dict(zip(handle.fields, at, strict=True)))
                    return self.shows()
            raise AssertionError(f"no other place of {handle.name} can be reached")
        ((name, (axis, places)),) = handle.at.items()
        control = offered_now[name]
        at, value = next(p for p in (places[0], places[-1]) if meant(control, p[1]) != control.value)
        box, stage = handle.box, self.root.locator(".nv-stage").bounding_box()
        share = stage["width"] / self.state.scene().width
        x, y = (at, box.center[1]) if axis == "x" else (box.center[0], at)
        self._show_stage()
        stage = self.root.locator(".nv-stage").bounding_box()
        self._touch(stage["x"] + share * x, stage["y"] + share * y, finger)
        self.state = self.state.turn(**{name: meant(control, value)})
        self.shows()

    def _drag(self, handle: Handle, finger: bool) -> None:
        """To the right or down by a bit: the fields end where the handle says, as the controls read."""
        before = self.state
        name, (right, down) = next((n, by) for n, by in handle.drag.items() if self.state.controls()[n].enabled)
        control = before.controls()[name]
        self._show_stage()
        stage = self.root.locator(".nv-stage").bounding_box()
        share = stage["width"] / before.scene().width
        x, y = handle.box.x + 3, handle.box.y + 3  # where nothing else can be taken hold of
        now, ends = index(control), (0, len(control.values) - 1) if control.values else (control.low, control.high)
        unit = 1 if control.values else control.step
        by = unit if now + unit <= ends[1] else -unit
        dx, dy = (by / right, 0) if right else (0, by / down)
        way = [(stage["x"] + share * (x + part * dx), stage["y"] + share * (y + part * dy)) for part in (0, 0.5, 1)]
        self._slide(way, finger)
        self.state = before.turn(**{name: meant(control, now + by)})
        self.shows()

    def _show_stage(self) -> None:
        self.root.locator(".nv-stage").evaluate("stage => stage.scrollIntoView({block: 'center'})")

    def _reachable(self, face: Locator) -> bool:
        """Whether the pointer meets the face in its middle, and nothing over it."""
        self._show_stage()
        return face.evaluate("""face => {
            const box = face.getBoundingClientRect(), x = box.x + box.width / 2, y = box.y + box.height / 2;
            const met = document.elementsFromPoint(x, y).find(one => one.closest('[data-cell]'));
            return met?.closest('[data-cell]').dataset.cell === face.dataset.cell;
        }""")

    def _touch(self, x: float, y: float, finger: bool) -> None:
        page = self.page.page
        if finger:
            session = page.context.new_cdp_session(page)
            for kind, points in (("touchStart", [{"x": x, "y": y}]), ("touchEnd", [])):
                session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
            session.detach()
        else:
            page.mouse.click(x, y)
            page.mouse.move(2, 2)

    def _slide(self, way: list[tuple[float, float]], finger: bool) -> None:
        """Down on the first place, along the others, and up again."""
        page = self.page.page
        if not finger:
            page.mouse.move(*way[0])
            page.mouse.down()
            for place in way[1:]:
                page.mouse.move(*place)
            return page.mouse.up()
        return slide(page, way)

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

    def fits(self) -> None:
        """Controls, picture and sentence are on the screen together, the picture as wide as its place at most."""
        room = self.page.page.evaluate("selector => document.querySelector(selector).clientHeight", self.page.SCROLLED)
        top, said, right, edge = self.root.evaluate("""root => {
            const box = root.getBoundingClientRect(), place = root.parentElement.getBoundingClientRect();
            const bottom = root.querySelector('p[role=status]').getBoundingClientRect().bottom;
            return [box.top, bottom, root.querySelector('.nv-stage').getBoundingClientRect().right, place.right];
        }""")
        assert said - top <= room, f"{said - top} px of {room}"
        assert right <= edge + 0.5, f"the picture ends at {right}, its place at {edge}"

    def is_accessible(self) -> None:
        """What axe-core finds in the explorer: nothing."""
        self.root.evaluate("root => { root.dataset.axe = '1'; }")
        found = Axe().run(self.page.page, context="[data-axe]")
        self.root.evaluate("root => { delete root.dataset.axe; }")
        assert found.violations_count == 0, found.generate_report()

    def screenshot(self, name: str) -> None:
        self.page.screenshot(f"{self.name}-{name}", self.root)


def offered(control: Control) -> tuple:
    return control.values or control.offers(10_000)


def index(control: Control) -> float:
    """The value of a control as a handle has it."""
    return control.values.index(control.value) if control.values else control.value


def slide(page: Page, way: list[tuple[float, float]]) -> None:
    """A finger down on the first place, along the others, and up again."""
    session = page.context.new_cdp_session(page)
    for k, (x, y) in enumerate(way):
        kind = "touchMove" if k else "touchStart"
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    session.detach()


def meant(control: Control, number: float):
    """The value that a handle's number stands for."""
    return control.values[int(number)] if control.values else tidy(number, control.step)


def middle(face: Locator) -> tuple[float, float]:
    box = face.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


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
