"""Tensors that the explorers start from: real digits and photographs, seen through a small fixed bank of filters."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from normviz.norms.arithmetic import is_floating, is_tensor

#: 3×3 kernels for cross-correlation, in the order of the channels.  Their responses differ in offset and scale by
#: nature: a blur stays between 0 and 1, an edge swings by ±4.
FILTERS = {
    "ink": [[0, 0, 0], [0, 1, 0], [0, 0, 0]],
    "blur": [[1 / 9] * 3] * 3,
    "edge |": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    "edge —": [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
    "edge ╲": [[0, 1, 2], [-1, 0, 1], [-2, -1, 0]],
    "edge ╱": [[2, 1, 0], [1, 0, -1], [0, -1, -2]],
    "blob": [[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]],
    "ridge": [[0, -1, 0], [-1, 4, -1], [0, -1, 0]],
}
SIDE = 8  # the digits are 8 × 8
_DATA = Path(__file__).parent / "data"  # written by tools/make_data.py


@lru_cache(maxsize=1)
def digits() -> tuple[np.ndarray, np.ndarray]:
    """All 1,797 handwritten digits of scikit-learn: levels of ink uint8 (n, 8, 8) from 0 to 16, labels int64 (n,).

    Source: Alpaydin & Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998), test part.  Not to be written to.
    """
    with np.load(_DATA / "digits.npz") as file:
        return file["images"], file["labels"].astype(np.int64)


def digit_images(count: int = 4) -> np.ndarray:
    """The first `count` of the handwritten digits: float32 (count, 8, 8), ink between 0 and 1.

    Raises ValueError for a count outside of 1 to 1797.
    """
    _check(count=(count, 1797))
    return (digits()[0][:count] / 16).astype(np.float32)


def digit_features(n: int = 4, c: int = 8, h: int = SIDE, w: int = SIDE) -> np.ndarray:
    """`n` digits through the first `c` filters, averaged down to h × w: float32 (n, c, h, w).

    n: 1 to 1797 images; c: 1 to 8 filters (see `FILTERS`); h, w: 1 to 8 rows and columns.
    Raises ValueError for sizes outside of these.
    """
    _check(n=(n, 1797), c=(c, len(FILTERS)), h=(h, SIDE), w=(w, SIDE))
    maps = filter_maps(np.pad(digit_images(n), ((0, 0), (1, 1), (1, 1))), c)
    return shrink(shrink(maps, h, axis=2), w, axis=3)


def _check(**sizes: tuple[int, int]) -> None:
    for name, (value, most) in sizes.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value <= most:
            raise ValueError(f"{name}={value!r} must be an integer from 1 to {most}")


def filter_maps(images: np.ndarray, c: int = 8) -> np.ndarray:
    """Images (n, h + 2, w + 2), each with a rim of one pixel, through the first `c` of FILTERS: (n, c, h, w)."""
    kernels = np.array(list(FILTERS.values())[:c], dtype=images.dtype)
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(1, 2))  # (N, H, W, 3, 3)
    return np.einsum("nhwij,cij->nchw", windows, kernels)


#: The photographs that scikit-learn carries along, both CC BY 2.0, in the order of `photos`
PHOTOS = {"temple": "china.jpg, by danielbuechele on Flickr", "flower": "flower.jpg, by vultilion on Flickr"}


@lru_cache(maxsize=1)
def _whole_photos() -> np.ndarray:
    with np.load(_DATA / "photos.npz") as file:
        planes = file["planes"].cumsum(3, dtype=np.uint8).cumsum(2, dtype=np.uint8)
    green, red, blue = planes.transpose(1, 0, 2, 3)
    return np.stack([red + green, green, blue + green], axis=1).astype(np.float32) / 255  # (2, 3, 427, 640)


def photos(h: int = 96, w: int = 144) -> np.ndarray:
    """A temple and a flower in red, green and blue, averaged down: float32 (2, 3, h, w) between 0 and 1.

    h: 1 to 427 rows, w: 1 to 640 columns; their own ratio is about 2 : 3.  Raises ValueError for sizes outside of
    these.  Sources: see `PHOTOS`.
    """
    _check(h=(h, 427), w=(w, 640))
    return shrink(shrink(_whole_photos(), h, axis=2), w, axis=3)


def shrink(maps: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Average over `size` even stretches of an axis (adaptive average pooling)."""
    length = maps.shape[axis]
    if length == size:
        return maps
    cuts = [(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]
    return np.stack([maps.take(range(a, b), axis).mean(axis) for a, b in cuts], axis).astype(np.float32)


def ink_sequences(images):
    """Each image as the sequence of its ink pixels in reading order, padded to the longest.

    A pixel is ink where it is brighter than the image's darkest pixel, whatever the image's scale.
    images: floating-point tensor or array (B, H, W) or (B, 1, H, W).

    Returns (steps, lengths), tensors or arrays as the images are: steps of their dtype (B, T, 3), each one (row,
    column, ink above the darkest pixel), counted from 0 and padded with 0; lengths int64 (B,), at least 1: an image
    without any ink becomes its first pixel, with 0 ink.  Raises ValueError for another shape, TypeError for what is no
    floating-point tensor or array.
    """
    tensor = is_tensor(images)
    if not is_floating(images):
        raise TypeError(f"images must be a floating-point tensor or array, got {type(images).__name__}")
    if images.ndim == 4 and images.shape[1] == 1:
        images = images[:, 0]
    if images.ndim != 3 or 0 in images.shape:
        raise ValueError(f"images has shape {tuple(images.shape)}; it takes (B, H, W) or (B, 1, H, W), none of them 0")
    pixels = images.reshape(len(images), -1)
    pixels = pixels - (pixels.amin(1, keepdim=True) if tensor else pixels.min(1, keepdims=True))  # (B, H·W)
    ink = pixels > 0
    ink[:, 0] |= ~ink.any(1)
    lengths, order = ink.sum(1), ink.cumsum(1) - 1  # (B,); (B, H·W): the step that a pixel of ink becomes
    image, place = ink.nonzero(as_tuple=True) if tensor else ink.nonzero()
    sizes, width = (len(images), int(lengths.max()), 3), images.shape[2]
    steps = pixels.new_zeros(sizes) if tensor else np.zeros(sizes, pixels.dtype)
    for k, values in enumerate((place // width, place % width, pixels[image, place])):
        steps[image, order[image, place], k] = values.to(steps.dtype) if tensor else values
    return steps, lengths
