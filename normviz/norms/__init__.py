# ruff: noqa: F401
"""The norms: a table of methods, a cut (a method bound to a shape), the arithmetic, and torch's own layers."""

from normviz.norms.arithmetic import RunningStats, Steps, normalize, normalize_steps
from normviz.norms.cuts import Axes, Cut, Statistics, axes_of, count_statistics, cut, divisors, partition, torch_layer
from normviz.norms.layers import TorchCall
from normviz.norms.table import AXIS_NAMES, LAYOUTS, METHODS, ROLES, Method, method_row
