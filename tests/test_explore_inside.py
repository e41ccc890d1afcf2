"""Inside recorded runs, against the tokens that the records were made from."""

import numpy as np
import pytest
import torch
from turns import named, walk

import normviz as nv
from normviz.explore.inside import SITES, Inside
from normviz.picture.color import grey_pixels
from normviz.picture.scene import Raster
from normviz.series import LENGTH_EDGES

DEPTH, BATCH, PATCHES = 3, 4, 16


def make_looks():
    """Looks of two arms at two steps, with the token lengths they were made from."""
    rng, looks, lengths = np.random.default_rng(0), {}, {}
    for arm in ("ln", "bn"):
        looks[arm] = []
        for i, step in enumerate((0, 10)):
            look = {"step": step, "images": [5, 0, 3, 1], "contrast": [1.0, 2.5, 0.125, 1.5]}
            for site in SITES:
                look[site] = []
                for block in range(DEPTH):
                    x = rng.lognormal(size=(BATCH, PATCHES))
                    x /= np.sqrt((x**2).mean())
                    lengths[arm, i, site, block] = x
                    order = np.argsort(-x.ravel())[:6]
                    top = [[*map(int, divmod(k, PATCHES)), float(x.flat[k])] for k in order]
                    counts = np.histogram(x, LENGTH_EDGES)[0].tolist()
                    look[site].append({"ratio": float(x.max()), "counts": counts, "longest": top})
            looks[arm].append(look)
    return looks, lengths


LOOKS, LENGTHS = make_looks()
IMAGES = np.random.default_rng(1).random((6, 8, 8))


def test_it_shows_the_tokens_that_were_recorded():
    start = Inside(LOOKS, IMAGES)
    assert (start.arm, start.block, start.site, start.look) == ("ln", 0, "norm2", 1)
    for state in walk(start, 60):
        x = LENGTHS[state.arm, state.look, state.site, state.block]
        reading, scene = state.read(), state.scene()
        assert reading.ratio == x.max() and reading.counts.sum() == reading.tokens == x.size
        assert reading.longest[0][:2] == np.unravel_index(x.argmax(), x.shape)
        assert reading.bound == pytest.approx(np.sqrt(x.size - 1))
        np.testing.assert_array_equal(
            reading.ratios, [LENGTHS[state.arm, state.look, state.site, b].max() for b in range(DEPTH)]
        )
        assert f"{x.max():.3g} times" in scene.alt and f"step {(0, 10)[state.look]}, block {state.block}," in scene.alt
        assert ("7.937" in scene.alt) == (len(named(scene, "bound")) == 2) == (state.site != "stream")


def test_the_pictures_are_those_of_the_tokens():
    state = Inside(LOOKS, IMAGES[:, None], arm="bn", block=1, look=0, site="stream")
    reading, scene = state.read(), state.scene()
    # Bars: their areas are the shares of a histogram made anew, over the same bins
    x = LENGTHS["bn", 0, "stream", 1]
    shares = np.histogram(x, LENGTH_EDGES)[0] / x.size
    (bars,) = named(scene, "lengths")
    heights = np.ptp(bars.points[..., 1], axis=1)
    np.testing.assert_allclose(heights / heights.sum(), shares[shares > 0], rtol=1e-9)
    (ratios,) = named(scene, "ratio")
    assert ratios.titles == [f"block {b}: {LENGTHS['bn', 0, 'stream', b].max():.4g}" for b in range(DEPTH)]
    # Images: the batch's image in the training set, with a frame around the pixels of the patch
    pictures, frames = [item for item in scene.drawn if isinstance(item, Raster)], named(scene, "patch")
    assert len(pictures) == len(frames) == 6
    for (image, patch, _), picture, frame in zip(reading.longest, pictures, frames, strict=True):
        np.testing.assert_array_equal(picture.pixels, grey_pixels(IMAGES[LOOKS["bn"][0]["images"][image]]))
        corner = (frame.points.min((0, 1)) - (picture.x, picture.y)) / picture.width * 8
        np.testing.assert_allclose(corner, [patch % 4 * 2, patch // 4 * 2], atol=1e-9)
        np.testing.assert_allclose(np.ptp(frame.points, axis=(0, 1)) / picture.width * 8, [2, 2])
        words = [label.text for label in scene.labels]
        assert f"contrast × {LOOKS['bn'][0]['contrast'][image]:g}" in words and f"image {image}, patch {patch}" in words


def test_images_may_be_tensors_that_keep_their_gradient_and_have_colours():
    tensor = torch.tensor(IMAGES[:, None].repeat(3, 1), requires_grad=True)
    np.testing.assert_allclose(Inside(LOOKS, tensor).images.value, IMAGES)


def test_all_is_shown_where_numbers_are_not_finite():
    broken = {"ratio": np.nan, "counts": [0] * 50, "longest": []}
    look = LOOKS["bn"][0] | {site: [broken] * DEPTH for site in SITES}
    scene = Inside({"bn": [look]}, IMAGES).scene()
    assert "is nan times" in scene.alt and not named(scene, "longest")
    assert scene.overlaps() == [] and scene.labels_outside() == []


@pytest.mark.parametrize(("looks", "images", "options", "words"), [
    ({}, IMAGES, {}, "looks={} holds no record"),
    ({"ln": []}, IMAGES, {}, "looks=.* holds no record"),
    (5, IMAGES, {}, "looks has what is no record"),
    ({"ln": [{"step": 1}]}, IMAGES, {}, "looks has .*KeyError"),
    (LOOKS | {"x": LOOKS["ln"][:1]}, IMAGES, {}, "looks has unlike"),
    (LOOKS, IMAGES, {"arm": "rms"}, "arm='rms' must be one of ln, bn"),
    (LOOKS, IMAGES, {"block": 3}, "block=3 must be from 0 to 2"),
    (LOOKS, IMAGES, {"look": 2}, "look=2 must be one of 0, 1"),
    (LOOKS, IMAGES, {"site": "norm3"}, "site='norm3' is unknown"),
    (LOOKS, IMAGES, {"patch": 0}, "patch=0 must be an integer >= 1"),
    (LOOKS, IMAGES, {"patch": 100}, "patch=100 must divide"),
    (LOOKS, IMAGES, {"patch": 3}, "patch=3 must divide"),
    (LOOKS, IMAGES, {"patch": 4}, "patch=4 images holds 6 of 4 patches"),
    (LOOKS, IMAGES[:5], {}, "looks points at image 5.* images holds 5"),
    (LOOKS, IMAGES[0], {}, "images of shape"),
    (LOOKS, IMAGES * np.nan, {}, "images of shape .* must be finite"),
])  # fmt: skip
def test_what_it_cannot_show(looks, images, options, words):
    with pytest.raises(ValueError, match=words):
        Inside(looks, images, **options)


def test_words_are_no_images():
    for images in ("digits", None):
        with pytest.raises(TypeError, match="images"):
            Inside(LOOKS, images)


def test_the_record_of_the_lab_fits():
    """All that the lab recorded can be shown, with the ratio that its probe saw in the same run."""
    images = nv.lab.load_images("digits").train_x
    record = nv.lab.load_inside()
    for recipe, looks in record:
        state = Inside({recipe.arm: looks}, images)
        for k, look in enumerate(looks):
            reading = state.turn(look=k).read()
            assert reading.tokens == 64 * 16 == reading.counts.sum() and reading.step == look["step"]
            assert reading.ratio <= reading.bound
