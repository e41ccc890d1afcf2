"""The ledger's last word: whether LN in a ViT is a legacy is computed from runs, on constructed ones here."""

import math

import pytest

from normviz.lab import History, preset
from normviz.lab.claims import CLAIMS, HOLDS, NOT, ONLY_IF, OPEN, ledger, spread
from normviz.lab.study import REGIMES

LEGACY = next(claim for claim in CLAIMS if "legacy" in claim.statement)


def run(arm: str, loss: float, accuracy: float, test_loss: float = 0.1) -> History:
    """A run whose loss falls to `loss` at once and stays there."""
    evals = [{"step": 100, "loss": test_loss, "accuracy": accuracy}]
    return History(preset("tame", arm, steps=100), loss=[loss] * 100, evals=evals, meta={"classes": 10})


def legacy(cure: History, but: tuple[str, History] = ("", None)):
    """The finding where FFN-BN does like `cure` in every regime, but for one."""

    def runs(study, arm):
        if arm == "ln":
            return [run("ln", 0.1, 0.95)] * 5
        return [but[1] if study == but[0] else cure] * 5

    return LEGACY.measure(runs)


GOOD = run("bn+ffnbn", 0.1, 0.94)


def test_a_legacy_if_the_cure_does_as_well_everywhere():
    assert legacy(GOOD).verdict == HOLDS


@pytest.mark.parametrize(
    "worse",
    [
        run("bn+ffnbn", 2.3, 0.94),  # does not train
        run("bn+ffnbn", 0.1, 0.90),  # trains to less
        run("bn+ffnbn", 0.1, 0.94, test_loss=math.nan),  # of no use at evaluation
    ],
    ids=["stalls", "less accurate", "blows up in evaluation"],
)
def test_not_in_a_regime_where_the_cure_does_worse(worse):
    finding = legacy(GOOD, but=("swiglu", worse))
    assert finding.verdict == ONLY_IF
    assert REGIMES["tame"] in finding.where and f"{REGIMES['swiglu']};" not in f"{finding.where};"
    assert legacy(worse).verdict == NOT


def test_without_records_it_says_what_is_still_to_be_run(tmp_path):
    findings = {claim.statement: finding for claim, finding in ledger(tmp_path)}
    assert findings[LEGACY.statement].verdict == OPEN
    assert "normviz study tame" in findings[LEGACY.statement].numbers


def test_a_single_seed_has_no_spread():
    assert spread([0.5]) == "50.0 %"
    assert spread([0.5, 0.7]) == "60.0 ± 14.1 %"
