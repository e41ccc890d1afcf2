"""What a history shows, by one stated rule."""

from __future__ import annotations

import math
from typing import NamedTuple

from normviz.lab.history import History
from normviz.series import last_tenth, smooth

# Parts of the chance loss ln(classes), the loss of a model that has learned nothing
DONE = 0.25  # at most: it has trained
LEARNED = 0.5  # at most: it has learned something that can be lost again
CHANCE = 0.8  # at least: it is at chance
BLOWN = 1.5  # at least: it is worse than knowing nothing
SKILL = 0.7  # accuracy between chance (0) and perfect (1) that a trained model has at least


class Verdict(NamedTuple):
    kind: str  # a key of `normviz.arms.KINDS`
    step: int | None  # when it trained, diverged or crashed
    why: str


def verdict(history: History) -> Verdict:
    """Judges a run by the first line that applies.

    Losses are means over a trailing window of a twentieth of the steps, the final loss is the mean of the
    last tenth, and chance is ln(classes):

    - diverged: a training loss is not finite, or the final loss is at least 1.5 chance;
    - crashed: the loss was down to 0.5 chance, and the final loss is back at 0.8 chance or more;
    - stalled: the final loss is at least 0.8 chance;
    - trained: the final loss is at most 0.25 chance, and the last test accuracy at least 70 % of the way from
      chance to 1;
    - delayed (in words: slow): anything between.

    `step` is where training first reached 0.25 chance (trained), the first step that was not finite or the
    last time that the loss went past 1.5 chance (diverged), or past 0.8 chance (crashed); otherwise None.
    Raises ValueError for a history without a step.
    """
    if not history.loss:
        raise ValueError("history.loss is empty: there is nothing to judge")
    chance, loss = history.chance, history.loss
    bad = next((i for i, value in enumerate(loss) if not math.isfinite(value)), None)
    curve = smooth(loss[:bad])
    low = min(curve, default=math.inf)
    learned = f" after having learned (loss {low:.2f})" if low <= LEARNED * chance else ""
    if bad is not None:
        return Verdict("diverged", bad, f"the training loss is not finite from step {bad}{learned}")

    final = last_tenth(loss)
    why = f"final loss {final:.2f} is {final / chance:.2f} of chance ({chance:.2f})"
    if final >= BLOWN * chance:
        return Verdict("diverged", _last_crossing(curve, BLOWN * chance), f"{why}{learned}")
    if final >= CHANCE * chance:
        if learned:
            return Verdict("crashed", _last_crossing(curve, CHANCE * chance), f"{why}{learned}")
        return Verdict("stalled", None, f"{why}, never below {low / chance:.2f}")

    trained = final <= DONE * chance
    if history.evals:
        last = history.evals[-1]
        floor = math.exp(-chance)
        trained = trained and (last["accuracy"] - floor) / (1 - floor) >= SKILL
        why += f", test accuracy {last['accuracy']:.2f}"
        if not math.isfinite(last["loss"]) or last["loss"] > BLOWN * chance:
            why += f", but the test loss is {last['loss']:.3g}"
    if trained:
        return Verdict("trained", next((i for i, value in enumerate(curve) if value <= DONE * chance), None), why)
    return Verdict("delayed", None, why)


def _last_crossing(curve: list[float], level: float) -> int:
    """The first step of the last stretch above a level, which the end may have left again."""
    last = max((i for i, value in enumerate(curve) if value >= level), default=len(curve) - 1)
    return 1 + max((i for i in range(last) if curve[i] < level), default=-1)
