"""The rules of the studies, on runs made up to fall on either side of them, and on the project's own records."""

import json
import math
from dataclasses import replace

import pytest
from test_claims import Recorded, run

from normviz.lab import preset
from normviz.lab.conclusions import CONCLUSIONS, conclude, crashes_when_tuned, fair, growth, having, memory, slot
from normviz.lab.studies import CLIPS, JUDGED, POISONS, RATES, REMEDIES, SGD_RATES, STUDIES, UNTOUCHED, tuned
from normviz.lab.study import progress, study_path


def memories(tmp_path, reset, poisoned="stalled", regime="heavy", cure=0.95):
    """Study `memory` with BN at 45 % and the accuracy `reset` (a list, by seed) once its state is cleared."""
    made = []
    for seed, accuracy in zip(JUDGED, reset, strict=True):
        bn, ln = preset(regime, "bn", seed), preset(regime, "ln", seed)
        for setting in REMEDIES.values():
            if setting.get("optimizer") == "sgd":
                setting = setting | {"lr": SGD_RATES[regime]}
            made.append(run(replace(bn, **setting), "slow", accuracy if "reset_at" in setting else 0.45))
        made += [run(ln), run(preset(regime, "bn+ffnbn", seed), accuracy=cure)]
        made += [run(replace(ln, **setting), poisoned) for setting in POISONS.values()]
    return Recorded({"memory": made}, tmp_path)


@pytest.mark.parametrize(
    ("reset", "cause"),
    [
        ([0.86, 0.87, 0.9, 0.86, 0.5], "main"),
        ([0.86, 0.87, 0.9, 0.8, 0.5], "part"),  # 80 % of the gap in three seeds only
        ([0.5, 0.5, 0.9, 0.9, 0.5], "no"),
    ],
)
def test_memory_is_the_cause_if_forgetting_closes_the_gap(tmp_path, reset, cause):
    found = memory(memories(tmp_path, reset), "heavy")
    assert found.closed == [pytest.approx((accuracy - 0.45) / 0.5) for accuracy in reset]
    assert found.cause == cause and found.enough
    assert {len(runs) for runs in found.runs.values()} == {5}


def test_poison_is_enough_only_if_ln_does_not_train(tmp_path):
    assert not memory(memories(tmp_path, [0.9] * 5, poisoned="trained"), "heavy").enough


def test_settings_are_told_apart_exactly(tmp_path):
    runs = memories(tmp_path, [0.9] * 5).all("memory")
    clipped = having(runs, UNTOUCHED | {"clip": 1.0})
    assert len(clipped) == 5 and all(r.recipe.clip_steps is None for r in clipped)
    assert all(r.recipe.reset_at is None and r.recipe.poison == 1 for r in having(runs, UNTOUCHED))


def test_growth_is_the_slope_of_the_logarithm(tmp_path):
    made = []
    for depth in (2, 4, 8, 16):
        for seed in range(3):
            one = run(preset("tame", "bn", seed, depth=depth))
            one.grad_norm = [3 * math.exp(0.2 * depth) * (1 + 0.01 * (seed - 1))]
            flat = run(preset("tame", "ln", seed, depth=depth))
            flat.grad_norm = [5 + 0.5 * (-1) ** (depth // 4)]
            made += [one, flat]
    runs = Recorded({"initial": made}, tmp_path)
    grown = growth(runs, "bn", "gelu", 0.0)
    assert grown.slope == pytest.approx(0.2) and grown.r2 == pytest.approx(1) and grown.explodes
    assert not growth(runs, "ln", "gelu", 0.0).explodes


def test_the_best_setting_is_that_of_the_lowest_loss_and_nan_is_the_worst():
    def at(lr, clip, loss):
        one = run(preset("heavy", "bn", 90, lr=lr, clip=clip))
        one.loss = [loss] * 100
        return one

    assert tuned([at(1e-3, None, 0.5), at(4e-3, 1.0, 0.3), at(8e-3, None, math.nan)]) == {
        ("heavy", "bn"): {"lr": 4e-3, "clip": 1.0}
    }


def test_a_swap_crashes_only_if_the_tuned_one_trains_less_often(tmp_path):
    tuning = [
        run(preset("heavy", arm, 90, lr=lr, clip=clip), "trained" if (lr, clip) == (2e-3, 1.0) else "slow")
        for arm in ("ln", "bn") for lr in RATES for clip in CLIPS
    ]  # fmt: skip
    judged = [run(preset("heavy", "ln", seed, lr=2e-3, clip=1.0)) for seed in JUDGED]
    for fate, crashes in (("trained", False), ("stalled", True)):
        bn = [run(preset("heavy", "bn", seed, lr=2e-3, clip=1.0), fate) for seed in JUDGED]
        table = fair(Recorded({"fair": tuning, "fair-judged": judged + bn}, tmp_path))["heavy"]
        assert table["bn"][0] == {"lr": 2e-3, "clip": 1.0} and len(table["bn"][1]) == 5
        assert crashes_when_tuned(table) is crashes


def test_a_study_without_a_rule_says_so(tmp_path):
    with pytest.raises(LookupError, match="decides nothing"):
        conclude("tame")
    for name in CONCLUSIONS:
        assert STUDIES[name].rule or name == "cifar10"
        with pytest.raises(LookupError, match="still to be run"):
            conclude(name, tmp_path)


def test_the_projects_own_records_say_something():
    """A study that is recorded whole has a conclusion, and no number in it is undefined."""
    whole = [name for name in CONCLUSIONS if study_path(name).is_file() and len(set(progress(name))) == 1]
    assert "memory" in whole
    for name in whole:
        found = conclude(name)
        assert found.sentence.endswith(".") and "nan" not in found.numbers, name


def test_a_study_is_decided_by_the_runs_that_its_rule_looks_at(tmp_path):
    grid = STUDIES["ghost"].recipes
    for keep, decided in ((lambda r: r.clip is None, True), (lambda r: r.clip is None and r.seed < JUDGED[-1], False)):
        rows = [run(recipe, accuracy=1 / (recipe.ghost_tokens or 4096)).to_dict() for recipe in filter(keep, grid)]
        (tmp_path / "ghost.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        found = conclude("ghost", tmp_path)
        assert found.decided is decided
        assert found.sentence.endswith(f"({len(rows)} of {len(grid)} runs recorded)")


def test_slot_compares_seed_by_seed(tmp_path):
    """A gap that is the same in all seeds is sure, however far these lie apart."""
    made = []
    for seed, level in zip(JUDGED, (0.5, 0.9, 0.6, 0.8, 0.7), strict=True):
        for arm, gap in {"bn+ffnbn": 0.05, "bn+gain": 0.001 * (seed % 2), "bn+ffnbn-before": 0.05}.items():
            made.append(run(preset("heavy", arm, seed), accuracy=level + gap))
        for arm in ("bn", "bn+ffnln", "bn+ffnrms", "bn+embedln"):
            made.append(run(preset("heavy", arm, seed), "stalled"))
    found = slot(Recorded({"slot": made}, tmp_path), "heavy")
    assert found.beats("bn+gain") and not found.beats("bn+ffnbn-before")


def test_an_unfinished_slot_counts_the_seeds_that_every_arm_has(tmp_path):
    """Five trained runs against two of two are no more often: what is missing is not a failure."""
    made = [run(preset("heavy", "bn", seed), "stalled") for seed in JUDGED]
    made += [run(preset("heavy", "bn+ffnbn", seed), "trained") for seed in JUDGED]
    for arm in ("bn+ffnbn-before", "bn+ffnln", "bn+ffnrms", "bn+gain", "bn+embedln"):
        made += [run(preset("heavy", arm, seed), "trained") for seed in JUDGED[:2]]
    found = slot(Recorded({"slot": made}, tmp_path), "heavy")
    assert {len(runs) for runs in found.runs.values()} == {2} and not found.ffn_to_blame
    with pytest.raises(LookupError, match="too few seeds"):
        slot(Recorded({"slot": made[:-1]}, tmp_path), "heavy")
