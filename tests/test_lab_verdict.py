"""The verdict's rule on constructed histories; real ones are judged in test_lab_training.py."""

import math

import pytest

from normviz.lab import History, Recipe, smooth, verdict

CHANCE = math.log(10)


def history(pieces, accuracy=0.95, test_loss=0.2, classes=10):
    """A loss curve of straight lines: [(steps, from, to), …] in units of the chance loss."""
    loss = []
    for steps, start, end in pieces:
        loss += [(start + (end - start) * i / steps) * math.log(classes) for i in range(steps)]
    evals = [{"step": len(loss), "loss": test_loss, "accuracy": accuracy}]
    return History(Recipe(), loss, evals, meta={"classes": classes})


@pytest.mark.parametrize(
    ("kind", "step", "pieces", "accuracy"),
    [
        ("trained", (190, 215), [(200, 1.0, 0.25), (200, 0.25, 0.02)], 0.95),
        ("trained", (90, 115), [(100, 1.0, 0.2), (40, 0.2, 0.2), (60, 0.9, 0.6), (200, 0.2, 0.02)], 0.95),  # heals
        ("delayed", None, [(400, 1.0, 0.4)], 0.6),
        ("delayed", None, [(400, 1.0, 0.02)], 0.5),  # the training loss alone does not make it
        ("delayed", None, [(200, 1.0, 0.2), (200, 0.9, 0.6)], 0.5),  # fell back, but not to chance
        ("stalled", None, [(400, 1.0, 0.95)], 0.12),
        ("stalled", None, [(400, 1.05, 0.85)], 0.2),
        ("crashed", (200, 215), [(200, 1.0, 0.2), (200, 1.1, 1.0)], 0.1),
        ("crashed", (250, 265), [(150, 1.0, 0.3), (50, 1.0, 0.4), (50, 0.4, 0.3), (150, 1.0, 1.0)], 0.1),
        ("diverged", (300, 315), [(300, 1.0, 0.9), (100, 4.0, 6.0)], 0.1),
        ("diverged", (200, 215), [(200, 1.0, 0.2), (200, 3.0, 3.0)], 0.1),
    ],
)
def test_constructed_curves(kind, step, pieces, accuracy):
    found = verdict(history(pieces, accuracy))
    assert found.kind == kind, found.why
    if step is None:
        assert found.step is None
    else:
        assert step[0] <= found.step <= step[1]
    assert "of chance" in found.why


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_first_loss_that_is_not_finite_is_named(value):
    run = history([(200, 1.0, 0.3), (200, 0.3, 0.2)])
    run.loss[137] = value
    assert verdict(run)[:2] == ("diverged", 137)
    run.loss[0] = value
    assert verdict(run)[:2] == ("diverged", 0)


def test_learned_before_it_diverged_is_said():
    run = history([(200, 1.0, 0.3)])
    run.loss += [math.nan] * 10
    assert "having learned" in verdict(run).why
    assert "having learned" not in verdict(History(Recipe(), [2.3, math.nan], meta={"classes": 10})).why


def test_exploded_evaluation_is_said():
    why = verdict(history([(400, 1.0, 0.02)], accuracy=0.9, test_loss=math.nan)).why
    assert "test loss is nan" in why
    assert "test loss" not in verdict(history([(400, 1.0, 0.02)])).why


def test_the_rule_scales_with_the_classes():
    pieces = [(200, 1.0, 0.2), (200, 0.2, 0.1)]
    assert verdict(history(pieces, classes=100)).kind == "trained"
    assert verdict(history(pieces, accuracy=0.6, classes=100)).kind == "delayed"


def test_short_records_are_judged_and_empty_ones_refused():
    assert verdict(History(Recipe(), [2.3], meta={"classes": 10})).kind == "stalled"
    with pytest.raises(ValueError, match=r"history\.loss is empty"):
        verdict(History(Recipe()))


def test_smooth_is_a_trailing_mean():
    loss = [float(i % 7) for i in range(200)]
    found = smooth(loss)
    for i in (0, 3, 9, 10, 57, 199):
        window = loss[max(0, i - 9) : i + 1]
        assert found[i] == pytest.approx(sum(window) / len(window))
