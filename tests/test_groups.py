"""The explorer of notebook 04 under random events against torch; photographs and sweeps as pictures."""

import base64
import io
import random
import re
from html import escape
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.image import imread
from sklearn.datasets import load_digits, load_sample_images

import normviz as nv
from normviz.picture.groups import IMAGES, MAPS
from normviz.picture.photos import photo_grid, photo_pixels, value_pixels
from normviz.picture.png import png_bytes, to_png
from normviz.picture.scene import Label, Raster, Scene, Shapes, arrange
from normviz.picture.svg import to_svg
from normviz.picture.sweeps import sweep_chart
from normviz.samples import FILTERS

KERNELS = torch.tensor(list(FILTERS.values()), dtype=torch.float64)[:, None]  # (8, 1, 3, 3)


def grey(name):
    """The explorer's images made another way: torch's pooling, from the files themselves."""
    if name == "digit":
        return F.pad(torch.from_numpy(load_digits().images[0] / 16), (2, 2))
    photo = load_sample_images().images[IMAGES.index(name)] / 255
    photo = torch.from_numpy(photo @ [0.299, 0.587, 0.114])
    return F.adaptive_avg_pool2d(photo[None], (40, 60))[0]


GREY = {name: grey(name) for name in IMAGES}


def oracle(state):
    """Maps of both images, before and after torch's group_norm for every G: float64 (2, 8, h, w)."""
    image = GREY[state.image]
    both = torch.stack([image, state.contrast * image + state.brightness])[:, None]
    raw = F.conv2d(F.pad(both, (1, 1, 1, 1), mode="replicate"), KERNELS)
    raw[1, 2] *= state.gain
    return raw, {groups: F.group_norm(raw, groups) for groups in (1, 2, 4, 8)}


def svg_of(explorer):
    pictures = explorer._backdrop.value + explorer._picture.value
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", pictures, re.S)]


def check(explorer):
    state, reading = explorer.state, explorer.reading
    get = {name: control.value for name, control in explorer.controls.items()}
    assert get == pytest.approx(vars(state))
    raw, after = oracle(state)
    here = after[state.groups]
    np.testing.assert_allclose(reading.raw, raw, atol=1e-5)
    np.testing.assert_allclose(reading.normalized, here, atol=1e-3)
    sets = raw.reshape(2, state.groups, -1)
    np.testing.assert_allclose(reading.mean, sets.mean(2), atol=1e-5)
    np.testing.assert_allclose(reading.std, sets.std(2, correction=0), atol=1e-5)
    np.testing.assert_allclose(reading.kept, here.std((2, 3), correction=0), atol=1e-3)
    np.testing.assert_allclose(reading.differs, (here[1] - here[0]).square().mean((1, 2)).sqrt(), atol=1e-3)
    told = dict(re.findall(r"([\d.]+) with G=(\d)", reading.caption))
    assert len(re.findall(r"with G=\d", reading.caption)) == 4
    for value, groups in told.items():
        left = (after[int(groups)][1] - after[int(groups)][0]).square().mean().sqrt()
        assert float(value) == pytest.approx(float(left), abs=0.006)
    # The block is cut as the method cuts: (image, channel) -> set
    per = len(MAPS) // state.groups
    cells = [e.attrib for svg in svg_of(explorer) for e in svg.iter() if "data-cell" in e.attrib]
    assert cells
    for cell in cells:
        n, c = map(int, cell["data-cell"].split(",")[:2])
        assert int(cell["data-set"]) == n * state.groups + c // per
    assert escape(reading.caption) in explorer._text.value


def random_event(explorer, dice):
    control = explorer.controls[dice.choice(list(explorer.controls))]
    if hasattr(control, "options"):
        control.value = dice.choice([o[1] if isinstance(o, tuple) else o for o in control.options])
    else:
        steps = round((control.max - control.min) / control.step)
        control.value = control.min + control.step * dice.randint(0, steps)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_events_against_torch(seed):
    dice, explorer = random.Random(seed), nv.explore_groups()
    check(explorer)
    for _ in range(30):
        random_event(explorer, dice)
        check(explorer)
    assert explorer.twin().alt == explorer.reading.caption


@pytest.mark.parametrize(
    ("change", "let_through"),
    [
        ({"contrast": 0.5, "brightness": 0.0}, ()),
        (
            {"contrast": 1.0, "brightness": 0.3},
            (1, 2),
        ),  # "ink" and "blur" move alike, and fill a group of two
        ({"contrast": 1.0, "brightness": 0.0, "gain": 2.0}, (1, 2, 4)),
        ({"contrast": 1.0, "brightness": 0.0}, ()),
    ],
)
def test_a_change_that_moves_a_set_as_one_is_forgotten(change, let_through):
    through = nv.explore_groups(**change).reading.through
    assert tuple(groups for groups, value in through.items() if value > 0.02) == let_through
    assert all(value < 0.003 for groups, value in through.items() if groups not in let_through)


def test_one_event_is_one_picture():
    explorer, pictures = nv.explore_groups(), []
    explorer._picture.observe(lambda change: pictures.append(change["new"]), names="value")
    explorer.controls["groups"].value = 8
    assert len(pictures) == 1 and "the sets of InstanceNorm" in explorer.reading.caption


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"num_groups": 3}, "num_groups=3 does not divide C=8; it takes one of [1, 2, 4, 8]"),
        ({"num_groups": True}, "num_groups=True"),
        ({"image": "cat"}, "image='cat' is unknown; it takes one of 'temple', 'flower', 'digit'"),
        ({"contrast": 0}, "contrast=0 must be a number from 0.2 to 2"),
        ({"contrast": "half"}, "contrast='half'"),
        ({"brightness": float("nan")}, "brightness=nan must be a number from -0.5 to 0.5"),
        ({"gain": 10}, "gain=10 must be a number from 0.2 to 3"),
    ],
)
def test_bad_input_is_named(options, word):
    for make in (nv.explore_groups, nv.draw_groups):
        with pytest.raises(ValueError) as caught:
            make(**options)
        assert word in str(caught.value)


def test_the_static_figure_tells_what_the_explorer_tells():
    options = {"num_groups": 4, "image": "digit", "gain": 2.0}
    figure, explorer = nv.draw_groups(**options), nv.explore_groups(**options)
    assert figure.alt == explorer.reading.caption
    assert png_bytes(figure) == to_png(explorer.twin())


# Rasters, photographs, sweeps ------------------------------------------------------------------------------


def test_a_raster_is_the_same_in_svg_and_png():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    scene = Scene(60, 50, "noise", [Raster(10, 20, 40, 30, pixels, "a <b>")])
    image = next(e for e in ElementTree.fromstring(to_svg(scene)).iter() if e.tag.endswith("image"))
    data = base64.b64decode(image.attrib["href"].removeprefix("data:image/png;base64,"))
    np.testing.assert_array_equal(np.rint(255 * imread(io.BytesIO(data)))[..., :3], pixels)
    assert [image.attrib[k] for k in ("x", "y", "width", "height")] == ["10.0", "20.0", "40.0", "30.0"]
    assert image[0].text == "a <b>"
    drawn = np.rint(255 * imread(io.BytesIO(to_png(scene))))[..., :3]
    np.testing.assert_array_equal(drawn[25:50:10, 15:50:10], pixels)  # the middle of every pixel of 10 × 10
    assert (drawn[:20] == 255).all() and (drawn[:, :10] == 255).all()


def test_rasters_move_with_their_scene():
    pixels = np.zeros((2, 2, 3), np.uint8)
    scenes = [Scene(50, 40, "", [Raster(5, 6, 20, 20, pixels)]) for _ in range(2)]
    assert [(item.x, item.y) for item in arrange(scenes, columns=2, gap=10).items] == [(5, 6), (65, 6)]


def test_pixels_of_photographs_and_of_values():
    image = np.array([[0.0, 0.5], [1.0, 9.0]])
    assert photo_pixels(image)[..., 0].tolist() == [[0, 128], [255, 255]]
    assert photo_pixels(np.stack([image, 0 * image, 0 * image]))[1, 0].tolist() == [255, 0, 0]
    low, middle, high, beyond = value_pixels(np.array([[-1.0, 0.0, 1.0, 7.0]]), 1.0)[0].tolist()
    assert low[2] > low[0] and middle == [0xF7] * 3 and high[0] > high[2] and beyond == high


def test_photos_are_scikit_learns_averaged_down():
    whole = np.stack(load_sample_images().images).transpose(0, 3, 1, 2) / 255
    expected = F.adaptive_avg_pool2d(torch.from_numpy(whole), (30, 45))
    np.testing.assert_allclose(nv.photos(30, 45), expected, atol=1e-5)
    for bad in ({"h": 0}, {"w": 641}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            nv.photos(**bad)


def test_a_grid_of_photographs():
    a, b = np.zeros((3, 4, 6)), np.ones((4, 6))
    scene = photo_grid([[a, b], [b, None]], ["one", "two\nmore"], ["left", "right"], "two by two")
    rasters = [item for item in scene.items if isinstance(item, Raster)]
    assert [r.title for r in rasters] == ["one, left", "one, right", "two, left"]
    assert [int(r.pixels.mean()) for r in rasters] == [0, 255, 255]
    assert {item.text for item in scene.items if isinstance(item, Label)} == {
        "one", "two", "more", "left", "right",
    }  # fmt: skip
    figure = nv.draw_photos([[a]], ["one"], ["left"], "alt", notes=[["below"]])
    assert figure.alt == "alt" and png_bytes(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("images", "options", "error", "word"),
    [
        ([], {}, ValueError, "images has rows of"),
        ([[np.zeros((2, 2))] * 2], {}, ValueError, "with 1 row and 1 column"),
        ([[np.zeros((4, 2, 2))]], {}, ValueError, "images holds one of shape (4, 2, 2)"),
        ([["photo"]], {}, TypeError, "x must be a tensor"),
        ([[np.zeros((2, 2))]], {"low": 1.0}, ValueError, "low=1.0 must be below high=1.0"),
    ],
)
def test_a_grid_names_what_is_wrong(images, options, error, word):
    with pytest.raises(error) as caught:
        photo_grid(images, ["row"], ["column"], "alt", **options)
    assert word in str(caught.value)


def test_a_sweep_has_every_seed_and_its_means():
    values = {"bn": {32: [0.01, 0.03], 1: [0.5, 0.6]}, "gn": {32: [0.02, 0.02], 1: [0.02, 0.04]}}
    scene = sweep_chart(values, "batch size", "error (%)", percent=True)
    assert scene.alt == (
        "Error (%) over batch size, means of 2 seeds. BN: 2 at 32, 55 at 1; GN: 2 at 32, 3 at 1."
    )
    marks = [i for i in scene.items if isinstance(i, Shapes) and i.name == "mark-bn"]
    assert sorted(len(i.points) for i in marks) == [1, 4]  # one in the key
    top, bottom = (marks[0].points.mean(1)[k, 1] for k in (1, -1))
    assert top < bottom  # 60 % is drawn above 1 %
    assert to_png(scene).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({}, "empty place"),
        ({"bn": {32: []}}, "empty place"),
        ({"bn": {0: [1.0]}}, "setting 0"),
        ({"bn": {1: [float("nan")]}}, "not finite"),
    ],
)
def test_a_sweep_names_what_is_wrong(values, word):
    with pytest.raises(ValueError, match=word):
        sweep_chart(values, "x", "y")
