"""The way of an image through a ViT: what is drawn is what was given."""

import numpy as np
import pytest

from normviz.draw import vit_path, vit_path_scene
from normviz.picture.color import grey_pixels
from normviz.picture.scene import Raster
from normviz.samples import digit_images

RNG = np.random.default_rng(0)
TOKENS, AFTER = RNG.normal(size=(2, 16, 48))
CHANCES = np.array([0.02] * 3 + [0.82] + [0.02] * 6)


def test_patches_in_reading_order_make_the_image_again():
    image = digit_images(1)[0]
    scene = vit_path_scene(image, TOKENS, AFTER, CHANCES, blocks="4 blocks")
    whole, *patches, one, two = (item.pixels for item in scene.items if isinstance(item, Raster))
    assert np.array_equal(whole, grey_pixels(image)) and len(patches) == 16
    rows = [np.concatenate(patches[4 * i : 4 * i + 4], axis=1) for i in range(4)]
    assert np.array_equal(np.concatenate(rows), whole)
    assert one.shape == two.shape == (16, 48, 3)


def test_the_class_is_said_and_drawn():
    scene = vit_path_scene(digit_images(1)[0], TOKENS, AFTER, CHANCES, blocks="4 blocks")
    wide = [np.ptp(item.points[..., 0]) for item in scene.items if getattr(item, "name", "") == "chance"]
    assert np.allclose(np.array(wide) / 56, CHANCES)
    assert "class 3, with 82 %" in scene.alt and "After 4 blocks" in scene.alt and "16 patches" in scene.alt
    assert scene.overlaps() == scene.labels_outside() == []
    assert vit_path(digit_images(1)[0], TOKENS, AFTER, CHANCES).alt.startswith("An image of 8 × 8 pixels")


def test_tokens_that_do_not_go_with_the_image_are_refused():
    with pytest.raises(ValueError, match=r"^tokens and after have shapes"):
        vit_path_scene(np.zeros((8, 8)), TOKENS[:9], AFTER[:9], CHANCES)
