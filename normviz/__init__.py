"""normviz: see what normalization layers do.

    import normviz as nv
    nv.partition("group", (4, 6, 3, 3), num_groups=2)   # which cells share their statistics
    nv.explore_axes()                                   # the same, to play with

Heavy parts (torch, matplotlib, ipywidgets) are loaded when first used, so that this import stays instant.
"""

from importlib import import_module

from normviz.methods import METHODS, Statistics, count_statistics, partition

__version__ = "0.1.0"

_LAZY = {
    "LiveChart": "normviz.picture.training",
    "RunningStats": "normviz.functional",
    "normalize": "normviz.functional",
    "normalize_steps": "normviz.functional",
    "torch_layer": "normviz.functional",
    "digit_features": "normviz.samples",
    "photos": "normviz.samples",
    "draw_block": "normviz.picture.figures",
    "draw_methods": "normviz.picture.figures",
    "draw_groups": "normviz.picture.groups_widget",
    "draw_photos": "normviz.picture.photos",
    "draw_sweep": "normviz.picture.sweeps",
    "draw_cost": "normviz.picture.cost_widget",
    "draw_cost_ratios": "normviz.picture.cost",
    "explore_axes": "normviz.picture.widgets",
    "explore_cost": "normviz.picture.cost_widget",
    "draw_accuracies": "normviz.picture.curves",
    "draw_evaluation": "normviz.picture.inside_eval",
    "draw_loss": "normviz.picture.curves",
    "draw_phase_map": "normviz.picture.curves",
    "draw_ratios": "normviz.picture.curves",
    "draw_vit_block": "normviz.picture.diagram",
    "draw_geometry": "normviz.picture.geometry",
    "draw_invariance": "normviz.picture.invariance",
    "explore_geometry": "normviz.picture.geometry_widget",
    "explore_groups": "normviz.picture.groups_widget",
    "explore_evaluation": "normviz.picture.inside_widget",
    "explore_inside": "normviz.picture.inside_widget",
    "explore_invariance": "normviz.picture.geometry_widget",
    "explore_scaling": "normviz.picture.inside_widget",
    "draw_batches": "normviz.picture.batches_scene",
    "draw_histograms": "normviz.picture.histograms",
    "explore_batches": "normviz.picture.batches_widget",
    "draw_outlier": "normviz.picture.outlier",
    "explore_outlier": "normviz.picture.batches_widget",
    "draw_ink": "normviz.picture.ink",
    "draw_padding": "normviz.picture.ink",
    "draw_time": "normviz.picture.sequences",
    "explore_time": "normviz.picture.sequences_widget",
    "lab": "normviz.lab",
}

__all__ = ["METHODS", "Statistics", "count_statistics", "partition"]
__all__ += list(_LAZY)


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module 'normviz' has no attribute {name!r}")
    module = import_module(_LAZY[name])
    value = module if module.__name__ == f"{__name__}.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(set(globals()) | set(_LAZY))
