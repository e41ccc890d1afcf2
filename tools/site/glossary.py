"""The glossary: the words of the collection, a plain sentence or two each, and where they are used first."""

from __future__ import annotations

import re
from typing import NamedTuple


class Term(NamedTuple):
    name: str
    meaning: str
    chapters: tuple[int, ...]  # where it is at work
    forms: tuple[str, ...] = ()  # other spellings that are the same word

    @property
    def anchor(self) -> str:
        return re.sub(r"[^\w]+", "-", self.name.lower()).strip("-")

    @property
    def letter(self) -> str:
        return self.name[0].upper()


TERMS = tuple(Term(*row) for row in (
    ("activation",
     "What a layer hands to the next one; also the function between two linear layers that makes a network more "
     "than one linear map, such as GELU.",
     (7,), ("activations",)),
    ("AdaIN",
     "Adaptive Instance Normalization: InstanceNorm whose scale and shift are those of another image, which "
     "carries that image's style over.",
     (4,)),
    ("AdamW",
     "An optimizer that divides a running mean of gradients by the root of a running mean of their squares, so "
     "that a step is about as long as the learning rate whatever the gradient; weight decay stands apart from "
     "it.",
     (7, 8)),
    ("affine parameters",
     "The learned weight γ and bias β with which a norm layer scales and shifts what it has normalized. They "
     "start at 1 and 0.",
     (1, 3)),
    ("arm",
     "One choice of what fills the norm slots of a network, all else being equal; a study compares arms.",
     (8,), ("arms",)),
    ("axis",
     "One direction of a tensor. Images have four, N×C×H×W; tokens three, B×T×D.",
     (1,), ("axes",)),
    ("bandwidth",
     "How many bytes a machine can move in a second. A norm layer moves much and computes little, so this is "
     "what it costs.",
     (6,)),
    ("batch",
     "The samples that go through a network together in one step.",
     (1, 2), ("batches",)),
    ("batch size",
     "The number of samples in a batch, N. The smaller it is, the more BatchNorm's statistics scatter.",
     (2, 4)),
    ("BatchNorm",
     "Batch Normalization: one mean and variance for each channel, taken over all samples of the batch and all "
     "positions. In evaluation it uses running statistics.",
     (1, 2), ("Batch Normalization", "BN")),
    ("BN + FFN-BN",
     "The cure that the article describes: LayerNorms replaced by BatchNorms, and one more BatchNorm between "
     "the two linear layers of each FFN.",
     (7, 8), ("FFN-BN",)),
    ("bound √(N−1)",
     "No value of a set of N can lie farther from its mean than √(N−1) standard deviations. It is reached when "
     "all others are equal.",
     (7, 8)),
    ("chance",
     "The loss of a model that says the same for every image: ln 10 = 2.30 for ten classes.",
     (8,)),
    ("channel",
     "One of the C maps that a layer makes of an image, often one a filter.",
     (1,), ("channels",)),
    ("class token",
     "A token that belongs to no patch and from which some vision transformers read the class. Ours averages "
     "all tokens instead.",
     (7,)),
    ("clipping",
     "Shortening a gradient that is longer than a limit before the optimizer sees it.",
     (8,), ("clip the gradients", "gradient clipping")),
    ("confidence interval",
     "A range that would hold the true value in a stated share of repetitions of the whole experiment; the "
     "chapters give 90 % intervals over seeds and test images.",
     (8,)),
    ("contrast jitter",
     "Multiplying every training image by a random factor exp(σz), z normal. It makes a batch's images unlike "
     "in size.",
     (7, 8), ("jitter",)),
    ("covariate shift",
     "A change of what a layer is given while what it should answer stays the same, for example between "
     "training and use.",
     (2,)),
    ("CUDA graph",
     "A recorded sequence of a GPU's jobs that is started as one, which spares handing them out one by one.",
     (8,)),
    ("cursor",
     "In the pictures here: the one cell whose set is outlined.",
     (1,)),
    ("embedding",
     "The vector of D numbers that stands for a token inside a transformer.",
     (3, 7), ("embeddings",)),
    ("epsilon (ε)",
     "A small number added to the variance before dividing, so that a set without spread does not divide by "
     "zero.",
     (1, 3)),
    ("evaluation mode",
     "How a network is used after training: BatchNorm takes its running statistics in place of the batch's, and "
     "dropout is off.",
     (2, 7), ("evaluation",)),
    ("FFN",
     "Feed-forward network: the two (or three) linear layers with an activation between them that each "
     "transformer block applies to every token by itself.",
     (7, 8), ("feed-forward network",)),
    ("folding",
     "Multiplying a BatchNorm's fixed scale and shift into the linear layer beside it after training, so that "
     "in inference it costs nothing.",
     (6,), ("folded", "folding BatchNorm")),
    ("GELU",
     "A smooth activation, x times the probability that a normal number lies below x. k times the input gives "
     "about k times the output.",
     (7, 8)),
    ("ghost batch",
     "A part of a batch over which BatchNorm takes its statistics by itself.",
     (2, 8)),
    ("gradient",
     "How the loss changes with each weight: the direction of steepest ascent.",
     (3, 7), ("gradients",)),
    ("gradient norm",
     "The length of the gradient, all weights taken together.",
     (3, 7)),
    ("group",
     "In GroupNorm: some neighbouring channels that share a mean and a variance.",
     (4,), ("groups",)),
    ("GroupNorm",
     "Group Normalization: one mean and variance for each group of channels of each sample. One group is "
     "LayerNorm over the sample, as many as channels is InstanceNorm.",
     (1, 4), ("Group Normalization", "GN")),
    ("GRU",
     "Gated recurrent unit: a recurrent layer that decides by two gates how much of its state to replace.",
     (5,)),
    ("inference",
     "Using a trained network: the forward pass alone, in evaluation mode.",
     (6,)),
    ("InstanceNorm",
     "Instance Normalization: one mean and variance for each channel of each sample; it forgets an image's "
     "contrast and brightness channel by channel.",
     (1, 4), ("Instance Normalization",)),
    ("invariance",
     "That an output stays as it is when the input is changed in some way, as LayerNorm's does when a token is "
     "scaled or shifted.",
     (3,), ("invariant",)),
    ("kernel",
     "Of a notebook, the Python process that runs its cells; these pages have none. Of a GPU or a library, one "
     "of the small programs that a computation is made of.",
     (1,)),
    ("LayerNorm",
     "Layer Normalization. In transformers one mean and variance for each token, over its features; in the "
     "Group Normalization paper's picture one for each sample, over everything in it.",
     (1, 3), ("Layer Normalization", "LN")),
    ("learning rate",
     "The factor by which an optimizer multiplies its step.",
     (3, 8), ("learning rates",)),
    ("logits",
     "The numbers, one a class, that a classifier puts out before they are made probabilities.",
     (7,)),
    ("loss",
     "The number that training makes small; here the cross-entropy between predicted and true classes.",
     (8,), ("training loss",)),
    ("loss crash",
     "A training loss that had fallen and jumps back to chance or to NaN, and stays there.",
     (8,)),
    ("masking",
     "Leaving padded steps out of a computation; BatchNorm over sequences needs it.",
     (5,), ("masked",)),
    ("momentum",
     "In BatchNorm: the share of the new batch in the running estimate, 0.1 by default. In SGD: the share of "
     "the last step that is kept.",
     (2,)),
    ("NaN",
     "Not a number: what 0/0 or ∞ − ∞ leaves. Once in the weights, it stays.",
     (8,)),
    ("normalized_shape",
     "torch's name for the last axes over which `nn.LayerNorm` takes its mean.",
     (1, 3)),
    ("optimizer's memory",
     "What an optimizer keeps from step to step: AdamW's running means of gradients (m) and of their squares "
     "(v).",
     (8,), ("optimizer’s memory", "second moment")),
    ("outlier",
     "A value, or here most often a token, far longer than the others of its set.",
     (2, 7), ("outliers",)),
    ("outlier ratio",
     "The length of the longest token over the root mean square of all token lengths.",
     (7, 8)),
    ("overflow",
     "A number too large for its format, which becomes infinite; in float16 beyond 65,504.",
     (7, 8)),
    ("padding",
     "Filling short sequences up to the length of the longest in the batch.",
     (5,), ("padded",)),
    ("partition",
     "A cut of a tensor's cells into sets without overlap or remainder: what a normalization method is.",
     (1,)),
    ("patch embedding",
     "The first layer of a vision transformer: it cuts the image into patches and makes a token of each by one "
     "linear map.",
     (7,)),
    ("pilot",
     "A small trial run by which settings are chosen, and which therefore decides nothing.",
     (8,), ("pilots",)),
    ("post-norm",
     "A transformer block that normalizes after adding to the residual stream, as the first transformers did.",
     (3,)),
    ("pre-norm",
     "A transformer block that normalizes what attention and FFN are given and leaves the residual stream "
     "itself alone.",
     (3, 7)),
    ("residual stream",
     "The sum that runs through a transformer from the first block to the last, to which attention and FFN of "
     "each block add.",
     (3, 7)),
    ("RMSNorm",
     "Root Mean Square Normalization: like the per-token LayerNorm without subtracting the mean.",
     (1, 3)),
    ("roofline",
     "The rule that work takes as long as moving its bytes or doing its operations, whichever is longer.",
     (6,)),
    ("running statistics",
     "Mean and variance that BatchNorm gathers over the batches of training by an exponential average, for use "
     "in evaluation.",
     (2,), ("running estimate", "running mean", "running variance")),
    ("seed",
     "The number from which random choices start; runs with several seeds show how much luck there is.",
     (8,), ("seeds",)),
    ("set",
     "Here: the cells of a tensor that share one mean and one variance.",
     (1,)),
    ("softmax",
     "What makes probabilities of numbers: exponentials divided by their sum.",
     (7,)),
    ("standard deviation (σ)",
     "The root of the variance: how far values lie from their mean, typically.",
     (1,), ("standard deviation", "standard deviations")),
    ("statistics",
     "Here: the means and variances that a method computes, two for each set (RMSNorm: one).",
     (1, 6)),
    ("SwiGLU",
     "An FFN in which one linear map, through a smooth gate, multiplies another. k times the input gives about "
     "k² times the output.",
     (7, 8)),
    ("SyncBatchNorm",
     "BatchNorm whose statistics are taken over the batches of several devices together.",
     (2, 4)),
    ("tensor",
     "An array of numbers with any number of axes.",
     (1,)),
    ("token",
     "One vector of a sequence: a word's, or an image patch's. As an image it is one position with all its "
     "channels.",
     (1, 3), ("tokens",)),
    ("train–test gap",
     "The difference between a BatchNorm network with batch statistics and the same with running ones.",
     (2, 7)),
    ("variance (σ²)",
     "The mean squared distance from the mean. Norm layers divide by the number of cells, not by one less.",
     (1,), ("variance",)),
    ("vision transformer",
     "A network that cuts an image into patches and treats them as a transformer treats words.",
     (7,), ("ViT", "vision transformers")),
    ("warm-up",
     "The first steps of a training, in which the learning rate rises from near zero.",
     (8,)),
    ("weight decay",
     "Making all weights a little smaller in each step.",
     (8,)),
))  # fmt: skip

# Words so common, or so often meant otherwise, that a link would mislead
_UNLINKED = {
    "activation", "activations", "arm", "arms", "axis", "axes", "batch", "batches", "cursor", "channel", "channels",
    "chance", "evaluation", "gradient", "gradients", "group", "groups", "kernel", "loss", "training loss", "masked",
    "momentum", "set", "statistics", "seed", "seeds", "tensor", "token", "tokens", "clip the gradients", "inference",
}  # fmt: skip


def pattern() -> tuple[re.Pattern, dict[str, str]]:
    """A regular expression that finds a term in running text, and the anchor of every form that it may find."""
    anchors = {}
    for term in TERMS:
        for form in (term.name.split(" (")[0], *term.forms):
            if form not in _UNLINKED:
                anchors[form.lower()] = term.anchor
    forms = sorted(anchors, key=len, reverse=True)
    # Abbreviations in capitals alone: "bn" is an arm's key, and "ln" a logarithm
    spelt = [re.escape(form.upper()) if len(form) < 3 else f"(?i:{re.escape(form)})" for form in forms]
    return re.compile(rf"(?<![\w-])({'|'.join(spelt)})(?![\w-])"), anchors
