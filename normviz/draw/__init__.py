"""Static pictures: every function returns a matplotlib Figure with alt text; `NAME_scene` is the same as a scene."""

from normviz.draw import gallery
from normviz.draw.images import ink, ink_scene, padding, padding_scene, photos, photos_scene, reading, reading_scene
from normviz.draw.runs import (
    accuracies,
    accuracies_scene,
    cost_ratios,
    cost_ratios_scene,
    evaluation,
    evaluation_scene,
    loss,
    loss_scene,
    outlier_ratios,
    phase_map,
    phase_map_scene,
    ratios,
    ratios_scene,
    sweep,
    sweep_scene,
)
from normviz.draw.tensors import block, block_scene, histograms, histograms_scene, methods, methods_scene
from normviz.draw.times import times, times_scene
from normviz.draw.vit import vit_block, vit_block_scene, vit_path, vit_path_scene
from normviz.picture.png import figure

__all__ = [
    "accuracies", "accuracies_scene", "block", "block_scene", "cost_ratios", "cost_ratios_scene", "evaluation",
    "evaluation_scene", "figure", "gallery", "histograms", "histograms_scene", "ink", "ink_scene", "loss", "loss_scene",
    "methods", "methods_scene", "outlier_ratios", "padding", "padding_scene", "phase_map", "phase_map_scene", "photos",
    "photos_scene", "ratios", "ratios_scene", "reading", "reading_scene", "sweep", "sweep_scene", "times",
    "times_scene", "vit_block", "vit_block_scene", "vit_path", "vit_path_scene",
]  # fmt: skip
