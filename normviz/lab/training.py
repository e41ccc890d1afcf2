"""One recipe in, one history out."""

from __future__ import annotations

import math
import platform
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from normviz.fields import whole
from normviz.files import make_writable
from normviz.lab import parallel
from normviz.lab.checkpoint import checkpoints, resume_run, run_folder, save_checkpoint
from normviz.lab.data import Batches, Images, load_images
from normviz.lab.history import History
from normviz.lab.models import build
from normviz.lab.models.layers import RBN, PRepBN, batch_norm_of
from normviz.lab.probe import Probe, frozen_statistics, gradient_norm, in_mode, outlier_bound
from normviz.lab.recipe import Recipe
from normviz.lab.replay import Replay, replayable


class Training:
    """A training run that is driven from outside, a step at a time; `steps` makes one.

        run = steps(preset("swiglu", "bn"))
        for history in run:
            if len(history.loss) == 40:
                run.forget()

    Between two steps `model`, `optimizer` and `recipe` may be changed: the next step takes them as they are.

    images: the data set, if it is loaded already or is the reader's own (`Images.of`), by default that of the recipe;
        data_folder: see `read_cifar10`.
    device: "cpu", "cuda", …; by default the GPU if there is one.
    probes: whether to record gradient norms, and what `Probe` tells of a ViT.
    on_batch: called as on_batch(step, model, x, batches) before every step, with the model in training mode, for looks
        inside (see `looks.py`).
    sync_batchnorm: whether BatchNorm's statistics are those of all processes, where several train together (see
        `parallel.py`); then `recipe.batch` images are those of all of them, and probes are of this process's part.
    replay: on a GPU, replay steps from a CUDA graph where that computes the same (see `replay.py`): several times as
        fast, but model and optimizer must then stay as they are, except through `forget`.

    Raises ValueError for a device that is not there, and where recipe and images do not go together; DataError where
    the data cannot be had.
    """

    def __init__(
        self, recipe: Recipe, *, images: Images | None = None, data_folder=None, device=None, probes: bool = True,
        on_batch=None, sync_batchnorm: bool = False, replay: bool = False,
    ):  # fmt: skip
        self.recipe, self.on_batch = recipe, on_batch
        self.rank, self.processes = parallel.place()
        if recipe.batch % self.processes:
            raise ValueError(f"batch={recipe.batch} cannot be divided among {self.processes} processes")
        self.device = usable_device(device)
        images = load_images(recipe.data, folder=data_folder) if images is None else images
        self.images = images.to(self.device)
        self.batches = Batches(self.images, recipe)
        self.model = build(recipe, images)
        if sync_batchnorm and self.processes > 1:
            self.model = parallel.synchronized(self.model)
        self.model = self.model.to(self.device).train()
        self._parallel = parallel.data_parallel(self.model)
        self.optimizer = _optimizer(self.model, recipe, self.device)
        precision, self.autocast = _precision(recipe.precision, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.history = History(recipe, meta=_describe(self.model, recipe, self.images, self.device, precision))
        if self.processes > 1:
            share = recipe.batch if sync_batchnorm else recipe.batch // self.processes
            self.history.meta |= {
                "processes": self.processes, "sync_batchnorm": sync_batchnorm,
                "outlier_bound": outlier_bound(share * self.model.tokens),
            }  # fmt: skip
        self.probes = probes
        alone = self.device.type == "cuda" and self.processes == 1 and on_batch is None
        self._replays = replay and alone and replayable(self.model, self.optimizer, self.scaler)
        #: Losses are read after every so many steps: on a GPU each makes the CPU wait, on a CPU it is there already
        self.read_every = {10 if self.device.type == "cuda" else 1, recipe.eval_every}
        self.started()

    def started(self) -> None:
        """Begins, or goes on, where the history ends."""
        self.step = len(self.history.loss)
        self.history.meta["stopped"] = None
        probed = self.probes and self.recipe.probe_every and hasattr(self.model, "blocks")
        self._probe = Probe(self.model, self.history.probes) if probed else None
        self._pending: list[tuple[torch.Tensor, ...]] = []
        self._take = self._taker()
        self._began = time.perf_counter() - self.history.meta["seconds"]

    def __iter__(self) -> Training:
        return self

    def __next__(self) -> History:
        """Goes on to the next step whose loss is read: every one on a CPU, every tenth on a GPU."""
        if self.step >= self.recipe.steps:
            raise StopIteration
        while True:
            self.advance()
            if self.due:
                return self.read()

    @property
    def due(self) -> bool:
        """Whether the losses are to be read after the step just taken."""
        return self._last or any(self.step % every == 0 for every in self.read_every)

    @property
    def _last(self) -> bool:
        return self.step == self.recipe.steps

    def forget(self) -> None:
        """Clears the optimizer's state: AdamW's means of the gradients and of their squares start anew."""
        self.optimizer.state.clear()
        self._take = self._taker()  # graphs hold the state that is gone

    def _taker(self):
        """What takes the steps that nobody looks at."""
        return Replay(self._step) if self._replays else self._step

    def save(self, folder) -> None:
        """Keeps the run as a checkpoint in a folder of its own."""
        save_checkpoint(make_writable(folder), self)

    def load(self, folder) -> None:
        """Goes on from the newest sound checkpoint in a folder, if any.  Raises CheckpointError as `train` does."""
        resume_run(checkpoints(folder), self)

    def advance(self) -> None:
        """One step; its loss waits on the device until `read`."""
        recipe, step, model = self.recipe, self.step, self.model
        self.batches.recipe = recipe  # which the reader may have changed
        x, y = self.batches[step]
        if self.on_batch is not None:
            self.on_batch(step, model, x, self.batches)
        x, y = (part.chunk(self.processes)[self.rank] for part in (x, y))
        if step == recipe.reset_at:
            self.forget()
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(recipe.lr_at(step))
            else:
                group["lr"] = recipe.lr_at(step)
        settings = recipe.clip_at(step), recipe.poison_at(step)
        if self._probe and step % recipe.probe_every == 0:
            taken = self._step(x, y, *settings, self._probe)
        else:
            taken = self._take(x, y, *settings)
        self._pending.append(taken)
        self.step += 1

    def _step(self, x, y, clip: float | None, factor: float, probe: Probe | None = None) -> tuple[torch.Tensor, ...]:
        """Gradients of a batch and the optimizer's step; returns the loss and, with `probes`, the gradients' norm."""
        recipe, model = self.recipe, self.model
        for layer in model.modules():
            if isinstance(layer, PRepBN):
                layer.ln_weight = recipe.prepbn_at(self.step)
        with probe.watching() if probe else nullcontext(), self.autocast():
            logits = (self._parallel or model)(x)
        loss = F.cross_entropy(logits.float(), y)
        penalties = [layer.penalty for layer in model.modules() if isinstance(layer, RBN)]
        self.optimizer.zero_grad()
        self.scaler.scale(loss + recipe.rbn * sum(penalties)).backward()
        self.scaler.unscale_(self.optimizer)
        parameters = list(model.parameters())
        if factor != 1:
            torch._foreach_mul_([p.grad for p in parameters], factor)
        if probe:
            probe.record(self.step)
        taken = (loss.detach(), gradient_norm(parameters)) if self.probes else (loss.detach(),)
        if clip is not None:
            nn.utils.clip_grad_norm_(parameters, clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if probe:
            probe.record_update(self.optimizer)
        return taken

    def drop(self) -> None:
        """Forgets the steps whose losses are not read yet: other processes would have to be asked for them."""
        self._pending.clear()
        self.step = len(self.history.loss)

    def read(self) -> History:
        """Brings the record up to the step just taken, with an evaluation where the recipe has one."""
        history = self.history
        if self._pending:
            taken = torch.stack([torch.stack(step) for step in self._pending], 1)  # (1 or 2, steps)
            self._pending.clear()
            parallel.average_(taken[0])
            losses, *norms = taken.tolist()
            if history.meta["first_nonfinite"] is None:
                bad = (len(history.loss) + i for i, value in enumerate(losses) if not math.isfinite(value))
                history.meta["first_nonfinite"] = next(bad, None)
            history.loss.extend(losses)
            history.grad_norm.extend(norms[0] if norms else [])
            history.meta["seconds"] = time.perf_counter() - self._began
            if self._last or self.step % self.recipe.eval_every == 0:
                self._evaluate()
        return history

    def _evaluate(self) -> None:
        history, recipe = self.history, self.recipe
        recent = history.loss[history.evals[-1]["step"] if history.evals else 0 :]
        how = {"count": recipe.eval_images, "batch": recipe.batch, "autocast": self.autocast, "hits": self._last}
        result = evaluate(self.model, self.images, **how)
        history.evals.append({"step": len(history.loss), **result, "train_loss": sum(recent) / len(recent)})


#: A training run to be driven step by step: `for history in steps(recipe): …` yields the same history, ever longer.
steps = Training


def train(
    recipe: Recipe, on_step=None, *, out=None, resume: bool = False, checkpoint_every: int = 50, progress: bool = True,
    **options,
) -> History:  # fmt: skip
    """Trains the model of a recipe and returns the record, also of a run that was stopped or went to NaN.

    on_step: called as on_step(history) whenever new losses are in the record (every step on a CPU, every
        tenth on a GPU); returning False ends the training.  Ctrl-C ends it too, and keeps the record.
    out: folder for checkpoints, every `checkpoint_every` steps and at the end, and for history.json.
    resume: go on from the newest sound checkpoint in `out`.  A damaged one is named in a warning and the one
        before it is used.  On a CPU, with the same number of threads, the record is bit-identical to an
        uninterrupted one.
    options: images, data_folder, device, probes, on_batch, sync_batchnorm, as `Training` has them.

    Of several processes (see `parallel.py`) the first calls `on_step`, shows progress and writes.

    Raises ValueError for arguments that do not go together, CheckpointError where `out` belongs to another run or no
    checkpoint is sound, and as `Training` does.
    """
    if resume and out is None:
        raise ValueError("resume=True (--resume) needs out=… (--out), the folder with the checkpoints")
    whole("checkpoint_every", checkpoint_every)
    run = Training(recipe, **{"replay": True} | options)
    run.read_every.add(checkpoint_every)
    first = run.rank == 0  # of several processes one shows and writes
    with run_folder(out, run, resume) if out is not None else nullcontext():
        quiet = not (progress and first)
        bar = tqdm(total=recipe.steps, initial=run.step, disable=quiet, unit="step", desc=recipe.title)
        try:
            for history in run:
                bar.set_postfix_str(_status(history), refresh=False)
                bar.update(run.step - bar.n)
                stop = on_step is not None and parallel.by_the_first(lambda h=history: on_step(h) is False)
                if out is not None and first and (stop or run.step % checkpoint_every == 0 or run.step == recipe.steps):
                    save_checkpoint(out, run)
                if stop:
                    history.meta["stopped"] = run.step
                    break
        except KeyboardInterrupt:
            # The optimizer may be in mid-step: the record is kept, the newest checkpoint stays the one before
            run.read() if run.processes == 1 else run.drop()
            run.history.meta["stopped"] = len(run.history.loss)
        finally:
            bar.close()
        if out is not None and first:
            run.history.save(Path(out) / "history.json")
    return run.history


@torch.no_grad()
def evaluate(
    model: nn.Module, images: Images, *, count: int | None = None, batch: int = 64, autocast=nullcontext,
    hits: bool = False,
) -> dict:  # fmt: skip
    """Test loss and accuracy, by running statistics (`loss`, …) and by each batch's own (`batch_loss`, …).

    count: only the first so many test images.  An image whose logits are not finite counts as wrong;
    `nonfinite` says how many there are.  The model's mode and running statistics stay as they are.
    hits: says for each image whether it was right by running statistics, as a bit of `hits` (hexadecimal; see
        `History.hits`).
    """
    if count is not None:
        whole("count", count, ", or None for all test images")
    x, y = images.test_x[:count], images.test_y[:count]
    result = {}
    for prefix in ("", "batch_"):
        if prefix and batch_norm_of(model) is None:
            return result | {f"batch_{name}": result[name] for name in ("loss", "accuracy")}
        with in_mode(model, bool(prefix)), frozen_statistics(model), autocast():
            # Standardised chunk by chunk: CIFAR-10's test set in float32 would be 120 MB
            logits = torch.cat([model(images.standardise(part)).float() for part in x.split(batch)])
        sound = logits.isfinite().all(1)
        result[f"{prefix}loss"] = F.cross_entropy(logits, y).item()
        right = sound & (logits.argmax(1) == y)
        result[f"{prefix}accuracy"] = right.float().mean().item()
        result.setdefault("nonfinite", int((~sound).sum()))
        if hits:
            result.setdefault("hits", np.packbits(right.cpu().numpy()).tobytes().hex())
    return result


def usable_device(name=None) -> torch.device:
    """The device of that name, by default the GPU if there is one.  Raises ValueError for one that is not there."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch has no one error for it
        raise ValueError(f"device={name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return device


def _optimizer(model: nn.Module, recipe: Recipe, device: torch.device) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019), or SGD; matrices decay, while biases, norm weights and positions do not."""
    decayed = {id(m.weight) for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    groups = [
        {"params": [p for p in model.parameters() if id(p) in decayed], "weight_decay": recipe.weight_decay},
        {"params": [p for p in model.parameters() if id(p) not in decayed], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9)
    gpu = device.type == "cuda"
    lr = torch.tensor(recipe.lr, device=device) if gpu else recipe.lr  # a graph reads it anew in every step
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, recipe.beta2), fused=True, capturable=gpu)


def _precision(wanted: str, device: torch.device):
    """The precision to use, and what makes its autocast context."""
    if wanted == "auto":
        # is_bf16_supported() also says yes to slow emulation, on a T4 for one
        bf16 = device.type != "cuda" or torch.cuda.get_device_capability(device)[0] >= 8
        wanted = "fp32" if device.type == "cpu" else "bf16" if bf16 else "fp16"
    if wanted == "fp32":
        return wanted, nullcontext
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[wanted]
    return wanted, lambda: torch.autocast(device.type, dtype=dtype)


def _describe(model: nn.Module, recipe: Recipe, images: Images, device: torch.device, precision: str) -> dict:
    named = {} if images.name == recipe.data else {"images": images.name}
    return named | {
        "classes": images.classes, "tokens": model.tokens, "outlier_bound": outlier_bound(recipe.batch * model.tokens),
        "parameters": sum(p.numel() for p in model.parameters()),
        "train_images": len(images.train_x), "test_images": min(len(images.test_x), recipe.eval_images),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": precision, "threads": torch.get_num_threads(), "torch": torch.__version__,
        "python": platform.python_version(), "machine": platform.machine(),
        "seconds": 0.0, "first_nonfinite": None, "stopped": None,
    }  # fmt: skip


def _status(history: History) -> str:
    text = f"loss {history.loss[-1]:.3f}"
    return text + (f", test accuracy {history.evals[-1]['accuracy']:.2f}" if history.evals else "")
