"""The claims ledger: each statement of the article, put to a measurement.

One source: a claim is a row of `CLAIMS`; its verdict is computed from the recorded runs in `results/` by the rule in
its function, never written down by hand.  Notebook 08 prints the ledger, the README holds the same table
(`python -m normviz claims`).
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch

from normviz import count_statistics, torch_layer
from normviz.arms import PHOTOGRAPHS, REGIMES
from normviz.costs import device_words
from normviz.files import insert_between
from normviz.lab.compare import accuracies, difference, fates, lost_in_evaluation, matched, spread, trained
from normviz.lab.conclusions import (
    ARM_WORDS,
    Arms,
    Runs,
    conclude,
    crashes_when_tuned,
    fair,
    fates_by_arm,
    half,
    memory_study,
    slot,
)
from normviz.lab.timing import NETWORK_NAMES, load_costs
from normviz.lab.verdicts import verdict
from normviz.norms.dependence import computed_sets, moved_by_neighbours
from normviz.samples import digit_features

HOLDS, PARTLY, NOT = "holds", "holds in part", "not reproduced"
UNDECIDED, OPEN = "not decided", "not yet measured"


class Finding(NamedTuple):
    verdict: str  # HOLDS, PARTLY, NOT, UNDECIDED or OPEN
    sentence: str  # for people
    numbers: str = ""  # what was measured


class Claim(NamedTuple):
    statement: str  # what the article says
    notebook: str  # the chapter that settles it
    measure: Callable[[Runs], Finding]


def weigh(held: dict) -> tuple[str, list, list]:
    """HOLDS where all of several regimes agree, PARTLY where some do, NOT where none does; which do, which do not."""
    yes, no = ([words for words, agrees in held.items() if bool(agrees) is wanted] for wanted in (True, False))
    return PARTLY if yes and no else NOT if no else HOLDS, yes, no


def listed(words: Iterable[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    *rest, last = words
    return f"{', '.join(rest)} and {last}" if rest else last


def counted(where: list[str]) -> str:
    """The regimes of some runs, and how many runs: "a and b (3 runs)"."""
    return f"{listed(dict.fromkeys(where))} ({len(where)} run{'s' * (len(where) > 1)})"


def _counts(runs: Runs) -> Finding:
    shape = n, _, h, w = (4, 8, 4, 4)
    token, sample, batch = (count_statistics(method, shape) for method in ("layer_token", "layer", "batch"))
    sentence = (
        f"True of the LayerNorm that normalizes each token by itself; over a whole sample it has {sample.formula}."
    )
    numbers = (
        f"N×C×H×W = {shape}: LayerNorm per token {token.formula} = {token.values} statistics, over the whole sample "
        f"{sample.formula} = {sample.values}, BatchNorm {batch.values}"
    )
    kind, *_ = weigh({row.formula: row.values == 2 * n * h * w for row in (token, sample)})
    return Finding(kind, sentence, numbers)


def _at_inference(runs: Runs) -> Finding:
    """Asked of torch's own layers: which statistics they compute in either mode, and whether other images matter."""
    shape, parts, sets, moved = (2, 4, 2, 2), [], {}, {}
    x = torch.from_numpy(digit_features(2 * shape[0], *shape[1:]))
    for method, name in (("layer_token", "LN"), ("batch", "BN")):
        layer = torch_layer(method, shape)
        layer(x)  # so that BN has running statistics of these images
        for training in (True, False):
            layer.train(training)
            sets[name, training] = computed_sets(layer, shape)
            moved[name, training] = moved_by_neighbours(layer, x[: shape[0]], x[shape[0] :])
        parts.append(
            f"{name} computes the statistics of {sets[name, True]} sets in training and {sets[name, False]} in "
            f"evaluation; with other images beside it an image's output changes by {moved[name, True]:.2g} and "
            f"{moved[name, False]:.2g}"
        )
    kind, true, _ = weigh({
        "LN": sets["LN", False] == sets["LN", True] == count_statistics("layer_token", shape).sets,
        "BN": sets["BN", False] == 0 < sets["BN", True] and moved["BN", False] == 0 < moved["BN", True],
    })  # fmt: skip
    sentence = f"True of {listed(true)} only." if true else "Not what torch's layers do."
    if kind == HOLDS:
        sentence = "True of torch's layers, as their own gradients show."
    return Finding(kind, sentence, f"N×C×H×W = {shape}: {'. '.join(parts)}")


def _sequences(runs: Runs) -> Finding:
    """That LN is the standard is history; what runs can say is where it is ahead of every way to use BN."""
    ways = {"bn-input": "on the input", "bn-step": "per step", "bn": "shared", "bn-padded": "with padding"}
    state = {"ahead": "ahead of", "level": "level with", "not decided": "neither ahead of nor behind"}
    parts, where = [], {}
    for name, regime in (("gru", "sequences as long as in training"), ("gru-longer", "longer ones")):
        ln, *rivals = (runs("sequences", arm, name) for arm in ("ln", *ways))
        gap = difference(ln, max(rivals, key=lambda these: statistics.mean(accuracies(these))))
        where.setdefault(state.get(gap.word, gap.word), []).append(regime)
        of_bn = ", ".join(f"{way} {spread(accuracies(r))}" for way, r in zip(ways.values(), rivals, strict=True))
        parts.append(f"{regime}: LN {spread(accuracies(ln))}, BN {of_bn}; LN to the best BN {gap.points} points")
    sentence = (
        "That it is the standard is history and cannot be measured; in our small GRU LN is "
        f"{listed(f'{words} the best BatchNorm on {listed(of)}' for words, of in where.items())}, "
        "as far as five seeds can tell."
    )
    return Finding(UNDECIDED, sentence, f"test accuracy: {'. '.join(parts)}")


def regimes(runs: Runs) -> dict[str, Arms]:
    """By regime in words: all runs of the three main arms as they are, first the early seeds, then the judged ones.

    On CIFAR-10, where it is recorded, every arm has the optimizer that was best for it.
    """
    table = {
        words: {arm: runs(name, arm) + runs.plain(memory_study(name), arm, name) for arm in ARM_WORDS}
        for name, words in REGIMES.items()
    }
    photographs = {words: runs.main("cifar10-judged", name) for name, words in PHOTOGRAPHS.items()}
    return table | {words: arms for words, arms in photographs.items() if all(len(of) > 1 for of in arms.values())}


def failures(groups: dict[str, Arms]) -> dict[str, list[str]]:
    """How BN ends where LN of the same seed trains: for each way, the regimes of its runs in words."""
    ways: dict[str, list[str]] = defaultdict(list)
    for words, arms in groups.items():
        for ln, bn in matched(arms["ln"], arms["bn"]):
            if verdict(ln).kind != "trained":
                continue
            kind, _, why = verdict(bn)
            if kind in ("crashed", "diverged"):
                learned = kind == "crashed" or "having learned" in why
                kind = "shocked" if bn.recipe.sigma_from > 0 else "own" if learned else "broken"
            ways[kind].append(words)
            if lost_in_evaluation(bn):
                ways["not finite"].append(words)
    return ways


def _crash(runs: Runs) -> Finding:
    """An existence claim: answered by a case, and each way of failing is a case of its own."""
    plain = regimes(runs)
    float16 = {f"SwiGLU with {batch:,} images a step": arms for batch, arms in half(runs, clip=None).items()}
    numbers = ". ".join(
        f"{which}{words}: {fates_by_arm(arms)}"
        for which, groups in (("", plain), ("float16, ", float16))
        for words, arms in groups.items()
    )
    ways, of_float16 = failures(plain), failures(float16)
    own, broken = (ways[way] + of_float16[way] for way in ("own", "broken"))
    happens = {
        "stalled": "never starts", "delayed": "is slow", "shocked": "crashes when we shift the data in mid-run",
        "not finite": "ends with a test loss that is not finite",
    }  # fmt: skip
    seen = [f"{words} in {counted(ways[way])}" for way, words in happens.items() if ways[way]]
    sentence = "No BN run of ours learns and then crashes by itself where LN trains."
    if own:
        sentence = f"BN crashed by itself, after having learned, in {listed(dict.fromkeys(own))}."
    if broken:
        which = "BN's" if ways["broken"] else "In float16 BN's"
        sentence = f"{which} loss stops being finite in {counted(broken)}, before it has learned. {sentence}"
    if seen:
        sentence += f" What does happen, where LN trains: BN {'; '.join(seen)}."
    try:
        tuned = [REGIMES[name] for name, arms in fair(runs).items() if crashes_when_tuned(arms)]
        numbers += f". Tuned: {conclude('fair', runs.folder).numbers}"
        often = f"less often in {listed(tuned)}" if tuned else "as often as LN in every regime that was tried"
        sentence += f" With the optimizer tuned for each arm BN {'still ' * bool(tuned)}trains {often}."
    except LookupError as error:
        numbers += f". With a tuned optimizer: {error}"
    return Finding(HOLDS if own or broken else PARTLY if seen else NOT, sentence, numbers)


def _blame(runs: Runs) -> Finding:
    """By study `slot`: to blame only if every arm that leaves the FFN un-normalized trains less often."""
    slots = {REGIMES[name]: slot(runs, name) for name in ("heavy", "swiglu")}
    # An arm that leaves the FFN without a norm and trains as often as the cured one acquits it
    bare, acquits = {"bn+embedln": "one LN after the patch embedding", "bn+gain": "a constant gain in it"}, []
    for arm, enough in bare.items():
        cured = [words for words, of in slots.items() if trained(of.runs[arm]) >= trained(of.runs["bn+ffnbn"])]
        acquits += [f"with {enough} (in {listed(cured)})"] if cured else []
    kind, where, _ = weigh({words: group.ffn_to_blame for words, group in slots.items()})
    sentence = f"It is in {listed(where)}" if where else "Not by itself"
    if acquits:
        sentence += f": without a norm in its FFN the BN network trains as often as the cured one, {listed(acquits)}"
    parts = ". ".join(f"{words}: {group.outcomes}" for words, group in slots.items())
    return Finding(kind, f"{sentence}.", f"trained, test accuracy; in the FFN's slot: {parts}")


def _cure(runs: Runs) -> Finding:
    parts, cured = [], {}
    for words, arms in regimes(runs).items():
        bn, cure = arms["bn"], arms["bn+ffnbn"]
        if trained(bn) < len(bn):  # else there is nothing to cure
            cured[words] = trained(cure) >= 0.8 * len(cure) and trained(cure) > trained(bn)
            parts.append(f"{words}: BN {fates(bn)}, FFN-BN {fates(cure)}")
    kind, yes, no = weigh(cured)
    sentence = f"After the activation it does in {listed(yes)}" if yes else "It does nowhere"
    return Finding(kind, f"{sentence}{f', not in {listed(no)}' if no and yes else ''}.", ". ".join(parts))


def _level(runs: Runs) -> Finding:
    parts, where = [], {"level": [], "ahead": [], "behind": [], "not decided": []}
    for name, arms in regimes(runs).items():
        gap = difference(arms["bn+ffnbn"], arms["ln"])
        where[gap.word].append(name)
        ln, cure = (spread(accuracies(arms[arm])) for arm in ("ln", "bn+ffnbn"))
        parts.append(f"{name}: LN {ln}, FFN-BN {cure}, difference {gap.points} points ({gap.word})")
    where["not surely either"] = where.pop("not decided")
    kind, good, _ = weigh({word: word in ("level", "ahead") for word, of in where.items() if of})
    if not good and where["not surely either"]:
        kind = UNDECIDED
    words = listed(f"{word} in {listed(of)}" for word, of in where.items() if of)
    rule = "level: the 90 % interval over seeds and test images lies within 2 points"
    return Finding(kind, f"The cured network is {words}.", f"test accuracy; {rule}. {'. '.join(parts)}")


def _legacy(runs: Runs) -> Finding:
    """Weighed, not decided: where BN with FFN-BN could stand in for LN, and where not."""
    parts, instead = [], {}
    for words, arms in regimes(runs).items():
        ln, cure = arms["ln"], arms["bn+ffnbn"]
        gap = difference(cure, ln)
        lost = any(map(lost_in_evaluation, cure))
        instead[words] = trained(cure) >= trained(ln) and gap.word != "behind" and not lost
        parts.append(f"{words}: LN {fates(ln)}; FFN-BN {fates(cure)}; {gap.points} points")
    _, yes, no = weigh(instead)
    weighed = [f"for it, BN with FFN-BN could stand in for LN in {listed(yes)}"] if yes else []
    weighed += [f"against it, not in {listed(no)}"] if no else []
    sentence = f"History is not settled by small networks, and no text was trained on; {'; '.join(weighed)}."
    return Finding(UNDECIDED, sentence, ". ".join(parts))


def _speed(runs: Runs) -> Finding:
    if not (records := load_costs(runs.folder)):
        raise LookupError("still to be run: `python -m normviz bench`")
    names = ARM_WORDS | {"folded": "folded", "removed": "no norms at all"}
    parts, faster, folded, ceilings = [], {}, {}, []
    for record in records:
        where, rows = device_words(record["environment"]), []
        for row in record["networks"]:
            gains = {arm: 100 * (1 / ratio["median"] - 1) for arm, ratio in row["ratio_to_ln"].items() if arm != "ln"}
            images = f"{row['batch']} image{'s' * (row['batch'] > 1)} at a time"
            case = f"{NETWORK_NAMES[row['network']]} with {images}{'' if row['mode'] == 'eager' else ', compiled'}"
            # About 20 % faster: at least 15 % more images a second, by the network that also trains
            faster[case, where] = gains["bn+ffnbn"] >= 15
            folded[case, where] = gains.get("folded", 0) >= 15
            ceilings += [gains["removed"]] if "removed" in gains else []
            rows.append(f"{case}: {', '.join(f'{names[arm]} {signed(gain)} %' for arm, gain in gains.items())}")
        parts.append(f"{where}: {'; '.join(rows)}")
    as_it_is, merged = (by_device(case for case, enough in of.items() if enough) for of in (faster, folded))
    sentence = f"As it was trained, it is {f'in {as_it_is}' if as_it_is else 'nowhere'}."
    if merged:
        sentence += f" With its BatchNorms folded into the linear layers it is in {merged}."
    if ceilings:
        low, high = signed(min(ceilings)), signed(max(ceilings))
        sentence += f" Removing every norm, which no folding can beat, gains from {low} to {high} %."
    if {record["environment"]["device"] for record in records} == {"cpu"}:
        sentence += " A GPU was not measured."
    kind = HOLDS if all(faster.values()) else PARTLY if as_it_is or merged else NOT
    return Finding(kind, sentence, f"images a second, against LN. {'. '.join(parts)}")


def by_device(cases: Iterable[tuple[str, str]]) -> str:
    """ "a and b on an X, and c on a Y"; empty for no case."""
    devices: dict[str, list[str]] = {}
    for case, where in cases:
        devices.setdefault(where, []).append(case)
    return ", and ".join(f"{listed(of)} on an {where}" for where, of in devices.items())


def signed(percent: float) -> str:
    """ "+4", "−3"."""
    return f"{percent:+.0f}".replace("-", "−")


CLAIMS = (
    Claim("LayerNorm along C (or the embedding) has 2NHW statistics.", "01_axes", _counts),
    Claim("LN computes its statistics in inference too, BN fixes them.", "03_layer_norm", _at_inference),
    Claim("LN is the standard where sequence length varies.", "05_sequences", _sequences),
    Claim("Replacing LN by BN in a ViT can crash training.", "08_loss_crash", _crash),
    Claim("The un-normalized FFN is to blame.", "08_loss_crash", _blame),
    Claim("A BN between the FFN's two linear layers cures it.", "08_loss_crash", _cure),
    Claim("The cured network is as accurate as the LN one.", "08_loss_crash", _level),
    Claim("So LN in ViT is a legacy of text transformers.", "08_loss_crash", _legacy),
    Claim("The BN network is about 20 % faster in inference.", "06_what_statistics_cost", _speed),
)


def ledger(folder=None) -> list[tuple[Claim, Finding]]:
    """Every claim with its finding; a claim whose runs are not recorded is not yet measured, and says which."""
    runs, rows = Runs(folder), []
    for claim in CLAIMS:
        try:
            rows.append((claim, claim.measure(runs)))
        except LookupError as error:
            rows.append((claim, Finding(OPEN, f"{str(error).capitalize()}.")))
    return rows


#: What others measured where we cannot; quoted, not checked.
AT_SCALE = (
    "At scale, measured by others on ImageNet: DL-ViT/BN-ViT, an unofficial implementation of the paper (DeiT-Tiny, "
    "300 epochs, one seed, FFN-BN before the activation), has LN at 71.90 %, BN at 68.71 % and BN with FFN-BN at "
    "69.05 %, and saw no crash; Dynamic Token Normalization (Shao et al., ICLR 2022) a ViT-S at 79.9 % with LN and "
    "77.3 % with BN. Wang et al. (NeurIPS 2022) find BN's trouble in transformers in the gap between its training and "
    "its inference statistics, Unified Normalization (Yang et al., 2022) in statistics that fluctuate and in "
    "outliers."
)


def markdown(folder=None, *, numbers: bool = True) -> str:
    """The ledger as a Markdown table; with its numbers, folded, and what others measured at scale."""
    lines = ["| the article says | verdict | what we found | chapter |", "|---|---|---|---|"]
    for claim, (kind, sentence, measured) in ledger(folder):
        folded = f" <details><summary>numbers</summary>{measured}</details>" if numbers and measured else ""
        lines.append(f"| {claim.statement} | **{kind}** | {sentence}{folded} | {claim.notebook.split('_')[0]} |")
    return "\n".join([*lines, *(["", AT_SCALE] if numbers else [])])


BEGIN, END = "<!-- claims: written by `python -m normviz claims --write` -->", "<!-- end of claims -->"


def insert(text: str, folder=None) -> str:
    """`text` with the table between its two markers brought up to date.  Raises ValueError where they are missing."""
    return insert_between(text, BEGIN, END, markdown(folder, numbers=False))
