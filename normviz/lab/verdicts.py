"""What a history shows, by one stated rule."""

from __future__ import annotations

import math
from typing import NamedTuple

from normviz.lab.history import History

KINDS = ("trained", "delayed", "stalled", "diverged", "crashed")

# Shares of the chance loss ln(classes), the loss of a model that has learned nothing
DONE = 0.25  # at most: it has trained
LEARNED = 0.5  # at most: it has learned something that can be lost again
CHANCE = 0.8  # at least: it is at chance
BLOWN = 1.5  # at least: it is worse than knowing nothing
SKILL = 0.7  # accuracy between chance (0) and perfect (1) that a trained model has at least


class Verdict(NamedTuple):
    kind: str  # one of KINDS
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
    - delayed: anything between.

    `step` is where training first reached 0.25 chance (trained), the first step that was not finite or the
    last time that the loss went past 1.5 chance (diverged), or past 0.8 chance (crashed); otherwise None.
    Raises ValueError for a history without a step.
    """
    if not history.loss:
        raise ValueError("history.loss is empty: there is nothing to judge")
    chance, loss = history.chance, history.loss
    bad = next((i for i, value in enumerate(loss) if not math.isfinite(value)), None)
    smooth = smoothed(loss[:bad])
    low = min(smooth, default=math.inf)
    learned = f" after having learned (loss {low:.2f})" if low <= LEARNED * chance else ""
    if bad is not None:
        return Verdict("diverged", bad, f"the training loss is not finite from step {bad}{learned}")

    final = final_loss(history)
    said = f"final loss {final:.2f} is {final / chance:.2f} of chance ({chance:.2f})"
    if final >= BLOWN * chance:
        return Verdict("diverged", _last_crossing(smooth, BLOWN * chance), f"{said}{learned}")
    if final >= CHANCE * chance:
        if learned:
            return Verdict("crashed", _last_crossing(smooth, CHANCE * chance), f"{said}{learned}")
        return Verdict("stalled", None, f"{said}, never below {low / chance:.2f}")

    trained = final <= DONE * chance
    if history.evals:
        last = history.evals[-1]
        floor = math.exp(-chance)
        skill = (last["accuracy"] - floor) / (1 - floor)
        trained = trained and skill >= SKILL
        said += f", test accuracy {last['accuracy']:.2f}"
        if not math.isfinite(last["loss"]) or last["loss"] > BLOWN * chance:
            said += f", but the test loss is {last['loss']:.3g}"
    if trained:
        reached = next((i for i, value in enumerate(smooth) if value <= DONE * chance), None)
        return Verdict("trained", reached, said)
    return Verdict("delayed", None, said)


def final_loss(history: History) -> float:
    """Mean training loss over the last tenth of the steps."""
    tail = history.loss[-max(1, len(history.loss) // 10) :]
    return sum(tail) / len(tail)


def smoothed(loss: list[float]) -> list[float]:
    """Means over a trailing window of a twentieth of the steps, at least 5; shorter at the beginning."""
    window = max(5, len(loss) // 20)
    total, means = 0.0, []
    for i, value in enumerate(loss):
        total += value - (loss[i - window] if i >= window else 0.0)
        means.append(total / min(i + 1, window))
    return means


def _last_crossing(smooth: list[float], level: float) -> int:
    """The first step of the last stretch above a level, which the end may have left again."""
    last = max((i for i, value in enumerate(smooth) if value >= level), default=len(smooth) - 1)
    while last > 0 and smooth[last - 1] >= level:
        last -= 1
    return last
