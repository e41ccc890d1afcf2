"""The explorer of a layer's cost: counts and times against their own arithmetic, and the button that measures."""

import re
from html import escape

import numpy as np
import pytest
from turns import walk

from normviz.explore.cost import TOKENS, Cost
from normviz.picture.scene import Shapes

CALL = {"ln": 5e-6, "bn": 9e-6, "line": 2e-6, "linear": 6e-6}
MACHINE = {
    "call": CALL,
    "bandwidth": [[4096, 5e10], [4194304, 1e11], [67108864, 2e10]],
    "vector": 1.7e10,
    "matrix": 8e10,
}
KINDS = ("ln", "bn", "line", "folded", "linear")


def made_up_time(batch, tokens, width):
    """Times that tell which size and which layer they belong to."""
    cells = batch * tokens * width
    each = {"ln": 4e-9, "bn": 2e-9, "line": 1e-9, "folded": 0.0, "linear": 9e-8}
    return {kind: seconds * cells for kind, seconds in each.items()}


def record(sizes):
    rows = [{"batch": b, "tokens": t, "width": w, "seconds": made_up_time(b, t, w)} for b, t, w in sizes]
    return {"machine": MACHINE, "layers": rows}


def counted(kind, n, d):
    """Bytes and operations, written out anew."""
    numbers = {"ln": 2 * n * d + 2 * n + 2 * d, "bn": 2 * n * d + 4 * d, "line": 2 * n * d + 2 * d, "folded": 0}
    numbers["linear"] = n * d + n * 3 * d + 3 * d * d + 3 * d
    work = {"ln": 7 * n * d + 2 * n, "bn": 2 * n * d + 5 * d, "line": 2 * n * d, "folded": 0}
    work["linear"] = 2 * n * d * 3 * d
    return 4 * numbers[kind], work[kind]


def expected(kind, n, d):
    """Seconds by the roofline, with the calibrated numbers of MACHINE."""
    if kind == "folded":
        return 0.0
    moved, work = counted(kind, n, d)
    sizes, rates = np.array(MACHINE["bandwidth"]).T
    rate = np.exp(np.interp(np.log(moved), np.log(sizes), np.log(rates)))
    return CALL[kind] + max(moved / rate, work / (8e10 if kind == "linear" else 1.7e10))


def bars(scene, what):
    """The bars of a picture by layer."""
    named = {item.name: item for item in scene.items if isinstance(item, Shapes)}
    return {kind: named[f"{what}-{kind}"] for kind in KINDS if f"{what}-{kind}" in named}


def check(state, timed):
    reading, scene, sizes = state.read(), state.scene(), (state.batch, state.tokens, state.width)
    n, d = state.batch * state.tokens, state.width
    for kind in KINDS:
        assert (reading.moved[kind], reading.operations[kind]) == counted(kind, n, d)
        assert reading.predicted[kind].seconds == pytest.approx(expected(kind, n, d), rel=1e-9)
    known = sizes in timed
    assert reading.measured == (made_up_time(*sizes) if known else None)
    assert set(bars(scene, "predicted")) == set(KINDS) - {"folded"}
    assert set(bars(scene, "measured")) == (set(KINDS) - {"folded"} if known else set())
    assert ("not measured" in scene.alt) == (not known)
    assert ("not measured at this size yet" in {label.text for label in scene.labels}) == (not known)
    assert f"{2 * n:,} statistics" in scene.alt and f"{2 * n:,}" in {label.text for label in scene.labels}
    times = reading.measured or {kind: expected(kind, n, d) for kind in KINDS}
    for words, above, below in (("LayerNorm takes", "ln", "bn"), ("Linear after it takes", "linear", "ln")):
        digits = re.search(rf"{words} ([\d.]+) times", scene.alt)[1]
        off = 0.006 if above == "ln" else 0.06
        assert float(digits) == pytest.approx(times[above] / times[below], abs=off)


def test_it_shows_what_the_arithmetic_says_after_random_turns():
    timed = [(b, t, w) for b in (1, 16, 64) for t in TOKENS for w in (48, 384)]
    for state in walk(Cost(record(timed)), 200):
        check(state, timed)


def test_bars_are_as_long_as_the_logarithm_of_their_times():
    scene, times = Cost(record([(16, 64, 192)])).scene(), made_up_time(16, 64, 192)
    long = {kind: np.ptp(bar.points[0][:, 0]) for kind, bar in bars(scene, "measured").items()}
    shares = np.log(2) / np.log(times["linear"] / times["bn"])
    assert (long["ln"] - long["bn"]) / (long["linear"] - long["bn"]) == pytest.approx(shares)
    predicted = np.ptp(bars(scene, "predicted")["ln"].points[0][:, 0])
    ratio = np.log(expected("ln", 1024, 192) / times["bn"]) / np.log(times["ln"] / times["bn"])
    assert (predicted - long["bn"]) / (long["ln"] - long["bn"]) == pytest.approx(ratio)


def test_the_button_measures_the_sizes_shown():
    asked, seen = [], []

    def measure(batch, tokens, width, *, rounds, tell):
        asked.append((batch, tokens, width))
        for i in range(rounds):
            tell(f"round {i}")
            seen.append((live.progress.value, live.buttons["measure here"].disabled, live.controls["batch"].disabled))
        return {"seconds": made_up_time(batch, tokens, width)}

    live = Cost(record([(1, 16, 48)]), measure, batch=2).live()
    check(live.state, [(1, 16, 48)])
    live.buttons["measure here"].click()
    assert asked == [(2, 64, 192)]
    assert seen == [(pytest.approx((i + 1) / 9), True, True) for i in range(9)]
    assert not live.buttons["measure here"].disabled and not live.controls["batch"].disabled
    check(live.state, [(1, 16, 48), *asked])
    assert escape(live.state.scene().alt) in live.sheet.words and "Measured" in live.sheet.words
    live.controls["batch"].value = 4
    check(live.state, asked)
    check(live.state.turn(batch=1).turn(tokens=16).turn(width=48), [(1, 16, 48)])  # the record's own are kept


def test_a_measurement_that_fails_leaves_the_explorer_alive():
    def measure(*sizes, **options):
        raise MemoryError("no <room>")

    live = Cost(record([]), measure).live()
    live.buttons["measure here"].click()
    assert "no &lt;room&gt;" in live.error.value and not live.buttons["measure here"].disabled
    check(live.state, [])


def test_without_a_way_to_measure_there_is_no_button():
    assert not Cost(record([])).actions() and not Cost(record([])).live().buttons


def test_the_real_lab_feeds_it():
    from normviz.lab import measure_layers, time_layers

    found = measure_layers({"batch": (1,), "tokens": (16,), "width": (48,)}, rounds=1)
    state = Cost(found, time_layers, batch=1, tokens=16, width=48)
    assert state.read().measured == found["layers"][0]["seconds"]
    done = []
    measured = state.turn(batch=2).actions()["measure here"](done.append).read().measured
    assert measured["ln"] > 0 and done[-1] == pytest.approx(1)


@pytest.mark.parametrize("wrong", [{}, {"machine": MACHINE}, None, 3, "costs"])
def test_a_record_without_a_machine_or_layers_is_refused(wrong):
    with pytest.raises(ValueError, match=r"^record=.* must be what lab\.measure_layers gives"):
        Cost(wrong)
