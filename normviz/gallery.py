"""The pictures of `images/`: one scene each, drawn by `python -m normviz images` and never by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from normviz.lab.history import write_atomic
from normviz.lab.study import REGIMES, load_study
from normviz.picture.colors import MUTED
from normviz.picture.curves import accuracy_chart, key, loss_curves, style_of
from normviz.picture.figures import NOTEBOOK_WIDTH, block_scene, methods_scene
from normviz.picture.png import to_png
from normviz.picture.scene import Label, Scene, arrange
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


def _record(study: str) -> tuple[list, str]:
    """A study's runs, all seeds, and in words how many of each arm trained."""
    from normviz.lab.claims import share

    runs = load_study(study)
    arms = dict.fromkeys(run.recipe.arm for run in runs)
    counts = (f"{style_of(arm).name} {share([run for run in runs if run.recipe.arm == arm])}" for arm in arms)
    return runs, f"trained: {', '.join(counts)}"


def loss_of_three_arms() -> Scene:
    """The article's loss curves: where BN for LN is harmless, where it crashes, and what FFN-BN does about it."""
    panels = []
    for study in ("tame", "deep", "swiglu", "midrun"):
        (runs, counts), regime = _record(study), REGIMES[study]
        panel = loss_curves(runs, heading=regime, keyed=False, size=(NOTEBOOK_WIDTH / 2, 290))
        panel.items.append(Label(panel.width - 20, 30, counts, anchor="end", color=MUTED))
        panel.alt = f"{regime}, {counts}. {panel.alt}"
        panels.append(panel)
    top = Scene(
        NOTEBOOK_WIDTH, 36, "Loss of a small vision transformer under three choices of norm, five seeds each."
    )
    top.items += [Label(14, 26, "Training loss, five seeds an arm (thick: the median)", 14, bold=True)]
    top.items += key(("ln", "bn", "bn+ffnbn"), 470, 26)
    return arrange([top, arrange(panels, columns=2)])


def layer_against_batch_norm() -> Scene:
    """LN against BN: which cells share a mean, and the test accuracy of every recorded run."""
    blocks = methods_scene(
        digit_features(4, 6, 4, 4), ("batch", "layer_token"), panel=(NOTEBOOK_WIDTH / 2, 300)
    )
    accuracies: dict[str, dict[str, list[float]]] = {}
    for study in ("tame", "heavy", "deep", "swiglu", "midrun"):
        runs, _ = _record(study)
        accuracies[REGIMES[study]] = {
            arm: [run.evals[-1]["accuracy"] for run in runs if run.recipe.arm == arm] for arm in ("ln", "bn")
        }
    return arrange(
        [blocks, accuracy_chart(accuracies, heading="A small ViT's test accuracy, five seeds")], gap=12
    )


IMAGES: dict[str, Callable[[], Scene]] = {
    "ln.png": layer_norm_sets,
    "axes.png": four_methods,
    "explorer.png": explorer,
    "loss_ln.png": loss_of_three_arms,
    "ln-bn.png": layer_against_batch_norm,
}
DPI = 200  # sharp on screens with small pixels


def write_image(name: str, folder: Path) -> Path:
    """Draw one picture of `IMAGES` into a folder.  A file is there whole or not at all."""
    if name not in IMAGES:
        raise ValueError(f"image {name!r} is unknown; it takes one of {', '.join(IMAGES)}")
    write_atomic(folder / name, to_png(IMAGES[name](), dpi=DPI))
    return folder / name
