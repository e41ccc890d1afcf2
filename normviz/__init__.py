# ruff: noqa: F401
"""normviz: see what normalization layers do.

    import normviz as nv
    cut = nv.cut("group", (4, 6, 3, 3), num_groups=2)   # a method bound to a shape
    cut.labels, cut.count, cut.snippet()                # which cells share their statistics, how many, as torch has it
    nv.explore.axes()                                   # the same, to play with
    print(nv.inspect(model, batch))                     # what the norm layers of your own model do, and what ails them

`nv.draw` has the pictures, `nv.explore` the explorers, `nv.lab` what trains (torch is loaded when that is first used),
`nv.clinic` what `inspect`, `swap_norms` and `fold_batchnorm` give.
"""

from typing import TYPE_CHECKING

from normviz.lazy import attach

if TYPE_CHECKING:
    from normviz import clinic, draw, explore, lab, samples
    from normviz.clinic import fold_batchnorm, inspect, swap_norms
    from normviz.norms import METHODS, RunningStats, count_statistics, cut, normalize, partition, torch_layer

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = attach(__name__, __file__)
