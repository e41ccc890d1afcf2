"""The picture's two files, and what `picture.js` is told beside the picture: handles, cells' numbers.  numpy only."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from normviz.explore.base import Control, Explorer
from normviz.picture.scene import Handle, Scene

#: The module and the look as text: a path would have anywidget watch them, a page holds both once
MODULE, LOOK = (Path(__file__).with_name(f"picture.{kind}").read_text("utf-8") for kind in ("js", "css"))


def along(name: str, field: str, chart: Any, values: Iterable[float], places: Iterable[float] | None = None) -> Handle:
    """A scale across a chart: where `values` lie on its x axis, `field` is one of `places`, by default 0, 1, …."""
    across = chart([*values], chart.y[0])[:, 0].round(1).tolist()
    places = range(len(across)) if places is None else places
    return Handle(name, (field,), chart.box, at={field: ("x", [*zip(across, places, strict=True)])})


def handle_rows(scene: Scene, offered: dict[str, Control]) -> list[dict]:
    """What `picture.js` needs of a scene's handles: those whose fields can be moved, with their ends and values."""
    rows = []
    for handle in scene.handles:
        controls = [offered[name] for name in handle.fields if name in offered]
        if len(controls) < len(handle.fields) or not any(control.enabled for control in controls):
            continue
        box = handle.box
        rows.append({
            "name": handle.name, "box": [box.x, box.y, box.width, box.height], "keys": handle.keys,
            "fields": [_field_row(control, control.name in handle.wraps) for control in controls],
            "cells": handle.cells, "only": handle.only, "sets": handle.sets, "at": handle.at, "drag": handle.drag,
            "shifted": any(key.startswith("Shift") for key in handle.keys),
        })  # fmt: skip
    return rows


def _field_row(control: Control, wraps: bool) -> dict:
    row = {"name": control.name, "label": control.label, "wraps": wraps}
    if control.kind == "choice":
        at, last = control.values.index(control.value), len(control.values) - 1
        return row | {"value": at, "low": 0, "high": last, "step": 1, "texts": control.labels}
    return row | {"value": control.value, "low": control.low, "high": control.high, "step": control.step}


def parts_of(state: Explorer) -> list[list[float]]:
    """`state.parts` as numbers for JSON."""
    return [[*map(float, box)] for box in state.parts]


def cell_numbers(x: np.ndarray, cut: Any, after: dict | None = None) -> dict:
    """What `picture.js` needs to tell of every cell its value, its set, that set's statistics and what it becomes.

    x: values of the shape `cut.shape`; cut: as of `normviz.norms.cut`; after: what is done to them, {"step": "centred",
    "scaled" or "affine", "eps": …, "weight": …, "bias": …}, for the module computes it.
    """
    numbers = {
        "shape": list(cut.shape), "view": list(cut.view), "dims": sorted(cut.dims), "letters": [*cut.axes.letters],
        "values": b64encode(np.ascontiguousarray(x, "<f4")).decode(), "centred": cut.row.centred,
    }  # fmt: skip
    return numbers if after is None else numbers | {"after": after}
