"""A digit read step by step under several statistics: that the picture says what the numbers say."""

import numpy as np
import pytest

from normviz import draw
from normviz.picture.color import photo_pixels
from normviz.picture.scene import Label, Raster
from normviz.samples import digit_images

WAYS = ("the batch's statistics", "running statistics")


def case(T=6, S=9, classes=4):
    rng = np.random.default_rng(0)
    chances = {way: rng.dirichlet(np.ones(classes), T) for way in WAYS}
    return chances, {way: rng.random(S) for way in WAYS}


def test_the_maps_are_the_chances_and_the_words_the_last_of_them():
    chances, curves = case()
    scene = draw.reading_scene(digit_images(1)[0], chances, curves, 2, "offset")
    assert ". offset at steps 1, 3, 5: " in scene.alt
    maps = [item for item in scene.items if isinstance(item, Raster)][1:]  # after the digit itself
    for way, raster in zip(WAYS, maps, strict=True):
        np.testing.assert_array_equal(raster.pixels, photo_pixels(1 - chances[way].T))  # dark where it is sure
        last = chances[way][-1]
        words = f"{last.argmax()}, {100 * last.max():.0f} % sure"
        assert words in [item.text for item in scene.items if isinstance(item, Label)]
        assert f"{way}: {last.argmax()} ({100 * last.max():.0f} %)" in scene.alt
    frames = [item for item in scene.items if getattr(item, "name", "") == "truth"]
    for frame, raster in zip(frames, maps, strict=True):
        tops = np.asarray(frame.points).reshape(-1, 2)[:, 1]
        assert tops.min() == pytest.approx(raster.y + raster.height * 2 / 4)  # the third row of four
    # A column of the maps stands above its step in the chart
    (marks,) = [item for item in scene.items if getattr(item, "name", "") == f"mark-{WAYS[0]}"]
    first = np.asarray(marks.points)[0].mean(0)[0]
    assert first == pytest.approx(maps[0].x + maps[0].width / 6 / 2, abs=0.5)


def test_a_step_that_nobody_reaches_leaves_a_gap():
    chances, curves = case()
    curves[WAYS[0]][-1] = np.nan
    scene = draw.reading_scene(digit_images(1)[0], chances, curves, 0, "offset")
    counts = {way: sum(len(i.points) for i in scene.items if getattr(i, "name", "") == f"mark-{way}") for way in WAYS}
    assert counts == {WAYS[0]: 8, WAYS[1]: 9}
    assert draw.reading(digit_images(1)[0], chances, curves, 0, "offset").alt.startswith("A 0 of 6 steps")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c, s: (c, {**s, WAYS[0]: s[WAYS[0]][:4]}), "curves"),
        (lambda c, s: (c, {way: v[:5] for way, v in s.items()}), "curves"),
        (lambda c, s: (c, {WAYS[0]: s[WAYS[0]]}), "curves"),
        (lambda c, s: ({**c, WAYS[0]: c[WAYS[0]][:4]}, s), "chances"),
        (lambda c, s: ({way: v[0] for way, v in c.items()}, s), "chances"),
        (lambda c, s: ({}, s), "chances"),
    ],
)
def test_shapes_that_do_not_fit_are_named(change, named):
    with pytest.raises(ValueError, match=named):
        draw.reading_scene(digit_images(1)[0], *change(*case()), 0, "offset")


def test_a_label_that_is_no_class_is_named():
    with pytest.raises(ValueError, match="label=4"):
        draw.reading_scene(digit_images(1)[0], *case(), 4, "offset")
