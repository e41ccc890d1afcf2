"""Whole pictures: their words, colours and scales, the PNG twin, what they refuse."""

import io
import re
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest
import torch
from drawings import SVG, drawn, explorer_scene, labels_of, scene_of, tensors, texts, unhurried
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import normviz as nv
from normviz import draw
from normviz.explore.axes import STEPS
from normviz.norms import METHODS, cut
from normviz.picture.color import AXIS_COLORS, GREY, MUTED, PAPER, VALUE_FILLS, contrast, value_fills, value_limit
from normviz.picture.png import compact, figure, png_bytes
from normviz.picture.scene import TEXT, Label, Scene, Shapes, Strokes, rects
from normviz.picture.svg import backdrop_svg, front_svg, to_svg


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
    expected = cut(case.method, case.x.shape, case.groups, case.layout).caption(**known)
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
@given(tensors(), st.sampled_from(["set", "value"]), st.sampled_from(STEPS), st.booleans())
def test_text_is_large_and_dark_enough(case, color, step, compare):
    case.x.flat[0] = np.nan
    for scene in (explorer_scene(case, color=color, step=step, compare=compare), scene_of(case, color=color)):
        for i, item in enumerate(scene.drawn):
            if isinstance(item, Label) and item.text:
                under = fill_under(scene.drawn[:i], item.x, item.y - 4)
                assert item.size >= TEXT == 12
                assert contrast(item.color, under) >= 4.5, (item.text, item.color, under)


def test_colours_of_the_axes_are_readable_outside_of_the_picture_too():
    assert all(contrast(color, PAPER) >= 4.5 for color in AXIS_COLORS.values())
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.01)  # WCAG's own example of a failure


printable = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"))


@unhurried
@given(printable, printable)
def test_svg_escapes_what_it_is_told(alt, text):
    root = ElementTree.fromstring(to_svg(Scene(10, 10, [Label(0, 0, text)], alt)))
    assert re.sub(r"\s", " ", root.get("aria-label")) == re.sub(r"\s", " ", alt)
    assert root.findtext(f"{SVG}text") == text


anything = st.text() | st.sampled_from(['"><script>alert(1)</script>', "a\0b", "]]>", "<!--", "\x0b&amp;", "\ud800"])


@unhurried
@given(anything, anything, st.lists(anything, min_size=2, max_size=2))
def test_no_string_breaks_the_svg(alt, name, titles):
    squares = rects([0, 4], [0, 4], [3, 7], [3, 7])
    items = [
        Label(0, 0, name), Shapes(squares, [GREY, PAPER], titles, name=name),
        Strokes(squares[:, :2], name=name),
    ]  # fmt: skip
    scene = Scene(10, 10, items, alt, backdrop=items)
    for svg in (to_svg(scene), backdrop_svg(scene), front_svg(scene)):
        root = ElementTree.fromstring(svg)
        assert {child.tag.removeprefix(SVG) for child in root.iter()} <= {"svg", "rect", "g", "path", "text", "title"}
        assert len(root.findall(f".//{SVG}title")) == (4 if svg == to_svg(scene) else 2)
    shown = [title.text or "" for title in ElementTree.fromstring(to_svg(scene)).iter(f"{SVG}title")]
    for seen, title in zip(shown[:2], titles, strict=True):
        if title.isprintable():
            assert seen == title


def test_names_of_readers_stay_as_they_are():
    scene = draw.histograms_scene({"pre-norm <b>": X, "post-norm": X})
    assert "pre-norm <b>: mean" in scene.alt and "pre-norm <b>" in texts(scene)
    assert "mean −" in draw.histograms_scene({"a": X - 3}).alt
    strange = draw.phase_map_scene({"a<b": {(0, "&"): ["trained"]}}, x_name="x<y", y_name='"')
    assert ElementTree.fromstring(to_svg(strange)).get("aria-label") == strange.alt


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
        face for name in ("cell", "set-cell", "sheet-cell", "sheet-set-cell", "cursor") for face in drawn(scene, name)
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


values = st.lists(st.floats(-1e3, 1e3) | st.just(np.nan) | st.just(np.inf), min_size=1, max_size=300).map(np.array)


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
@given(tensors(), st.sampled_from(STEPS))
def test_the_explorers_scales_are_the_same_before_and_after(case, step):
    written = [t for t in texts(explorer_scene(case, color="value", step=step)) if re.fullmatch(r"[+−][\d.e+]+", t)]
    assert len(written) == 6 and len(set(written)) == 2  # legend, before, after: −limit and +limit
    assert {t[1:] for t in written} == {written[0][1:]}


X = np.random.default_rng(0).normal(size=(4, 6, 3, 3))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: draw.block(X, "bacth"), ValueError, ["method='bacth'", "batch"]),
        (lambda: draw.block(X, "batch", layout="NHWC"), ValueError, ["layout='NHWC'", "NCHW"]),
        (lambda: draw.block(X, "batch", layout="BTD"), ValueError, ["rank 4", "(B, T, D)"]),
        (lambda: draw.block(X[None], "batch"), ValueError, ["rank 5", "(N, C, H, W)"]),
        (lambda: draw.block(X[:, :0], "batch"), ValueError, ["C=0", "empty"]),
        (lambda: draw.block(X, "group", 4), ValueError, ["num_groups=4", "[1, 2, 3, 6]"]),
        (lambda: draw.block(X, "batch", cursor=(0, 6, 0, 0)), ValueError, ["cursor=(0, 6, 0, 0)", "(3, 5, 2, 2)"]),
        (lambda: draw.block(X, "batch", cursor=(0, -1, 0, 0)), ValueError, ["cursor=(0, -1, 0, 0)", "(0, 0, 0, 0)"]),
        (lambda: draw.block(X, "batch", cursor=3), ValueError, ["cursor=3"]),
        (lambda: draw.block(X, "batch", cursor=(0, 1)), ValueError, ["cursor=(0, 1)"]),
        (lambda: draw.block(X, "batch", color="sets"), ValueError, ["color='sets'", "set", "value"]),
        (lambda: draw.block(X, "batch", cursor=(0.9, 1, 1, 1)), ValueError, ["cursor=(0.9, 1, 1, 1)"]),
        (lambda: draw.block("pixels", "batch"), TypeError, ["x", "str"]),
        (lambda: draw.histograms({"a": "pixels"}), TypeError, ["panels['a']", "str"]),
        (lambda: draw.photos([["pixels"]], ["a"], ["b"], ""), TypeError, ["images", "str"]),
        (lambda: draw.photos([[np.zeros((2, 0))]], ["a"], ["b"], ""), ValueError, ["images", "(2, 0)"]),
        (lambda: draw.photos([[X[0, 0]]], ["a"], ["b", "c"], ""), ValueError, ["images", "2 column"]),
        (lambda: draw.photos([[X[0, 0]]], ["a"], ["b"], "", low=1, high=1), ValueError, ["low=1"]),
        (lambda: draw.ink(np.zeros((5, 8, 8))), ValueError, ["images", "(5, 8, 8)"]),
        (lambda: draw.block(X + 1j, "batch"), TypeError, ["x", "complex128"]),
        (lambda: draw.methods(X, ["batch", "lyer"]), ValueError, ["method='lyer'"]),
        (lambda: draw.methods(X, color="sets"), ValueError, ["color='sets'"]),
        (lambda: draw.methods(X, []), ValueError, ["methods=[]"]),
    ],
)
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error) as caught:
        call()
    for word in words:
        assert word in str(caught.value)


def test_side_by_side_says_what_is_left_out_and_has_every_caption():
    x = np.zeros((9, 4, 3, 3))
    scene = draw.methods_scene(x, num_groups=2, cursor=(8, 0, 0, 0))
    for method in ("batch", "layer", "instance", "group"):
        groups = 2 if method == "group" else None
        assert cut(method, x.shape, groups).caption().split(";")[0] in scene.alt
    sentence = "Too large to draw in full: shown are samples 1–8 of 9."
    assert scene.alt.endswith(sentence) and sentence in " ".join(texts(scene))
    assert max(item.y for item in scene.items if isinstance(item, Label)) < scene.height


def test_figures_carry_alt_text_into_notebook_and_file():
    figure = draw.block(torch.from_numpy(X).bfloat16(), "layer", cursor=(0, 1, 2, 2))
    assert figure.alt.startswith("LayerNorm (whole sample): tensor N=4×C=6×H=3×W=3; the cursor cell")
    assert figure.alt.encode() in png_bytes(figure) or figure.alt.encode("latin-1") in png_bytes(figure)


def test_a_compact_picture_is_the_same_to_the_eye_and_keeps_its_alt_text():
    png = png_bytes(draw.block(nv.samples.digit_features(4, 8, 4, 4)))
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


@pytest.mark.parametrize("scale", [1e-320, 1e-307, 1e-7, 1.9e-4, 1e12, 1e300])
def test_pictures_and_words_of_any_magnitude(scale):
    x = scale * X
    alt = draw.histograms_scene({"all": x, "half": x / 2}).alt
    assert len(alt) < 150 and not re.search(r"σ 0(\.0+)?[;.]$|σ 0(\.0+)?;", alt)
    for scene in (draw.block_scene(x, "batch", cursor=(1, 2, 1, 1)), draw.block_scene(x)):
        assert len(scene.alt) < 250 and "nan" not in scene.alt and "inf" not in scene.alt
        ElementTree.fromstring(to_svg(scene))


def test_gradients_do_not_stand_in_the_way():
    x = torch.tensor(X, requires_grad=True)
    assert draw.block_scene(x, "batch").alt == draw.block_scene(X, "batch").alt
    ink = torch.rand(2, 8, 8, requires_grad=True)
    assert draw.ink_scene(ink).alt == draw.ink_scene(ink.detach().numpy()).alt


@unhurried
@given(tensors(), st.sampled_from(["set", "value"]), st.booleans())
def test_labels_of_a_block_stay_on_the_sheet_and_apart(case, color, with_cursor):
    cursor = {} if with_cursor else {"cursor": None}
    scene = scene_of(case, color=color, **cursor)
    assert not scene.labels_outside()
    # The bar that is lifted out of the block may cover the numbers of other sets
    assert not [pair for pair in scene.overlaps() if not any(label.text.isdigit() for label in pair)]


def test_photographs_and_notes():
    images = [[X[0, 0], None], [np.stack([X[0, 0]] * 3), X[0, 1]]]
    scene = draw.photos_scene(
        images, ["one\nsmaller", "two"], ["left", "right"], "noise", notes=[["a", ""], ["b", "c"]]
    )
    assert {"one", "smaller", "two", "left", "right", "a", "b", "c"} <= set(texts(scene)) and scene.alt == "noise"
    assert not scene.labels_outside() and not scene.overlaps()
    ink = draw.ink_scene(np.eye(8)[None])
    assert [text for text in texts(ink) if text.isdigit()] == [*map(str, range(8))] and "8 steps" in texts(ink)


def test_a_drawing_function_is_its_scene_maker():
    assert draw.block.__name__ == "block" and "cursor" in draw.block.__doc__
    for name in draw.__all__:
        if name.endswith("_scene"):
            function, maker = getattr(draw, name.removesuffix("_scene")), getattr(draw, name)
            assert function.__wrapped__ is maker and maker.__doc__.strip() in function.__doc__
