"""Files that are never half written, folders that one process has at a time, and text between two markers."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


def write_atomic(path, content: bytes | str) -> None:
    """Writes under another name, flushes to the disk and renames: readers see the old file or the new."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(draft, "xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def make_writable(folder) -> Path:
    """The folder, made where it is missing.  Raises OSError, before any work is done, if no file can be made in it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".{secrets.token_hex(4)}.tmp"
    probe.touch()
    probe.unlink()
    return folder


@contextlib.contextmanager
def locked(folder, wait: bool = True, name: str = ".lock") -> Iterator[None]:
    """The folder for this process alone, until the block ends or the process dies, on Windows too.

    wait: for another process to be done with it; else BlockingIOError is raised.  name: of the file in `folder` that
    is locked; it stays there, as taking it away would let two in.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(Path(folder) / name)
    try:
        held = lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise BlockingIOError(errno.EAGAIN, "in use by another process", str(folder)) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        yield  # a file system without locks
        return
    with held:
        yield


_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}


def insert_between(text: str, begin: str, end: str, new: str) -> str:
    """`text` with the lines between its two markers replaced.  Raises ValueError unless each marker is there once."""
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"it needs the line {begin!r} once, and {end!r} once after it")
    head, rest = text.split(begin)
    return f"{head}{begin}\n{new}\n{end}{rest.split(end)[1]}"
