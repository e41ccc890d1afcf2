"""Fields of a frozen dataclass that say what they take: default, range or options, label and help in one place.

@dataclass(frozen=True)
class Recipe:
    ffn: str = choice("gelu", ("gelu", "swiglu"))
    lr: float = number(4e-3, above=0, help="learning rate")

    def __post_init__(self):
        check(self)

Recipes are checked by them and get their command line from them; explorers get their controls.  A field's `metadata`
has `kind` ("integer", "number", "choice", "flag" or "text"), `label`, `help`, `takes` (in words), `fits` (value →
bool), `none` (what None stands for, "" where it is not taken), `options` and `labels` (tuples, of a choice), `least`,
`most`, `step`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import Field, field, fields
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

import numpy as np

_SWITCH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def integer(
    default: int | None, least: int | None = 0, most: int | None = None, label: str = "", *,
    step: int = 1, none: str = "", help: str = "",
) -> Any:  # fmt: skip
    """A whole number from `least` to `most`, both included.  none: what None stands for, where None is taken."""

    def fits(value) -> bool:
        return _is(Integral, value) and _within(value, least, None, most)

    takes = _range("an integer", least, None, most)
    return _field(default, "integer", takes, fits, label, help, none, least, most, step)


def number(
    default: float | None, *, least: float | None = None, above: float | None = None, most: float | None = None,
    step: float | None = None, label: str = "", none: str = "", help: str = "",
) -> Any:  # fmt: skip
    """A finite number: at least `least` or more than `above`, at most `most`.  none: as in `integer`."""

    def fits(value) -> bool:
        return _is(Real, value) and math.isfinite(value) and _within(value, least, above, most)

    takes = "a positive number" if (least, above, most) == (None, 0, None) else _range("a number", least, above, most)
    low = least if least is not None else above
    return _field(default, "number", takes, fits, label, help, none, low, most, step)


def choice(default: Any, options: Iterable | Mapping[str, Any], label: str = "", *, help: str = "") -> Any:
    """One of some values; a mapping gives each its label, else a value is its own."""
    named = options.items() if isinstance(options, Mapping) else [(str(value), value) for value in options]
    labels, values = zip(*named, strict=True)
    takes = f"one of {', '.join(map(str, values))}"

    def fits(value) -> bool:
        # By type too, since 1 == True; what compares to an array is an array
        return any((type(value) is type(v) and value == v) or _same_number(value, v) for v in values)

    return _field(default, "choice", takes, fits, label, help, options=values, labels=labels)


def flag(default: bool, label: str = "", *, help: str = "") -> Any:
    """True or False, and nothing that merely counts as one of them."""
    return _field(default, "flag", "True or False", lambda value: isinstance(value, bool), label, help)


def text(default: str, label: str = "", *, help: str = "") -> Any:
    """Any string."""
    return _field(default, "text", "a string", lambda value: isinstance(value, str), label, help)


def check(instance) -> None:
    """Raises ValueError, naming the field, its value and what it takes, for the first field that does not fit.

    Numpy's scalars become Python's, so that a checked instance can always be written as JSON.
    """
    for declared in fields(instance):
        value = getattr(instance, declared.name)
        if isinstance(value, np.generic):
            value = value.item()
            object.__setattr__(instance, declared.name, value)
        if declared.metadata and not declared.metadata["fits"](value):
            raise ValueError(refusal(declared, value))


def parse(declared: Field, word: str) -> Any:
    """The value of a field that a word of a command line stands for.

    A choice goes by value or label, a flag by true/false, yes/no, on/off or 1/0, None by "none".  Raises ValueError
    with the same sentence as `check`.
    """
    kind, metadata = declared.metadata["kind"], declared.metadata
    value: Any = word
    if metadata["none"] and word.lower() == "none":
        return None
    if kind == "choice":
        options = metadata["options"]
        named = {str(option): option for option in options} | dict(zip(metadata["labels"], options, strict=True))
        value = named.get(word, word)
    elif kind == "flag":
        value = _SWITCH.get(word.lower(), word)
    elif kind in ("integer", "number"):
        with suppress(ValueError):  # refused below, as it was written
            value = int(word) if kind == "integer" else float(word)
    if not metadata["fits"](value):
        raise ValueError(refusal(declared, value))
    return value


def refusal(declared: Field, value) -> str:
    """The sentence that says why a field does not take a value."""
    if declared.metadata["kind"] == "choice":
        return unknown(declared.name, value, declared.metadata["options"])
    return f"{declared.name}={value!r} must be {declared.metadata['takes']}"


def whole(name: str, value, more: str = "") -> None:
    """Raises ValueError for what is no integer of at least 1, with `more` at the end of the message."""
    if not _is(Integral, value) or value < 1:
        raise ValueError(f"{name}={value!r} must be an integer >= 1{more}")


def unknown(name: str, value, options: Iterable) -> str:
    """The sentence about a value that is none of the options, with the nearest one where there is one that is near."""
    words = [str(option) for option in options]
    near = get_close_matches(value, words, 1) if isinstance(value, str) else ()
    hint = f". Did you mean {near[0]!r}?" if near else ""
    return f"{name}={value!r} is unknown; it takes one of {', '.join(words)}{hint}"


def _field(
    default, kind: str, takes: str, fits: Callable[[Any], bool], label: str, help: str,
    none: str = "", least=None, most=None, step=None, options: tuple = (), labels: tuple = (),
):  # fmt: skip
    return field(default=default, metadata={
        "kind": kind, "takes": f"{takes}, or None {none}" if none else takes,
        "fits": (lambda value: value is None or fits(value)) if none else fits, "label": label, "help": help,
        "none": none, "least": least, "most": most, "step": step, "options": options, "labels": labels,
    })  # fmt: skip


def _is(kind: type, value) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _same_number(value, option) -> bool:
    return _is(Real, value) and _is(Real, option) and value == option


def _within(value, least, above, most) -> bool:
    return (least is None or value >= least) and (above is None or value > above) and (most is None or value <= most)


def _range(noun: str, least, above, most) -> str:
    low = f">= {least}" if least is not None else f"> {above}" if above is not None else ""
    high = f"<= {most}" if most is not None else ""
    return " ".join((noun, " and ".join(filter(None, (low, high))))).strip()
