"""Whole pictures: their words, colours and scales, the PNG twin, what they refuse."""

import io
import re
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest
import torch
from drawings import (
    SVG,
    drawn,
    explorer_scene,
    labels_of,
    scene_of,
    tensors,
    texts,
    unhurried,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import normviz as nv
from normviz.methods import METHODS, caption
from normviz.picture import axes as explorer
from normviz.picture.colors import (
    AXIS_COLORS,
    GREY,
    MUTED,
    PAPER,
    VALUE_FILLS,
    contrast,
    value_fills,
    value_limit,
)
from normviz.picture.figures import methods_scene
from normviz.picture.png import compact, figure, png_bytes
from normviz.picture.scene import TEXT, Label, Scene, Shapes, Strokes
from normviz.picture.svg import to_svg


@unhurried
@given(tensors(), st.booleans())
def test_alt_text_is_the_visible_caption(case, with_cursor):
    scene = scene_of(case, **({} if with_cursor else {"cursor": None}))
    x, labels = torch.from_numpy(case.x), torch.from_numpy(labels_of(case))
    known = {}
    if with_cursor:
        inside = x[labels == labels[case.cursor]]
        centred = METHODS[case.method].centred
        mean = inside.mean().item() if centred else 0.0
        known = {"size": len(inside), "mean": mean, "std": inside.sub(mean).square().mean().sqrt().item()}
    expected = caption(case.method, case.x.shape, case.groups, case.layout, **known)
    assert scene.alt == expected
    foot = [item for item in scene.items if isinstance(item, Label) and item.color == MUTED]
    assert " ".join(item.text for item in foot).endswith(expected)
    assert ElementTree.fromstring(to_svg(scene)).get("aria-label") == expected


def fill_under(items, x, y):
    """The fill of the last drawn polygon that holds the point, PAPER where there is none.  Polygons are convex."""
    for item in reversed([item for item in items if isinstance(item, Shapes)]):
        points = np.asarray(item.points)
        sides = np.roll(points, -1, axis=1) - points
        to = np.array([x, y]) - points
        turns = sides[..., 0] * to[..., 1] - sides[..., 1] * to[..., 0]
        inside = np.flatnonzero((turns >= 0).all(axis=1) | (turns <= 0).all(axis=1))
        if len(inside):
            return item.fills[inside[-1]]
    return PAPER


@unhurried
@given(tensors(), st.sampled_from(["set", "value"]), st.sampled_from(explorer.STEPS), st.booleans())
def test_text_is_large_and_dark_enough(case, color, step, compare):
    case.x.flat[0] = np.nan
    for scene in (
        explorer_scene(case, color=color, step=step, compare=compare),
        scene_of(case, color=color),
    ):
        for i, item in enumerate(scene.drawn):
            if isinstance(item, Label) and item.text:
                under = fill_under(scene.drawn[:i], item.x, item.y - 4)
                assert item.size >= TEXT == 12
                assert contrast(item.color, under) >= 4.5, (item.text, item.color, under)


def test_colours_of_the_axes_are_readable_outside_of_the_picture_too():
    assert all(contrast(color, PAPER) >= 4.5 for color in AXIS_COLORS.values())
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.01)  # WCAG's own example of a failure


printable = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff")
)


@unhurried
@given(printable, printable)
def test_svg_escapes_what_it_is_told(alt, text):
    root = ElementTree.fromstring(to_svg(Scene(10, 10, alt, [Label(0, 0, text)])))
    assert re.sub(r"\s", " ", root.get("aria-label")) == re.sub(r"\s", " ", alt)
    assert root.findtext(f"{SVG}text") == text


def pixels(png):
    """A PNG as colours "#RRGGBB", row by row."""
    image = (matplotlib.image.imread(io.BytesIO(png), format="png")[..., :3] * 255).round().astype(int)
    return np.vectorize("#{:02X}{:02X}{:02X}".format)(*np.moveaxis(image, -1, 0))


@settings(deadline=None, max_examples=15)
@given(tensors(), st.sampled_from(["set", "value"]))
def test_png_shows_what_the_svg_says(case, color):
    scene = explorer_scene(case, color=color)
    image = pixels(png_bytes(figure(scene)))
    assert image.shape == (scene.height, scene.width)
    lines = np.concatenate([item.points for item in scene.drawn if isinstance(item, Strokes)])
    words = np.array([(item.x, item.y - 4) for item in scene.drawn if isinstance(item, Label)])
    faces = [
        face
        for name in ("cell", "set-cell", "sheet-cell", "sheet-set-cell", "cursor")
        for face in drawn(scene, name)
    ]
    compared = 0
    for face in faces:
        x, y = face.points.mean(axis=0)
        # The face must be in sight at its centre: no line, no word, no later face over it
        start, along = lines[:, 0], lines[:, 1] - lines[:, 0]
        share = (((x, y) - start) * along).sum(axis=1) / np.maximum((along**2).sum(axis=1), 1e-9)
        nearest = start + np.clip(share, 0, 1)[:, None] * along
        away = np.hypot(*((x, y) - nearest).T).min()
        if away < 5 or np.abs(words - (x, y)).max(axis=1).min() < 9 or face.points.max(axis=0)[0] - x < 3:
            continue
        if fill_under(scene.drawn, x, y) == face.fill:
            assert image[int(y), int(x)] == face.fill, face
            compared += 1
    assert compared >= case.x.size / 4


values = st.lists(st.floats(-1e3, 1e3) | st.just(np.nan) | st.just(np.inf), min_size=1, max_size=300).map(
    np.array
)


@given(values, values)
def test_one_symmetric_limit_for_before_and_after(before, after):
    limit = value_limit(before, after)
    assert limit > 0 and np.isfinite(limit)
    assert value_limit(-after, before) == limit
    magnitudes = np.abs(np.concatenate([before, after]))
    magnitudes = magnitudes[np.isfinite(magnitudes)]
    assert (magnitudes > limit).mean() <= 0.01 if magnitudes.size else limit == 1
    fills, marks = value_fills(np.array([limit, -limit, 0.0, np.nan]), limit)
    assert fills == [VALUE_FILLS[-1], VALUE_FILLS[0], VALUE_FILLS[50], GREY] and marks == ["", "", "", "nan"]


def test_outliers_are_clipped_rather_than_bleaching_the_rest():
    x = np.append(np.linspace(-1, 1, 1000), 500.0)
    assert value_limit(x) < 1.1
    assert value_limit(np.linspace(-1, 2, 50)) == 2


@unhurried
@given(tensors(), st.sampled_from(explorer.STEPS))
def test_the_explorers_scales_are_the_same_before_and_after(case, step):
    written = [
        t for t in texts(explorer_scene(case, color="value", step=step)) if re.fullmatch(r"[+−][\d.e+]+", t)
    ]
    assert len(written) == 6 and len(set(written)) == 2  # legend, before, after: −limit and +limit
    assert {t[1:] for t in written} == {written[0][1:]}


X = np.random.default_rng(0).normal(size=(4, 6, 3, 3))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: nv.draw_block(X, "bacth"), ValueError, ["method='bacth'", "'batch'"]),
        (lambda: nv.draw_block(X, "batch", layout="NHWC"), ValueError, ["layout='NHWC'", "'NCHW'"]),
        (lambda: nv.draw_block(X, "batch", layout="BTD"), ValueError, ["rank 4", "(B, T, D)"]),
        (lambda: nv.draw_block(X[None], "batch"), ValueError, ["rank 5", "(N, C, H, W)"]),
        (lambda: nv.draw_block(X[:, :0], "batch"), ValueError, ["C=0", "empty"]),
        (lambda: nv.draw_block(X, "group", 4), ValueError, ["num_groups=4", "[1, 2, 3, 6]"]),
        (
            lambda: nv.draw_block(X, "batch", cursor=(0, 6, 0, 0)),
            ValueError,
            ["cursor=(0, 6, 0, 0)", "(3, 5, 2, 2)"],
        ),
        (
            lambda: nv.draw_block(X, "batch", cursor=(0, -1, 0, 0)),
            ValueError,
            ["cursor=(0, -1, 0, 0)", "(0, 0, 0, 0)"],
        ),
        (lambda: nv.draw_block(X, "batch", cursor=3), ValueError, ["cursor=3"]),
        (lambda: nv.draw_block(X, "batch", cursor=(0, 1)), ValueError, ["cursor=(0, 1)"]),
        (lambda: nv.draw_block(X, "batch", color="sets"), ValueError, ["color='sets'", "'set'", "'value'"]),
        (lambda: nv.draw_block("pixels", "batch"), TypeError, ["x", "str"]),
        (lambda: nv.draw_block(X + 1j, "batch"), TypeError, ["x", "complex128"]),
        (lambda: nv.draw_methods(X, ["batch", "lyer"]), ValueError, ["method='lyer'"]),
        (lambda: nv.draw_methods(X, color="sets"), ValueError, ["color='sets'"]),
        (lambda: nv.draw_methods(X, []), ValueError, ["methods=[]"]),
    ],
)
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error) as caught:
        call()
    for word in words:
        assert word in str(caught.value)


def test_side_by_side_says_what_is_left_out_and_has_every_caption():
    x = np.zeros((9, 4, 3, 3))
    scene = methods_scene(x, num_groups=2, cursor=(8, 0, 0, 0))
    for method in ("batch", "layer", "instance", "group"):
        groups = 2 if method == "group" else None
        assert caption(method, x.shape, groups, size=None).split(";")[0] in scene.alt
    sentence = "Too large to draw in full: shown are samples 1–8 of 9."
    assert scene.alt.endswith(sentence) and sentence in " ".join(texts(scene))
    assert max(item.y for item in scene.items if isinstance(item, Label)) < scene.height


def test_figures_carry_alt_text_into_notebook_and_file():
    figure = nv.draw_block(torch.from_numpy(X).bfloat16(), "layer", cursor=(0, 1, 2, 2))
    assert figure.alt.startswith("LayerNorm (whole sample): tensor N=4×C=6×H=3×W=3; the cursor cell")
    assert figure.alt.encode() in png_bytes(figure) or figure.alt.encode("latin-1") in png_bytes(figure)


def test_a_compact_picture_is_the_same_to_the_eye_and_keeps_its_alt_text():
    png = png_bytes(nv.draw_block(nv.digit_features(4, 8, 4, 4)))
    small = compact(png)
    with Image.open(io.BytesIO(png)) as a, Image.open(io.BytesIO(small)) as b:
        assert a.text == b.text and a.size == b.size and b.mode == "P"
        apart = np.abs(np.asarray(a.convert("RGB"), int) - np.asarray(b.convert("RGB"), int))
    assert apart.max() <= 12 and len(small) < 0.6 * len(png)
    # Noise has more colours than a palette: it stays as it is
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    noise.save(buffer, format="png")
    assert compact(buffer.getvalue()) == buffer.getvalue()
