"""The explorers, in the order of the chapters: `nv.explore.axes()` and so on.

Calling one gives a state: in a notebook's cell it shows itself with its controls, `.figure()` is its picture, `.html()`
a page without a kernel, `.turn(…)` the state after an event.
"""

from normviz.explore.base import Explorer
from normviz.explore.outlier import Outlier as outlier

#: Every explorer by name, in the order of the chapters.
EXPLORERS: dict[str, type[Explorer]] = {"outlier": outlier}

__all__ = ["EXPLORERS", "Explorer", *EXPLORERS]
