"""Photographs, ink, padding and costs as static pictures, and rasters in SVG and PNG."""

import base64
import io
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.image import imread
from sklearn.datasets import load_digits, load_sample_images

import normviz as nv
from normviz import draw
from normviz.draw.common import NOTEBOOK_WIDTH
from normviz.picture.color import photo_pixels, value_pixels
from normviz.picture.png import png_bytes, to_png
from normviz.picture.scene import Label, Raster, Scene, arrange
from normviz.picture.svg import to_svg


def test_a_raster_is_the_same_in_svg_and_png():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    scene = Scene(60, 50, [Raster(10, 20, 40, 30, pixels, "a <b>")], "noise")
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
    scenes = [Scene(50, 40, [Raster(5, 6, 20, 20, pixels)]) for _ in range(2)]
    assert [(item.x, item.y) for item in arrange(scenes, columns=2, gap=10).items] == [(5, 6), (65, 6)]


def test_pixels_of_photographs_and_of_values():
    image = np.array([[0.0, 0.5], [1.0, 9.0]])
    assert photo_pixels(image)[..., 0].tolist() == [[0, 128], [255, 255]]
    assert photo_pixels(np.stack([image, 0 * image, 0 * image]))[1, 0].tolist() == [255, 0, 0]
    low, middle, high, beyond = value_pixels(np.array([[-1.0, 0.0, 1.0, 7.0]]), 1.0)[0].tolist()
    assert low[2] > low[0] and middle == [0xF7] * 3 and high[0] > high[2] and beyond == high


def test_digits_and_photos_are_scikit_learns():
    whole = np.stack(load_sample_images().images).transpose(0, 3, 1, 2) / 255
    expected = F.adaptive_avg_pool2d(torch.from_numpy(whole), (30, 45))
    np.testing.assert_allclose(nv.samples.photos(30, 45), expected, atol=1e-5)
    images, labels = nv.samples.digits()
    np.testing.assert_array_equal(images, load_digits().images)
    np.testing.assert_array_equal(labels, load_digits().target)
    for bad in ({"h": 0}, {"w": 641}, {"h": 2.5}, {"w": "9"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            nv.samples.photos(**bad)


def test_a_grid_of_photographs():
    a, b = np.zeros((3, 4, 6)), np.ones((4, 6))
    scene = draw.photos_scene([[a, b], [b, None]], ["one", "two\nmore"], ["left", "right"], "two by two")
    rasters = [item for item in scene.items if isinstance(item, Raster)]
    assert [r.title for r in rasters] == ["one, left", "one, right", "two, left"]
    assert [int(r.pixels.mean()) for r in rasters] == [0, 255, 255]
    assert {item.text for item in scene.items if isinstance(item, Label)} == {"one", "two", "more", "left", "right"}
    figure = draw.photos([[a]], ["one"], ["left"], "alt", notes=[["below"]])
    assert figure.alt == "alt" and png_bytes(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("images", "options", "error", "word"),
    [
        ([], {}, ValueError, "images has rows of"),
        ([[np.zeros((2, 2))] * 2], {}, ValueError, "with 1 row and 1 column"),
        ([[np.zeros((4, 2, 2))]], {}, ValueError, "images holds one of shape (4, 2, 2)"),
        ([[np.zeros((2, 0))]], {}, ValueError, "(2, 0)"),
        ([["photo"]], {}, TypeError, "images must be"),
        ([[np.zeros((2, 2))]], {"low": 1.0}, ValueError, "low=1.0 must be below high=1.0"),
    ],
)
def test_a_grid_names_what_is_wrong(images, options, error, word):
    with pytest.raises(error) as caught:
        draw.photos(images, ["row"], ["column"], "alt", **options)
    assert word in str(caught.value)


def test_ink_and_padding_tell_what_they_show():
    lengths = nv.samples.ink_sequences(nv.samples.digit_images(4))[1]
    assert f"sequences of {', '.join(map(str, lengths))} steps" in draw.ink().alt
    assert "BN with padding 0.5" in draw.padding({"bn-padded": [0.0, 0.5], "ln": [0.0, 0.0]}, [0, 8]).alt
    with pytest.raises(ValueError, match="one value per amount of padding"):
        draw.padding({"ln": [0.0]}, [0, 8])
    with pytest.raises(ValueError, match="it takes 1 to 4 images"):
        draw.ink(np.zeros((5, 8, 8)))


def test_cost_ratios_are_drawn_where_they_are():
    ratios = {arm: {"median": m, "low": m - 0.05, "high": m + 0.05} for arm, m in
              (("ln", 1.0), ("bn", 0.9), ("bn+ffnbn", 1.0), ("folded", 0.8))}  # fmt: skip
    row = {"network": "deit-s", "batch": 4, "mode": "eager", "seconds": {"ln": 0.5}, "ratio_to_ln": ratios}
    environment = {"device": "cpu", "name": "Abacus", "threads": 1}
    scene = draw.cost_ratios_scene([{"environment": environment, "networks": [row]}])
    at = {i.name: i.points for i in scene.items if getattr(i, "name", "")}
    centre = {arm: at[f"mark-{arm}"][-1][:, 0].mean() for arm in ("bn", "bn+ffnbn", "folded")}
    assert centre["bn"] - centre["folded"] == pytest.approx(centre["bn+ffnbn"] - centre["bn"])
    one = next(i for i in scene.items if getattr(i, "name", "") == "guide" and not i.dashed)
    assert one.points[0, 0, 0] == pytest.approx(centre["bn+ffnbn"])
    whisker = at["spread-bn"][0][:, 0]
    assert np.ptp(whisker) == pytest.approx(centre["bn+ffnbn"] - centre["bn"])
    assert "DeiT-S, batch 4, eager: BN 0.90, BN + FFN-BN 1.00, folded 0.80" in scene.alt
    assert any(getattr(i, "text", "") == "Abacus, 1 thread" for i in scene.items)
    assert scene.width <= NOTEBOOK_WIDTH
