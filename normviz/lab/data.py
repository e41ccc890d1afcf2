"""Images to train on: scikit-learn's digits, always there, CIFAR-10, fetched once, and a reader's own.

The whole set lies on the device as it came; a batch is gathered, augmented and standardised there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from normviz.fields import unknown
from normviz.lab.cifar10 import read_cifar10
from normviz.samples import digits


class Shape(NamedTuple):
    """What a model has to know of a data set: its images are (channels, size, size)."""

    channels: int
    size: int
    classes: int


@dataclass(frozen=True)
class Images:
    """A data set on one device; `Images.of` makes one of a reader's own.

    Images: uint8 or float32 (N, C, H, W); labels: int64 (N,); mean and std of the training images: float32 (C, 1, 1).
    """

    name: str
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    mean: Tensor
    std: Tensor
    classes: int = 10

    @classmethod
    def of(cls, x, y, test_x=None, test_y=None, *, name: str = "mine", classes: int | None = None) -> Images:
        """Images and labels of the reader's own, as arrays or tensors.

        x: (N, H, W) or (N, C, H, W) with H = W; uint8 is kept, other numbers become float32.  y: (N,), whole numbers
            from 0 on.
        test_x, test_y: the same to test on; without them a sixth of the images is kept apart for it, drawn by numpy's
            RandomState(0).
        classes: by default as many as the labels of y need.

        Raises ValueError, naming the argument, for shapes that do not go together, labels that are not whole numbers
        from 0 to classes - 1, values that are not finite, and where no image would be left on one side.
        """
        x, y = _pictures("x", x), _labels("y", y, len(x))
        if (test_x is None) != (test_y is None):
            raise ValueError("test_x and test_y go together; one of them is missing")
        if test_x is None:
            order = torch.from_numpy(np.random.RandomState(0).permutation(len(x)))
            apart = len(x) - len(x) // 6
            (x, test_x), (y, test_y) = ((part[order[:apart]], part[order[apart:]]) for part in (x, y))
        else:
            test_x = _pictures("test_x", test_x)
            test_y = _labels("test_y", test_y, len(test_x))
        if not len(x) or not len(test_x):
            raise ValueError(f"x: {len(x)} images to train on and {len(test_x)} to test on; each needs one at least")
        if x.shape[1:] != test_x.shape[1:] or x.dtype != test_x.dtype:
            raise ValueError(f"test_x is {_words(test_x)} and x {_words(x)}: only the number of images may differ")
        low, high = (int(v) for v in torch.cat((y, test_y)).aminmax())
        classes = high + 1 if classes is None else classes
        if low < 0 or high >= classes or classes < 2:
            takes = f"whole numbers from 0 to classes - 1 = {classes - 1}, two classes at least"
            raise ValueError(f"y has labels from {low} to {high}; it takes {takes}")
        return cls(name, x, y, test_x, test_y, *_moments(x), classes)

    @property
    def shape(self) -> Shape:
        return Shape(self.train_x.shape[1], self.train_x.shape[2], self.classes)

    def to(self, device) -> Images:
        names = ("train_x", "train_y", "test_x", "test_y", "mean", "std")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def standardise(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to float32 with the training set's mean 0 and variance 1 in each channel."""
        return x.to(torch.float32, copy=True).sub_(self.mean).div_(self.std)


def _tensor(name: str, values) -> Tensor:
    try:
        return values.detach().cpu() if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))
    except TypeError as error:
        raise ValueError(f"{name} must be an array or a tensor of numbers: {error}") from None


def _words(x: Tensor) -> str:
    return f"{tuple(x.shape)} of {str(x.dtype).removeprefix('torch.')}"


def _pictures(name: str, values) -> Tensor:
    x = _tensor(name, values)
    x = x[:, None] if x.ndim == 3 else x
    if x.ndim != 4 or x.shape[2] != x.shape[3] or not x.shape[1] or not x.shape[2] or x.is_complex():
        raise ValueError(f"{name} is {_words(x)}; it takes numbers (N, H, W) or (N, C, H, W), H equal to W")
    if x.dtype != torch.uint8:
        x = x.float()
        if not x.isfinite().all():
            raise ValueError(f"{name} has values that are not finite")
    return x


def _labels(name: str, values, count: int) -> Tensor:
    y = _tensor(name, values)
    if y.shape != (count,) or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise ValueError(f"{name} is {_words(y)}; it takes whole numbers ({count},), one an image")
    return y.long()


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, float32 (C, 1, 1); 1 for a channel that never changes."""
    if x.dtype == torch.uint8:
        # By histograms: a float32 sum over 150 million pixels would lose its last digits
        values = torch.arange(256, dtype=torch.float64)
        counts = torch.stack([torch.bincount(part.flatten(), minlength=256) for part in x.unbind(1)])  # (C, 256)
        count = x.numel() // x.shape[1]
        mean = (counts * values).sum(1) / count
        var = (counts * (values - mean[:, None]).square()).sum(1) / count
    else:
        var, mean = torch.var_mean(x.double(), (0, 2, 3), correction=0)
    mean, std = (s.float().view(-1, 1, 1) for s in (mean, var.sqrt()))
    return mean, std + (std == 0)


def load_digits() -> Images:
    """scikit-learn's 1,797 handwritten digits of 8×8 pixels in 17 levels: 1,500 to train on, 297 to test.

    The split is a fixed shuffle, so that it holds the same writers' hands on both sides for every seed.
    """
    images, labels = digits()
    order = np.random.RandomState(0).permutation(len(labels))
    x, y = images[order], labels[order]
    return Images.of(x[:1500], y[:1500], x[1500:], y[1500:], name="digits")


def digits_by_ink() -> Images:
    """The digits split by length: at most 34 ink pixels to train on, up to 42 to test on (see `ink_sequences`)."""
    images = load_digits()
    x, y = torch.cat((images.train_x, images.test_x)), torch.cat((images.train_y, images.test_y))
    short = (x > 0).sum((1, 2, 3)) <= 34
    return Images.of(x[short], y[short], x[~short], y[~short], name="digits-longer")


def load_cifar10(folder=None, *, cache=None) -> Images:
    """CIFAR-10, 3×32×32.  folder, cache, errors: see `read_cifar10`."""
    return Images.of(*read_cifar10(folder, cache=cache), name="cifar10", classes=10)


class Source(NamedTuple):
    shape: Shape
    load: Callable[..., Images]  # takes folder and cache


#: The data sets that have a name.
DATA = MappingProxyType(
    {
        "digits": Source(Shape(1, 8, 10), lambda **places: load_digits()),
        "cifar10": Source(Shape(3, 32, 10), load_cifar10),
        "digits-longer": Source(Shape(1, 8, 10), lambda **places: digits_by_ink()),
    }
)


def load_images(name: str = "digits", *, folder=None, cache=None, device="cpu") -> Images:
    """A data set by name, a key of DATA, on `device`.

    folder, cache: see `read_cifar10`.  Raises ValueError for an unknown name, DataError where the data cannot be had.
    """
    if name not in DATA:
        raise ValueError(unknown("data", name, DATA))
    return DATA[name].load(folder=folder, cache=cache).to(device)


def augment(x: Tensor, *, sigma: float = 0.0, flip: bool = False, crop: int = 0, generator=None) -> Tensor:
    """Random flip and shift, and contrast jitter, each image its own; on the images' device, as one batch.

    x: float (B, C, H, W), standardised: 0 is the mean grey that shifted images are padded with.
    sigma: an image is multiplied by exp(sigma·z), z normal.  crop: pixels of shift either way.
    """
    b, _, h, w = x.shape
    draw = {"generator": generator, "device": x.device}
    if flip or crop:
        rows = torch.arange(h, device=x.device).expand(b, h)
        columns = torch.arange(w, device=x.device).expand(b, w)
        if flip:
            turn = torch.rand(b, 1, **draw) < 0.5
            columns = torch.where(turn, columns.flip(1), columns)
        if crop:
            x = torch.nn.functional.pad(x, (crop,) * 4)
            rows = rows + torch.randint(0, 2 * crop + 1, (b, 1), **draw)
            columns = columns + torch.randint(0, 2 * crop + 1, (b, 1), **draw)
        images = torch.arange(b, device=x.device)[:, None, None]
        # Advanced indices around a slice come first: (B, H, W, C)
        x = x[images, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if sigma:
        x = x * torch.exp(sigma * torch.randn(b, 1, 1, 1, **draw))
    return x


class Batches:
    """The batch of every step, a function of (seed, step) alone: a resumed run sees what it would have seen.

    Each epoch is a fresh shuffle; images left over at its end, fewer than a batch, go first into the next.
    """

    def __init__(self, images: Images, recipe):
        n = len(images.train_x)
        if recipe.batch > n:
            raise ValueError(f"batch={recipe.batch} is more than the {n:,} training images of {images.name}")
        self.images, self.recipe = images, recipe
        self.generator = torch.Generator(images.train_x.device)
        self._order = lru_cache(maxsize=2)(self._shuffle)  # a batch may reach into the next epoch

    def _seed(self, purpose: int, number: int) -> int:
        return int(np.random.SeedSequence((self.recipe.seed, purpose, number)).generate_state(1, np.uint64)[0]) >> 1

    def _shuffle(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(self._seed(1, epoch))
        return torch.randperm(len(self.images.train_x), generator=generator).to(self.images.train_x.device)

    def indices(self, step: int) -> Tensor:
        """Which training images a step sees: int64 (B,)."""
        n, size = len(self.images.train_x), self.recipe.batch
        epoch, start = divmod(step * size, n)
        index = self._order(epoch)[start : start + size]
        if len(index) < size:
            index = torch.cat((index, self._order(epoch + 1)[: size - len(index)]))
        return index

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """Augmented float32 images (B, C, H, W) and labels (B,) of a step."""
        index = self.indices(step)
        self.generator.manual_seed(self._seed(2, step))
        x, recipe = self.images.standardise(self.images.train_x[index]), self.recipe
        x = augment(x, sigma=recipe.sigma_at(step), flip=recipe.flip, crop=recipe.crop, generator=self.generator)
        return x, self.images.train_y[index]
