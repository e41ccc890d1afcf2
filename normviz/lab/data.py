"""Images to train on: scikit-learn's digits, always there, and CIFAR-10, fetched once and verified.

The whole set lies on the device as uint8; a batch is gathered, augmented and standardised there.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

#: Channels, pixels a side and classes of each data set.
SHAPES = {"digits": (1, 8, 10), "cifar10": (3, 32, 10), "digits-longer": (1, 8, 10)}

CIFAR10_SOURCES = (
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "https://cave.cs.toronto.edu/kriz/cifar-10-binary.tar.gz",
)
CIFAR10_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
CIFAR10_BYTES = 170_052_171
CIFAR10_FOLDER = "cifar-10-batches-bin"
CIFAR10_VARIABLE = "NORMVIZ_CIFAR10"
_CIFAR10_FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
_RECORD = 1 + 3 * 32 * 32  # a label, then the red, green and blue planes


class DataError(RuntimeError):
    """The data cannot be had, or is not what it should be; the message says what to do."""


@dataclass(frozen=True)
class Images:
    """A data set on one device.

    Images: uint8 (N, C, H, W); labels: int64 (N,); mean and std of the training images: float32 (C, 1, 1).
    """

    name: str
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    mean: Tensor
    std: Tensor

    @property
    def classes(self) -> int:
        return SHAPES[self.name][2]

    def to(self, device) -> Images:
        names = ("train_x", "train_y", "test_x", "test_y", "mean", "std")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def standardise(self, x: Tensor) -> Tensor:
        """uint8 (B, C, H, W) to float32 with the training set's mean 0 and variance 1 in each channel."""
        return x.to(torch.float32, copy=True).sub_(self.mean).div_(self.std)


def _make(name: str, train_x, train_y, test_x, test_y) -> Images:
    train_x, test_x = torch.from_numpy(train_x), torch.from_numpy(test_x)
    # In integers and float64: a float32 sum over 150 million pixels would lose its last digits
    sums = train_x.sum((0, 2, 3), dtype=torch.int64).double()
    count = train_x.numel() // train_x.shape[1]
    values = torch.arange(256, dtype=torch.float64)
    counts = [torch.bincount(train_x[:, c].flatten(), minlength=256) for c in range(train_x.shape[1])]
    mean = sums / count
    var = torch.stack([(n * (values - m).square()).sum() / count for n, m in zip(counts, mean, strict=True)])
    mean, std = (s.float().view(-1, 1, 1) for s in (mean, var.sqrt()))
    return Images(name, train_x, torch.from_numpy(train_y), test_x, torch.from_numpy(test_y), mean, std)


def load_images(name: str = "digits", *, folder=None, cache=None, device="cpu") -> Images:
    """A data set by name, a key of SHAPES, on `device`.

    folder, cache: see `load_cifar10`.  Raises ValueError for an unknown name, DataError where the data
    cannot be had.
    """
    if name not in SHAPES:
        raise ValueError(f"data={name!r} is unknown; it takes one of {', '.join(SHAPES)}")
    if name == "digits-longer":
        images = digits_by_ink()
    else:
        images = load_digits() if name == "digits" else load_cifar10(folder, cache=cache)
    return images.to(device)


def load_digits() -> Images:
    """scikit-learn's 1,797 handwritten digits of 8×8 pixels in 17 levels: 1,500 to train on, 297 to test.

    The split is a fixed shuffle, so that it holds the same writers' hands on both sides for every seed.
    """
    from sklearn.datasets import load_digits as load

    digits = load()
    order = np.random.RandomState(0).permutation(len(digits.target))
    x = digits.images[order].astype(np.uint8)[:, None]  # (N, 1, 8, 8)
    y = digits.target[order].astype(np.int64)
    return _make("digits", x[:1500], y[:1500], x[1500:], y[1500:])


def digits_by_ink(most: int = 34) -> Images:
    """The digits split by length: at most so many ink pixels to train on, more of them to test (see `ink_sequences`).

    Raises ValueError where one of the two would be empty.
    """
    digits = load_digits()
    x, y = (torch.cat(parts).numpy() for parts in zip(*_splits(digits), strict=True))
    short = (x > 0).sum((1, 2, 3)) <= most
    if short.all() or not short.any():
        raise ValueError(f"most={most!r} leaves nothing on one side; digits have 16 to 42 ink pixels")
    return _make("digits-longer", x[short], y[short], x[~short], y[~short])


def _splits(images: Images):
    return (images.train_x, images.train_y), (images.test_x, images.test_y)


def load_cifar10(folder=None, *, cache=None) -> Images:
    """CIFAR-10 (Krizhevsky 2009) in its binary layout, 3×32×32.

    folder: an unpacked `cifar-10-batches-bin`; the environment variable NORMVIZ_CIFAR10 names one too.  It
        needs test_batch.bin and at least one data_batch_*.bin, each any whole number of records.
    cache: where to keep the download otherwise; by default the user's cache folder.

    Raises DataError for a folder without these files, a truncated or damaged file, and where neither source
    can be reached.
    """
    folder = folder or os.environ.get(CIFAR10_VARIABLE)
    folder = Path(folder).expanduser() if folder else fetch_cifar10(cache)
    train = [folder / name for name in _CIFAR10_FILES[:-1] if (folder / name).is_file()]
    test = folder / _CIFAR10_FILES[-1]
    if not train or not test.is_file():
        raise DataError(
            f"no CIFAR-10 in {folder}: it needs test_batch.bin and at least one of data_batch_1.bin … "
            f"data_batch_5.bin, the files of the binary archive {CIFAR10_SOURCES[0]}"
        )
    parts = [_read_records(path) for path in train]
    x, y = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _make("cifar10", x, y, *_read_records(test))


def _read_records(path: Path) -> tuple[np.ndarray, np.ndarray]:
    size = path.stat().st_size
    if size == 0 or size % _RECORD:
        raise DataError(
            f"{path} is truncated: {size:,} bytes are {size // _RECORD:,} whole records of {_RECORD:,} bytes "
            f"and {size % _RECORD:,} bytes more; fetch it again"
        )
    records = np.fromfile(path, dtype=np.uint8).reshape(-1, _RECORD)
    labels = records[:, 0].astype(np.int64)
    if labels.max() > 9:
        at = int(np.argmax(labels > 9))
        raise DataError(f"{path} is damaged: record {at} has label {labels[at]}; CIFAR-10 has labels 0 to 9")
    return records[:, 1:].reshape(-1, 3, 32, 32).copy(), labels


def fetch_cifar10(cache=None) -> Path:
    """The unpacked archive's folder in `cache`, downloaded and verified (sha256) when it is not there yet.

    Nothing half-written is ever left under its final name.  Raises DataError, naming both sources and the way
    around, where the archive cannot be had or the cache cannot be written.
    """
    import pooch

    cache = Path(cache or pooch.os_cache("normviz"))
    folder = cache / CIFAR10_FOLDER
    try:
        if all((folder / name).is_file() for name in _CIFAR10_FILES):
            return folder
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as place:
            archive = _download(cache)
            _extract(archive, Path(place) / CIFAR10_FOLDER)
            shutil.rmtree(folder, ignore_errors=True)  # an incomplete one, of another program
            os.replace(Path(place) / CIFAR10_FOLDER, folder)
        archive.unlink()  # 170 MB that nobody reads again
    except OSError as error:
        raise DataError(f"CIFAR-10 cannot be kept in {cache}: {error}. {_way_around()}") from error
    return folder


def _way_around() -> str:
    return (
        f"Unpack {' or '.join(CIFAR10_SOURCES)} yourself and name its folder {CIFAR10_FOLDER} by folder=… "
        f"(--data-folder) or in the environment variable {CIFAR10_VARIABLE}; data='digits' needs no download."
    )


def _download(cache: Path) -> Path:
    import pooch

    said = []
    for url in CIFAR10_SOURCES:
        try:
            path = pooch.retrieve(
                url,
                known_hash=f"sha256:{CIFAR10_SHA256}",
                fname="cifar-10-binary.tar.gz",
                path=cache,
                downloader=pooch.HTTPDownloader(progressbar=True, timeout=30),
            )
            return Path(path)
        except PermissionError:
            raise
        except Exception as error:  # requests' errors share no base with pooch's ValueError for a wrong hash
            said.append(f"{url}: {_short(error)}")
    raise DataError(f"CIFAR-10 could not be fetched ({'; '.join(said)}). {_way_around()}")


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}{'…' if len(text) > 200 else ''}"


def _extract(archive: Path, folder: Path) -> None:
    """The six files of records, nothing else: no name in the archive can lead out of the folder."""
    folder.mkdir()
    wanted = {f"{CIFAR10_FOLDER}/{name}": name for name in _CIFAR10_FILES}
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            name = wanted.pop(member.name, None) if member.isfile() else None
            if name:
                with tar.extractfile(member) as source, open(folder / name, "wb") as target:
                    shutil.copyfileobj(source, target)
    if wanted:
        raise DataError(f"{archive} lacks {', '.join(sorted(wanted))}; remove it and try again")


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
        self._epochs: dict[int, Tensor] = {}

    def _shuffled(self, epoch: int) -> Tensor:
        if epoch not in self._epochs:
            seed = np.random.SeedSequence((self.recipe.seed, 1, epoch)).generate_state(1, np.uint64)[0]
            generator = torch.Generator().manual_seed(int(seed) >> 1)
            order = torch.randperm(len(self.images.train_x), generator=generator)
            self._epochs = {k: v for k, v in self._epochs.items() if k == epoch - 1}
            self._epochs[epoch] = order.to(self.images.train_x.device)
        return self._epochs[epoch]

    def indices(self, step: int) -> Tensor:
        """Which training images a step sees: int64 (B,)."""
        n, size = len(self.images.train_x), self.recipe.batch
        epoch, start = divmod(step * size, n)
        index = self._shuffled(epoch)[start : start + size]
        if len(index) < size:
            index = torch.cat((index, self._shuffled(epoch + 1)[: size - len(index)]))
        return index

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """Augmented float32 images (B, C, H, W) and labels (B,) of a step."""
        index = self.indices(step)
        seed = np.random.SeedSequence((self.recipe.seed, 2, step)).generate_state(1, np.uint64)[0]
        self.generator.manual_seed(int(seed) >> 1)
        x = self.images.standardise(self.images.train_x[index])
        recipe = self.recipe
        sigma = recipe.sigma_at(step)
        x = augment(x, sigma=sigma, flip=recipe.flip, crop=recipe.crop, generator=self.generator)
        return x, self.images.train_y[index]
