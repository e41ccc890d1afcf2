"""What the fields of a frozen dataclass may be set to, said where their defaults are said.

@dataclass(frozen=True)
class Recipe:
    lr: float = number(4e-3, above=0, help="learning rate")

    def __post_init__(self):
        check(self)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import Field, field, fields
from typing import Any


def integer(default: int | None, least: int = 0, *, none: str = "", help: str = "") -> Any:
    """A whole number of at least `least`.  none: what None stands for, where None is allowed."""
    return _field(default, f"an integer >= {least}", lambda v: _is_integer(v) and v >= least, none, help)


def number(
    default: float | None, *, least: float | None = None, above: float | None = None, most: float | None = None,
    none: str = "", help: str = "",
) -> Any:  # fmt: skip
    """A finite number within its bounds.  none: what None stands for, where None is allowed."""
    if above == 0 and most is None:
        takes = "a positive number"
    else:
        low = f" >= {least:g}" if least is not None else f" > {above:g}" if above is not None else ""
        takes = f"a number{low}" + (f" and <= {most:g}" if most is not None else "")

    def fits(value) -> bool:
        return (
            _is_number(value)
            and (least is None or value >= least)
            and (above is None or value > above)
            and (most is None or value <= most)
        )

    return _field(default, takes, fits, none, help)


def choice(default: str, options: Iterable[str], *, help: str = "") -> Any:
    """One of some words."""
    options = tuple(options)
    return field(
        default=default,
        metadata={"options": options, "help": help, "fits": lambda value: value in options},
    )


def flag(default: bool, *, help: str = "") -> Any:
    """True or False, and nothing that merely counts as one of them."""
    return _field(default, "True or False", lambda value: isinstance(value, bool), "", help)


def check(instance) -> None:
    """Raises ValueError, naming the field, its value and what it takes, for the first field that does not fit."""
    for declared in fields(instance):
        value = getattr(instance, declared.name)
        if declared.metadata and not declared.metadata["fits"](value):
            raise ValueError(refusal(declared, value))


def refusal(declared: Field, value) -> str:
    """The sentence that says why a field does not take a value."""
    if options := declared.metadata.get("options"):
        return f"{declared.name}={value!r} is unknown; it takes one of {', '.join(options)}"
    return f"{declared.name}={value!r} must be {declared.metadata['takes']}"


def _field(default, takes: str, fits, none: str, help: str):
    if none:
        takes, only = f"{takes}, or None {none}", fits

        def fits(value) -> bool:
            return value is None or only(value)

    return field(default=default, metadata={"takes": takes, "fits": fits, "help": help})


def _is_integer(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
