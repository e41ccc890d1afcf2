"""Groups of runs against each other: intervals against scipy's own, words by a stated rule, kinds counted apart."""

import math

import numpy as np
import pytest
from scipy import stats

from normviz.lab import History, preset
from normviz.lab.compare import difference, fates, lost_in_evaluation, rank_correlation, spread


def run(seed=0, loss=0.1, accuracy=0.9, test_loss=0.2, images=200, hits=None, **fields):
    last = {"step": 100, "loss": test_loss, "accuracy": accuracy}
    if hits is not None:
        last |= {"hits": np.packbits(hits).tobytes().hex(), "accuracy": float(np.mean(hits))}
    meta = {"classes": 10, "test_images": images if hits is None else len(hits)}
    return History(preset("tame", "bn", seed, steps=100, **fields), [loss] * 100, [last], meta=meta)


def test_what_became_of_runs_is_counted_kind_by_kind():
    crashed = run()
    crashed.loss = [0.1] * 50 + [2.3] * 50
    runs = [run(), run(loss=1.0), run(loss=2.3), run(loss=2.3), crashed, run(test_loss=math.nan)]
    assert fates(runs) == "2 trained, 1 slow, 2 stalled, 1 crashed; 1 not finite in evaluation"
    assert not lost_in_evaluation(run(loss=math.nan, test_loss=math.nan))  # that one diverged


def test_a_single_seed_has_no_spread():
    assert spread([0.5]) == "50.0 %"
    assert spread([0.5, 0.7]) == "60.0 ± 14.1 %"


def arms(p, q, images, seeds=5, together=0.9):
    """Runs of two arms that are right with probabilities p and q, mostly on the same images."""
    rng = np.random.default_rng(0)
    ours, theirs = [], []
    for seed in range(seeds):
        hard = rng.random(images)
        other = np.where(rng.random(images) < together, hard, rng.random(images))
        ours.append(run(seed, hits=hard < p))
        theirs.append(run(seed, hits=other < q))
    return ours, theirs


@pytest.mark.parametrize(
    ("p", "q", "images", "word"),
    [
        (0.95, 0.95, 10_000, "level"),
        (0.95, 0.94, 10_000, "level"),
        (0.95, 0.85, 10_000, "ahead"),
        (0.85, 0.95, 10_000, "behind"),
        (0.95, 0.92, 60, "not decided"),
    ],
)
def test_level_is_decided_by_an_interval_not_by_a_point(p, q, images, word):
    found = difference(*arms(p, q, images))
    assert found.word == word
    assert found.points.low < found.points.mean < found.points.high
    assert found.points.mean == pytest.approx(100 * (p - q), abs=5 if images < 100 else 1)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Both seeds and images drawn anew: an interval of 90 % may be wider than it need be, not narrower."""
    rng, inside, trials, seeds, images = np.random.default_rng(1), 0, 300, 5, 200
    for _ in range(trials):
        easy = rng.normal(0, 1, images)  # an image's own advantage for the first arm
        lucky = rng.normal(0, 0.5, seeds)
        gap = easy + lucky[:, None]  # truth: nobody is better
        ours = [run(s, hits=rng.random(images) < 0.5 + 0.1 * np.tanh(g)) for s, g in enumerate(gap)]
        theirs = [run(s, hits=rng.random(images) < 0.5 - 0.1 * np.tanh(g)) for s, g in enumerate(gap)]
        points = difference(ours, theirs).points
        inside += points.low <= 0 <= points.high
    assert inside / trials > 0.87


def test_without_hits_the_images_of_the_arms_count_as_drawn_apart():
    ours, theirs = arms(0.95, 0.95, 300)
    paired = difference(ours, theirs).points
    for history in (*ours, *theirs):
        del history.evals[-1]["hits"]
    apart = difference(ours, theirs).points
    assert apart.mean == pytest.approx(paired.mean) and apart.high - apart.low > paired.high - paired.low


def test_seeds_are_paired_and_two_are_needed():
    with pytest.raises(LookupError, match="two seeds"):
        difference([run(0), run(1)], [run(1), run(2)])
    found = difference([run(0, accuracy=0.5), run(1, accuracy=0.7)], [run(1, accuracy=0.6), run(0, accuracy=0.4)])
    assert found.points.mean == pytest.approx(10)


def test_rank_correlation_is_spearmans():
    x, y = list(range(20)), [v**3 + (v % 3) for v in range(20)]
    found = rank_correlation(x, y)
    assert found.mean == pytest.approx(stats.spearmanr(x, y).statistic) and found.low > 0.9
    noise = np.random.default_rng(0).normal(size=20)
    assert rank_correlation(x, noise).low < 0 < rank_correlation(x, noise).high
