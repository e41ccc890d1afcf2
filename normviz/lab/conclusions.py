"""What the studies of the cause say: the rule of each, applied to its recorded runs.

A conclusion is a sentence for people and the numbers beneath it.  What is not recorded yet decides nothing.  A rule
yields both piece by piece; either may be empty.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from normviz.arms import REGIMES, style_of
from normviz.lab.compare import (
    accuracies,
    difference,
    fates,
    grouped,
    lost_in_evaluation,
    matched,
    rank_correlation,
    spread,
    trained,
    trained_of,
)
from normviz.lab.history import History
from normviz.lab.recipe import preset
from normviz.lab.studies import JUDGED, LENGTHS, POISONS, REMEDIES, SLOTS, STUDIES, UNTOUCHED, tuned
from normviz.lab.study import fits, load_study, progress, results_folder


class Conclusion(NamedTuple):
    sentence: str
    numbers: str
    decided: bool = True  # every run that the study's rule looks at is recorded


#: Arms of the main studies, in words.
ARM_WORDS = {"ln": "LN", "bn": "BN", "bn+ffnbn": "FFN-BN"}

Arms = dict[str, list[History]]  # runs by arm


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
        fields |= {"arm": arm} if name is None else {"arm": arm, "name": name}
        group = having(self.all(study), fields)
        if not group:
            raise LookupError(f"study {study!r} has no run of arm {arm!r}")
        return group

    def maybe(self, *arguments, **fields) -> list[History]:
        """The same, empty where nothing is recorded."""
        try:
            return self(*arguments, **fields)
        except LookupError:
            return []

    def main(self, study: str, name: str | None = None, **fields) -> Arms:
        """The main arms, each empty where it is not recorded."""
        return {arm: self.maybe(study, arm, name, **fields) for arm in ARM_WORDS}

    def plain(self, study: str, arm: str, name: str) -> list[History]:
        """Runs of a regime without any of the interventions of study `memory`; empty where nothing is recorded."""
        return self.maybe(study, arm, name, **UNTOUCHED)


def having(runs: Iterable[History], fields: Mapping) -> list[History]:
    """The runs whose recipes have these values."""
    return [run for run in runs if fits(run.recipe, fields)]


def fates_by_arm(groups: Arms) -> str:
    """What became of the runs of several arms."""
    return "; ".join(f"{ARM_WORDS[arm]} {fates(these)}" for arm, these in groups.items())


def outcomes(groups: dict[str, list[History]]) -> str:
    """How many runs of each group trained, and how accurate they are; groups without runs are left out."""
    return "; ".join(
        f"{words} {trained_of(runs)}, {spread(accuracies(runs))}" for words, runs in groups.items() if runs
    )


class Memory(NamedTuple):
    """Study `memory` in one regime."""

    runs: dict[str, list[History]]  # by remedy, and "LN", "LN × 10", "LN × 100", "FFN-BN"
    closed: list[float]  # by seed: the part of the gap between BN and FFN-BN that forgetting closes

    @property
    def cause(self) -> str:
        """ "main", "part", "no" or "open", by the rule."""
        for bound, word in ((0.8, "main"), (0.5, "part")):
            if sum(part >= bound for part in self.closed) >= 4:
                return word
        return "no" if len(self.closed) >= 5 else "open"

    @property
    def poisoned(self) -> list[History]:
        return self.runs["LN × 100"]

    @property
    def enough(self) -> bool | None:
        """Whether poison alone keeps LN from training; None: not recorded in five seeds."""
        return trained(self.poisoned) <= 1 if len(self.poisoned) >= 5 else None


def memory_study(regime: str) -> str:
    """The study of the memory that has a regime."""
    return "memory-deep" if regime == "deep" else "memory"


def memory(runs: Runs, regime: str) -> Memory:
    """Study `memory`, or `memory-deep`, in one of its regimes.  Raises LookupError where nothing is recorded."""
    bn, ln, cure = (runs(memory_study(regime), arm, regime) for arm in ("bn", "ln", "bn+ffnbn"))
    sets = {words: having(bn, UNTOUCHED | setting) for words, setting in REMEDIES.items()}
    sets["LN"] = having(ln, UNTOUCHED)
    sets |= {f"LN {words}": having(ln, UNTOUCHED | setting) for words, setting in POISONS.items()}
    sets["FFN-BN"] = cure
    trios = map(accuracies, matched(sets["as it is"], sets["state cleared at step 40"], cure))
    return Memory(sets, [(mid - low) / (high - low) if high > low else math.inf for low, mid, high in trios])


Parts = Iterator[tuple[str, str]]  # what a study says, and its numbers, piece by piece


def _memory(runs: Runs, *names: str) -> Parts:
    words = {"main": "the main cause", "part": "a part of the cause", "no": "not the cause"}
    alone = {
        True: "and is enough by itself to stall LN", False: "and does not stall LN by itself",
        None: "while LN's part is not recorded in five seeds",
    }  # fmt: skip
    for name in names:
        result = memory(runs, name)
        closed = ", ".join(f"{100 * part:.0f}" for part in result.closed)
        yield (
            f"in {REGIMES[name]} more seeds must tell whether AdamW's memory is the cause"
            if result.cause == "open"
            else f"in {REGIMES[name]} AdamW's memory is {words[result.cause]} {alone[result.enough]}",
            f"{REGIMES[name]}, trained and test accuracy: {outcomes(result.runs)}; gap closed, by seed: {closed} %",
        )


class Growth(NamedTuple):
    """How the gradient at step 0 grows with the depth: ln g is near start + slope·depth."""

    slope: float
    r2: float
    medians: dict[int, float]  # by depth

    @property
    def explodes(self) -> bool:
        return self.slope > 0 and self.r2 > 0.9


def growth(runs: Runs, arm: str, ffn: str, sigma: float) -> Growth:
    """Study `initial`: the seeds' median gradient norm by depth, and the straight line through its logarithm."""
    by_depth = grouped(runs("initial", arm, ffn=ffn, sigma=sigma), "depth")
    medians = {depth: statistics.median(run.grad_norm[0] for run in of) for (depth,), of in sorted(by_depth.items())}
    x, y = np.array(list(medians)), np.log(list(medians.values()))
    slope, r = np.polyfit(x, y, 1)[0], np.corrcoef(x, y)[0, 1]
    return Growth(float(slope), float(r**2), medians)


def _initial(runs: Runs) -> Parts:
    arms = [arm for (arm,) in grouped(runs.all("initial"), "arm")]
    settings = product(("gelu", "swiglu"), (0.0, 1.0))
    grown = {(ffn, sigma): {arm: growth(runs, arm, ffn, sigma) for arm in arms} for ffn, sigma in settings}
    what = "growth a block (R²; median at 16 blocks): "
    for (ffn, sigma), of in grown.items():
        cells = (f"{arm} × {math.exp(g.slope):.2f} (R² {g.r2:.2f}; {g.medians[16]:.3g})" for arm, g in of.items())
        yield "", f"{what}{ffn}, σ = {sigma:g}: {', '.join(cells)}"
        what = ""
    # Of every arm and regime that is recorded as it is: the gradient at step 0, and which part of the runs trained
    gradients, parts = [], []
    for regime, arm in product(("tame", "heavy", "deep", "swiglu"), arms):
        studies, start = (regime, "slot", "memory-deep", "successors"), preset(regime)
        group = {run.recipe.seed: run for study in studies for run in runs.plain(study, arm, regime)}.values()
        if group:
            gradients.append(grown[start.ffn, start.sigma][arm].medians[start.depth])
            parts.append(trained(group) / len(group))
    correlation = rank_correlation(gradients, parts).mean
    bn, ln = (sum(of[arm].explodes for of in grown.values()) for arm in ("bn", "ln"))
    yield (
        f"BN's gradient at step 0 explodes with depth in {bn} of {len(grown)} settings, LN's in {ln}; its size "
        f"{'predicts' if correlation <= -0.6 else 'does not predict'} which arms train (Spearman {correlation:.2f} "
        f"over {len(parts)} arms and regimes)",
        "",
    )


class Slot(NamedTuple):
    """Study `slot` in one regime."""

    runs: Arms

    def beats(self, other: str) -> bool:
        """Whether BN after the activation is more accurate than another arm, with 95 % confidence over the seeds."""
        from scipy.stats import ttest_rel

        cured, rival = (accuracies(self.runs[arm]) for arm in ("bn+ffnbn", other))  # of the same seeds
        return ttest_rel(cured, rival).confidence_interval(0.95).low > 0

    @property
    def ffn_to_blame(self) -> bool:
        """By the rule: every arm that leaves the FFN un-normalized trains less often than the cured one."""
        bare = ("bn", "bn+gain", "bn+embedln")
        return all(trained(self.runs[arm]) < trained(self.runs["bn+ffnbn"]) for arm in bare)

    @property
    def outcomes(self) -> str:
        return outcomes({SLOTS[arm]: these for arm, these in self.runs.items()})


def slot(runs: Runs, regime: str) -> Slot:
    """Study `slot` in a regime, on the seeds that every arm has; LookupError where these are fewer than two."""
    seeds = matched(*(runs("slot", arm, regime) for arm in SLOTS))
    if len(seeds) < 2:
        raise LookupError("study 'slot' has too few seeds with every arm")
    return Slot({arm: list(these) for arm, these in zip(SLOTS, zip(*seeds, strict=True), strict=True)})


def _slot(runs: Runs) -> Parts:
    for name in ("heavy", "swiglu"):
        group = slot(runs, name)
        needed = f"a norm in the FFN {'beats' if group.beats('bn+gain') else 'does not surely beat'} a constant gain"
        place = "its place matters" if group.beats("bn+ffnbn-before") else "its place does not matter for sure"
        blame = "to blame" if group.ffn_to_blame else "not to blame by itself"
        yield (
            f"in {REGIMES[name]} {needed}, {place}, and the un-normalized FFN is {blame}",
            f"{REGIMES[name]}: {group.outcomes}",
        )


def _longer(runs: Runs) -> Parts:
    slow = False
    for name, (arm, words) in product(("heavy", "swiglu"), ARM_WORDS.items()):
        group = {steps: runs.maybe("longer", arm, name, steps=steps) for steps in LENGTHS}
        group = {steps: these for steps, these in group.items() if len(these) == len(JUDGED)}
        if not group:
            raise LookupError("study 'longer' is still to be run")
        last, these = max(group.items())
        count = f"{trained(these)} of {len(these)}"
        if trained(these) == len(these):
            state = f"is slow: all {len(these)} train in {last:,} steps"
        elif last == LENGTHS[-1]:
            state = f"trains in {count} runs even in {last:,} steps, so by the rule it fails"
        else:
            state = f"trains in {count} runs in {last:,} steps, and is not decided"
        slow = slow or last > LENGTHS[0]
        lengths = ", ".join(f"{steps:,} steps {trained_of(each)}" for steps, each in group.items())
        yield (
            f"{words} in {REGIMES[name]} {state}" if last > LENGTHS[0] else "",
            f"{REGIMES[name]}, {words}: {lengths}; last: {fates(these)}, {spread(accuracies(these))}",
        )
    if not slow:
        yield "every run trains in 400 steps", ""


def fair(runs: Runs) -> dict[str, dict[str, tuple[dict, list[History]]]]:
    """By regime and arm: the best setting of the tuning grid, and the judged runs at it."""
    table: dict[str, dict] = {}
    for (name, arm), setting in tuned(runs.all("fair")).items():
        table.setdefault(name, {})[arm] = setting, runs.maybe("fair-judged", arm, name, **setting)
    return table


def crashes_when_tuned(arms: dict[str, tuple[dict, list[History]]]) -> bool:
    """By the rule of study `fair`: the tuned BN trains less often than the tuned LN."""
    return trained(arms["bn"][1]) < trained(arms["ln"][1])


def _fair(runs: Runs) -> Parts:
    for name, arms in fair(runs).items():
        if any(len(these) < len(JUDGED) for _, these in arms.values()):
            raise LookupError("the judged seeds are still to be run: `python -m normviz study fair-judged`")
        fails = "still trains less often than LN" if crashes_when_tuned(arms) else "trains as often as LN"
        sets = (
            f"{arm} (lr {setting['lr']:g}, {'clipped' if setting['clip'] else 'not clipped'}) {fates(these)}, "
            f"{spread(accuracies(these))}"
            for arm, (setting, these) in arms.items()
        )
        yield f"in {REGIMES[name]} BN with an optimizer tuned for it {fails}", f"{REGIMES[name]}: {'; '.join(sets)}"


def _successors(runs: Runs) -> Parts:
    replaces: dict[str, list[str]] = {}
    for name, arm in product(("heavy", "swiglu", "deep"), ("dyt", "derf", "prepbn", "rbn")):
        rival, group = runs.plain(memory_study(name), "ln", name), runs.maybe("successors", arm, name)
        pairs = matched(group, rival)
        if len(pairs) < 2:
            continue
        gap, words = difference(group, rival), style_of(arm).name
        if trained(group) >= trained(ln for _, ln in pairs) and gap.word in ("level", "ahead"):
            replaces.setdefault(words, []).append(REGIMES[name])
        yield "", f"{REGIMES[name]}, {words}: {fates(group)}, {gap.points} points to LN ({gap.word})"
    replacing = "; ".join(f"{arm} replaces LN in {', '.join(where)}" for arm, where in replaces.items())
    yield replacing or "none of them is sure to replace LN", ""


def _ghost(runs: Runs) -> Parts:
    for name, clip in product(("heavy", "swiglu"), (None, 1.0)):
        group = runs.maybe("ghost", "bn", name, clip=clip)
        if len(group) < 8:
            continue
        tokens = [run.recipe.ghost_tokens or 4096 for run in group]
        value = rank_correlation(tokens, accuracies(group))
        by_size = {n: [run for run, of in zip(group, tokens, strict=True) if of == n] for n in sorted(set(tokens))}
        cells = ", ".join(f"N = {n:,} {spread(accuracies(cell))}" for n, cell in by_size.items())
        cause = "is a cause" if value.high < 0 else "is no cause to be seen"
        numbers = f"Spearman {value.mean:.2f} [{value.low:.2f}, {value.high:.2f}]".replace("-", "−")
        yield (
            "" if clip else f"in {REGIMES[name]} the bound {cause}",
            f"{REGIMES[name]}, {'clipped at 1' if clip else 'not clipped'}: {cells}; {numbers}",
        )


def half(runs: Runs, clip: float | None) -> dict[int, Arms]:
    """Study `half`, clipped or not, as far as it is recorded: by images a step, runs of the main arms."""
    recorded = (run for arm in runs.main("half", clip=clip).values() for run in arm)
    batches = sorted({run.recipe.batch for run in recorded})
    return {batch: runs.main("half", batch=batch, clip=clip) for batch in batches}


def _half(runs: Runs) -> Parts:
    crash, dies, every = [], [], runs.all("half")
    settings = ((clip, batch, groups) for clip in (None, 1.0) for batch, groups in half(runs, clip).items())
    for clip, batch, groups in settings:
        if not all(groups.values()):
            continue
        setting = f"batch {batch:,}, {'clipped at 1' if clip else 'not clipped'}"
        yield "", f"{setting}: {fates_by_arm(groups)}"
        learned, nan = ({arm: sum(map(of, groups[arm])) for arm in groups} for of in (_lost_again, _not_finite))
        if learned["bn"] >= 4 and len(groups["bn"]) >= 5 and not learned["ln"] + learned["bn+ffnbn"]:
            crash.append(setting)
        if nan["bn"] and not nan["ln"] + nan["bn+ffnbn"]:
            dies.append(f"{nan['bn']} of {len(groups['bn'])} runs at {setting}")
    devices = " and ".join(sorted({run.meta["device"] for run in every}))
    if crash:
        yield f"BN learns and then stops being finite, where LN and FFN-BN do not, at {' and '.join(crash)}", ""
    else:
        yield f"in no setting does BN learn and then stop being finite while LN and FFN-BN do not (on {devices})", ""
    if dies:
        yield f"BN's training loss stops being finite in {' and in '.join(dies)}, LN's and FFN-BN's never", ""


def _not_finite(run: History) -> bool:
    return run.meta["first_nonfinite"] is not None


def _lost_again(run: History) -> bool:
    """Whether training or evaluation stops being finite after a loss below half of chance."""
    return (_not_finite(run) or lost_in_evaluation(run)) and min(run.loss, default=math.inf) < run.chance / 2


def _cifar10(runs: Runs) -> Parts:
    for name, words in (("cifar10-tame", "GELU"), ("cifar10-swiglu", "SwiGLU")):
        group = runs.main("cifar10-judged", name)
        judged = all(len(these) == len(JUDGED) for these in group.values())
        if not judged:  # an early look, at the seeds of the tuning
            best = tuned(runs.all("cifar10"))
            group = {arm: runs("cifar10", arm, name, **best[name, arm]) for arm in ARM_WORDS}
        gaps = {arm: difference(group[arm], group["ln"]) for arm in ("bn", "bn+ffnbn")}
        some = group["ln"][0]
        sets = "; ".join(f"{ARM_WORDS[a]} {fates(these)}, {spread(accuracies(these))}" for a, these in group.items())
        images = f"{some.meta['train_images']:,} of 50,000 training images, {some.recipe.steps:,} steps"
        seeds = f"{len(group['ln'])} seeds" if judged else f"the {len(group['ln'])} seeds that it was tuned on"
        yield (
            "; ".join(f"{ARM_WORDS[a]} with {words} {g.word} ({g.points} points to LN)" for a, g in gaps.items()),
            f"{words} ({images}, {seeds}): {sets}",
        )
    if not judged:
        yield "the judged seeds are not all run, so this is an early look", ""


#: Study → what it says.
CONCLUSIONS: MappingProxyType[str, Callable[[Runs], Parts]] = MappingProxyType(
    {
        "memory": lambda runs: _memory(runs, "heavy", "swiglu"), "memory-deep": lambda runs: _memory(runs, "deep"),
        "initial": _initial, "slot": _slot, "longer": _longer, "fair": _fair, "successors": _successors,
        "ghost": _ghost, "half": _half, "cifar10": _cifar10,
    }
)  # fmt: skip


def conclude(study: str, folder=None) -> Conclusion:
    """What a study says by its rule, and how much of it that rests on.

    Raises LookupError for a study that has no rule, or of which too little is recorded.
    """
    if study not in CONCLUSIONS:
        raise LookupError(f"study {study!r} decides nothing; {', '.join(CONCLUSIONS)} do")
    pieces = list(CONCLUSIONS[study](Runs(folder)))
    parts, numbers = ([piece[i] for piece in pieces if piece[i]] for i in (0, 1))
    if not numbers:
        raise LookupError(f"study {study!r} is still to be run")
    text = "; ".join(parts)
    recorded, grid = progress(study, folder)
    rest = "" if recorded == grid else f" ({recorded} of {grid} runs recorded)"
    decided = len({*progress(study, folder, **STUDIES[study].decides)}) == 1
    return Conclusion(f"{text[0].upper()}{text[1:]}.{rest}", ". ".join(numbers), decided)
