# ruff: noqa: F401
"""The clinic: what the norm layers of anybody's torch model do, what ails them, and how to swap or fold them.

    import normviz as nv
    print(nv.inspect(model, batch))

Nothing goes by names of classes: a layer is asked which cells share statistics (`norms/dependence.py`).  The model is
left as it was, but for `swap_norms` and `fold_batchnorm`, which say so.  Names load when they are first used.
"""

from typing import TYPE_CHECKING

from normviz.lazy import attach

if TYPE_CHECKING:
    from normviz.clinic.change import Changes, fold_batchnorm, swap_norms
    from normviz.clinic.examine import inspect
    from normviz.clinic.findings import Finding
    from normviz.clinic.layers import Layer
    from normviz.clinic.report import Report
    from normviz.clinic.watch import ForwardError

__getattr__, __dir__, __all__ = attach(__name__, __file__)
