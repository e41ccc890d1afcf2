"""From a scene to a matplotlib Figure, and what the functions of `nv.draw` have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec

import numpy as np

from normviz.picture.png import figure
from normviz.picture.scene import Scene, with_caption

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")
NOTEBOOK_WIDTH = 944  # px, of a picture that JupyterLab shows unscaled on a laptop


def drawn(make: Callable[P, Scene], *, caption: bool = True) -> Callable[P, Figure]:
    """The function `name` of a scene maker `name_scene`: the same arguments, and a Figure with alt text.

    caption: the alt text is written beneath the picture too.
    """

    @wraps(make)
    def draw(*args: P.args, **options: P.kwargs) -> Figure:
        scene = make(*args, **options)
        return figure(with_caption(scene) if caption else scene)

    draw.__name__ = draw.__qualname__ = make.__name__.removesuffix("_scene")
    tail = "Returns a matplotlib Figure with its alt text as attribute `alt`: a picture, not axes."
    draw.__doc__ = f"{(make.__doc__ or '').rstrip()}\n\n    {tail}\n    "
    return draw


def as_array(x, name: str = "x") -> np.ndarray:
    """A tensor (its gradient set aside) or array-like of real numbers as float64 numpy.

    Raises TypeError, naming the argument, for anything else.
    """
    try:
        if hasattr(x, "detach"):
            x = x.detach().cpu()
            x = x.float() if str(x.dtype) == "torch.bfloat16" else x  # which numpy has not
        array = np.asarray(x)
        return array.astype(np.float64, casting="same_kind" if array.dtype.kind != "b" else "unsafe")
    except (TypeError, ValueError, NotImplementedError):  # the last of a tensor on "meta", which has no values
        got = f"{type(x).__name__} of {x.dtype}" if hasattr(x, "dtype") else type(x).__name__
        raise TypeError(f"{name} must be a tensor or array of real numbers, got {got}") from None


def arrays_of(curves: Mapping, name: str) -> dict[str, np.ndarray]:
    """Every value of a mapping as an array.  Raises ValueError, naming the argument, for none at all."""
    if not curves:
        raise ValueError(f"{name}={curves!r} is empty; it takes at least one entry")
    return {key: as_array(values, f"{name}[{key!r}]") for key, values in curves.items()}
