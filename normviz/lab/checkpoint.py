"""Checkpoints that survive a kill at any moment: tensors as safetensors, the rest as JSON, no pickle.

A checkpoint is two files, `step-000200.safetensors` and `step-000200.json`.  Each is written under another
name and renamed; the JSON comes last and holds the checksum of the tensors and of itself, so it vouches for
both.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from normviz.lab.history import History, write_atomic

KEPT = 2  # should the newest be damaged, there is one before it


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be trusted or belongs to another recipe; the message says which and why."""


def save_checkpoint(folder, model, optimizer, scaler, history: History) -> Path:
    """Writes the state after `len(history.loss)` steps, keeps the newest two, returns the JSON's path."""
    folder, step = Path(folder), len(history.loss)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
    tensors = save_tensors({name: value.detach().cpu().contiguous() for name, value in state.items()})
    body = {
        "step": step,
        "tensors_sha256": hashlib.sha256(tensors).hexdigest(),
        "scaler": scaler.state_dict(),
        "history": history.to_dict(),
    }
    path = folder / f"step-{step:06}.json"
    write_atomic(path.with_suffix(".safetensors"), tensors)
    write_atomic(path, json.dumps(body | {"sha256": _seal(body)}, allow_nan=False).encode())
    for old in checkpoints(folder)[KEPT:]:
        old.unlink(missing_ok=True)
        old.with_suffix(".safetensors").unlink(missing_ok=True)
    return path


def checkpoints(folder) -> list[Path]:
    """The JSON files of a folder's checkpoints, newest first."""
    return sorted(Path(folder).glob("step-*.json"), reverse=True)


def load_checkpoint(path, model, optimizer, scaler, recipe) -> History:
    """Puts a checkpoint's state into model, optimizer and scaler and returns its history.

    Raises CheckpointError, before anything is changed, for damaged or missing files and for another recipe's
    checkpoint.
    """
    path = Path(path)
    try:
        body = json.loads(path.read_bytes())
        seal = body.pop("sha256")
        content = path.with_suffix(".safetensors").read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint {path} is incomplete: {error.filename} is missing") from None
    except (ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged: it is not the JSON that was written ({error})") from None
    if seal != _seal(body):
        raise CheckpointError(f"checkpoint {path} is damaged: its checksum does not fit its content")
    if hashlib.sha256(content).hexdigest() != body["tensors_sha256"]:
        raise CheckpointError(f"checkpoint {path.with_suffix('.safetensors')} is damaged: its checksum does not fit")
    history = History.from_dict(body["history"])
    if history.recipe != recipe:
        ours, theirs = recipe.to_dict(), history.recipe.to_dict()
        differ = ", ".join(f"{k}={theirs[k]!r} not {ours[k]!r}" for k in ours if ours[k] != theirs[k])
        raise CheckpointError(f"checkpoint {path} is of another recipe: {differ}; name another folder")

    tensors = load_tensors(content)
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            moments.setdefault(int(index), {})[key] = value
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
    scaler.load_state_dict(body["scaler"])
    return history


def _seal(body: dict) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, allow_nan=False).encode()).hexdigest()
