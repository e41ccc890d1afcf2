"""The ledger: verdicts are computed from runs, on constructed ones here, and each way of failing has its own word."""

import math
from dataclasses import replace

import pytest

from normviz.arms import REGIMES
from normviz.lab import History, preset
from normviz.lab.claims import CLAIMS, HOLDS, NOT, OPEN, PARTLY, UNDECIDED, ledger, markdown
from normviz.lab.conclusions import Runs
from normviz.lab.studies import JUDGED, SLOTS

FATES = {
    "trained": ([0.1] * 100, 0.95, 0.1),
    "slow": ([1.0] * 100, 0.6, 1.0),
    "stalled": ([2.3] * 100, 0.1, 2.3),
    "crashed": ([2.3] * 20 + [0.3] * 40 + [2.3] * 40, 0.1, 2.3),
    "broken": ([2.3] * 40 + [math.nan] * 60, 0.1, 2.3),
    "lost": ([0.1] * 100, 0.95, math.nan),
}


def run(recipe, fate="trained", accuracy=None) -> History:
    loss, usual, test_loss = FATES[fate]
    evals = [{"step": 100, "loss": test_loss, "accuracy": usual if accuracy is None else accuracy}]
    return History(recipe, list(loss), evals, meta={"classes": 10, "test_images": 10_000})


class Recorded(Runs):
    """Studies made up for a test."""

    def __init__(self, studies, folder):
        super().__init__(folder)
        self._known = studies

    def all(self, study):
        if study not in self._known:
            raise LookupError(f"still to be run: {study}")
        return self._known[study]


def regimes(tmp_path, **but):
    """Every regime sound in all arms and seeds, but for `but`: regime → arm → (fate, accuracy)."""
    studies = {}
    for name in REGIMES:
        for arm in ("ln", "bn", "bn+ffnbn"):
            fate = but.get(name.replace("-", "_"), {}).get(arm, ("trained", None))
            made = [run(preset(name, arm, seed), *fate) for seed in range(5)]
            studies.setdefault(name, []).extend(made)
    return Recorded(studies, tmp_path)


def finding(words, runs):
    return next(claim for claim in CLAIMS if words in claim.statement).measure(runs)


def test_a_crash_is_a_run_that_had_learned_and_nothing_was_done_to_it(tmp_path):
    found = finding("can crash", regimes(tmp_path))
    assert found.verdict == NOT and "No BN run of ours" in found.sentence
    found = finding("can crash", regimes(tmp_path, heavy={"bn": ("crashed", None)}))
    assert found.verdict == HOLDS and "crashed by itself, after having learned, in GELU with jitter" in found.sentence


def test_stalls_delays_and_shocks_are_told_apart_from_crashes(tmp_path):
    runs = regimes(
        tmp_path,
        swiglu={"bn": ("stalled", None)},
        heavy={"bn": ("slow", None)},
        midrun={"bn": ("crashed", None)},
        deep={"bn": ("lost", None)},
    )
    found = finding("can crash", runs)
    assert found.verdict == PARTLY and "No BN run of ours learns and then crashes by itself" in found.sentence
    for said in (
        "never starts in SwiGLU (5 runs)",
        "is slow in GELU with jitter (5 runs)",
        "crashes when we shift the data in mid-run in SwiGLU with jitter from half time (5 runs)",
        "not finite in GELU with jitter at depth 32 (5 runs)",
    ):
        assert said in found.sentence
    for counted in ("BN 5 stalled", "BN 5 slow", "BN 5 crashed", "BN 5 trained; 5 not finite in evaluation"):
        assert counted in found.numbers


def test_float16_is_named_only_where_no_other_run_broke(tmp_path):
    found = finding("can crash", regimes(tmp_path, heavy={"bn": ("broken", None)}))
    assert found.verdict == HOLDS
    assert found.sentence.startswith("BN's loss stops being finite in GELU with jitter (5 runs)")


def test_where_ln_fails_too_it_is_no_case(tmp_path):
    both = {"ln": ("stalled", None), "bn": ("stalled", None)}
    assert finding("can crash", regimes(tmp_path, swiglu=both)).verdict == NOT


def test_a_cure_is_judged_where_there_is_something_to_cure(tmp_path):
    sick = {"bn": ("stalled", None)}
    assert finding("cures it", regimes(tmp_path, swiglu=sick)).verdict == HOLDS
    worse = finding("cures it", regimes(tmp_path, swiglu=sick, heavy=sick | {"bn+ffnbn": ("slow", None)}))
    assert worse.verdict == PARTLY
    assert worse.sentence == "After the activation it does in SwiGLU, not in GELU with jitter."


@pytest.mark.parametrize(
    ("accuracy", "verdict", "said"),
    [(0.95, PARTLY, "level"), (0.99, PARTLY, "ahead"), (0.80, PARTLY, "behind in GELU with jitter and SwiGLU")],
)
def test_level_needs_an_interval_within_two_points(tmp_path, accuracy, verdict, said):
    runs = regimes(tmp_path, swiglu={"bn+ffnbn": ("trained", accuracy)}, heavy={"bn+ffnbn": ("slow", 0.5)})
    found = finding("as accurate", runs)
    assert found.verdict == verdict and said in found.sentence and "behind in" in found.sentence


def test_a_legacy_is_weighed_and_not_decided(tmp_path):
    found = finding("legacy", regimes(tmp_path, swiglu={"bn+ffnbn": ("lost", None)}))
    assert found.verdict == UNDECIDED
    assert "against it, not in SwiGLU." in found.sentence and "5 not finite in evaluation" in found.numbers
    for name, words in REGIMES.items():
        assert words in found.sentence, name  # no regime is left out


def slots(tmp_path, **fates):
    """Study `slot` with one fate for every arm; `bn_embedln` stands for bn+embedln."""
    made = []
    for name in ("heavy", "swiglu"):
        for arm in SLOTS:
            fate = fates.get(arm.replace("+", "_").replace("-", "_"), "stalled")
            made += [run(preset(name, arm, seed), fate) for seed in JUDGED]
    return Recorded({"slot": made}, tmp_path)


def test_the_ffn_is_to_blame_only_if_nothing_else_helps(tmp_path):
    guilty = finding("to blame", slots(tmp_path, bn_ffnbn="trained", bn_ffnln="trained"))
    assert guilty.verdict == HOLDS and "It is in GELU with jitter and SwiGLU" in guilty.sentence
    acquitted = finding("to blame", slots(tmp_path, bn_ffnbn="trained", bn_embedln="trained"))
    assert acquitted.verdict == NOT and "one LN after the patch embedding" in acquitted.sentence


def test_without_records_it_says_what_is_still_to_be_run(tmp_path):
    findings = {claim.statement: found for claim, found in ledger(tmp_path)}
    legacy = next(found for statement, found in findings.items() if "legacy" in statement)
    assert legacy.verdict == OPEN and "normviz study tame" in legacy.sentence


def test_numbers_are_folded_and_the_sentence_is_not():
    table = markdown()
    *rows, empty, scale = table.splitlines()[2:]
    assert empty == "" and "ImageNet" in scale
    assert len(rows) == len(CLAIMS) and all(row.count("|") == 5 for row in rows)
    for row in rows:
        said = row.split("|")[3]
        assert 20 < len(said.split("<details>")[0]) < 700 and "nan" not in said


def test_runs_with_an_intervention_are_no_runs_as_they_are(tmp_path):
    runs = regimes(tmp_path)
    runs._known["memory"] = [
        run(replace(preset("heavy", "bn", 100), reset_at=40), "stalled"),
        run(preset("heavy", "bn", 101), "slow"),
        run(preset("heavy", "ln", 101)),
    ]
    found = finding("can crash", runs)
    assert "is slow in GELU with jitter (1 run)" in found.sentence and "never starts" not in found.sentence
