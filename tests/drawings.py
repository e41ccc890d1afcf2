"""Pictures of random tensors, and what their SVG says: helpers of the tests."""

import re
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from strategies import cases, random_tensor

import normviz as nv
from normviz.draw import block_scene
from normviz.explore.axes import Axes
from normviz.norms import axes_of
from normviz.picture.block import DRAWN, Cells, block
from normviz.picture.scene import Box, Label, Scene, Strokes, with_caption
from normviz.picture.svg import to_svg

unhurried = settings(deadline=None)  # the studies that may share the machine are no reason to fail
SVG = "{http://www.w3.org/2000/svg}"


@st.composite
def tensors(draw, max_side=5):
    """A tensor of float64 with a method for it and a cursor: x, method, groups, layout, cursor."""
    method, shape, groups, layout = draw(cases(max_side))
    cursor = tuple(draw(st.integers(0, size - 1)) for size in shape)
    x = random_tensor(shape, draw(st.integers(0, 2**16)), torch.float64).numpy()
    return SimpleNamespace(x=x, method=method, groups=groups, layout=layout, cursor=cursor)


def labels_of(case):
    return nv.partition(case.method, case.x.shape, case.groups, case.layout)


def cells_of(case, *, drawn=DRAWN, color="set", limit=1.0, cursor=True):
    axes = axes_of(case.x.shape, case.layout)
    at = case.cursor if cursor else None
    return Cells.of(axes, labels_of(case), case.x, cursor=at, color=color, limit=limit, drawn=drawn)


def scene_of(case, **options):
    options = {"cursor": case.cursor} | options
    return block_scene(case.x, case.method, case.groups, layout=case.layout, **options)


def ncp(cell, case):
    """A cell of the tensor as (n, c, p), by numpy's own unfolding."""
    axes = axes_of(case.x.shape, case.layout)
    channel = next(i for i, letter in enumerate(axes.letters) if letter in "CD")
    rest = [i for i in range(1, len(cell)) if i != channel]
    p = np.ravel_multi_index([cell[i] for i in rest], [case.x.shape[i] for i in rest]) if rest else 0
    return cell[0], cell[channel], int(p)


def drawn(scene, name):
    """The faces of one class as the SVG has them: points, fill, cell, set, title, in the order of drawing."""
    faces = []
    for group in ElementTree.fromstring(to_svg(scene)).iter(f"{SVG}g"):
        if group.get("class") == name:
            for path in group:
                numbers = [float(v) for v in re.findall(r"-?\d+\.?\d*", path.get("d"))]
                cell = tuple(int(i) for i in path.get("data-cell").split(","))
                faces.append(
                    SimpleNamespace(
                        points=np.array(numbers).reshape(-1, 2), fill=path.get("fill"), cell=cell,
                        set=int(path.get("data-set")), title=path.findtext(f"{SVG}title"),
                    )
                )  # fmt: skip
    return faces


def strokes(scene, name):
    parts = [item.points for item in scene.drawn if isinstance(item, Strokes) and item.name == name]
    return np.concatenate(parts)


def texts(scene):
    return [item.text for item in scene.drawn if isinstance(item, Label)]


def drawing(cells, *items, box=None):
    """A scene of one block, or of the items given."""
    return Scene(600, 500, list(items) or block(cells, box or Box(0, 0, 430, 400)))


def assert_data(case, faces):
    labels, letters = labels_of(case), axes_of(case.x.shape, case.layout).letters.lower()
    for face in faces:
        assert face.set == labels[face.cell]
        place = " ".join(f"{letter}={i}" for letter, i in zip(letters, face.cell, strict=True))
        assert face.title == f"{place}: {case.x[face.cell]:.4g} · set {labels[face.cell]}"


def explorer_scene(case, **options):
    """The axes explorer's whole picture: block, sheet, legend and histograms."""
    groups = {"num_groups": case.groups} if case.groups else {}
    state = Axes(
        x=case.x, method=case.method, cursor=case.cursor, sizes=case.x.shape, layout=case.layout, **groups, **options
    )
    return with_caption(state.scene())
