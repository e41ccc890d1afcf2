"""Groups of runs in words and against each other: what became of them, and whether one arm is level with another."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from normviz.arms import KINDS
from normviz.lab.history import History
from normviz.lab.verdicts import verdict

MARGIN = 0.02  # of accuracy: two arms are level if their difference surely lies within it


def grouped(runs: Iterable[History], *fields: str) -> dict[tuple, list[History]]:
    """Runs by the values of some fields of their recipes, in order of appearance."""
    groups: dict[tuple, list[History]] = {}
    for run in runs:
        groups.setdefault(tuple(getattr(run.recipe, field) for field in fields), []).append(run)
    return groups


def matched(*groups: Iterable[History]) -> list[tuple[History, ...]]:
    """Runs of equal seeds, one of each group, in the order of the first; what has no match is left out."""
    by_seed = [{run.recipe.seed: run for run in group} for group in groups]
    return [tuple(of[seed] for of in by_seed) for seed in by_seed[0] if all(seed in of for of in by_seed)]


def trained(runs: Iterable[History]) -> int:
    """How many runs the verdict's rule calls trained."""
    return sum(verdict(run).kind == "trained" for run in runs)


def trained_of(runs: Sequence[History]) -> str:
    """How many runs trained, of how many: "3/5"."""
    return f"{trained(runs)}/{len(runs)}"


def accuracies(runs: Iterable[History]) -> list[float]:
    """Test accuracy at the end, 0 to 1, with running statistics: what a user would get."""
    return [run.evals[-1]["accuracy"] for run in runs]


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation over seeds, in percent; of a single seed there is no deviation to tell."""
    deviation = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{deviation} %"


def lost_in_evaluation(run: History) -> bool:
    """Whether the test loss with running statistics is not finite although the training loss is."""
    return math.isfinite(run.loss[-1]) and not math.isfinite(run.evals[-1]["loss"])


def fates(runs: Sequence[History]) -> str:
    """What became of runs, each kind counted apart: "3 trained, 2 stalled; 1 not finite in evaluation"."""
    kinds = [verdict(run).kind for run in runs]
    text = ", ".join(f"{kinds.count(kind)} {row.word}" for kind, row in KINDS.items() if kind in kinds)
    lost = sum(map(lost_in_evaluation, runs))
    return text + (f"; {lost} not finite in evaluation" if lost else "")


class Interval(NamedTuple):
    """A mean with its confidence interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]".replace("-", "−")


class Difference(NamedTuple):
    """Test accuracy of one arm minus that of another, in points, with its 90 % interval, and what follows from it."""

    points: Interval
    word: str  # "level", "ahead", "behind" or "not decided"


def difference(ours: Sequence[History], theirs: Sequence[History]) -> Difference:
    """How much more accurate `ours` are than `theirs`, seeds paired; both need the same seeds, two at least.

    Seeds and test images are both a sample: the variance of the mean is that between seeds plus that between images,
    each over its number, with Satterthwaite's degrees of freedom.  Where a record does not say which images were right,
    the images of both arms count as drawn independently, which widens the interval.
    Level: the 90 % interval lies within ±2 points (two one-sided tests at 5 %; Schuirmann 1987).  Else ahead or behind
    where it leaves out 0, and otherwise not decided.
    """
    from scipy.stats import t

    pairs = matched(ours, theirs)
    if len(pairs) < 2:
        raise LookupError("two seeds at least are needed that both arms have")
    by_seed = np.array([one - two for one, two in map(accuracies, pairs)])
    seeds = by_seed.var(ddof=1) / len(pairs)
    images = pairs[0][0].meta.get("test_images", 297)
    if all(run.hits is not None for pair in pairs for run in pair):
        by_image = np.mean([one.hits.astype(float) - two.hits for one, two in pairs], axis=0)
        between = by_image.var(ddof=1) / images
    else:
        rates = [statistics.fmean(accuracies(runs)) for runs in zip(*pairs, strict=True)]
        between = sum(rate * (1 - rate) for rate in rates) / images
    error = math.sqrt(seeds + between)
    free = (seeds + between) ** 2 / (seeds**2 / (len(pairs) - 1) + between**2 / (images - 1)) if error else 1.0
    mean, half = float(by_seed.mean()), float(t.ppf(0.95, free)) * error
    points = Interval(100 * mean, 100 * (mean - half), 100 * (mean + half))
    if max(-points.low, points.high) <= 100 * MARGIN:
        word = "level"
    else:
        word = "ahead" if points.low > 0 else "behind" if points.high < 0 else "not decided"
    return Difference(points, word)


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> Interval:
    """Spearman's correlation with its 95 % interval by Fisher's z (Bonett & Wright 2000)."""
    from scipy.stats import norm, spearmanr

    value = float(spearmanr(x, y).statistic)
    half = norm.ppf(0.975) * math.sqrt((1 + value**2 / 2) / (len(x) - 3))
    z = math.atanh(max(-0.999999, min(0.999999, value)))
    return Interval(value, math.tanh(z - half), math.tanh(z + half))
