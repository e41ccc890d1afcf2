"""A look inside at chosen steps: how long the tokens of the batch are, and which patches the longest come from."""

from __future__ import annotations

import numpy as np
import torch

from normviz.lab.probe import token_norms

#: Bins of token length over root-mean-square length, ten to a factor of ten; what lies beyond falls into the end bins.
EDGES = np.logspace(-3, 2, 51)

LONGEST = 6  # tokens kept of each block and site


class Inside:
    """Collects looks; give it to `train` as `on_batch`.

    looks: one dict per step: `step`; `images`, the indices of the batch in the training set; `contrast`, the
    factor that jitter multiplied each image by; and for each site of `token_norms` a list over the blocks of
    {"ratio": longest over root-mean-square length, "counts": histogram over EDGES,
     "longest": [[image of the batch, patch, length over root-mean-square length], …]}.
    """

    def __init__(self, steps):
        self.steps = frozenset(steps)
        self.looks: list[dict] = []

    def __call__(self, step: int, model, x, batches) -> None:
        if step not in self.steps:
            return
        look = {
            "step": step,
            "images": batches.indices(step).tolist(),
            "contrast": _contrast(x, batches, step),
        }
        for site, lengths in token_norms(model, x).items():
            look[site] = [_describe(block) for block in lengths]
        self.looks.append(look)


def _contrast(x, batches, step: int) -> list[float]:
    """Flips and shifts move the pixels, so the factor is told by the image's largest magnitude."""
    plain = batches.images.standardise(batches.images.train_x[batches.indices(step)])
    return (x.abs().amax((1, 2, 3)) / plain.abs().amax((1, 2, 3))).tolist()


def _describe(lengths: torch.Tensor) -> dict:
    """One block's tokens, (B, T)."""
    ratios = (lengths / lengths.square().mean().sqrt()).cpu()
    top = ratios.flatten().topk(min(LONGEST, ratios.numel()))
    # NaN has no place in a histogram: a look at a NaN model says so by its ratio
    finite = np.clip(ratios[ratios.isfinite()].numpy(), EDGES[0], EDGES[-1])
    places = (divmod(index, ratios.shape[1]) for index in top.indices.tolist())
    return {
        "ratio": top.values[0].item(),
        "counts": np.histogram(finite, EDGES)[0].tolist(),
        "longest": [[*place, value] for place, value in zip(places, top.values.tolist(), strict=True)],
    }
