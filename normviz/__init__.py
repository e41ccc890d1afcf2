# ruff: noqa: F401
"""normviz: see what normalization layers do.

    import normviz as nv
    cut = nv.cut("group", (4, 6, 3, 3), num_groups=2)   # a method bound to a shape
    cut.labels, cut.count, cut.snippet()                # which cells share their statistics, how many, as torch has it
    nv.explore.axes()                                   # the same, to play with

`nv.draw` has the pictures, `nv.explore` the explorers, `nv.lab` what trains (torch is loaded when that is first used).
"""

from typing import TYPE_CHECKING

from normviz import samples
from normviz.lazy import attach
from normviz.norms import METHODS, RunningStats, count_statistics, cut, normalize, partition, torch_layer

if TYPE_CHECKING:
    from normviz import draw, explore, lab

__version__ = "0.1.0"

_NAMES = ["METHODS", "RunningStats", "count_statistics", "cut", "normalize", "partition", "samples", "torch_layer"]
__getattr__, __dir__, _namespaces = attach(__name__, {"draw": None, "explore": None, "lab": None})
__all__ = [*_NAMES, *_namespaces]
