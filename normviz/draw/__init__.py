"""Static pictures: every function returns a matplotlib Figure with alt text; `NAME_scene` is the same as a scene."""

from normviz.draw import gallery
from normviz.draw.common import drawn as _drawn
from normviz.draw.images import ink_scene, padding_scene, photos_scene, reading_scene
from normviz.draw.runs import (
    accuracies_scene,
    cost_ratios_scene,
    evaluation_scene,
    loss_scene,
    outlier_ratios,
    phase_map_scene,
    ratios_scene,
    sweep_scene,
)
from normviz.draw.tensors import block_scene, histograms_scene, methods_scene
from normviz.draw.times import times_scene
from normviz.draw.vit import vit_block_scene, vit_path_scene
from normviz.picture.png import figure

block = _drawn(block_scene, caption=False)  # whose scene has its caption
methods = _drawn(methods_scene, caption=False)  # whose panels say it in parts
histograms = _drawn(histograms_scene)
photos = _drawn(photos_scene)
ink = _drawn(ink_scene)
padding = _drawn(padding_scene)
reading = _drawn(reading_scene)
loss = _drawn(loss_scene)
ratios = _drawn(ratios_scene)
phase_map = _drawn(phase_map_scene)
accuracies = _drawn(accuracies_scene)
sweep = _drawn(sweep_scene)
evaluation = _drawn(evaluation_scene)
cost_ratios = _drawn(cost_ratios_scene)
times = _drawn(times_scene)
vit_block = _drawn(vit_block_scene)
vit_path = _drawn(vit_path_scene)

__all__ = [
    "accuracies", "accuracies_scene", "block", "block_scene", "cost_ratios", "cost_ratios_scene", "evaluation",
    "evaluation_scene", "figure", "gallery", "histograms", "histograms_scene", "ink", "ink_scene", "loss", "loss_scene",
    "methods", "methods_scene", "outlier_ratios", "padding", "padding_scene", "phase_map", "phase_map_scene", "photos",
    "photos_scene", "ratios", "ratios_scene", "reading", "reading_scene", "sweep", "sweep_scene", "times",
    "times_scene", "vit_block", "vit_block_scene", "vit_path", "vit_path_scene",
]  # fmt: skip
