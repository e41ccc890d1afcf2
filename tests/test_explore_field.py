"""The film of tokens: what its frames show of the lengths that it was given, and what it refuses."""

import numpy as np
import pytest

from normviz.explore import Tokens
from normviz.explore.field import LONGEST, field_raster, field_scale, longest_words
from normviz.picture.color import value_pixels
from normviz.picture.scene import Box, Raster

STEPS = [0, 5, 10, 40]


@pytest.fixture(scope="module")
def lengths():
    rng = np.random.default_rng(0)
    fields = {arm: np.exp(rng.normal(0, 0.4, (4, 3, 20, 16))) for arm in ("ln", "bn", "bn+ffnbn")}
    fields["ln"][:] = 1.0
    fields["bn"][2, 1, 7, 5] = 25.0  # step 10, block 2, image 7, patch 5
    return fields


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 17, (20, 1, 8, 8))


@pytest.fixture
def film(lengths, images):
    film = Tokens(lengths, images, STEPS)
    yield film
    film.close()


def rasters(scene) -> list[Raster]:
    return [item for item in scene.items if isinstance(item, Raster)]


def test_a_frame_is_the_lengths_of_the_images_with_the_longest_tokens(film, lengths):
    peaks = np.max([values.max((0, 1, 3)) for values in lengths.values()], axis=0)
    assert film.order[0] == 7 and len(film.order) == 16 and min(peaks[film.order]) >= np.sort(peaks)[4]
    for frame in range(4):
        film.show(frame)
        for raster, values in zip(rasters(film.painted), lengths.values(), strict=True):
            field = values[frame][:, film.order].reshape(3, 256)
            np.testing.assert_array_equal(raster.pixels, value_pixels(np.log10(field), LONGEST))


def test_the_caption_names_the_longest_token(film, lengths):
    film.show(2)
    assert film.painted.alt.startswith("Step 10: ") and "all 320 tokens" in film.painted.alt
    assert "BN 25 × in block 2, patch 5 of image 7" in film.painted.alt
    assert "LN 1 × in every block" in film.painted.alt
    assert film.twin().alt == film.painted.alt
    marks = {item.name for item in film.painted.items if getattr(item, "name", "").startswith("longest")}
    assert marks == {"longest-bn", "longest-bn+ffnbn"}  # nothing to frame where all are equal
    image = film.thumbs[0]
    (frame,) = [item for item in film.painted.items if getattr(item, "name", "") == "longest-bn"]
    corner = frame.points.reshape(-1, 2).min(axis=0)
    np.testing.assert_allclose(
        corner, [image.x + image.width / 4, image.y + image.height / 4]
    )  # patch 5: row 1, column 1


def test_the_slider_moves_the_film_and_the_film_the_slider(film):
    assert film.frame == 3 and film.slider.label == "40"
    film.slider.index = 1
    assert film.frame == 1 and "Step 5:" in film.shown
    film.show(-2)
    assert film.slider.label == "10" and "Step 10:" in film.shown


def test_nothing_overlaps_and_the_strip_says_every_frame_that_it_shows(film):
    for frame in range(4):
        film.show(frame)
        assert film.painted.overlaps() == [] == film.painted.labels_outside()
    strip = film.strip_scene()
    assert strip.overlaps() == [] == strip.labels_outside()
    assert len(rasters(strip)) == 3 * 4 + 1
    assert "at steps 0, 5, 10, 40" in strip.alt and "25 ×" in strip.alt and film.strip().alt == strip.alt


def test_lengths_that_are_not_finite_are_said(lengths, images):
    broken = {"bn": lengths["bn"].copy()}
    broken["bn"][3] = np.nan
    film = Tokens(broken, images, STEPS)
    assert "BN not finite" in film.painted.alt and "not finite" in film.strip_scene().alt
    assert longest_words(broken["bn"][3, :, 0]) == "lengths are not finite"
    film.close()


def test_one_frame_of_one_network_and_few_images(lengths, images):
    film = Tokens({"bn": lengths["bn"][:1, :1, :3]}, images[:3, 0])
    assert film.painted.overlaps() == [] and film.steps == [0]
    film.close()


def test_short_is_blue_and_long_is_red_and_the_scale_says_so():
    low, middle, high = field_raster(Box(0, 0, 9, 9), 10.0 ** np.array([[-1.5, 0.0, 1.5]])).pixels[0].astype(int)
    assert low[2] > low[0] + 90 and high[0] > high[2] + 90 and np.ptp(middle) < 8
    assert (field_raster(Box(0, 0, 9, 9), np.array([[0.0]])).pixels[0, 0] == low).all()  # as short as can be
    upright, *labels = field_scale(Box(0, 0, 16, 112))
    assert (upright.pixels[0, 0].astype(int) - high).max() < 12 and labels[0].text == "30 ×"
    lying, first, last = field_scale(Box(0, 0, 140, 11))
    assert (lying.pixels[0] == upright.pixels[::-1, 0]).all() and (first.text, last.text) == ("1/30", "30 ×")


def test_refusals_name_what_came(lengths, images):
    for wrong in (
        {},
        {"bn": lengths["bn"][0]},
        {"bn": lengths["bn"], "ln": lengths["ln"][:2]},
        {"bn": np.ones((0, 3, 20, 16))},
    ):
        with pytest.raises(
            ValueError, match=r"lengths has shapes .* it takes arm → \(steps, blocks, images, patches\)"
        ):
            Tokens(wrong, images)
    with pytest.raises(ValueError, match=r"images has shape \(19, 8, 8\)"):
        Tokens(lengths, images[:19])
    with pytest.raises(ValueError, match="square patches"):
        Tokens({"bn": lengths["bn"][..., :15]}, images)
    with pytest.raises(ValueError, match="steps has 3 numbers, and lengths 4 frames"):
        Tokens(lengths, images, [0, 1, 2])
    with pytest.raises(ValueError, match="most=0"):
        Tokens(lengths, images, most=0)
    with pytest.raises(TypeError, match=r"lengths\['bn'\]"):
        Tokens({"bn": "long"}, images)
