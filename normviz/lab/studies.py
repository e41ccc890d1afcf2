"""The studies: each a grid of recipes with its question and, where it is to decide something, the rule that decides.

Rules are written before the runs.  The studies of the cause (`memory` to `half`) were designed after pilots on seeds 0
to 10; whatever they had to choose was chosen on seed 90 (study `choices`) or on seeds 90 to 92 (`fair` and `cifar10`),
and they are judged on seeds 100 to 104.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import pairwise, product
from types import MappingProxyType
from typing import NamedTuple

from normviz.arms import PHOTOGRAPHS
from normviz.lab.compare import grouped, trained
from normviz.lab.recipe import Recipe, preset
from normviz.series import last_tenth


class Study(NamedTuple):
    about: str
    recipes: tuple[Recipe, ...] = ()
    rule: str = ""  # what decides, in words; `conclusions` has it as code
    looks: tuple[int, ...] = ()  # steps at which the lengths of all tokens are recorded
    keep: tuple[str, ...] | None = None  # columns of the probes that are recorded; None: all
    #: Recipes that depend on what is recorded already: called with a function study name → histories
    follow: Callable[[Callable], tuple[Recipe, ...]] = lambda records: ()
    decides: Mapping = MappingProxyType({})  # fields of the recipes that the rule looks at; without any: at all

    @property
    def shares(self) -> bool:
        """Whether its runs are recorded as they are, so that a run of another study may stand for one of its own."""
        return not self.looks and self.keep is None


_THREE = ("ln", "bn", "bn+ffnbn")
_FIVE = (*_THREE, "bn+ffnbn-before", "bn+embedln")
_TWO = ("heavy", "swiglu")
JUDGED = tuple(range(100, 105))  # seeds that no choice has seen
TUNING = (90, 91, 92)


def _grid(names, arms, seeds: int | Iterable[int], settings: Iterable[dict] = ({},), **fixed) -> tuple[Recipe, ...]:
    """Every combination; seeds vary slowest, so that a study cut short has whole comparisons."""
    cells = product(range(seeds) if isinstance(seeds, int) else seeds, settings, names, arms)
    return tuple(preset(name, arm, seed, **fixed | setting) for seed, setting, name, arm in cells)


def _each(**values: Iterable) -> list[dict]:
    """Settings of every combination of fields' values; the first field varies slowest."""
    return [dict(zip(values, cell, strict=True)) for cell in product(*values.values())]


#: The phase maps are many short runs: half the depth and half the steps of the presets.
_SHORT = {"depth": 8, "steps": 200, "warmup": 20, "eval_every": 100, "probe_every": 20}

#: The studies of the cause keep one evaluation in a hundred steps and one probe in forty.
_LEAN = {"eval_every": 100, "probe_every": 40}


def _same_images(batch: int) -> dict:
    """Settings of a run that sees 4,800 images, at a learning rate of 0.012 for batches of 32."""
    steps = 4800 // batch
    return {"batch": batch, "steps": steps, "lr": 0.012 * batch / 32, "warmup": steps // 15, "eval_every": steps}


#: What study `memory` does to BN's optimizer, in the order in which it is told.
REMEDIES = MappingProxyType(
    {
        "as it is": {},
        "state cleared at step 40": {"reset_at": 40},
        "clipped at 1 in the first 40 steps": {"clip": 1.0, "clip_steps": 40},
        "clipped at 1 throughout": {"clip": 1.0},
        "β₂ = 0.99": {"beta2": 0.99},
        "β₂ = 0.95": {"beta2": 0.95},
        "SGD with momentum": {"optimizer": "sgd", "weight_decay": 0.0},  # and a rate of SGD_RATES
    }
)
#: The best of five rates in study `choices`, seed 90; `deep` takes that of the other GELU regime.
SGD_RATES = MappingProxyType({"heavy": 0.03, "swiglu": 0.1, "deep": 0.03})
POISONS = MappingProxyType({"× 10": {"poison": 10.0}, "× 100": {"poison": 100.0}})
RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
CLIPS = (None, 1.0)

#: A run that nothing was done to: what the remedies and poisons change, as it is without them.
UNTOUCHED = MappingProxyType(
    {field: getattr(Recipe(), field) for each in (*REMEDIES.values(), *POISONS.values()) for field in each}
)

#: What stands in the FFN's slot, or cures from elsewhere, in the order in which it is told.
SLOTS = MappingProxyType(
    {
        "bn": "nothing",
        "bn+ffnbn-before": "BN before the activation",
        "bn+ffnbn": "BN after the activation",
        "bn+ffnln": "LN after the activation",
        "bn+ffnrms": "RMSNorm after the activation",
        "bn+gain": "a constant gain",
        "bn+embedln": "nothing, but one LN after the patch embedding",
    }
)


def _memory(*names: str) -> tuple[Recipe, ...]:
    runs: list[Recipe] = []
    for seed, name in product(JUDGED, names):
        grid, rate = partial(_grid, [name], seeds=[seed], **_LEAN), {"lr": SGD_RATES[name]}
        runs += grid(["bn"], settings=[s | rate if "optimizer" in s else s for s in REMEDIES.values()])
        runs += grid(["ln", "bn+ffnbn"]) + grid(["ln"], settings=POISONS.values())
    return tuple(runs)


#: What follows when runs of an arm have not all trained: ten times the steps at the most.
LENGTHS = (400, 1200, 4000)


def _undecided(records: Callable) -> tuple[Recipe, ...]:
    """The next length for every arm of which, all seeds recorded, not every run has trained at the one before."""
    cells = grouped(records("longer"), "name", "arm", "steps")
    return tuple(
        recipe
        for before, steps in pairwise(LENGTHS)
        for (name, arm, length), runs in cells.items()
        if length == before and trained(runs) < len(runs) == len(JUDGED)
        # only longer: the warm-up stays, the cosine is stretched
        for recipe in _grid([name], [arm], JUDGED, steps=steps, eval_every=steps // 4, probe_every=steps // 10)
    )


def tuned(runs: Iterable) -> dict[tuple[str, str], dict]:
    """The best setting (lr, clip) of every (regime, arm) in a tuning grid: that of the lowest mean final training loss.

    Test images are not looked at.  A loss that is not finite is the worst.
    """
    best: dict[tuple, tuple[float, dict]] = {}
    for (name, arm, lr, clip), cell in grouped(runs, "name", "arm", "lr", "clip").items():
        losses = (last_tenth(run.loss) for run in cell)
        mean = statistics.fmean(loss if math.isfinite(loss) else math.inf for loss in losses)
        if (name, arm) not in best or mean < best[name, arm][0]:
            best[name, arm] = mean, {"lr": lr, "clip": clip}
    return {at: setting for at, (_, setting) in best.items()}


def _judged_at_best(tuning: str, records: Callable, **settings) -> tuple[Recipe, ...]:
    """Recipes of the judged seeds at the setting that a tuning grid, once whole, found best for every arm."""
    runs = records(tuning)
    best = tuned(runs) if len(runs) >= len(STUDIES[tuning].recipes) else {}
    grid = product(JUDGED, best.items())
    return tuple(preset(name, arm, seed, **settings | setting) for seed, ((name, arm), setting) in grid)


STUDIES = MappingProxyType(
    {
        "tame": Study("GELU, standardised digits: does the swap alone hurt?", _grid(["tame"], _THREE, 5)),
        "heavy": Study("GELU, contrast jitter σ = 1", _grid(["heavy"], _THREE, 5)),
        "swiglu": Study("SwiGLU, no jitter", _grid(["swiglu"], _THREE, 5)),
        "swiglu-deep": Study("SwiGLU, depth 24, no jitter", _grid(["swiglu-deep"], _THREE, 5, probe_every=20)),
        "midrun": Study("SwiGLU, jitter switched on at half time", _grid(["midrun"], _THREE, 5)),
        "deep": Study("GELU, depth 32, contrast jitter σ = 1", _grid(["deep"], _THREE, 5, probe_every=20)),
        "interventions": Study("which part of the swap is to blame, in `heavy` and `swiglu`",
            _grid(_TWO, ("bn+cap", "ffnbn", "ln+ffnbn", "attn-ln", "ffn-ln", "rms"), 2)),
        "phase": Study("contrast jitter σ × FFN kind × arm",
            _grid(["tame"], _THREE, 3, _each(sigma=(0.0, 0.5, 1.0, 1.5), ffn=("gelu", "swiglu")), **_SHORT)),
        "phase_batch": Study("batch size at the same number of steps: a larger batch raises the bound √(N-1)",
            _grid(["heavy"], _THREE, 3, _each(batch=(16, 64, 256)), **_SHORT)),
        "phase_depth": Study("depth, GELU with contrast jitter σ = 1",
            _grid(["heavy"], _THREE, 3, _each(depth=(4, 8, 16, 24)), **_SHORT)),
        "clip": Study("are exploding gradients to blame? Their total norm clipped at 1",
            _grid(["swiglu", "heavy", "midrun"], ("bn", "bn+ffnbn"), 3, clip=1.0)),
        "inside": Study("one run per arm, with the lengths of its tokens at some steps",
            _grid(_TWO, _THREE, 1), looks=(0, 10, 20, 40, 80, 160, 240, 320, 399)),
        "batchnorm_lr": Study(
            "what BatchNorm is good for: a convolutional network of 8 layers with and without it, four learning rates",
            _grid(["conv"], ("none", "bn"), 5, _each(lr=(1e-3, 4e-3, 3e-2, 1e-1)), depth=8)),
        "small_batch": Study(
            "batches of 32 down to 1 image, the same 4,800 images seen, learning rate in proportion to the batch",
            _grid(["conv"], ("bn", "ln", "gn", "in"), 4, [_same_images(b) for b in (32, 16, 8, 4, 2, 1)])),
        "cifar10-heavy": Study("CIFAR-10, GELU, contrast jitter", _grid(["cifar10-heavy"], _THREE, 2, eval_every=100)),
        "cifar10-swiglu": Study("CIFAR-10, SwiGLU, no jitter", _grid(["cifar10-swiglu"], _THREE, 2, eval_every=100)),
        "sequences": Study("a GRU over the ink of digits: lengths as in training, and longer than any in training",
            _grid(["gru", "gru-longer"], ("ln", "bn-input", "bn-step", "bn", "none", "bn-padded"), 5)),
        "choices": Study(
            "what the studies of the cause had to choose, on a seed of its own: SGD's learning rate, RBN's weight, "
            "PRepBN's schedule",
            _grid(_TWO, ["bn"], [90], _each(lr=(1e-3, 3e-3, 1e-2, 3e-2, 1e-1)), optimizer="sgd", weight_decay=0.0,
                  **_LEAN)
            + _grid(_TWO, ["rbn"], [90], _each(rbn=(0.01, 0.1, 1.0)), **_LEAN)
            + _grid(_TWO, ["prepbn"], [90], _each(prepbn_until=(0.5, 0.8)), **_LEAN)),
        "memory": Study("is BN's stall AdamW's memory of an exploded gradient? BN with it taken away, LN with it given",
            _memory(*_TWO),
            "In a regime the memory is the main cause if clearing it at step 40 closes at least 80 % of the gap in "
            "test accuracy between BN and BN + FFN-BN in at least 4 of 5 seeds, a part of it if at least half; it is "
            "enough by itself if LN with its first ten gradients × 100 trains in at most 1 of 5 seeds."),
        "memory-deep": Study("the same in `deep`, 32 blocks", _memory("deep"), "As in `memory`."),
        "initial": Study("before any training: the gradient at step 0 over depth, jitter, FFN and arm",
            _grid(["tame"], ("ln", "bn", "bn+ffnbn", "bn+ffnbn-before", "bn+ffnln", "bn+gain", "bn+embedln", "dyt"),
                  range(100, 110), _each(depth=(2, 4, 8, 16, 32, 48), sigma=(0.0, 1.0), ffn=("gelu", "swiglu")),
                  steps=1, warmup=0, eval_every=1, eval_images=1, probe_every=1),
            "The gradient explodes in depth if the logarithm of its norm is a straight line over the depth (R² > 0.9) "
            "that rises; it predicts the verdicts if, over the arms and regimes recorded at depth 16 and 32, "
            "Spearman's correlation between it and the share of runs that trained is at most −0.6.",
            keep=("grad_norm",)),
        "slot": Study("what in FFN-BN cures: its place, its statistics, or only its scale?",
            _grid(_TWO, SLOTS, JUDGED, **_LEAN),
            "A norm in the FFN is needed in a regime if BN after the activation beats a constant gain in test "
            "accuracy, and its place matters if it beats BN before the activation: each if the 95 % interval of the "
            "paired difference over the seeds lies above 0. The un-normalized FFN is to blame only if every arm that "
            "leaves it so (nothing, gain, embedding LN) trains less often than BN after the activation."),
        "longer": Study(
            "crash or delay? 400 steps, then 1,200 and 4,000 for every arm of which a run has still not trained",
            _grid(_TWO, _THREE, JUDGED, **_LEAN),
            "An arm is slow in a regime if all its runs train once the steps are trebled or multiplied by ten; it "
            "fails if after 4,000 steps at least one still has not.",
            follow=_undecided),
        "fair": Study(
            "every arm with the optimizer that suits it: five learning rates, clipped or not, tuned on seeds 90 to 92",
            _grid(_TWO, _FIVE, TUNING, _each(lr=RATES, clip=CLIPS), **_LEAN),
            "Tuned: the setting with the lowest mean final training loss on seeds 90 to 92. A swap crashes training in "
            "a regime only if the tuned BN trains in fewer of the 5 judged seeds than the tuned LN."),
        "fair-judged": Study("the arms of `fair` at their best settings, on the judged seeds",
            rule="As in `fair`.", follow=partial(_judged_at_best, "fair", **_LEAN)),
        "successors": Study("what came after the article: DyT, Derf, PRepBN and RBN in every slot",
            # RBN's weight is the better of those in `choices`; PRepBN went to NaN with either schedule there
            _grid((*_TWO, "deep"), ("dyt", "derf", "prepbn", "rbn"), JUDGED, rbn=0.01, **_LEAN),
            "An arm replaces LN in a regime if it trains in as many of the 5 seeds and is level with LN in test "
            "accuracy (see `level` in the ledger)."),
        "ghost": Study(
            "the bound √(N − 1) as a cause: BatchNorm's statistics over N = 64 … 4,096 tokens, the batch (256 images) "
            "unchanged",
            _grid(_TWO, ["bn"], JUDGED, _each(clip=CLIPS, ghost_tokens=(64, 256, 1024, None)),
                  **_LEAN, batch=256, steps=200, warmup=20),
            "The bound is a cause in a regime if test accuracy falls with N: Spearman's correlation over all runs "
            "without clipping is below 0 with its 95 % interval. Else the story is dropped.",
            decides={"clip": None}),
        "half": Study("float16, whose largest number is 65,504: does BN overflow where LN and FFN-BN do not?",
            _grid(["swiglu"], _THREE, JUDGED, _each(batch=(64, 256, 1024), clip=CLIPS), **_LEAN, precision="fp16"),
            "A crash in the article's sense: BN's loss, or its evaluation, stops being finite in at least 4 of 5 seeds "
            "after a loss below half of chance, and LN's and FFN-BN's in none."),
        "cifar10": Study(
            "CIFAR-10, GELU and SwiGLU, six settings of the optimizer an arm, tuned on seeds 90 to 92 in 400 steps",
            _grid(PHOTOGRAPHS, _THREE, TUNING, _each(lr=(1e-3, 2e-3, 4e-3), clip=CLIPS),
                  steps=400, eval_every=400, probe_every=40, eval_images=1000)),
        "cifar10-judged": Study(
            "the arms of `cifar10` at their best settings, 3,000 steps, all 10,000 test images, on the judged seeds",
            (),
            "Level: see the ledger. With all 50,000 training images and a GPU the same command does the same study.",
            follow=partial(
                _judged_at_best, "cifar10", steps=3000, eval_every=1000, probe_every=40, eval_images=10_000)),
        "gpu": Study(
            "what the cell *On a GPU* of chapter 08 does, in 400 of its 1,000 steps: one run an arm, to be looked at",
            _grid(["cifar10-swiglu"], _FIVE, 1,
                  batch=256, steps=400, eval_every=100, eval_images=10_000, precision="auto")),
    }
)  # fmt: skip
