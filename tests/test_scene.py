"""The picture: what is drawn where, read back from the SVG and held against the partition and the values."""

import re
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from drawings import assert_data, cells_of, drawing, drawn, labels_of, ncp, scene_of, strokes, tensors, texts, unhurried
from hypothesis import given
from hypothesis import strategies as st

from normviz.draw import block_scene
from normviz.picture.block import DRAWN, cells_legend, sheet_backdrop, sheet_cursor
from normviz.picture.color import GREY, HUES, MARK_NAMES, MARKS, SET_FILLS, hues_of
from normviz.picture.scene import (
    Box,
    Label,
    Raster,
    Scene,
    Shapes,
    Strokes,
    arrange,
    grid_rects,
    open_path,
    paragraph,
    rect,
    rects,
    ring,
    with_caption,
)
from normviz.picture.text import text_width


@unhurried
@given(tensors())
def test_a_set_has_one_hue_and_its_neighbours_others(case):
    cells = cells_of(case)
    labels, hues = cells.labels, hues_of(cells.labels)
    for label in np.unique(labels):
        assert len(np.unique(hues[labels == label])) == 1
    for axis in range(3):
        unlike = np.diff(labels, axis=axis) != 0
        assert (np.diff(hues, axis=axis)[unlike] != 0).all()


def test_hues_are_told_apart_on_every_side():
    for fills in (*SET_FILLS[0], *SET_FILLS[1]):
        assert len(set(fills)) == len(HUES)


def visible_surface(low, high):
    """The three visible sides of a box of cells (n, c, p), a cell once for each side it is on."""
    spans = [range(a, b) for a, b in zip(low, high, strict=True)]
    front, top, right = ((spans[0][:1], *spans[1:]), (*spans[:2], spans[2][:1]), (spans[0], spans[1][-1:], spans[2]))
    return sorted(cell for side in (front, top, right) for cell in product(*side))


@unhurried
@given(tensors(), st.sampled_from(["set", "value"]))
def test_the_block_draws_its_outer_faces_with_their_data(case, color):
    faces = drawn(scene_of(case, color=color), "cell")
    n, c, p = (max(at[i] for at in (ncp(f.cell, case) for f in faces)) + 1 for i in range(3))
    assert n * c * p == case.x.size and len(faces) == n * c + n * p + c * p
    assert sorted(ncp(face.cell, case) for face in faces) == visible_surface((0, 0, 0), (n, c, p))
    assert len({tuple(face.points.mean(axis=0)) for face in faces}) == len(faces)
    assert_data(case, faces)


@unhurried
@given(tensors(), st.sampled_from([DRAWN, (2, 3, 4), (1, 1, 1)]))
def test_the_cursors_outline_bounds_its_set(case, window):
    cells = cells_of(case, drawn=window)
    scene = drawing(cells)
    shift = np.array(cells.start)
    # What the block's own faces say of the projection: corners of the grid to points of the sheet
    corner, point = [], []
    for face in drawn(scene, "cell")[: cells.shape[1] * cells.shape[2]]:  # the front comes first
        at = np.array(ncp(face.cell, case))
        corner += [at, at + (0, 1, 0), at + (0, 1, 1), at + (0, 0, 1)]
        point += list(face.points)
    for face in drawn(scene, "cell")[-cells.shape[0] * cells.shape[2] :]:  # the right side last
        at = np.array(ncp(face.cell, case)) + (0, 1, 0)
        corner += [at, at + (1, 0, 0), at + (1, 0, 1), at + (0, 0, 1)]
        point += list(face.points)
    homogeneous = np.column_stack([corner, np.ones(len(corner))])
    projection, *_ = np.linalg.lstsq(homogeneous, np.array(point), rcond=None)
    assert np.abs(homogeneous @ projection - point).max() < 0.11  # the SVG rounds to 0.1 px

    whole = np.array(
        [ncp(cell, case) for cell in np.ndindex(case.x.shape) if labels_of(case)[cell] == labels_of(case)[case.cursor]]
    )
    inside = whole[((whole >= shift) & (whole < shift + cells.shape)).all(axis=1)]
    low, high = inside.min(axis=0), inside.max(axis=0) + 1
    assert len(inside) == np.prod(high - low)
    expected = set()
    for axis in range(3):
        others = [i for i in range(3) if i != axis]
        for ends in product((0, 1), repeat=2):
            edge = np.tile(low, (2, 1))
            edge[1, axis] = high[axis]
            for i, end in zip(others, ends, strict=True):
                edge[:, i] = (low, high)[end][i]
            expected.add(rounded(np.column_stack([edge, [1, 1]]) @ projection))
    outline = strokes(scene, "set-outline")
    assert len(outline) == len(expected) == 12
    near = np.array([[abs(np.array(a) - b).max() for b in (np.array(rounded(s)) for s in outline)] for a in expected])
    assert (near.min(axis=1) < 0.3).all()

    assert sorted(ncp(f.cell, case) for f in drawn(scene, "set-cell")) == visible_surface(low, high)
    assert [f.cell for f in drawn(scene, "cursor")] == [case.cursor] * 3
    assert {f.set for f in drawn(scene, "set-cell")} == {labels_of(case)[case.cursor]}


def sheet(cells, box):
    """The whole of the unfolded picture."""
    return [*sheet_backdrop(cells, box), *sheet_cursor(cells, box)]


def rounded(segment):
    """A segment with its ends in one order, so that two drawings of it compare."""
    return tuple(sorted(tuple(round(float(v), 2) for v in end) for end in segment))


@unhurried
@given(tensors(), st.sampled_from([DRAWN, (2, 3, 4)]), st.sampled_from([(500, 232), (331, 207), (90, 80)]))
def test_the_sheet_holds_each_cell_once_and_outlines_the_set(case, window, size):
    cells = cells_of(case, drawn=window)
    scene = drawing(cells, *sheet(cells, Box(7, 5, *size)))
    faces = drawn(scene, "sheet-cell")
    assert_data(case, faces)
    cube = [range(s, s + n) for s, n in zip(cells.start, cells.shape, strict=True)]
    assert sorted(ncp(face.cell, case) for face in faces) == sorted(product(*cube))
    everything = np.concatenate([face.points for face in faces])
    assert (everything.min(axis=0) >= (7, 5)).all()
    assert (everything.max(axis=0) <= np.add((7, 5), size) + 0.1).all()

    # A cell lies inside of the outline if a ray from it crosses the outline an odd number of times: left, and up
    outline = strokes(scene, "set-outline")
    for face in faces:
        centre = face.points.mean(axis=0)
        for along in (0, 1):
            a, b = outline[:, 0], outline[:, 1]
            across = 1 - along
            spans = (np.minimum(a, b)[:, across] < centre[across]) & (centre[across] < np.maximum(a, b)[:, across])
            hits = spans & (a[:, along] < centre[along])
            assert bool(hits.sum() % 2) == (face.set == labels_of(case)[case.cursor])
    inner = {rounded(s) for s in outline}
    assert len(inner) == len(outline)


SPECIAL = {"nan": np.nan, "+inf": np.inf, "-inf": -np.inf, "high": 1e6, "low": -1e6}


@unhurried
@given(tensors(), st.lists(st.sampled_from(sorted(SPECIAL)), max_size=4, unique=True), st.data())
def test_values_off_the_scale_carry_marks_and_the_legend_names_them(case, kinds, data):
    for kind in kinds:
        case.x[tuple(data.draw(st.integers(0, size - 1)) for size in case.x.shape)] = SPECIAL[kind]
    cells = cells_of(case, color="value", limit=20.0)
    found = {
        name
        for name, value in SPECIAL.items()
        if (np.isnan(case.x).any() if name == "nan" else (case.x == value).any())
    }
    scene = drawing(cells, *sheet(cells, Box(0, 0, 500, 232)))
    marks = [item for item in scene.items if isinstance(item, Label) and item.bold]
    at = {(round(m.x, 1), round(m.y - 4, 1)): m.text for m in marks}
    special = 0
    for face in drawn(scene, "sheet-cell"):
        x = case.x[face.cell]
        kind = next((k for k, v in SPECIAL.items() if x == v or (k == "nan" and np.isnan(x))), None)
        close = [text for (left, top), text in at.items() if np.abs(face.points.mean(axis=0) - (left, top)).max() < 0.2]
        assert close == ([MARKS[kind]] if kind else [])
        assert (GREY in face.fill) == (not np.isfinite(x))
        special += kind is not None
    assert len(marks) == special
    named = " ".join(texts(drawing(cells, *cells_legend(cells, 0, 0))))
    for kind, word in MARK_NAMES.items():
        assert (f"{MARKS[kind]} {word}" in named) == (kind in found)


def test_marks_are_drawn_on_the_block_too():
    x = np.zeros((2, 3, 2, 2))
    x[0, 1, 1, 1], x[0, 0, 0, 1], x[1, 2, 1, 0] = np.nan, np.inf, -np.inf
    scene = block_scene(x, "batch", color="value")
    assert [t for t in texts(scene) if t in MARKS.values()].count("×") == 1
    assert "▲" in texts(scene) and "▼" in texts(scene)
    assert "× NaN   ▲ +Inf   ▼ −Inf" in texts(scene)
    assert not set(MARKS.values()) & set(texts(block_scene(np.ones((2, 3)), "batch", color="value")))


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((4, 8, 3, 5), "NCHW", {"N=4 (batch)", "C=8 (channel)", "H·W=3·5 (height, width)"}),
        ((4, 8, 7), "NCHW", {"N=4 (batch)", "C=8 (channel)", "L=7 (length)"}),
        ((4, 8), "NCHW", {"N=4 (batch)", "C=8 (channel)"}),
        ((4, 8, 7), "BTD", {"B=4 (batch)", "D=7 (width)", "T=8 (time)"}),
        ((40, 8), "NCHW", {"N=40 (batch)", "C=8 (channel)"}),
    ],
)
def test_axes_are_labelled_with_size_and_meaning(shape, layout, expected):
    labels = {t for t in texts(block_scene(np.ones(shape), "layer", layout=layout)) if re.match(r"\S+=\S+ \(", t)}
    assert labels == expected


@unhurried
@given(st.tuples(st.integers(1, 30), st.integers(1, 40), st.integers(1, 12), st.integers(1, 12)), st.data())
def test_a_block_too_large_is_cut_around_the_cursor_and_says_so(shape, data):
    cursor = tuple(data.draw(st.integers(0, size - 1)) for size in shape)
    case = SimpleNamespace(
        x=np.arange(np.prod(shape), dtype=float).reshape(shape),
        method="instance",
        groups=None,
        layout="NCHW",
        cursor=cursor,
    )
    scene = scene_of(case)
    faces = drawn(scene, "cell")
    assert_data(case, faces)
    assert [f.cell for f in drawn(scene, "cursor")] == [cursor] * 3
    shown = [sorted({ncp(face.cell, case)[i] for face in faces}) for i in range(3)]
    whole = (shape[0], shape[1], shape[2] * shape[3])
    parts = []
    for name, seen, total, most in zip(("samples", "channels", "positions"), shown, whole, DRAWN, strict=True):
        assert seen == list(range(seen[0], seen[-1] + 1)) and len(seen) == min(total, most)
        if len(seen) < total:
            parts.append(f"{name} {seen[0]}–{seen[-1]} of {total}")
    sentence = f"Too large to draw in full: shown are {', '.join(parts)}."
    foot = " ".join(texts(scene))
    assert (sentence in scene.alt) == (sentence in foot) == bool(parts)
    assert ("Too large" in foot) == bool(parts)


def test_corners_and_outlines():
    box = Box(3, 5, 10, 20)
    assert rect(box).tolist() == [[3, 5], [13, 5], [13, 25], [3, 25]]
    assert (box.right, box.bottom, box.center) == (13, 25, (8, 15))
    two = rects([0, 1], 0, [1, 3], [2, 4])
    assert two.shape == (2, 4, 2) and two[1].tolist() == [[1, 0], [3, 0], [3, 4], [1, 4]]
    cells = grid_rects(Box(0, 0, 6, 4), 2, 3)
    assert cells.shape == (6, 4, 2) and cells[4].tolist() == [[2, 2], [4, 2], [4, 4], [2, 4]]
    segments = ring(two)
    assert segments.shape == (8, 2, 2)
    for around, corners in zip(segments.reshape(2, 4, 2, 2), two, strict=True):
        np.testing.assert_array_equal(around[:, 0], corners)
        np.testing.assert_array_equal(around[:, 1], np.roll(corners, -1, axis=0))
    assert open_path([(0, 0), (1, 1), (np.nan, 2), (3, 3), (4, 4)]).tolist() == [[[0, 0], [1, 1]], [[3, 3], [4, 4]]]


@given(st.text(st.characters(codec="utf-8"), max_size=300), st.integers(40, 400))
def test_a_paragraph_keeps_every_word_within_its_width(text, width):
    lines = paragraph(text, 7, 20, width)
    assert " ".join(line.text for line in lines).split() == text.split()
    for k, line in enumerate(lines):
        assert (line.x, line.y) == (7, pytest.approx(20 + 16 * k))
        assert line.width <= width or len(line.text.split()) == 1
        if k:  # it could not have stood in the line above
            assert text_width(f"{lines[k - 1].text} {line.text.split()[0]}") > width


def test_labels_that_collide_or_leave_the_sheet_are_known():
    a, b, c = Label(10, 20, "one"), Label(20, 22, "two"), Label(10, 60, "three")
    scene = Scene(100, 80, [a, b, c])
    assert scene.overlaps() == [(a, b)] and scene.labels_outside() == []
    up, across = Label(50, 70, "upright", angle=90), Label(40, 50, "across")
    assert Scene(100, 80, [up], backdrop=[across]).overlaps() == [(across, up)]
    assert Scene(100, 80, [up, Label(56, 50, "across")]).overlaps() == []
    edges = [Label(90, 20, "right"), Label(2, 20, "left", anchor="end"), Label(50, 5, "top"), Label(9, 79, "bottom")]
    edges += [Label(50, 15, "top", angle=90), Label(4, 70, "left", angle=90)]
    for label in edges:
        assert Scene(100, 80, [label]).labels_outside() == [label], label
    halo = [Label(10, 20, "word", color="#FFFFFF"), Label(11, 20, "word")]
    assert Scene(100, 80, [*halo, Label(12, 20, " ")]).overlaps() == []


@given(st.sampled_from(["start", "middle", "end"]), st.sampled_from([0, 90, -90, 180]))
def test_the_extent_of_a_turned_label_is_its_upright_one_turned(anchor, angle):
    upright = np.reshape(Label(0, 0, "a word", anchor=anchor).extent, (2, 2))
    turn = np.radians(-angle)  # y points down
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    corners = upright @ matrix.T
    found = np.reshape(Label(0, 0, "a word", anchor=anchor, angle=angle).extent, (2, 2))
    np.testing.assert_allclose(found, [corners.min(axis=0), corners.max(axis=0)], atol=1e-9)


def test_pictures_side_by_side_keep_their_size_and_words():
    def some(alt):
        items = [Label(1, 2, alt), Shapes(rects(0, 0, 1, 1), [GREY]), Strokes(ring(rect(Box(0, 0, 1, 1))))]
        items.append(Raster(0, 0, 1, 1, np.zeros((1, 1, 3), np.uint8)))
        return Scene(40, 30, items[1:], alt, backdrop=items[:1])

    one, two = some("one"), some("two")
    both, column = arrange([one, two], 2, gap=10), arrange([one, two], gap=10)
    assert (both.width, both.height) == (2 * one.width + 10, one.height)
    assert (column.width, column.height) == (one.width, 2 * one.height + 10)
    assert both.alt == "one two"
    for moved, kept in zip(both.items[4:], two.drawn, strict=True):
        if isinstance(kept, (Label, Raster)):
            assert (moved.x, moved.y) == (kept.x + 50, kept.y)
        else:
            np.testing.assert_array_equal(moved.points, np.asarray(kept.points) + (50, 0))


def test_the_caption_is_the_alt_text():
    scene = with_caption(Scene(200, 30, alt="Words that need more than a single line of two hundred pixels."))
    assert " ".join(texts(scene)) == scene.alt and len(scene.items) > 1
    assert not scene.labels_outside() and scene.height == 30 + 16 * len(scene.items) + 6
