"""Training curves in two numbers, for charts and for verdicts alike: the smoothed loss, and the loss at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

#: Bins of a token's length over the root mean square length, ten to a factor of ten; what is beyond is in the end bins.
LENGTH_EDGES = np.logspace(-3, 2, 51)


def smooth(loss: Sequence[float], window: int | None = None) -> list[float]:
    """Means over a trailing window of so many steps, fewer at the beginning; not finite where a value in it is not.

    window: by default a twentieth of the steps, at least 5, which is what verdicts are given by.
    """
    window = max(5, len(loss) // 20) if window is None else window
    total, means = 0.0, []
    for i, value in enumerate(loss):
        total += float(value) - (float(loss[i - window]) if i >= window else 0.0)
        if not math.isfinite(total):  # a sum that once was NaN would stay so
            total = float(sum(loss[max(0, i + 1 - window) : i + 1]))
        means.append(total / min(i + 1, window))
    return means


def last_tenth(loss: Sequence[float]) -> float:
    """The mean loss of the last tenth of the steps, one at least."""
    tail = loss[-max(1, len(loss) // 10) :]
    return float(sum(tail) / len(tail))
