"""A look inside at chosen steps: how long the tokens of the batch are, and which patches the longest come from."""

from __future__ import annotations

import numpy as np
import torch

from normviz.lab.probe import in_mode, token_norms
from normviz.series import LENGTH_EDGES

LONGEST = 6  # tokens kept of each block and site


class Looks:
    """What the tokens of some steps look like: `train(recipe, on_batch=Looks((0, 40)))` fills its list `looks`.

    A look is a dict: `step`; `images`, the indices of the batch in the training set; `contrast`, the
    factor that jitter multiplied each image by; and for each site of `token_norms` a list over the blocks of
    {"ratio": longest over root-mean-square length, "counts": histogram over `normviz.series.LENGTH_EDGES`,
     "longest": [[image of the batch, patch, length over root-mean-square length], …]}.
    `test` has the longest token of the residual stream over all test images, after every block, [length, image,
    patch]: with each batch's own statistics ("batch") and with the running ones, as in evaluation ("running").
    """

    def __init__(self, steps):
        self.steps = frozenset(steps)
        self.looks: list[dict] = []

    def __call__(self, step: int, model, x, batches) -> None:
        if step not in self.steps:
            return
        look = {"step": step, "images": batches.indices(step).tolist(), "contrast": _contrast(x, batches, step)}
        for site, lengths in token_norms(model, x).items():
            look[site] = [_describe(block) for block in lengths]
        look["test"] = longest_in_test(model, batches.images, len(x))
        self.looks.append(look)


def longest_in_test(model, images, batch: int = 64) -> dict[str, list]:
    """The longest token of the stream after every block, over all test images: [length, image, patch].

    "batch": by the statistics of each batch of `batch` images; "running": by the running ones.  A length that is
    not finite counts as the longest.  The model's mode and statistics stay.
    """
    result = {}
    for name, training in (("batch", True), ("running", False)):
        with in_mode(model, training):
            parts = [token_norms(model, images.standardise(x))["stream"] for x in images.test_x.split(batch)]
        lengths = torch.cat(parts, dim=1).flatten(1).cpu()  # (depth, images·T)
        at = lengths.nan_to_num(nan=torch.inf).argmax(1)
        tokens = lengths.shape[1] // len(images.test_x)
        rows = zip(lengths.gather(1, at[:, None])[:, 0].tolist(), at.tolist(), strict=True)
        result[name] = [[length, *divmod(index, tokens)] for length, index in rows]
    return result


def _contrast(x, batches, step: int) -> list[float]:
    """The jitter's factor on each image, by its largest magnitude, as flips and shifts move the pixels."""
    plain = batches.images.standardise(batches.images.train_x[batches.indices(step)])
    return (x.abs().amax((1, 2, 3)) / plain.abs().amax((1, 2, 3))).tolist()


def _describe(lengths: torch.Tensor) -> dict:
    """One block's tokens, (B, T)."""
    ratios = (lengths / lengths.square().mean().sqrt()).cpu()
    top = ratios.flatten().topk(min(LONGEST, ratios.numel()))
    # NaN has no place in a histogram: a look at a NaN model says so by its ratio
    finite = np.clip(ratios[ratios.isfinite()].numpy(), LENGTH_EDGES[0], LENGTH_EDGES[-1])
    places = (divmod(index, ratios.shape[1]) for index in top.indices.tolist())
    return {
        "ratio": top.values[0].item(),
        "counts": np.histogram(finite, LENGTH_EDGES)[0].tolist(),
        "longest": [[*place, value] for place, value in zip(places, top.values.tolist(), strict=True)],
    }
