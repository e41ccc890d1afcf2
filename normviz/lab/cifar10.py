"""CIFAR-10 (Krizhevsky 2009) in its binary layout: fetched once, verified, and kept in the user's cache."""

from __future__ import annotations

import os
import tarfile
import tempfile
from pathlib import Path

import numpy as np

from normviz.files import locked
from normviz.lab.errors import DataError

SOURCES = (
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "https://cave.cs.toronto.edu/kriz/cifar-10-binary.tar.gz",
)
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
FOLDER = "cifar-10-batches-bin"
VARIABLE = "NORMVIZ_CIFAR10"
_FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
_RECORD = 1 + 3 * 32 * 32  # a label, then the red, green and blue planes


def read_cifar10(folder=None, *, cache=None) -> tuple[np.ndarray, ...]:
    """Images, uint8 (N, 3, 32, 32), and labels, int64 (N,), to train on; then those to test on.

    folder: an unpacked `cifar-10-batches-bin`; the environment variable NORMVIZ_CIFAR10 names one too.  It
        needs test_batch.bin and at least one data_batch_*.bin, each any whole number of records.
    cache: where to keep the download otherwise; by default the user's cache folder.

    Raises DataError for a folder without these files, a truncated or damaged file, and where neither source
    can be reached.
    """
    how = "folder" if folder else VARIABLE
    folder = folder or os.environ.get(VARIABLE)
    place = Path(folder).expanduser() if folder else fetch_cifar10(cache)
    *train, test = (place / name for name in _FILES)
    train = [path for path in train if path.is_file()]
    if not train or not test.is_file():
        hint = f"; it is in {place / FOLDER}" if (place / FOLDER).is_dir() else ""
        raise DataError(
            f"no CIFAR-10 in {place} ({how}={str(folder)!r}): it needs test_batch.bin and at least one of "
            f"data_batch_1.bin … data_batch_5.bin, the files of the binary archive {SOURCES[0]}{hint}"
        )
    x, y = (np.concatenate(column) for column in zip(*map(_records, train), strict=True))
    return (x, y, *_records(test))


def _records(path: Path) -> tuple[np.ndarray, np.ndarray]:
    whole, rest = divmod(path.stat().st_size, _RECORD)
    if rest or not whole:
        raise DataError(
            f"{path} is truncated: {whole:,} records of {_RECORD:,} bytes and {rest:,} more; fetch it again"
        )
    records = np.fromfile(path, dtype=np.uint8).reshape(-1, _RECORD)
    labels = records[:, 0].astype(np.int64)
    if labels.max() > 9:
        at = int(np.argmax(labels > 9))
        raise DataError(f"{path} is damaged: record {at} has label {labels[at]}; CIFAR-10 has labels 0 to 9")
    return records[:, 1:].reshape(-1, 3, 32, 32).copy(), labels


def is_whole(folder: Path) -> bool:
    """Whether a folder has the six files, each a whole number of records."""
    sizes = [path.stat().st_size if (path := folder / name).is_file() else 0 for name in _FILES]
    return all(size and size % _RECORD == 0 for size in sizes)


def cache_folder() -> Path:
    """Where the download is kept: the user's cache folder."""
    import pooch

    return Path(pooch.os_cache("normviz"))


def fetch_cifar10(cache=None) -> Path:
    """The unpacked archive's folder in `cache`, downloaded and verified (sha256) where a file of it is not whole.

    Nothing half-written is ever left under its final name; of several processes one downloads and the others wait.
    Raises DataError, naming both sources and the way around, where the archive cannot be had or the cache cannot be
    written.
    """
    cache = Path(cache or cache_folder())
    folder = cache / FOLDER
    try:
        if is_whole(folder):
            return folder
        cache.mkdir(parents=True, exist_ok=True)
        with locked(cache), tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as place:
            if is_whole(folder):  # another process was first
                return folder
            files = _extract(_download(Path(place)), Path(place))
            folder.mkdir(exist_ok=True)
            for file in files:
                os.replace(file, folder / file.name)
    except OSError as error:
        raise DataError(f"CIFAR-10 cannot be kept in {cache}: {error}. {_way_around()}") from error
    return folder


def _way_around() -> str:
    return (
        f"Unpack {' or '.join(SOURCES)} yourself and name its folder {FOLDER} by folder=… "
        f"(--data-folder) or in the environment variable {VARIABLE}; data='digits' needs no download."
    )


def _download(place: Path) -> Path:
    import pooch

    problems = []
    for url in SOURCES:
        try:
            loader = pooch.HTTPDownloader(progressbar=True, timeout=30)
            return Path(pooch.retrieve(url, f"sha256:{SHA256}", "cifar-10-binary.tar.gz", place, downloader=loader))
        except PermissionError:
            raise
        except Exception as error:  # requests' errors share no base with pooch's ValueError for a wrong hash
            words = " ".join(str(error).split())
            problems.append(f"{url}: {type(error).__name__}: {words[:200]}{'…' * (len(words) > 200)}")
    raise DataError(f"CIFAR-10 could not be fetched ({'; '.join(problems)}). {_way_around()}")


def _extract(archive: Path, folder: Path) -> list[Path]:
    """The six files of records, nothing else: no name in the archive can lead out of the folder."""
    wanted = {f"{FOLDER}/{name}": folder / name for name in _FILES}
    files = list(wanted.values())
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            if member.isfile() and (target := wanted.pop(member.name, None)):
                target.write_bytes(tar.extractfile(member).read())
    if wanted:
        raise DataError(f"the archive lacks {', '.join(sorted(wanted))}; try again")
    return files
