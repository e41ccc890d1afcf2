"""`python -m normviz inspect package.module:factory`: the clinic from a shell.  torch loads when it is used."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path


def add_arguments(add: Callable) -> None:
    """Adds the command's arguments; add: `add_argument` of its parser."""
    add(
        "model", metavar="MODULE:NAME", help="a model, or a function without arguments that gives it, or it and a batch"
    )
    add("--input", metavar="N,C,H,W", help="random numbers of that shape; by default a guess, or what NAME gives")
    add("--train", action="store_true", help="as it is in training: what is frozen now will be frozen there")
    add("--accumulate", type=int, default=1, metavar="K", help="batches that make one step of the optimizer")
    add("--html", type=Path, metavar="FILE", help="write the report as a page, too")


def inspect(options) -> int:
    """Say what the norm layers of a model of yours do, and what is wrong with them; 1 if there is a fault."""
    from normviz.clinic import ForwardError
    from normviz.clinic import inspect as examine
    from normviz.files import write_atomic

    model, batch = _found(options.model)
    if options.input:
        batch = _random(options.input, model)
    if options.train:
        model.train()
    try:
        report = examine(model, batch, accumulate=options.accumulate)
    except ForwardError as error:
        raise ValueError(f"{error}; --input says what comes") from error
    print(report)
    if options.html:
        write_atomic(options.html, report.to_html())
    return int(bool(report.faults))


def _found(word: str):
    """The model that a word names, and a batch where it comes with one."""
    from torch import nn

    module, colon, name = word.partition(":")
    if not colon or not name:
        raise ValueError(f"model={word!r} must be MODULE:NAME, such as torchvision.models:resnet18")
    sys.path.insert(0, "")  # as python -m does, for a module that lies here
    try:
        value = import_module(module)
        for part in name.split("."):
            value = getattr(value, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"model={word!r} is not found: {error}") from None
    finally:
        sys.path.remove("")
    made = value if isinstance(value, nn.Module) else value()
    model, batch = made if isinstance(made, tuple) else (made, None)
    if not isinstance(model, nn.Module):
        raise ValueError(f"model={word!r} gives {type(model).__name__}; it takes a torch.nn.Module")
    return model, batch


def _random(sizes: str, model):
    from normviz.clinic.watch import noise

    try:
        shape = [int(size) for size in sizes.split(",")]
        if min(shape) < 1:
            raise ValueError
    except ValueError:
        raise ValueError(f"--input {sizes}: it takes sizes >= 1 with commas between, such as 2,3,224,224") from None
    return noise(model, shape)
