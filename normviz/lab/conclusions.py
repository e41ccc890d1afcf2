"""What the studies of the cause say: the rule of each, applied to its recorded runs.

A conclusion is a sentence for people and the numbers beneath it.  What is not recorded yet decides nothing.  A rule
yields both piece by piece; either may be empty.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator
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
    lost_in_evaluation,
    mean_interval,
    rank_correlation,
    spread,
    trained,
    trained_of,
)
from normviz.lab.history import History
from normviz.lab.recipe import preset
from normviz.lab.studies import JUDGED, LENGTHS, POISONS, REMEDIES, SGD_RATES, SLOTS, STUDIES, tuned
from normviz.lab.study import load_study, progress, results_folder


class Conclusion(NamedTuple):
    sentence: str
    numbers: str
    decided: bool = True  # every run that the study's rule looks at is recorded


#: Arms of the main studies, in words.
ARM_WORDS = {"ln": "LN", "bn": "BN", "bn+ffnbn": "FFN-BN"}


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
        group = [run for run in self.all(study) if has(run, fields)]
        if not group:
            raise LookupError(f"study {study!r} has no run of arm {arm!r}")
        return group

    def maybe(self, *arguments, **fields) -> list[History]:
        """The same, empty where nothing is recorded."""
        try:
            return self(*arguments, **fields)
        except LookupError:
            return []


def has(run: History, fields: dict) -> bool:
    """Whether a run's recipe has these values."""
    return all(getattr(run.recipe, field) == value for field, value in fields.items())


def of_setting(runs: Iterable[History], setting: dict, name: str) -> list[History]:
    """Those of a regime's runs that have exactly one of the interventions of study `memory`."""
    if setting.get("optimizer") == "sgd":
        setting = setting | {"lr": SGD_RATES[name]}
    touched = {"lr", *(field for each in (*REMEDIES.values(), *POISONS.values()) for field in each)}
    plain = preset(name)
    wanted = {"name": name, **{field: getattr(plain, field) for field in touched}, **setting}
    return [run for run in runs if has(run, wanted)]


def paired(ours: Iterable[History], theirs: Iterable[History]) -> list[tuple[History, History]]:
    """Runs of equal seeds, in the order of the first."""
    by_seed = {run.recipe.seed: run for run in theirs}
    return [(run, by_seed[run.recipe.seed]) for run in ours if run.recipe.seed in by_seed]


def fates_by_arm(groups: dict[str, list[History]]) -> str:
    """What became of the runs of several arms."""
    return "; ".join(f"{ARM_WORDS[arm]} {fates(these)}" for arm, these in groups.items())


def outcome(runs: list[History]) -> str:
    """How many trained, and how accurate they are."""
    return f"{trained_of(runs)}, {spread(accuracies(runs))}"


class Memory(NamedTuple):
    """Study `memory` in one regime."""

    regime: str
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
    def enough(self) -> bool:
        """Whether poison alone keeps LN from training."""
        return len(self.poisoned) >= 5 and trained(self.poisoned) <= 1


def memory(runs: Runs, regime: str) -> Memory:
    """Study `memory`, or `memory-deep`, in one of its regimes.  Raises LookupError where nothing is recorded."""
    study = "memory-deep" if regime == "deep" else "memory"
    bn, ln, cure = (runs(study, arm, regime) for arm in ("bn", "ln", "bn+ffnbn"))
    sets = {words: of_setting(bn, setting, regime) for words, setting in REMEDIES.items()}
    sets["LN"] = of_setting(ln, {}, regime)
    sets |= {f"LN {words}": of_setting(ln, setting, regime) for words, setting in POISONS.items()}
    plain = {run.recipe.seed: run for run in sets["as it is"]}
    closed = []
    for reset, cured in paired(sets["state cleared at step 40"], cure):
        if reset.recipe.seed in plain:
            low, mid, high = accuracies((plain[reset.recipe.seed], reset, cured))
            closed.append((mid - low) / (high - low) if high > low else math.inf)
    return Memory(regime, sets | {"FFN-BN": cure}, closed)


Parts = Iterator[tuple[str, str]]  # what a study says, and its numbers, piece by piece


def _memory(runs: Runs, *names: str) -> Parts:
    words = {"main": "the main cause", "part": "a part of the cause", "no": "not the cause"}
    for name in names:
        result = memory(runs, name)
        alone = "and is enough by itself to stall LN" if result.enough else "and does not stall LN by itself"
        if len(result.poisoned) < 5:
            alone = "while LN's part is not recorded in five seeds"
        closed = ", ".join(f"{100 * part:.0f}" for part in result.closed)
        sets = "; ".join(f"{of} {outcome(these)}" for of, these in result.runs.items() if these)
        yield (
            f"in {REGIMES[name]} more seeds must tell whether AdamW's memory is the cause"
            if result.cause == "open"
            else f"in {REGIMES[name]} AdamW's memory is {words[result.cause]} {alone}",
            f"{REGIMES[name]}, trained and test accuracy: {sets}; gap closed, by seed: {closed} %",
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
    by_depth: dict[int, list[float]] = {}
    for run in runs("initial", arm, ffn=ffn, sigma=sigma):
        by_depth.setdefault(run.recipe.depth, []).append(run.grad_norm[0])
    medians = {depth: statistics.median(values) for depth, values in sorted(by_depth.items())}
    x, y = np.array(list(medians)), np.log(list(medians.values()))
    slope, start = np.polyfit(x, y, 1)
    rest = y - (start + slope * x)
    r2 = 1 - (rest**2).sum() / max(((y - y.mean()) ** 2).sum(), 1e-30)
    return Growth(float(slope), float(r2), medians)


def prediction(runs: Runs) -> list[tuple[str, str, float, float]]:
    """(regime, arm, median gradient at step 0, part of the runs that trained) of all that is recorded as it is."""
    rows = []
    for regime in ("tame", "heavy", "deep", "swiglu"):
        start = preset(regime)
        for arm in dict.fromkeys(run.recipe.arm for run in runs.all("initial")):
            of_arm = (runs.maybe(study, arm, regime) for study in (regime, "slot", "memory-deep", "successors"))
            group = {run.recipe.seed: run for each in of_arm for run in of_setting(each, {}, regime)}.values()
            if group:
                gradient = growth(runs, arm, start.ffn, start.sigma).medians[start.depth]
                rows.append((regime, arm, gradient, trained(group) / len(group)))
    return rows


def _initial(runs: Runs) -> Parts:
    explodes: dict[str, list[bool]] = {}
    what = "growth a block (R²; median at 16 blocks): "
    for ffn, sigma in product(("gelu", "swiglu"), (0.0, 1.0)):
        parts = []
        for arm in dict.fromkeys(run.recipe.arm for run in runs.all("initial")):
            grown = growth(runs, arm, ffn, sigma)
            explodes.setdefault(arm, []).append(grown.explodes)
            parts.append(f"{arm} × {math.exp(grown.slope):.2f} (R² {grown.r2:.2f}; {grown.medians[16]:.3g})")
        yield "", f"{what}{ffn}, σ = {sigma:g}: {', '.join(parts)}"
        what = ""
    rows = prediction(runs)
    correlation = rank_correlation([row[2] for row in rows], [row[3] for row in rows]).mean
    bn, ln = explodes["bn"], explodes["ln"]
    yield (
        f"BN's gradient at step 0 explodes with depth in {sum(bn)} of {len(bn)} settings, LN's in {sum(ln)}; its size "
        f"{'predicts' if correlation <= -0.6 else 'does not predict'} which arms train (Spearman {correlation:.2f} "
        f"over {len(rows)} arms and regimes)",
        "",
    )


class Slot(NamedTuple):
    """Study `slot` in one regime."""

    runs: dict[str, list[History]]  # by arm

    def beats(self, other: str) -> bool:
        """Whether BN after the activation is more accurate than another arm, with 95 % confidence over the seeds."""
        pairs = paired(self.runs["bn+ffnbn"], self.runs[other])
        return mean_interval([a - b for a, b in map(accuracies, pairs)]).low > 0

    @property
    def ffn_to_blame(self) -> bool:
        """By the rule: every arm that leaves the FFN un-normalized trains less often than the cured one."""
        bare = ("bn", "bn+gain", "bn+embedln")
        return all(trained(self.runs[arm]) < trained(self.runs["bn+ffnbn"]) for arm in bare)


def slot(runs: Runs, regime: str) -> Slot:
    """Study `slot` in a regime, on the seeds that every arm has; LookupError where these are fewer than two."""
    group = {arm: runs("slot", arm, regime) for arm in SLOTS}
    seeds = set.intersection(*({run.recipe.seed for run in these} for these in group.values()))
    if len(seeds) < 2:
        raise LookupError("study 'slot' has too few seeds with every arm")
    return Slot({arm: [run for run in these if run.recipe.seed in seeds] for arm, these in group.items()})


def _slot(runs: Runs) -> Parts:
    for name in ("heavy", "swiglu"):
        group = slot(runs, name)
        needed = f"a norm in the FFN {'beats' if group.beats('bn+gain') else 'does not surely beat'} a constant gain"
        place = "its place matters" if group.beats("bn+ffnbn-before") else "its place does not matter for sure"
        blame = "to blame" if group.ffn_to_blame else "not to blame by itself"
        sets = "; ".join(f"{SLOTS[arm]} {outcome(these)}" for arm, these in group.runs.items())
        yield (
            f"in {REGIMES[name]} {needed}, {place}, and the un-normalized FFN is {blame}",
            f"{REGIMES[name]}: {sets}",
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
        rival = of_setting(runs.maybe("memory-deep" if name == "deep" else "memory", "ln", name), {}, name)
        group = runs.maybe("successors", arm, name)
        pairs = paired(group, rival)
        if len(pairs) < 2:
            continue
        gap = difference(group, rival)
        if trained(group) >= trained([two for _, two in pairs]) and gap.word in ("level", "ahead"):
            replaces.setdefault(style_of(arm).name, []).append(REGIMES[name])
        yield "", f"{REGIMES[name]}, {style_of(arm).name}: {fates(group)}, {gap.points} points to LN ({gap.word})"
    words = "; ".join(f"{arm} replaces LN in {', '.join(where)}" for arm, where in replaces.items())
    yield words or "none of them is sure to replace LN", ""


def _ghost(runs: Runs) -> Parts:
    for name, clip in product(("heavy", "swiglu"), (None, 1.0)):
        group = runs.maybe("ghost", "bn", name, clip=clip)
        if len(group) < 8:
            continue
        by_size: dict[int, list[History]] = {}
        for run in sorted(group, key=lambda run: run.recipe.ghost_tokens or 4096):
            by_size.setdefault(run.recipe.ghost_tokens or 4096, []).append(run)
        value = rank_correlation([run.recipe.ghost_tokens or 4096 for run in group], accuracies(group))
        cells = ", ".join(f"N = {n:,} {spread(accuracies(cell))}" for n, cell in by_size.items())
        cause = "is a cause" if value.high < 0 else "is no cause to be seen"
        numbers = f"Spearman {value.mean:.2f} [{value.low:.2f}, {value.high:.2f}]".replace("-", "−")
        yield (
            "" if clip else f"in {REGIMES[name]} the bound {cause}",
            f"{REGIMES[name]}, {'clipped at 1' if clip else 'not clipped'}: {cells}; {numbers}",
        )


def half(runs: Runs, clip: float | None) -> dict[int, dict[str, list[History]]]:
    """Study `half`, clipped or not, as far as it is recorded: by images a step, runs of the main arms."""
    batches = {run.recipe.batch for arm in ARM_WORDS for run in runs.maybe("half", arm, clip=clip)}
    return {
        batch: {arm: runs.maybe("half", arm, batch=batch, clip=clip) for arm in ARM_WORDS} for batch in sorted(batches)
    }


def _half(runs: Runs) -> Parts:
    crash, dies, every = [], [], runs.all("half")
    settings = ((clip, batch, groups) for clip in (None, 1.0) for batch, groups in half(runs, clip).items())
    for clip, batch, groups in settings:
        if not all(groups.values()):
            continue
        setting = f"batch {batch:,}, {'clipped at 1' if clip else 'not clipped'}"
        yield "", f"{setting}: {fates_by_arm(groups)}"
        learned, nan = ({arm: count(group) for arm, group in groups.items()} for count in (_after_learning, _diverged))
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


def _after_learning(group: list[History]) -> int:
    """Runs whose training or evaluation stops being finite after a loss below half of chance."""
    bad = (run for run in group if run.meta["first_nonfinite"] is not None or lost_in_evaluation(run))
    return sum(min(run.loss, default=math.inf) < run.chance / 2 for run in bad)


def _diverged(group: list[History]) -> int:
    return sum(run.meta["first_nonfinite"] is not None for run in group)


def photographs(runs: Runs, name: str) -> tuple[dict[str, list[History]], bool]:
    """Each arm at its best setting on CIFAR-10, and whether on the judged seeds; else on those it was tuned on."""
    judged = {arm: runs.maybe("cifar10-judged", arm, name) for arm in ARM_WORDS}
    if all(len(these) == len(JUDGED) for these in judged.values()):
        return judged, True
    best = tuned(runs.all("cifar10"))
    return {arm: runs("cifar10", arm, name, **best[name, arm]) for arm in ARM_WORDS}, False


def _cifar10(runs: Runs) -> Parts:
    for name, words in (("cifar10-tame", "GELU"), ("cifar10-swiglu", "SwiGLU")):
        group, judged = photographs(runs, name)
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
    decided = recorded == grid or len({*progress(study, folder, STUDIES[study].decides)}) == 1
    return Conclusion(f"{text[0].upper()}{text[1:]}.{rest}", ". ".join(numbers), decided)
