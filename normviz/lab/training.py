"""One recipe in, one history out."""

from __future__ import annotations

import math
import platform
import time
import warnings
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from normviz.lab.checkpoint import CheckpointError, checkpoints, load_checkpoint, save_checkpoint
from normviz.lab.data import Batches, Images, load_images
from normviz.lab.history import History
from normviz.lab.models import build
from normviz.lab.probe import Probe, batch_norm_of, frozen_statistics, outlier_bound
from normviz.lab.recipe import Recipe

# On a GPU every loss that is read makes the CPU wait for it; on a CPU it is there already
_READ_EVERY = {"cuda": 10}


def train(
    recipe: Recipe,
    on_step=None,
    *,
    out=None,
    resume: bool = False,
    checkpoint_every: int = 50,
    images: Images | None = None,
    data_folder=None,
    device=None,
    probes: bool = True,
    progress: bool = True,
    on_batch=None,
) -> History:
    """Trains the model of a recipe and returns the record, also of a run that was stopped or went to NaN.

    on_step: called as on_step(history) whenever new losses are in the record (every step on a CPU, every
        tenth on a GPU); returning False ends the training.  Ctrl-C ends it too, and keeps the record.
    out: folder for checkpoints, every `checkpoint_every` steps and at the end, and for history.json.
    resume: go on from the newest sound checkpoint in `out`.  A damaged one is named in a warning and the one
        before it is used.  On a CPU, with the same number of threads, the record is bit-identical to an
        uninterrupted one.
    images: the data set, if it is loaded already; data_folder: see `load_cifar10`.
    device: "cpu", "cuda", …; by default the GPU if there is one.
    on_batch: called as on_batch(step, model, x, batches) before every step, with the model in training mode, for looks
        inside (see `inside.py`).

    Raises ValueError for arguments that do not go together, DataError where the data cannot be had,
    CheckpointError where no checkpoint is sound or they belong to another recipe.
    """
    if resume and out is None:
        raise ValueError("resume=True needs out=…, the folder with the checkpoints")
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every={checkpoint_every!r} must be an integer >= 1")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if images is None:
        images = load_images(recipe.data, folder=data_folder)
    images = images.to(device)
    model = build(recipe).to(device)
    optimizer = _optimizer(model, recipe)
    precision, autocast = _precision(recipe.precision, device)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    history = History(recipe, meta=_describe(model, recipe, images, device, precision))
    if resume:
        history = _resume(out, model, optimizer, scaler, recipe) or history
    start, before = len(history.loss), history.meta["seconds"]
    history.meta["stopped"] = None
    batches = Batches(images, recipe)
    probed_model = probes and recipe.probe_every and hasattr(model, "blocks")
    probe = Probe(model, history.probes) if probed_model else None
    read_every = _READ_EVERY.get(device.type, 1)
    pending: list[torch.Tensor] = []
    parameters = list(model.parameters())
    bar = tqdm(total=recipe.steps, initial=start, disable=not progress, unit="step", desc=_title(recipe))
    began = time.perf_counter()

    def read_losses() -> None:
        values = torch.stack(pending).tolist()
        pending.clear()
        if history.meta["first_nonfinite"] is None:
            bad = (len(history.loss) + i for i, value in enumerate(values) if not math.isfinite(value))
            history.meta["first_nonfinite"] = next(bad, None)
        history.loss.extend(values)
        history.meta["seconds"] = before + time.perf_counter() - began
        bar.set_postfix_str(_status(history), refresh=False)

    model.train()
    try:
        for step in range(start, recipe.steps):
            x, y = batches[step]
            if on_batch is not None:
                on_batch(step, model, x, batches)
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr_at(step)
            probed = probe is not None and step % recipe.probe_every == 0
            with probe.watching() if probed else nullcontext(), autocast():
                logits = model(x)
            loss = F.cross_entropy(logits.float(), y)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            if scaler.is_enabled():
                scaler.unscale_(optimizer)
            if probed:
                probe.record(step)
            if recipe.clip is not None:
                nn.utils.clip_grad_norm_(parameters, recipe.clip)
            scaler.step(optimizer)
            scaler.update()

            done = step + 1
            last = done == recipe.steps
            pending.append(loss.detach())
            evaluated = done % recipe.eval_every == 0 or last
            saved = out is not None and (done % checkpoint_every == 0 or last)
            if evaluated or saved or done % read_every == 0:
                read_losses()
                if evaluated:
                    _record_eval(history, model, images, recipe, autocast)
                stop = on_step is not None and on_step(history) is False
                if saved or (stop and out is not None):
                    save_checkpoint(out, model, optimizer, scaler, history)
                if stop:
                    history.meta["stopped"] = done
                    break
            bar.update()
    except KeyboardInterrupt:
        # The optimizer may have been caught in mid-step: the record is kept, the newest checkpoint stays the
        # one before
        if pending:
            read_losses()
        history.meta["stopped"] = len(history.loss)
    finally:
        bar.close()
    if out is not None:
        history.save(Path(out) / "history.json")
    return history


@torch.no_grad()
def evaluate(
    model: nn.Module, images: Images, *, count: int | None = None, batch: int = 64, autocast=nullcontext
) -> dict:
    """Test loss and accuracy, by running statistics (`loss`, …) and by each batch's own (`batch_loss`, …).

    count: only the first so many test images.  An image whose logits are not finite counts as wrong;
    `nonfinite` says how many there are.  The model's mode and running statistics stay as they are.
    """
    was_training = model.training
    x, y = images.test_x[:count], images.test_y[:count]
    found = {}
    try:
        for prefix in ("", "batch_"):
            if prefix and batch_norm_of(model) is None:
                found |= {f"batch_{name}": found[name] for name in ("loss", "accuracy")}
                continue
            model.train(bool(prefix))
            with frozen_statistics(model), autocast():
                # Standardised chunk by chunk: CIFAR-10's test set in float32 would be 120 MB
                logits = torch.cat([model(images.standardise(part)).float() for part in x.split(batch)])
            sound = logits.isfinite().all(1)
            found[f"{prefix}loss"] = F.cross_entropy(logits, y).item()
            found[f"{prefix}accuracy"] = (sound & (logits.argmax(1) == y)).float().mean().item()
            found.setdefault("nonfinite", int((~sound).sum()))
    finally:
        model.train(was_training)
    return found


def _record_eval(history: History, model, images, recipe: Recipe, autocast) -> None:
    since = history.evals[-1]["step"] if history.evals else 0
    recent = history.loss[since:]
    found = evaluate(model, images, count=recipe.eval_images, batch=recipe.batch, autocast=autocast)
    history.evals.append({"step": len(history.loss), **found, "train_loss": sum(recent) / len(recent)})


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019); matrices decay, while biases, norm weights and positions do not."""
    decayed = {id(m.weight) for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    groups = [
        {"params": [p for p in model.parameters() if id(p) in decayed], "weight_decay": recipe.weight_decay},
        {"params": [p for p in model.parameters() if id(p) not in decayed], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.lr, fused=True)


def _precision(wanted: str, device: torch.device):
    """The precision to use, and what makes its autocast context."""
    if wanted == "auto":
        wanted = "fp32" if device.type == "cpu" else "bf16" if _has_bf16(device) else "fp16"
    if wanted == "fp32":
        return wanted, nullcontext
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[wanted]
    return wanted, lambda: torch.autocast(device.type, dtype=dtype)


def _has_bf16(device: torch.device) -> bool:
    # is_bf16_supported() also says yes to slow emulation, on a T4 for one
    return device.type != "cuda" or torch.cuda.get_device_capability(device)[0] >= 8


def _resume(out, model, optimizer, scaler, recipe: Recipe) -> History | None:
    """The history of the newest sound checkpoint; None where there are none at all."""
    damaged = []
    for path in checkpoints(out):
        try:
            history = load_checkpoint(path, model, optimizer, scaler, recipe)
        except CheckpointError as error:
            damaged.append(str(error))
            continue
        for message in damaged:
            warnings.warn(f"{message}; going on from {path.name}, the one before", stacklevel=3)
        return history
    if damaged:
        raise CheckpointError(f"no checkpoint in {out} can be used: {'; '.join(damaged)}")
    return None


def _describe(model: nn.Module, recipe: Recipe, images: Images, device: torch.device, precision: str) -> dict:
    return {
        "classes": images.classes,
        "tokens": model.tokens,
        "outlier_bound": outlier_bound(recipe.batch * model.tokens),
        "parameters": sum(p.numel() for p in model.parameters()),
        "train_images": len(images.train_x),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "seconds": 0.0,
        "first_nonfinite": None,
        "stopped": None,
    }


def _title(recipe: Recipe) -> str:
    return f"{recipe.name} {recipe.arm} seed {recipe.seed}"


def _status(history: History) -> str:
    text = f"loss {history.loss[-1]:.3f}"
    return text + (f", test accuracy {history.evals[-1]['accuracy']:.2f}" if history.evals else "")
