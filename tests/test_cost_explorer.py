"""The explorer of notebook 06: counts and times against their own arithmetic, under random events; the button."""

import random
import re
import time
from html import escape

import numpy as np
import pytest

import normviz as nv
from normviz.picture.cost import cost_ratios
from normviz.picture.cost_widget import BATCHES, TOKENS, WIDTHS
from normviz.picture.svg import to_svg

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
    return {
        "ln": 4e-9 * cells,
        "bn": 2e-9 * cells,
        "line": 1e-9 * cells,
        "folded": 0.0,
        "linear": 9e-8 * cells,
    }


def record(sizes):
    rows = [{"batch": b, "tokens": t, "width": w, "seconds": made_up_time(b, t, w)} for b, t, w in sizes]
    return {"machine": MACHINE, "layers": rows}


def expected(kind, n, d):
    """Seconds by the roofline, written out anew: bytes, operations, the calibrated numbers of MACHINE."""
    if kind == "folded":
        return 0.0
    numbers = {"ln": 2 * n * d + 2 * n + 2 * d, "bn": 2 * n * d + 4 * d, "line": 2 * n * d + 2 * d}
    numbers["linear"] = n * d + n * 3 * d + 3 * d * d + 3 * d
    work = {"ln": 7 * n * d + 2 * n, "bn": 2 * n * d + 5 * d, "line": 2 * n * d, "linear": 2 * n * d * 3 * d}
    moved = 4 * numbers[kind]
    sizes, rates = np.array(MACHINE["bandwidth"]).T
    rate = np.exp(np.interp(np.log(moved), np.log(sizes), np.log(rates)))
    return CALL[kind] + max(moved / rate, work[kind] / (8e10 if kind == "linear" else 1.7e10))


def check(explorer, timed):
    state, reading, scene = explorer.state, explorer.reading, explorer.scene()
    n, d = state.batch * state.tokens, state.width
    for kind in KINDS:
        assert reading.predicted[kind].seconds == pytest.approx(expected(kind, n, d), rel=1e-9)
    names = [item.name for item in scene.items if getattr(item, "name", "")]
    assert {f"predicted-{kind}" for kind in KINDS if kind != "folded"} <= set(names)
    known = (state.batch, state.tokens, state.width) in timed
    assert (
        (reading.measured == made_up_time(state.batch, state.tokens, state.width))
        if known
        else not reading.measured
    )
    assert (f"measured-{KINDS[0]}" in names) == known and ("not measured" in scene.alt) == (not known)
    assert f"{2 * n:,} statistics" in scene.alt
    times = reading.measured or {kind: expected(kind, n, d) for kind in KINDS}
    ratio = float(re.search(r"LayerNorm takes ([\d.]+) times", scene.alt)[1])
    assert ratio == pytest.approx(times["ln"] / times["bn"], abs=0.006)
    assert escape(scene.alt) in explorer._text.value and to_svg(scene) in explorer._picture.value
    assert explorer.twin().alt == scene.alt


def test_the_explorer_shows_what_the_arithmetic_says_under_random_events():
    timed = [(b, t, w) for b in (1, 16, 64) for t in TOKENS for w in (48, 384)]
    explorer, dice = nv.explore_cost(record(timed)), random.Random(0)
    check(explorer, timed)
    for _ in range(200):
        control = explorer.controls[dice.choice(list(explorer.controls))]
        control.value = dice.choice([value for _, value in control.options])
        check(explorer, timed)


def test_bars_are_as_long_as_the_logarithm_of_their_times():
    scene = nv.explore_cost(record([(16, 64, 192)])).scene()
    found = {
        i.name.removeprefix("measured-"): np.ptp(i.points[0][:, 0])
        for i in scene.items
        if getattr(i, "name", "").startswith("measured-")
    }
    times = made_up_time(16, 64, 192)
    decade = found["linear"] - found["bn"]
    assert (found["ln"] - found["bn"]) / decade == pytest.approx(
        np.log(2) / np.log(times["linear"] / times["bn"])
    )
    assert "folded" not in found


def test_the_button_measures_the_sizes_shown():
    asked, states = [], []

    def measure(batch, tokens, width, *, rounds, tell):
        asked.append((batch, tokens, width))
        for i in range(rounds):
            tell(f"round {i}")
            states.append(
                (explorer.progress.value, explorer.button.disabled, explorer.controls["batch"].disabled)
            )
        return {"seconds": made_up_time(batch, tokens, width)}

    explorer = nv.explore_cost(record([]), measure, batch=2)
    check(explorer, [])
    explorer.button.click()
    assert asked == [(2, 64, 192)] and states == [(i + 1, True, True) for i in range(9)]
    check(explorer, asked)
    assert not explorer.button.disabled and not explorer.controls["batch"].disabled
    explorer.controls["batch"].value = 4
    check(explorer, asked)


def test_a_measurement_that_fails_is_told_and_leaves_the_explorer_alive():
    def measure(*sizes, **options):
        raise MemoryError("no <room>")

    explorer = nv.explore_cost(record([]), measure)
    explorer.button.click()
    assert "no &lt;room&gt;" in explorer.note.value and not explorer.button.disabled
    check(explorer, [])


def test_without_a_way_to_measure_the_button_rests():
    assert nv.explore_cost(record([])).button.disabled


def test_an_event_is_fast():
    explorer, took = nv.explore_cost(record([(16, 64, 192)])), []
    for i in range(40):
        start = time.process_time()
        explorer.controls["width"].value = WIDTHS[i % len(WIDTHS)]
        took.append(time.process_time() - start)
    assert sorted(took)[20] < 0.015


def test_the_real_lab_feeds_it():
    from normviz.lab import measure_layers, time_layers

    found = measure_layers({"batch": (1,), "tokens": (16,), "width": (48,)}, rounds=1)
    explorer = nv.explore_cost(found, time_layers, batch=1, tokens=16, width=48)
    assert explorer.reading.measured == found["layers"][0]["seconds"]
    explorer.controls["batch"].value = 2
    explorer.button.click()
    assert explorer.reading.measured["ln"] > 0 and not explorer.note.value


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: nv.explore_cost({}), "record has nothing"),
        (lambda: nv.explore_cost(record([]), batch=3), f"batch=3 must be one of {BATCHES}"),
        (lambda: nv.explore_cost(record([]), width=100), "width=100"),
        (lambda: nv.draw_cost(record([]), tokens=5), "tokens=5"),
        (lambda: nv.draw_cost_ratios([]), "records holds no timed network"),
    ],
)
def test_bad_input_is_named(call, word):
    with pytest.raises(ValueError) as caught:
        call()
    assert word in str(caught.value)


def test_ratios_are_drawn_where_they_are():
    ratios = {arm: {"median": m, "low": m - 0.05, "high": m + 0.05} for arm, m in
              (("ln", 1.0), ("bn", 0.9), ("bn+ffnbn", 1.0), ("folded", 0.8))}  # fmt: skip
    row = {"network": "deit-s", "batch": 4, "mode": "eager", "seconds": {"ln": 0.5}, "ratio_to_ln": ratios}
    environment = {"device": "cpu", "name": "Abacus", "threads": 1}
    scene = cost_ratios([{"environment": environment, "networks": [row]}])
    at = {i.name: i.points for i in scene.items if getattr(i, "name", "")}
    centre = {arm: at[f"mark-{arm}"][-1][:, 0].mean() for arm in ("bn", "bn+ffnbn", "folded")}
    assert centre["bn"] - centre["folded"] == pytest.approx(centre["bn+ffnbn"] - centre["bn"])
    one = next(i for i in scene.items if getattr(i, "name", "") == "guide" and not i.dashed)
    assert one.points[0, 0, 0] == pytest.approx(centre["bn+ffnbn"])
    whisker = at["spread-bn"][0][:, 0]
    assert np.ptp(whisker) == pytest.approx(centre["bn+ffnbn"] - centre["bn"])
    assert "DeiT-S, batch 4, eager: BN 0.90, BN + FFN-BN 1.00, folded 0.80" in scene.alt
    assert any(getattr(i, "text", "") == "Abacus, 1 thread" for i in scene.items)
