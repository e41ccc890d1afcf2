"""The claims ledger: each statement of the article, put to a measurement.

One source: a claim is a row of `CLAIMS`; its verdict is computed from the recorded runs in `results/` by the rule in
its function, never written down by hand.  Notebook 08 prints the ledger, the README holds the same table
(`python -m normviz claims`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch

from normviz.costs import device_words
from normviz.functional import torch_layer
from normviz.lab.cost import NETWORK_NAMES, load_costs
from normviz.lab.dependence import computed_sets, moved_by_company
from normviz.lab.history import History
from normviz.lab.study import REGIMES, load_study, results_folder
from normviz.lab.verdicts import verdict
from normviz.methods import count_statistics
from normviz.samples import digit_features

HOLDS, ONLY_IF, NOT, OPEN = "holds", "holds only if", "not reproduced", "not yet measured"


class Finding(NamedTuple):
    verdict: str  # HOLDS, ONLY_IF, NOT or OPEN
    numbers: str  # what was measured, in a sentence
    where: str = ""  # of ONLY_IF: where it held

    @property
    def sentence(self) -> str:
        """The verdict in words, with its condition."""
        return f"holds only {self.where}" if self.verdict == ONLY_IF else self.verdict


class Claim(NamedTuple):
    statement: str  # what the article says
    notebook: str  # the chapter that settles it
    measure: Callable[[Runs], Finding]


class Runs:
    """The recorded runs of a results folder, by default the project's own, loaded when asked for."""

    def __init__(self, folder=None):
        self.folder = results_folder() if folder is None else Path(folder)
        self._known: dict[str, list[History]] = {}

    def __call__(self, study: str, arm: str, name: str | None = None) -> list[History]:
        """Runs of one arm in a study; `name`: of one preset among several.

        Raises LookupError where it is not recorded.
        """
        if study not in self._known:
            try:
                self._known[study] = load_study(study, self.folder)
            except FileNotFoundError:
                raise LookupError(f"still to be run: `python -m normviz study {study}`") from None
        found = [h for h in self._known[study] if h.recipe.arm == arm and name in (None, h.recipe.name)]
        if not found:
            raise LookupError(f"study {study!r} has no run of arm {arm!r}")
        return found


def trained(runs: Iterable[History]) -> int:
    """How many runs the verdict's rule calls trained."""
    return sum(verdict(run).kind == "trained" for run in runs)


def share(runs: list[History]) -> str:
    return f"{trained(runs)}/{len(runs)}"


def accuracies(runs: Iterable[History]) -> list[float]:
    """Test accuracy at the end, 0 to 1, with running statistics: what a user would get."""
    return [run.evals[-1]["accuracy"] for run in runs]


def spread(values: list[float]) -> str:
    """Mean ± standard deviation over seeds, in percent; of a single seed there is no deviation to tell."""
    deviation = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{deviation} %"


def judge(held: dict[str, bool], numbers: str) -> Finding:
    """Holds where all of several regimes agree, holds only in some of them, or in none."""
    where = "; in ".join(name for name, yes in held.items() if yes)
    kind = HOLDS if all(held.values()) else ONLY_IF if where else NOT
    return Finding(kind, numbers, f"in {where}")


def _counts(runs: Runs) -> Finding:
    shape = (4, 8, 4, 4)
    token, sample = (count_statistics(method, shape) for method in ("layer_token", "layer"))
    same = token.formula == sample.formula
    numbers = (
        f"LayerNorm per token has {token.formula} = {token.values} statistics on N×C×H×W = {shape}; "
        f"over the whole sample it has {sample.formula} = {sample.values}, BatchNorm "
        f"{count_statistics('batch', shape).values}"
    )
    return Finding(HOLDS if same else ONLY_IF, numbers, "if LayerNorm means the per-token kind")


def _at_inference(runs: Runs) -> Finding:
    """Asked of torch's own layers: which statistics they compute in either mode, and whether company matters."""
    shape, told, sets, moved = (2, 4, 2, 2), [], {}, {}
    x = torch.from_numpy(digit_features(2 * shape[0], *shape[1:]))
    for method, name in (("layer_token", "LN"), ("batch", "BN")):
        layer = torch_layer(method, shape)
        layer(x)  # so that BN has running statistics of these images
        for training in (True, False):
            layer.train(training)
            sets[name, training] = computed_sets(layer, shape)
            moved[name, training] = moved_by_company(layer, x[: shape[0]], x[shape[0] :])
        told.append(
            f"{name} computes the statistics of {sets[name, True]} sets in training and {sets[name, False]} in "
            f"evaluation; in other company an image's output changes by {moved[name, True]:.2g} and "
            f"{moved[name, False]:.2g}"
        )
    anew = sets["LN", False] == sets["LN", True] == count_statistics("layer_token", shape).sets
    fixed = sets["BN", False] == 0 < sets["BN", True] and moved["BN", False] == 0 < moved["BN", True]
    kind = HOLDS if anew and fixed else ONLY_IF if anew or fixed else NOT
    return Finding(kind, f"N×C×H×W = {shape}: {'. '.join(told)}", "for LN" if anew else "for BN")


def _unmeasured(chapter: str) -> Callable[[Runs], Finding]:
    return lambda runs: Finding(OPEN, f"settled by chapter {chapter}, which is still to be written")


def _crash(runs: Runs) -> Finding:
    parts, failed = [], {}
    for study, regime in REGIMES.items():
        ln, bn = runs(study, "ln"), runs(study, "bn")
        failed[regime] = len(bn) - trained(bn) > len(ln) - trained(ln)
        parts.append(f"{regime}: LN {share(ln)}, BN {share(bn)}")
    return judge(failed, f"runs that trained: {'; '.join(parts)}")


def _blame(runs: Runs) -> Finding:
    parts, helped = [], {}
    for name, regime in (("heavy", "GELU"), ("swiglu", "SwiGLU")):
        arms = {arm: runs(name, arm) for arm in ("bn", "bn+ffnbn")}
        arms |= {arm: runs("interventions", arm, name) for arm in ("ffn-ln", "attn-ln", "bn+cap")}
        mean = {arm: statistics.mean(accuracies(found)) for arm, found in arms.items()}
        # The FFN is to blame if LN in front of it alone helps more than LN in front of attention alone
        helped[regime] = mean["ffn-ln"] > max(mean["bn"], mean["attn-ln"])
        numbers = ", ".join(f"{arm} {100 * value:.0f} %" for arm, value in mean.items())
        parts.append(f"{regime}: {numbers}")
    return judge(helped, f"mean accuracy with one suspect removed: {'; '.join(parts)}")


def _cure(runs: Runs) -> Finding:
    parts, cured = [], {}
    for study, regime in REGIMES.items():
        bn, cure = runs(study, "bn"), runs(study, "bn+ffnbn")
        if trained(bn) < len(bn):  # else there is nothing to cure
            cured[regime] = trained(cure) >= 0.8 * len(cure) and trained(cure) > trained(bn)
            parts.append(f"{regime}: BN {share(bn)}, with FFN-BN {share(cure)}")
    return judge(cured, f"runs that trained: {'; '.join(parts)}")


def _level(runs: Runs) -> Finding:
    parts, level = [], {}
    for study, regime in REGIMES.items():
        ln, cure = (accuracies(runs(study, arm)) for arm in ("ln", "bn+ffnbn"))
        level[regime] = statistics.mean(cure) >= statistics.mean(ln) - 0.02
        parts.append(f"{regime}: LN {spread(ln)}, FFN-BN {spread(cure)}")
    return judge(level, f"test accuracy: {'; '.join(parts)} (level: within 2 points)")


def _deep(runs: Runs) -> Finding:
    arms = {arm: runs("deep", arm) for arm in ("ln", "bn", "bn+ffnbn")}
    fails, cured = trained(arms["bn"]) == 0, trained(arms["bn+ffnbn"]) == len(arms["bn+ffnbn"])
    numbers = ", ".join(f"{arm} {share(found)} ({spread(accuracies(found))})" for arm, found in arms.items())
    recipe = arms["ln"][0].recipe
    kind = HOLDS if fails and cured else ONLY_IF if fails or cured else NOT
    return Finding(
        kind, f"GELU, depth {recipe.depth}, contrast jitter σ = {recipe.sigma:g}, trained: {numbers}"
    )


def _legacy(runs: Runs) -> Finding:
    """LN would be no more than a legacy if BN with FFN-BN did as well wherever LN does, at a user's evaluation too."""
    parts, replaced = [], {}
    for study in ("tame", "heavy", "deep", "swiglu", "midrun"):
        ln, cure = runs(study, "ln"), runs(study, "bn+ffnbn")
        mean = [statistics.mean(accuracies(found)) for found in (ln, cure)]
        blown = sum(not math.isfinite(run.evals[-1]["loss"]) for run in cure)
        as_often = trained(cure) >= trained(ln)
        replaced[REGIMES[study]] = as_often and mean[1] >= mean[0] - 0.02 and not blown
        fault = f", {blown} with a test loss that is not finite" if blown else ""
        parts.append(f"{REGIMES[study]}: LN {share(ln)}, FFN-BN {share(cure)}{fault}")
    return judge(replaced, f"runs that trained: {'; '.join(parts)}; no text was trained on")


def _sequences(runs: Runs) -> Finding:
    """That LN is the standard is history; what runs can say is where it is ahead of every way to use BN.

    Ahead: its mean accuracy is more than 2 points above the best BN's, as in `_level`.
    """
    rivals = {"bn-input": "on the input", "bn-step": "per step", "bn": "shared", "bn-padded": "with padding"}
    parts, ahead = [], {}
    for name, regime in (
        ("gru", "lengths as in training"),
        ("gru-longer", "sequences longer than in training"),
    ):
        found = {arm: accuracies(runs("sequences", arm, name)) for arm in ("ln", *rivals)}
        best = max(rivals, key=lambda arm: statistics.mean(found[arm]))
        ahead[regime] = statistics.mean(found["ln"]) > statistics.mean(found[best]) + 0.02
        others = ", ".join(f"{rivals[arm]} {spread(found[arm])}" for arm in rivals)
        parts.append(f"{regime}: LN {spread(found['ln'])}, BN {others}")
    said = "that it is the standard is history; ahead of every BN by more than 2 points, in a GRU's test accuracy"
    return judge(ahead, f"{said}: {'; '.join(parts)}")


def _speed(runs: Runs) -> Finding:
    if not (records := load_costs(runs.folder)):
        raise LookupError("still to be run: `python -m normviz bench`")
    parts, faster, folded = [], {}, []
    for record in records:
        where = device_words(record["environment"])
        told = []
        for row in record["networks"]:
            times = {arm: row["ratio_to_ln"][arm]["median"] for arm in ("bn", "bn+ffnbn", "folded")}
            name = f"{NETWORK_NAMES[row['network']]}, batch {row['batch']}, {row['mode']}"
            # About 20 % faster: at least 15 % more images a second, by the network that also trains
            faster[f"{name} ({where})"] = times["bn+ffnbn"] <= 1 / 1.15
            if times["folded"] <= 1 / 1.15:
                folded.append(name)
            gains = " / ".join(f"{100 * (1 / t - 1):+.0f} %" for t in times.values()).replace("-", "−")
            told.append(f"{name} {gains}")
        parts.append(f"{where}: {'; '.join(told)}")
    numbers = f"images a second, against LN, of BN / with FFN-BN / folded: {'. '.join(parts)}"
    found = judge(faster, numbers)
    if found.verdict == NOT and folded:
        return Finding(ONLY_IF, numbers, f"once BN is folded away: {'; '.join(dict.fromkeys(folded))}")
    return found


CLAIMS = (
    Claim("LayerNorm along C (or the embedding) has 2NHW statistics.", "01_axes", _counts),
    Claim("LN computes its statistics in inference too, BN fixes them.", "03_layer_norm", _at_inference),
    Claim("LN is the standard where sequence length varies.", "05_sequences", _sequences),
    Claim("Replacing LN by BN in a ViT can crash training.", "08_loss_crash", _crash),
    Claim("The un-normalized FFN is to blame.", "08_loss_crash", _blame),
    Claim("A BN between the FFN's two linear layers cures it.", "08_loss_crash", _cure),
    Claim("The cured network is as accurate as the LN one.", "08_loss_crash", _level),
    Claim("All of this in one GELU network: BN fails, FFN-BN is level with LN.", "08_loss_crash", _deep),
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
            rows.append((claim, Finding(OPEN, str(error))))
    return rows


def markdown(folder=None) -> str:
    """The ledger as a Markdown table."""
    lines = ["| the article says | verdict | what we measured | chapter |", "|---|---|---|---|"]
    for claim, finding in ledger(folder):
        chapter = claim.notebook.split("_")[0]
        lines.append(f"| {claim.statement} | **{finding.sentence}** | {finding.numbers} | {chapter} |")
    return "\n".join(lines)


BEGIN, END = "<!-- claims: written by `python -m normviz claims --write` -->", "<!-- end of claims -->"


def insert(text: str, folder=None) -> str:
    """`text` with the table between its two markers brought up to date.

    Raises ValueError where the markers are missing.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"it needs the line {BEGIN!r} once, and {END!r} once after it")
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{markdown(folder)}\n{END}{rest.split(END)[1]}"
