# ruff: noqa: F401
"""The explorers, in the order of the chapters: `nv.explore.axes()` and so on, and the live charts of trainings.

Calling one gives a state: in a notebook's cell it shows itself with its controls, `.figure()` is its picture, `.html()`
a page without a kernel, `.turn(…)` the state after an event, `.read()` what it knows.
"""

from typing import TYPE_CHECKING

from normviz.explore.axes import Axes as axes
from normviz.explore.base import Explorer
from normviz.explore.batches import Batches as batches
from normviz.explore.cost import Cost as cost
from normviz.explore.devices import Devices as devices
from normviz.explore.epsilon import Epsilon as epsilon
from normviz.explore.evaluation import Evaluation as evaluation
from normviz.explore.geometry import Geometry as geometry
from normviz.explore.gradient import Gradient as gradient
from normviz.explore.groups import Groups as groups
from normviz.explore.inside import Inside as inside
from normviz.explore.invariance import Invariance as invariance
from normviz.explore.outlier import Outlier as outlier
from normviz.explore.scaling import Scaling as scaling
from normviz.explore.time import Time as time
from normviz.lazy import attach

if TYPE_CHECKING:
    from normviz.explore.field import Tokens
    from normviz.explore.race import Race
    from normviz.explore.training import LiveChart

#: Every explorer by name, in the order of the chapters.
EXPLORERS: dict[str, type[Explorer]] = {
    "axes": axes, "batches": batches, "outlier": outlier, "geometry": geometry, "invariance": invariance,
    "groups": groups, "time": time, "epsilon": epsilon, "cost": cost, "inside": inside, "scaling": scaling,
    "gradient": gradient, "evaluation": evaluation, "devices": devices,
}  # fmt: skip

# The live charts are widgets, and load ipywidgets when first used
__getattr__, __dir__, _charts = attach(__name__, __file__)
__all__ = ["EXPLORERS", "Explorer", *EXPLORERS, *_charts]
