"""One trial for every explorer: what the base class promises, on states that nobody chose."""

import dataclasses
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html import escape

import ipywidgets as w
import numpy as np
import pytest
from starts import start

from normviz.explore import EXPLORERS, Explorer
from normviz.picture.svg import to_svg

TURNS = 300


def a_turn(state: Explorer, rng) -> dict:
    """A change that a reader could make: a control that is enabled, and a value that it offers."""
    enabled = [control for control in state.controls().values() if control.enabled]
    control = enabled[rng.integers(len(enabled))]
    offered = control.offers()
    return {control.name: offered[rng.integers(len(offered))]}


def walk(name: str, turns: int, seed: int = 0):
    state, rng = start(name), np.random.default_rng(seed)
    for _ in range(turns):
        yield state
        state = state.turn(**a_turn(state, rng))


@pytest.fixture(params=list(EXPLORERS))
def name(request):
    return request.param


def test_any_state_is_legal_and_stays_on_its_sheet(name):
    for k, state in enumerate(walk(name, TURNS)):
        assert all(control.takes(control.value) for control in state.controls().values()), state
        scene = state.scene()
        assert scene.alt and scene.alt == state.say(state.read())
        assert scene.labels_outside() == [], state
        assert scene.overlaps() == [], state
        assert all(label.size >= 12 for label in scene.labels)
        if k % 10 == 0:
            svg = to_svg(scene)
            ET.fromstring(svg)
            assert "nan" not in re.sub(r">[^<]*<|\"[^\"]*\"(?<!d=)", "", svg).lower()
            assert not re.search(r'd="[^"]*(nan|inf)', svg)


def test_a_turn_is_what_was_asked(name):
    rng = np.random.default_rng(1)
    for state in walk(name, 40, seed=1):
        change = a_turn(state, rng)
        ((control, value),) = change.items()
        assert state.turn(**change).controls()[control].value == value
        assert state.turn(**change) == state.turn(**change)
        assert hash(state.turn(**change)) == hash(state.turn(**change))


def test_caption_alt_and_twin_say_the_same(name):
    for state in list(walk(name, 13, seed=2))[::6]:
        alt = state.scene().alt
        live = state.live()
        assert state.figure().alt == alt == live.twin().alt
        assert escape(alt) in live.text.value
        bundle, metadata = live._repr_mimebundle_()
        assert set(bundle) == {"text/plain", "image/png", "application/vnd.jupyter.widget-view+json"}
        assert metadata["image/png"]["alt"] == alt
        live.close()


def test_widgets_do_what_turn_does(name):
    state, rng = start(name), np.random.default_rng(3)
    live = state.live()
    for _ in range(25):
        change = a_turn(state, rng)
        ((control, value),) = change.items()
        live.controls[control].value = value
        state = state.turn(**change)
        assert live.state == state
        for offered in state.controls().values():
            widget = live.controls[offered.name]
            assert widget.value == offered.value
            if offered.kind != "flag":
                assert widget.disabled == (not offered.enabled)
    assert live.shown.endswith(live.text.value) and escape(state.scene().alt) in live.text.value
    live.close()


def registered() -> set:
    return set(w.widgets.widget._instances)


def test_closing_frees_every_widget(name):
    before = registered()
    live = start(name).live()
    assert len(registered() - before) > 10
    live.close()
    assert registered() == before


def test_refusals_name_the_field(name):
    state = start(name)
    for declared in dataclasses.fields(state):
        if declared.metadata:
            for wrong in ("no such thing", object(), [1], float("nan")):
                with pytest.raises(ValueError, match=rf"^{declared.name}="):
                    dataclasses.replace(state, **{declared.name: wrong})
    some = next(iter(state.controls()))
    with pytest.raises(TypeError, match=f"{some}.*Did you mean"):
        state.turn(**{some[:-1] + "_" if len(some) < 3 else some + "x": 1})


def test_the_page_says_what_the_kernel_says(name):
    state = start(name)
    page = state.html(most=40)
    rows = json.loads(re.search(r'id="states">(.*?)</script>', page, re.S).group(1))
    assert 1 <= len(rows) <= 40
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    labels = {control.label: control.name for control in state.controls().values()}
    seen, todo = {0: state}, [0]
    while todo:  # what the page's lists lead to, walked with `turn`
        at = todo.pop()
        scene = seen[at].scene()
        assert rows[at]["caption"] == scene.alt and rows[at]["svg"] == to_svg(scene)
        for label, chosen, moves in rows[at]["controls"]:
            control = seen[at].controls()[labels[label]]
            assert moves[chosen][1] == at
            offered = dict(zip(control.labels or map(str, control.values), control.values, strict=True))
            for text, target in moves:
                value = offered.get(text) if control.kind == "choice" else next(
                    v for v in (*control.offers(200), *control.offers(12), *control.offers(5), control.value)
                    if text in (str(v), f"{v:g}")
                )  # fmt: skip
                if target not in seen:
                    seen[target] = seen[at].turn(**{labels[label]: value})
                    todo.append(target)
    assert len(seen) == len(rows)


def test_pictures_need_numpy_alone():
    code = """
import sys, json
import normviz.explore as explore
needy = {"inside", "evaluation", "cost", "gradient"}
for name, make in explore.EXPLORERS.items():
    if name not in needy:
        make().scene()
heavy = [m for m in ("torch", "ipywidgets", "matplotlib", "sklearn", "PIL", "IPython", "scipy") if m in sys.modules]
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_explorer_shows_itself(monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda value, **kwargs: shown.append(value))
    state = EXPLORERS["outlier"](factor=10)
    state._ipython_display_()
    assert shown[0].state == state
