"""Timing in turn, the counts of what a layer does against torch's own kernels, and the record of a machine."""

import json
import os
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from normviz.costs import LAYERS, Machine, predict
from normviz.lab import ViT, calibrate, compile_problem, count, fold, load_costs, measure_layers, paired, run_layer
from normviz.lab.claims import HOLDS, NOT, OPEN, PARTLY, ledger
from normviz.lab.timing import VARIANTS, Paired, environment, layer_calls, network, threads, time_layers, time_networks

SIZES = {"tokens": st.integers(2, 40), "width": st.integers(1, 48)}


# The formulas against a counter ------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(**SIZES)
def test_the_formula_of_bytes_is_what_torchs_kernels_touch(tokens, width):
    for kind, call in layer_calls(tokens, width).items():
        counted = count(call)
        assert counted.bytes == LAYERS[kind].bytes(tokens, width), kind
        assert counted.calls == 1, kind


@settings(max_examples=30, deadline=None)
@given(**SIZES)
def test_the_formula_of_operations_is_what_the_steps_add_up_to(tokens, width):
    x, statistics = torch.randn(tokens, width), torch.rand(4, width)
    for kind in ("ln", "bn"):
        counted = count(lambda kind=kind: run_layer(kind, x, statistics))
        assert counted.elementwise == LAYERS[kind].operations(tokens, width), kind
    linear = count(layer_calls(tokens, width)["linear"])
    assert linear.matmul == LAYERS["linear"].operations(tokens, width)


def test_the_steps_are_layer_norm_and_batch_norm():
    x, (g, b, mean, var) = torch.randn(30, 7), torch.rand(4, 7)
    statistics = torch.stack([g, b, mean, var])
    torch.testing.assert_close(run_layer("ln", x, statistics), torch.nn.functional.layer_norm(x, (7,), g, b))
    expected = torch.nn.functional.batch_norm(x, mean, var, g, b)
    torch.testing.assert_close(run_layer("bn", x, statistics), expected)


def test_a_layer_that_is_not_known_is_not_taken_for_another():
    with pytest.raises(ValueError, match="kind='layernorm' is unknown; it takes one of ln, bn"):
        run_layer("layernorm", torch.randn(3, 4), torch.rand(4, 4))


def test_folding_takes_the_calls_and_the_bytes_of_the_norms_away():
    x, models = torch.randn(4, 1, 8, 8), {arm: ViT(arm, depth=3).eval() for arm in ("ln", "bn", "bn+ffnbn")}
    models["folded"] = fold(models["bn+ffnbn"])
    found = {arm: count(lambda model=model: model(x)) for arm, model in models.items()}
    assert found["ln"].calls - found["folded"].calls == 2 * 3 + 1
    assert found["bn+ffnbn"].calls - found["folded"].calls == 3 * 3 + 1
    norms = 7 * LAYERS["bn"].bytes(4 * 16, 48) + 3 * LAYERS["bn"].bytes(4 * 16, 4 * 48)
    assert found["bn+ffnbn"].bytes - found["folded"].bytes == norms
    assert len({f.matmul for f in found.values()}) == 1  # no product is added by folding


# The prediction ---------------------------------------------------------------------------------------------

MACHINE = Machine(dict.fromkeys(LAYERS, 1e-6), ((1e3, 1e9), (1e5, 1e10)), 1e9, 1e11)


def test_the_prediction_is_a_roofline_with_a_call():
    found = predict("ln", 10, 100, MACHINE)
    assert found.call == 1e-6 and found.arithmetic == LAYERS["ln"].operations(10, 100) / 1e9
    assert found.seconds == 1e-6 + max(found.memory, found.arithmetic) and found.bound == "arithmetic"
    assert predict("line", 1, 8, MACHINE).bound == "call"
    assert predict("folded", 10, 100, MACHINE).seconds == 0 and predict("folded", 10, 100, MACHINE).bound == "nothing"


def test_bandwidth_lies_between_the_calibrated_ones():
    assert MACHINE.bandwidth_at(1) == 1e9 and MACHINE.bandwidth_at(1e9) == 1e10
    assert MACHINE.bandwidth_at(1e4) == pytest.approx(10**9.5)
    sizes = np.logspace(2, 6, 50)
    assert (np.diff([MACHINE.bandwidth_at(s) for s in sizes]) >= 0).all()


@pytest.mark.parametrize("wrong", [("rms", 1, 1), ("ln", 0, 1), ("ln", 1, 0)])
def test_what_cannot_be_predicted_is_named(wrong):
    with pytest.raises(ValueError, match=r"kind='rms'|>= 1"):
        predict(*wrong, MACHINE)


def test_a_calibration_is_positive_and_survives_json():
    found = calibrate()
    assert set(found.call) == set(LAYERS) - {"folded"} and min(found.call.values()) > 0
    assert found.vector > 0 and found.matrix > 0 and min(rate for _, rate in found.bandwidth) > 0
    plain = {"call": found.call, "bandwidth": found.bandwidth, "vector": found.vector, "matrix": found.matrix}
    assert Machine.from_dict(json.loads(json.dumps(plain))) == found


def work(milliseconds):
    """Keeps the processor busy: by its own time, which is what one thread is timed by."""
    end = time.thread_time() + milliseconds / 1000
    while time.thread_time() < end:
        pass


# Timing in turn ---------------------------------------------------------------------------------------------


def test_calls_take_turns_and_each_is_measured_as_often():
    order, told = [], []
    calls = {name: lambda name=name: order.append(name) or work(1) for name in "ab"}
    found = paired(calls, rounds=4, warmup=1, least=0, tell=told.append)
    # one to warm up and one to see how long it takes, then A B, B A, A B, B A
    assert "".join(order[-8:]) == "abbaabba" and len(order) == 12
    assert all(len(seconds) == 4 for seconds in found.seconds.values()) and len(told) == 4


def test_a_call_that_takes_longer_is_seen_to():
    found = paired({"short": lambda: work(2), "long": lambda: work(8)}, rounds=7, warmup=1)
    ratio = found.ratio("short", "long")
    assert ratio.median < 0.8 and ratio.ci[1] < 1 and ratio.rounds == 7
    assert found.best("long") >= 8e-3 and found.median("long") >= found.best("long")


def test_the_ratio_is_taken_round_by_round():
    """A machine that gets ten times slower in half of the rounds changes no ratio."""
    slow = np.array([1.0, 10.0, 1.0, 10.0, 1.0])
    found = Paired({"a": 3 * slow, "b": 4 * slow}).ratio("a", "b")
    assert found.median == found.low == found.high == 0.75 and found.ci == (0.75, 0.75)
    spread = Paired({"a": np.array([1.0, 2.0, 3.0, 4.0, 5.0]), "b": np.ones(5)}).ratio("a", "b")
    assert (spread.low, spread.median, spread.high) == (2, 3, 4) and spread.ci[0] <= 3 <= spread.ci[1]


def test_short_calls_are_repeated():
    calls = []
    paired({"it": lambda: calls.append(1)}, rounds=2, least=1e-3)
    assert len(calls) > 100


def test_bad_calls_are_named():
    with pytest.raises(ValueError, match="calls="):
        paired({})
    with pytest.raises(ValueError, match="rounds=0"):
        paired({"it": int}, rounds=0)


def test_one_thread_is_timed_by_its_own_clock_and_several_by_the_walls():
    for number, sleeps in ((1, False), (2, True)):
        with threads(number):
            took = paired({"sleep": lambda: time.sleep(0.01)}, rounds=1, warmup=1, least=0).best("sleep")
            assert (took >= 0.01) == sleeps and ("wall" in environment()["clock"]) == sleeps


def test_threads_are_fixed_recorded_and_given_back():
    before = torch.get_num_threads()
    with threads(1):
        assert environment()["threads"] == 1
    assert torch.get_num_threads() == before and environment()["cores"] == os.cpu_count()


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no no-such-compiler" in compile_problem("cpu")


# Layers and networks -----------------------------------------------------------------------------------------


def test_layers_are_timed_at_every_point():
    grid = {"batch": (1, 2), "tokens": (3,), "width": (4, 8)}
    found = measure_layers(grid, rounds=1)
    assert [(row["batch"], row["width"]) for row in found["layers"]] == [(1, 4), (1, 8), (2, 4), (2, 8)]
    assert all(set(row["seconds"]) == set(LAYERS) for row in found["layers"])
    assert found["environment"]["threads"] == 1
    with pytest.raises(ValueError, match="width=0"):
        time_layers(1, 1, 0)


def test_the_variants_are_what_they_are_called():
    x, models = torch.randn(2, 1, 8, 8), {variant: network("ours", variant) for variant in VARIANTS}
    with torch.no_grad():
        logits = {variant: model(x) for variant, model in models.items()}
    assert all(not model.training and logits[variant].isfinite().all() for variant, model in models.items())
    for variant in ("folded", "removed"):
        assert not [m for m in models[variant].modules() if "Norm" in type(m).__name__]
    with pytest.raises(ValueError, match="network='vit-h'"):
        network("vit-h", "ln")


def test_networks_are_timed_in_turn():
    found = time_networks("ours", 1, rounds=2)
    assert set(found.seconds) == set(VARIANTS) and all(len(s) == 2 for s in found.seconds.values())


# The record and the ledger -----------------------------------------------------------------------------------


def record(bn, cured, folded):
    """A CPU's record in which the three networks take these shares of LN's time."""
    ratios = {v: {"median": m, "low": m, "high": m} for v, m in zip(VARIANTS, (1, bn, cured, folded), strict=False)}
    rows = [
        {"network": network, "batch": 64, "mode": mode, "seconds": {"ln": 1.0}, "ratio_to_ln": ratios}
        for network in ("ours", "deit-s")
        for mode in ("eager", "compiled")
    ]
    environment = {"device": "cpu", "name": "Abacus", "threads": 2}
    return {"environment": environment, "networks": rows}


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [((0.8, 0.82, 0.7), HOLDS), ((0.99, 0.99, 0.8), PARTLY), ((0.99, 1.02, 0.98), NOT), (None, OPEN)],
)
def test_the_ledger_judges_the_twenty_percent_by_the_record(tmp_path, ratios, verdict):
    if ratios:
        (tmp_path / "cost-cpu.json").write_text(json.dumps(record(*ratios)))
        assert load_costs(tmp_path) == [record(*ratios)]
    finding = next(found for claim, found in ledger(tmp_path) if "20 %" in claim.statement)
    assert finding.verdict == verdict
    assert ("Abacus" in finding.numbers) == (ratios is not None)
