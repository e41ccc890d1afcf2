"""What the studies of the cause say: the rule of each, applied to its recorded runs.

A conclusion is a sentence for people and the numbers beneath it.  What is not recorded yet decides nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from normviz.arms import REGIMES
from normviz.lab.compare import (
    accuracies,
    difference,
    fates,
    lost_in_evaluation,
    mean_interval,
    rank_correlation,
    spread,
    trained,
    trained_of,
)
from normviz.lab.history import History
from normviz.lab.recipe import PRESETS
from normviz.lab.studies import JUDGED, LENGTHS, POISONS, REMEDIES, SGD_RATES, SLOTS, tuned
from normviz.lab.study import load_study, progress, results_folder
from normviz.lab.verdicts import verdict


class Conclusion(NamedTuple):
    sentence: str
    numbers: str


class Runs:
    """The recorded runs of a results folder, by default the project's own, loaded when asked for."""

    def __init__(self, folder=None):
        self.folder = results_folder() if folder is None else Path(folder)
        self._known: dict[str, list[History]] = {}

    def all(self, study: str) -> list[History]:
        """Raises LookupError where nothing is recorded."""
        if study not in self._known:
            try:
                self._known[study] = load_study(study, self.folder)
            except FileNotFoundError:
                raise LookupError(f"still to be run: `python -m normviz study {study}`") from None
        return self._known[study]

    def __call__(self, study: str, arm: str, name: str | None = None, **fields) -> list[History]:
        """Runs of one arm in a study; `name`: of one preset among several; fields: of the recipe.

        Raises LookupError where it is not recorded.
        """
        found = [
            run
            for run in self.all(study)
            if run.recipe.arm == arm
            and name in (None, run.recipe.name)
            and all(getattr(run.recipe, field) == value for field, value in fields.items())
        ]
        if not found:
            raise LookupError(f"study {study!r} has no run of arm {arm!r}")
        return found

    def maybe(self, *arguments, **fields) -> list[History]:
        """The same, empty where nothing is recorded."""
        try:
            return self(*arguments, **fields)
        except LookupError:
            return []


def of_setting(runs: Iterable[History], setting: dict, name: str) -> list[History]:
    """Those of a regime's runs that have exactly one of the interventions of study `memory`."""
    if setting.get("optimizer") == "sgd":
        setting = setting | {"lr": SGD_RATES[name]}
    touched = {field for each in (*REMEDIES.values(), *POISONS.values()) for field in each} | {"lr"}
    plain = {field: PRESETS[name].get(field, _DEFAULTS[field]) for field in touched}
    return [
        run
        for run in runs
        if run.recipe.name == name
        and all(getattr(run.recipe, field) == value for field, value in (plain | setting).items())
    ]


def _defaults() -> dict:
    from normviz.lab.recipe import Recipe

    return Recipe().to_dict()


_DEFAULTS = MappingProxyType(_defaults())


def paired(ours: Iterable[History], theirs: Iterable[History]) -> list[tuple[History, History]]:
    """Runs of equal seeds, in the order of the first."""
    by_seed = {run.recipe.seed: run for run in theirs}
    return [(run, by_seed[run.recipe.seed]) for run in ours if run.recipe.seed in by_seed]


class Memory(NamedTuple):
    """Study `memory` in one regime."""

    regime: str
    runs: dict[str, list[History]]  # by remedy, and "LN", "LN × 10", "LN × 100", "FFN-BN"
    closed: list[float]  # by seed: the share of the gap between BN and FFN-BN that forgetting closes

    @property
    def cause(self) -> str:
        """ "main", "part", "no" or "open", by the rule."""
        for bound, word in ((0.8, "main"), (0.5, "part")):
            if sum(share >= bound for share in self.closed) >= 4:
                return word
        return "no" if len(self.closed) >= 5 else "open"

    @property
    def poisoned(self) -> list[History]:
        return self.runs["LN × 100"]

    @property
    def enough(self) -> bool:
        """Whether poison alone keeps LN from training."""
        return len(self.poisoned) >= 5 and trained(self.poisoned) <= 1


def memory(runs: Runs, regime: str) -> Memory:
    """Study `memory`, or `memory-deep`, in one of its regimes.  Raises LookupError where nothing is recorded."""
    study = "memory-deep" if regime == "deep" else "memory"
    bn, ln, cure = (runs(study, arm, regime) for arm in ("bn", "ln", "bn+ffnbn"))
    found = {words: of_setting(bn, setting, regime) for words, setting in REMEDIES.items()}
    found["LN"] = of_setting(ln, {}, regime)
    found |= {f"LN {words}": of_setting(ln, setting, regime) for words, setting in POISONS.items()}
    found["FFN-BN"] = cure
    plain = {run.recipe.seed: run for run in found["as it is"]}
    closed = []
    for reset, cured in paired(found["state cleared at step 40"], cure):
        if reset.recipe.seed in plain:
            low, mid, high = accuracies((plain[reset.recipe.seed], reset, cured))
            closed.append((mid - low) / (high - low) if high > low else math.inf)
    return Memory(regime, found, closed)


def _told(run_sets: dict[str, list[History]]) -> str:
    return "; ".join(
        f"{words} {trained_of(runs)}, {spread(accuracies(runs))}" for words, runs in run_sets.items() if runs
    )


def _memory(*names: str) -> Callable[[Runs], Conclusion]:
    def conclude(runs: Runs) -> Conclusion:
        said, numbers = [], []
        words = {"main": "the main cause", "part": "a part of the cause", "no": "not the cause", "open": "not decided"}
        for name in names:
            found = memory(runs, name)
            alone = "and is enough by itself to stall LN" if found.enough else "and does not stall LN by itself"
            if len(found.poisoned) < 5:
                alone = "while LN's part is not recorded in five seeds"
            said.append(f"in {REGIMES[name]} AdamW's memory is {words[found.cause]} {alone}")
            closed = ", ".join(f"{100 * c:.0f}" for c in found.closed)
            numbers.append(
                f"{REGIMES[name]}, trained and test accuracy: {_told(found.runs)}; gap closed, by seed: {closed} %"
            )
        return Conclusion(_sentence("; ".join(said)), ". ".join(numbers))

    return conclude


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


class Growth(NamedTuple):
    """How the gradient at step 0 grows with the depth: ln g is about a + slope·depth."""

    slope: float
    r2: float
    medians: dict[int, float]  # by depth

    @property
    def explodes(self) -> bool:
        return self.slope > 0 and self.r2 > 0.9


def growth(runs: Runs, arm: str, ffn: str, sigma: float) -> Growth:
    """Study `initial`: the seeds' median gradient norm by depth, and the straight line through its logarithm."""
    by_depth: dict[int, list[float]] = {}
    for run in runs("initial", arm, ffn=ffn, sigma=sigma):
        by_depth.setdefault(run.recipe.depth, []).append(run.grad_norm[0])
    medians = {depth: statistics.median(values) for depth, values in sorted(by_depth.items())}
    x, y = np.array(list(medians)), np.log(list(medians.values()))
    slope, start = np.polyfit(x, y, 1)
    rest = y - (start + slope * x)
    r2 = 1 - (rest**2).sum() / max(((y - y.mean()) ** 2).sum(), 1e-30)
    return Growth(float(slope), float(r2), medians)


#: What a regime is at step 0: FFN, jitter and depth.
AT_START = MappingProxyType(
    {"tame": ("gelu", 0.0, 16), "heavy": ("gelu", 1.0, 16), "deep": ("gelu", 1.0, 32), "swiglu": ("swiglu", 0.0, 16)}
)


def prediction(runs: Runs) -> list[tuple[str, str, float, float]]:
    """(regime, arm, median gradient at step 0, share of runs that trained) of all that is recorded as it is."""
    rows = []
    arms = dict.fromkeys(run.recipe.arm for run in runs.all("initial"))
    for regime, (ffn, sigma, depth) in AT_START.items():
        for arm in arms:
            found = {
                run.recipe.seed: run
                for study in (regime, "slot", "memory-deep", "successors")
                for run in of_setting(runs.maybe(study, arm, regime), {}, regime)
            }.values()
            if found:
                gradient = growth(runs, arm, ffn, sigma).medians[depth]
                rows.append((regime, arm, gradient, trained(found) / len(found)))
    return rows


def _initial(runs: Runs) -> Conclusion:
    grown, parts = {}, []
    for ffn, sigma in (("gelu", 0.0), ("gelu", 1.0), ("swiglu", 0.0), ("swiglu", 1.0)):
        for arm in dict.fromkeys(run.recipe.arm for run in runs.all("initial")):
            grown[ffn, sigma, arm] = growth(runs, arm, ffn, sigma)
        told = (
            f"{arm} × {math.exp(g.slope):.2f} (R² {g.r2:.2f}; {g.medians[16]:.3g})"
            for (f, s, arm), g in grown.items()
            if (f, s) == (ffn, sigma)
        )
        parts.append(f"{ffn}, σ = {sigma:g}: {', '.join(told)}")
    rows = prediction(runs)
    correlation = rank_correlation([row[2] for row in rows], [row[3] for row in rows])
    bn, ln = ([g.explodes for (_, _, arm), g in grown.items() if arm == which] for which in ("bn", "ln"))
    predicts = "predicts" if correlation.mean <= -0.6 else "does not predict"
    sentence = (
        f"BN's gradient at step 0 explodes with depth in {sum(bn)} of {len(bn)} settings, LN's in {sum(ln)}; "
        f"its size {predicts} which arms train (Spearman {correlation.mean:.2f} over {len(rows)} arms and regimes)"
    )
    return Conclusion(_sentence(sentence), f"growth a block (R²; median at 16 blocks): {'. '.join(parts)}")


class Slot(NamedTuple):
    """Study `slot` in one regime."""

    runs: dict[str, list[History]]  # by arm

    def beats(self, other: str) -> bool:
        """Whether BN after the activation is more accurate than another arm, with 95 % confidence over the seeds."""
        pairs = paired(self.runs["bn+ffnbn"], self.runs[other])
        gaps = [a - b for a, b in zip(*(accuracies(side) for side in zip(*pairs, strict=True)), strict=True)]
        return mean_interval(gaps).low > 0

    @property
    def ffn_to_blame(self) -> bool:
        """By the rule: every arm that leaves the FFN un-normalized trains less often than the cured one."""
        bare = ("bn", "bn+gain", "bn+embedln")
        return all(trained(self.runs[arm]) < trained(self.runs["bn+ffnbn"]) for arm in bare)


def slot(runs: Runs, regime: str) -> Slot:
    """Study `slot` in a regime.  Raises LookupError where an arm is not recorded in two seeds."""
    found = {arm: runs("slot", arm, regime) for arm in SLOTS}
    if short := [arm for arm, these in found.items() if len(these) < 2]:
        raise LookupError(f"study 'slot' has one run of {', '.join(short)}")
    return Slot(found)


def _slot(runs: Runs) -> Conclusion:
    said, numbers = [], []
    for name in ("heavy", "swiglu"):
        found = slot(runs, name)
        needed = "a norm in the FFN beats a constant gain" if found.beats("bn+gain") else "a constant gain does as well"
        place = "its place matters" if found.beats("bn+ffnbn-before") else "its place does not matter for sure"
        blame = "to blame" if found.ffn_to_blame else "not to blame by itself"
        said.append(f"in {REGIMES[name]} {needed}, {place}, and the un-normalized FFN is {blame}")
        numbers.append(f"{REGIMES[name]}: {_told({SLOTS[arm]: these for arm, these in found.runs.items()})}")
    return Conclusion(_sentence("; ".join(said)), ". ".join(numbers))


def _longer(runs: Runs) -> Conclusion:
    said, numbers = [], []
    for name in ("heavy", "swiglu"):
        for arm, words in (("ln", "LN"), ("bn", "BN"), ("bn+ffnbn", "FFN-BN")):
            found = {steps: runs.maybe("longer", arm, name, steps=steps) for steps in LENGTHS}
            found = {steps: these for steps, these in found.items() if len(these) == len(JUDGED)}
            if not found:
                raise LookupError("study 'longer' is still to be run")
            last, these = max(found.items())
            if last > LENGTHS[0]:
                all_train = trained(these) == len(these)
                end = "fails" if last == LENGTHS[-1] else "is not decided"
                state = f"is slow, and trains in {last:,} steps" if all_train else f"{end} after {last:,} steps"
                said.append(f"{words} in {REGIMES[name]} {state}")
            told = ", ".join(f"{steps:,} steps {trained_of(each)}" for steps, each in found.items())
            numbers.append(f"{REGIMES[name]}, {words}: {told}; last: {fates(these)}, {spread(accuracies(these))}")
    return Conclusion(_sentence("; ".join(said) or "every run trains in 400 steps"), ". ".join(numbers))


def fair(runs: Runs) -> dict[str, dict[str, tuple[dict, list[History]]]]:
    """By regime and arm: the best setting of the tuning grid, and the judged runs at it."""
    best = tuned(runs.all("fair"))
    table: dict[str, dict] = {}
    for (name, arm), setting in best.items():
        table.setdefault(name, {})[arm] = setting, runs.maybe("fair-judged", arm, name, **setting)
    return table


def crashes_when_tuned(arms: dict[str, tuple[dict, list[History]]]) -> bool:
    """By the rule of study `fair`: the tuned BN trains less often than the tuned LN."""
    return trained(arms["bn"][1]) < trained(arms["ln"][1])


def _fair(runs: Runs) -> Conclusion:
    said, numbers = [], []
    for name, arms in fair(runs).items():
        if any(len(these) < len(JUDGED) for _, these in arms.values()):
            raise LookupError("the judged seeds are still to be run: `python -m normviz study fair-judged`")
        fails = "still trains less often than LN" if crashes_when_tuned(arms) else "trains as often as LN"
        said.append(f"in {REGIMES[name]} BN with an optimizer tuned for it {fails}")
        told = (
            f"{arm} (lr {setting['lr']:g}, {'clipped' if setting['clip'] else 'not clipped'}) {fates(these)}, "
            f"{spread(accuracies(these))}"
            for arm, (setting, these) in arms.items()
        )
        numbers.append(f"{REGIMES[name]}: {'; '.join(told)}")
    return Conclusion(_sentence("; ".join(said)), ". ".join(numbers))


def _successors(runs: Runs) -> Conclusion:
    said, numbers = {}, []
    for name in ("heavy", "swiglu", "deep"):
        rival = runs.maybe("memory-deep" if name == "deep" else "memory", "ln", name)
        rival = of_setting(rival, {}, name)
        for arm in ("dyt", "derf", "prepbn", "rbn"):
            found = runs.maybe("successors", arm, name)
            pairs = paired(found, rival)
            if len(pairs) < 2:
                continue
            gap = difference(found, rival)
            if trained(found) >= trained([two for _, two in pairs]) and gap.word in ("level", "ahead"):
                said.setdefault(arm, []).append(REGIMES[name])
            numbers.append(f"{REGIMES[name]}, {arm}: {fates(found)}, {gap.points} points to LN ({gap.word})")
    if not numbers:
        raise LookupError("study 'successors' and LN's runs of 'memory' are still to be run")
    words = "; ".join(f"{arm} replaces LN in {', '.join(where)}" for arm, where in said.items())
    return Conclusion(_sentence(words or "none of them is sure to replace LN"), "; ".join(numbers))


def _ghost(runs: Runs) -> Conclusion:
    said, numbers = [], []
    for name in ("heavy", "swiglu"):
        for clip in (None, 1.0):
            found = runs.maybe("ghost", "bn", name, clip=clip)
            if len(found) < 8:
                continue
            sizes = [run.recipe.ghost_tokens or 4096 for run in found]
            value = rank_correlation(sizes, accuracies(found))
            if clip is None:
                said.append(
                    f"in {REGIMES[name]} the bound {'is a cause' if value.high < 0 else 'is no cause to be seen'}"
                )
            cells = {n: [run for run, size in zip(found, sizes, strict=True) if size == n] for n in sorted(set(sizes))}
            told = ", ".join(f"N = {n:,} {spread(accuracies(cell))}" for n, cell in cells.items())
            clipped = "clipped at 1" if clip else "not clipped"
            interval = f"[{value.low:.2f}, {value.high:.2f}]"
            numbers.append(
                f"{REGIMES[name]}, {clipped}: {told}; Spearman {value.mean:.2f} {interval}".replace("-", "−")
            )
    if not said:
        raise LookupError("study 'ghost' is still to be run")
    return Conclusion(_sentence("; ".join(said)), ". ".join(numbers))


def _half(runs: Runs) -> Conclusion:
    parts, ends = [], {}
    for batch in sorted({run.recipe.batch for run in runs.all("half")}):
        for arm in ("ln", "bn", "bn+ffnbn"):
            found = runs.maybe("half", arm, batch=batch)
            bad = [run for run in found if run.meta["first_nonfinite"] is not None or lost_in_evaluation(run)]
            learned = [run for run in bad if min(run.loss, default=math.inf) < run.chance / 2]
            ends[batch, arm] = len(learned), len(found)
            parts.append(
                f"batch {batch}, {arm}: {len(bad)} of {len(found)} not finite, {len(learned)} after having learned"
            )
    crash = [b for (b, arm), (n, of) in ends.items() if arm == "bn" and of >= 5 and n >= 4]
    crash = [b for b in crash if not ends[b, "ln"][0] and not ends[b, "bn+ffnbn"][0]]
    said = (
        f"float16 crashes BN and not LN or FFN-BN at batch {', '.join(map(str, crash))}"
        if crash
        else ("no crash of BN alone was seen in float16, in the few steps that a CPU allows")
    )
    return Conclusion(_sentence(said), "; ".join(parts))


def _cifar10(runs: Runs) -> Conclusion:
    said, numbers = [], []
    for name, words in (("cifar10-tame", "GELU"), ("cifar10-swiglu", "SwiGLU")):
        found = {arm: runs("cifar10-judged", arm, name) for arm in ("ln", "bn", "bn+ffnbn")}
        for arm, label in (("bn", "BN"), ("bn+ffnbn", "FFN-BN")):
            gap = difference(found[arm], found["ln"])
            said.append(f"{label} with {words} {gap.word} ({gap.points} points to LN)")
        some = found["ln"][0]
        told = "; ".join(f"{arm} {fates(these)}, {spread(accuracies(these))}" for arm, these in found.items())
        images = f"{some.meta['train_images']:,} of 50,000 training images, {some.recipe.steps} steps"
        numbers.append(f"{words} ({images}, {len(found['ln'])} seeds): {told}")
    return Conclusion(_sentence(", ".join(said)), ". ".join(numbers))


#: Study → what it says.
CONCLUSIONS: MappingProxyType[str, Callable[[Runs], Conclusion]] = MappingProxyType(
    {
        "memory": _memory("heavy", "swiglu"),
        "memory-deep": _memory("deep"),
        "initial": _initial,
        "slot": _slot,
        "longer": _longer,
        "fair": _fair,
        "successors": _successors,
        "ghost": _ghost,
        "half": _half,
        "cifar10": _cifar10,
    }
)


def conclude(study: str, folder=None) -> Conclusion:
    """What a study says by its rule, and how much of it that rests on.

    Raises LookupError for a study that has no rule, or of which too little is recorded.
    """
    if study not in CONCLUSIONS:
        raise LookupError(f"study {study!r} decides nothing; {', '.join(CONCLUSIONS)} do")
    found = CONCLUSIONS[study](Runs(folder))
    recorded, all_of_them = progress(study, folder)
    rest = "" if recorded == all_of_them else f" ({recorded} of {all_of_them} runs recorded)"
    return Conclusion(f"{found.sentence}{rest}", found.numbers)


def first_trained(run: History) -> int | None:
    """The step at which a run had trained, by the verdict's rule."""
    found = verdict(run)
    return found.step if found.kind == "trained" else None
