"""Checkpoints that survive a kill at any moment: one safetensors file each, no pickle.

`step-000200.safetensors` holds the tensors, and in its header the history, the scaler and a checksum of the whole file.
It is written under another name and renamed, so it is there whole or not at all.  A folder belongs to one recipe, and
to one process at a time.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from normviz.files import locked, make_writable, write_atomic
from normviz.lab.errors import CheckpointError
from normviz.lab.history import History
from normviz.lab.parallel import by_the_first


class _Damaged(CheckpointError):
    """The checkpoint before this one may do."""


KEPT = 2  # should the newest be damaged, there is one before it
_NAME = re.compile(r"step-(\d+)\.safetensors")
_LEFT_OVER = re.compile(r"\.(step-\d+\.safetensors|history\.json)\.\w+\.tmp")
_SEAL, _BLANK = re.compile(rb'"sha256":"([0-9a-f]{64})"'), b'"sha256":"' + b"0" * 64 + b'"'


@contextmanager
def run_folder(folder, run, resume: bool) -> Iterator[None]:
    """The folder of a training run, for this process alone, cleared of what a kill left half written.

    resume: puts the newest sound checkpoint into the run; a damaged one is named in a warning and the one before it is
    taken.  Raises CheckpointError where another process has the folder, where the checkpoints in it are of another
    recipe or other images or all damaged, or where there are some and `resume` is not asked for; OSError where nothing
    can be written.
    """
    with ExitStack() as held:

        def opened() -> bytes | None:
            place = make_writable(folder)
            try:
                held.enter_context(locked(place, wait=False))
            except BlockingIOError:
                raise CheckpointError(f"{place} is in use: another process trains in it; name another folder") from None
            for file in place.iterdir():
                if _LEFT_OVER.fullmatch(file.name):
                    file.unlink()
            kept = checkpoints(place)
            path = resume_run(kept, run)
            if kept and not resume:
                goes_on = "resume=True goes on from there, another folder starts anew"
                raise CheckpointError(f"{place} holds this run up to step {run.step}: {goes_on}")
            return path.read_bytes() if path and run.processes > 1 else None

        content = by_the_first(opened)
        if content is not None and run.rank > 0:
            _put(content, folder, run)
        yield


def checkpoints(folder) -> list[Path]:
    """The checkpoints of a folder, newest first."""
    numbered = ((match, path) for path in Path(folder).glob("step-*") if (match := _NAME.fullmatch(path.name)))
    return [path for _, path in sorted(((int(match[1]), path) for match, path in numbered), reverse=True)]


def save_checkpoint(folder, run) -> Path:
    """Writes the state of a `Training` after the steps in its history, keeps the newest two, and returns the path."""
    tensors = {f"model.{name}": value for name, value in run.model.state_dict().items()}
    for index, moments in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
    state = {"history": run.history.to_dict(), "scaler": run.scaler.state_dict()}
    content = save_tensors(
        {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
        {"state": json.dumps(state, allow_nan=False), "sha256": "0" * 64},
    )
    # Within the JSON of `state` every quotation mark is escaped: the blank is there once
    seal = _BLANK.replace(b"0" * 64, hashlib.sha256(content).hexdigest().encode())
    path = Path(folder) / f"step-{len(run.history.loss):06}.safetensors"
    write_atomic(path, content.replace(_BLANK, seal, 1))
    for old in checkpoints(folder)[KEPT:]:
        with suppress(OSError):
            old.unlink()
    return path


def load_checkpoint(path, run) -> None:
    """Puts a checkpoint into a `Training`: model, optimizer, scaler and history.

    Raises CheckpointError for a file that is damaged or missing, and for another recipe's or other images'.
    """
    if not Path(path).is_file():
        raise _Damaged(f"checkpoint {path} is missing: there is no such file")
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise _Damaged(f"checkpoint {path} cannot be read: {error}") from None
    _put(content, path, run)


def _put(content: bytes, path, run) -> None:
    """Puts the bytes of a checkpoint into a run; path: where they came from, for messages."""
    try:
        header = content[8 : 8 + int.from_bytes(content[:8], "little")]
        seal = _SEAL.search(header)
        if not seal or hashlib.sha256(content.replace(seal[0], _BLANK, 1)).hexdigest().encode() != seal[1]:
            raise ValueError("its checksum does not fit its content")
        state = json.loads(json.loads(header)["__metadata__"]["state"])
        history = History.from_dict(state["history"])
        _compare(path, history, run.history)
        model, moments = {}, {}
        for name, value in load_tensors(content).items():
            part, name = name.split(".", 1)
            if part == "model":
                model[name] = value
            else:
                index, name = name.split(".", 1)
                moments.setdefault(int(index), {})[name] = value
        run.model.load_state_dict(model)
        run.optimizer.load_state_dict(run.optimizer.state_dict() | {"state": moments})
        run.scaler.load_state_dict(state["scaler"])
    except CheckpointError:
        raise
    except Exception as error:  # json, safetensors and torch have each their own
        raise _Damaged(f"checkpoint {path} is damaged, or of another version of normviz: {error}") from None
    run.history = history
    run.started()


#: What two histories of one run must agree on.  The record of a run in one process does not speak of processes
_SAME = {
    "recipe": lambda history: history.recipe.to_dict(),
    "number of processes": lambda history: {
        name: history.meta.get(name, alone) for name, alone in (("processes", 1), ("sync_batchnorm", False))
    },
    "data": lambda history: {name: history.meta.get(name) for name in ("images", "train_images", "classes")},
}


def _compare(path, theirs: History, ours: History) -> None:
    for what, of in _SAME.items():
        a, b = of(theirs), of(ours)
        if a != b:
            differ = ", ".join(f"{name}={a[name]!r} not {b[name]!r}" for name in b if a[name] != b[name])
            raise CheckpointError(f"checkpoint {path} is of another {what}: {differ}; name another folder")


def resume_run(paths: list[Path], run) -> Path | None:
    """Puts the newest sound one of some checkpoints into a `Training` and returns it; none are no error."""
    damaged: list[tuple[Path, str]] = []
    for path in paths:
        try:
            load_checkpoint(path, run)
        except _Damaged as error:
            damaged.append((path, str(error)))
            continue
        for other, message in damaged:
            warnings.warn(
                f"{message}; going on from {path.name}, the one before", stacklevel=10
            )  # whoever called `train`
            with suppress(OSError):  # out of the way of the next one with this name
                other.rename(f"{other}.damaged")
        return path
    if damaged:
        raise CheckpointError(f"no checkpoint can be used: {'; '.join(message for _, message in damaged)}")
    return None
