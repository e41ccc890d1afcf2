"""The pictures of `images/`: one scene each, drawn by `python -m normviz images` and never by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from normviz.lab.history import write_atomic
from normviz.picture.figures import block_scene, methods_scene
from normviz.picture.png import to_png
from normviz.picture.scene import Scene
from normviz.samples import digit_features


def layer_norm_sets() -> Scene:
    """The article's first figure: LayerNorm along C has a set, hence two statistics, for each of the N·H·W places."""
    return block_scene(digit_features(4, 6, 3, 3), "layer_token", cursor=(1, 2, 1, 1), size=(480, 400))


def four_methods() -> Scene:
    """Batch, Layer, Instance and Group Normalization on one tensor."""
    return methods_scene(digit_features(4, 6, 4, 4), num_groups=2)


def explorer() -> Scene:
    """What the explorer of notebook 01 shows, for those who look at the README first."""
    import torch

    from normviz.picture import axes

    x = torch.from_numpy(digit_features(4, 8, 4, 4))
    state = axes.State("group", (1, 2, 1, 2), num_groups=2, color="value", step="scaled")
    return axes.scene(x, state, axes.read(x, state), with_caption=True)


IMAGES: dict[str, Callable[[], Scene]] = {
    "ln.png": layer_norm_sets,
    "axes.png": four_methods,
    "explorer.png": explorer,
}
DPI = 200  # sharp on screens with small pixels


def write_image(name: str, folder: Path) -> Path:
    """Draw one picture of `IMAGES` into a folder.  A file is there whole or not at all."""
    if name not in IMAGES:
        raise ValueError(f"image {name!r} is unknown; it takes one of {', '.join(IMAGES)}")
    write_atomic(folder / name, to_png(IMAGES[name](), dpi=DPI))
    return folder / name
