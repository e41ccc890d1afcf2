"""One trial for every explorer: what the base class promises, on states that nobody chose."""

import dataclasses
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from html import escape
from types import SimpleNamespace

import ipywidgets as w
import numpy as np
import pytest
from paged import as_paged, beside, drawn, markup
from starts import start

from normviz.explore import EXPLORERS, Explorer, page
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
        assert escape(alt) in live.sheet.words
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
        if state.controls()[control].hand:
            live.sheet.hand = {"changes": change, "count": float(rng.random())}
        else:
            live.controls[control].value = value
        state = state.turn(**change)
        assert live.state == state
        for offered in beside(state).values():
            widget = live.controls[offered.name]
            assert widget.value == offered.value
            if offered.kind != "flag":
                assert widget.disabled == (not offered.enabled)
    assert live.shown.endswith(live.sheet.words) and escape(state.scene().alt) in live.sheet.words
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
    """Every state that the page's controls and its cursor lead to, walked with `turn`."""
    state = start(name)
    cursor = next((handle for handle in state.scene().handles if handle.sets), None)
    if cursor:
        state = replace(state, method="layer", sizes=(2, 4, 2, 2), cursor=(0, 0, 0, 0))
        state = page._home(state, cursor.fields)  # where what has no effect rests
    found = json.loads(json.dumps(page.data(state, most=9 if cursor else 20)))
    assert 1 <= len(found["states"]) <= (100 if cursor else 20) and found["controls"]
    seen, todo = {found["start"]: state}, [found["start"]]
    while todo:
        at = todo.pop()
        scene, row = seen[at].scene(), found["states"][at]
        assert drawn(found, at) == markup(replace(as_paged(scene), alt=""))
        words = found["pieces"][row["words"]]
        assert words.startswith(f'<p role="status" aria-live="polite">{escape(scene.alt)}</p>')
        assert all(escape(note) in words for note in seen[at].notes(seen[at].read()))
        targets = {}
        for look, (chosen, texts, moves) in zip(found["controls"], row["controls"], strict=True):
            control, names = seen[at].controls()[look["name"]], found["lists"][texts]["texts"]
            assert names[chosen] == (
                control.labels[control.values.index(control.value)] if control.kind == "choice" else
                f"{control.value:g}" if control.kind == "number" else str(control.value)
            )  # fmt: skip
            for value, target in zip(found["lists"][texts]["values"], found["moves"][moves], strict=True):
                value = control.values[value] if control.kind == "choice" else value
                targets[target] = seen[at].turn(**{look["name"]: value})
        if cursor:  # a cursor is known by its set
            labels = seen[at].read().sets.labels
            for label, target in enumerate(found["sets"][row["sets"]]):
                cell = np.argwhere(labels == label)[0].tolist()
                targets[target] = seen[at].turn(**dict(zip(cursor.fields, cell, strict=True)))
            assert found["sets"][row["sets"]][labels[seen[at].cursor]] == at
        for target, other in targets.items():
            if target not in seen:
                if cursor:
                    labels = other.read().sets.labels
                    cell = np.argwhere(labels == labels[other.cursor])[0].tolist()
                    other = page._home(other, cursor.fields).turn(**dict(zip(cursor.fields, cell, strict=True)))
                seen[target] = other
                todo.append(target)
    assert len(seen) == len(found["states"])


def test_a_page_asks_nobody_for_anything(name):
    whole = start(name).html(most=2)
    assert "http" not in whole.replace("http://www.w3.org/2000/svg", "")
    assert whole.count("data-explorer>") == 1 and "<script src" not in whole
    with pytest.raises(ValueError, match="most=0 must be"):
        start(name).html(most=0)


def test_a_hand_moves_what_the_handles_say(name):
    """Every handle names fields that can be set; what the hand tells is what `turn` does, and nonsense is nothing."""
    state = start(name)
    live, scene = state.live(), state.scene()
    assert [row["name"] for row in live.sheet.handles] == [handle.name for handle in scene.handles]
    for handle, row in zip(scene.handles, live.sheet.handles, strict=True):
        assert 0 <= handle.box.x < handle.box.right <= scene.width
        assert 0 <= handle.box.y < handle.box.bottom <= scene.height
        assert {field for field, _ in handle.keys.values()} <= set(handle.fields)
        for _, places in handle.at.values():
            assert all(handle.box.x - 0.1 <= px <= handle.box.right + 0.1 for px, _ in places)
        for field in row["fields"]:
            control = live.state.controls()[field["name"]]
            for number in (field["low"], field["high"]):
                live.sheet.hand = {"changes": {field["name"]: number}, "count": number}
                meant = control.values[number] if control.kind == "choice" else number
                state = state.turn(**{field["name"]: meant})
                assert live.state == state
    for nonsense in ({"no such": 1}, {name: None}, {next(iter(state.controls())): "x"}, {}):
        live.sheet.hand = {"changes": nonsense, "count": -1}
        assert live.state == state
    live.close()


def test_rerunning_a_cell_frees_what_it_showed(name, monkeypatch):
    """As the kernel does: a cell with an id runs again and again; and the front end says that an output is gone."""
    from normviz.explore import live as module

    kernel = SimpleNamespace(get_parent=lambda channel: {"metadata": {"cellId": "a"}})
    hooks = []
    events = SimpleNamespace(register=lambda when, hook: hooks.append((when, hook)))
    shell = SimpleNamespace(kernel=kernel, events=events)
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    monkeypatch.setattr("IPython.display.display", lambda *args, **kwargs: None)
    monkeypatch.setattr(module, "_PASSING", {})
    state, before, counts = start(name), registered(), []
    for _ in range(20):
        for _, hook in hooks[:1]:
            hook(SimpleNamespace(cell_id="a"))
        state._ipython_display_()
        counts.append(len(registered() - before))
    assert len(set(counts)) == 1 and hooks[0][0] == "pre_run_cell"
    (live,) = module._PASSING["a"]
    live.sheet._handle_custom_msg({"gone": True}, [])
    assert registered() == before


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
