"""The pictures of `images/`: one scene each, drawn by `python -m normviz images` and never by hand.

Some show recorded runs or an explorer's first state, so this module alone, and only when it draws, uses the lab and the
explorers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from normviz.arms import REGIMES, style_of
from normviz.draw.common import NOTEBOOK_WIDTH
from normviz.draw.runs import accuracies_scene, head, loss_scene
from normviz.draw.tensors import block_scene, methods_scene
from normviz.fields import unknown
from normviz.files import write_atomic
from normviz.picture.png import to_png
from normviz.picture.scene import Scene, arrange, with_caption
from normviz.samples import digit_features


def layer_norm_sets() -> Scene:
    """The article's first figure: LayerNorm along C has a set, hence two statistics, for each of the N·H·W places."""
    return block_scene(digit_features(4, 6, 3, 3), "layer_token", cursor=(1, 2, 1, 1), size=(480, 400))


def four_methods() -> Scene:
    """Batch, Layer, Instance and Group Normalization on one tensor."""
    return methods_scene(digit_features(4, 6, 4, 4), num_groups=2, panel=(300, 300))


def explorer() -> Scene:
    """What the explorer of notebook 01 shows, for those who look at the README first."""
    from normviz.explore import axes

    state = axes(method="group", cursor=(1, 2, 1, 2), num_groups=2, color="value", step="scaled")
    return with_caption(state.scene())


def loss_of_three_arms() -> Scene:
    """The article's loss curves: where BN for LN is harmless, where it crashes, and what FFN-BN does about it."""
    from normviz.lab import load_study, trained_of

    panels = []
    for study in ("tame", "deep", "swiglu", "midrun"):
        runs, regime = load_study(study), REGIMES[study]
        arms = dict.fromkeys(run.recipe.arm for run in runs)
        counts = [f"{style_of(arm).name} {trained_of([run for run in runs if run.recipe.arm == arm])}" for arm in arms]
        note = f"trained: {', '.join(counts)}"
        panel = loss_scene(runs, heading=regime, keyed=False, note=note, size=(NOTEBOOK_WIDTH / 2, 300))
        panel.alt = f"{regime}, {note}. {panel.alt}"
        panels.append(panel)
    arms = [style_of(arm) for arm in ("ln", "bn", "bn+ffnbn")]
    items, _ = head("Training loss, five seeds an arm (thick: the median)", arms, 14, NOTEBOOK_WIDTH - 28)
    alt = "Loss of a small vision transformer under three choices of norm, five seeds each."
    return arrange([Scene(NOTEBOOK_WIDTH, 36, items, alt), arrange(panels, columns=2)])


def layer_against_batch_norm() -> Scene:
    """LN against BN and BN with its cure: which cells share a mean, and the test accuracy of every recorded run."""
    from normviz.lab import accuracies, load_study

    halves = (NOTEBOOK_WIDTH / 2, 300)
    blocks = methods_scene(digit_features(4, 6, 4, 4), ("batch", "layer_token"), panel=halves)
    studies = {name: load_study(name) for name in ("tame", "heavy", "deep", "swiglu", "midrun")}
    table = {
        REGIMES[name]: {a: accuracies(run for run in runs if run.recipe.arm == a) for a in ("ln", "bn", "bn+ffnbn")}
        for name, runs in studies.items()
    }
    chart = accuracies_scene(table, heading="A small ViT's test accuracy, five seeds")
    return arrange([blocks, chart], gap=12)


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
        raise ValueError(unknown("image", name, IMAGES))
    write_atomic(Path(folder) / name, to_png(IMAGES[name](), dpi=DPI))
    return Path(folder) / name
