"""Test tokens by two kinds of statistics, against the lengths that the records were made from."""

import numpy as np
import pytest
from turns import named, walk

from normviz.arms import style_of
from normviz.explore.evaluation import STATISTICS, TOPS, Evaluation

DEPTH, COUNT, PATCHES = 5, 7, 16


def make_looks():
    """Looks with test tokens whose running lengths grow beyond all floats, and the lengths they were made from."""
    rng, looks, lengths = np.random.default_rng(2), {}, {}
    for arm, growth in (("ln", 1.0), ("bn", 3.0), ("bn+ffnbn", 400.0)):
        looks[arm] = []
        for i, step in enumerate((0, 30)):
            look = {"step": step, "test": {}}
            for name, power in (("batch", 1.0), ("running", growth)):
                blocks = rng.lognormal(size=(DEPTH, COUNT, PATCHES)) * power ** np.arange(DEPTH)[:, None, None]
                if growth == 400 and name == "running":
                    blocks[3, 2, 5], blocks[4:] = np.inf, np.nan
                lengths[arm, i, name] = blocks
                at = [int(np.nan_to_num(block, nan=np.inf).argmax()) for block in blocks]
                rows = [[float(b.flat[k]), *divmod(k, PATCHES)] for b, k in zip(blocks, at, strict=True)]
                look["test"][name] = rows
            looks[arm].append(look)
    return looks, lengths


LOOKS, LENGTHS = make_looks()
IMAGES = np.random.default_rng(3).random((COUNT, 8, 8))


def test_it_shows_the_longest_test_tokens():
    start = Evaluation(LOOKS, IMAGES, arm="bn")
    assert start.look == 1
    for state in walk(start, 40, seed=1):
        reading, scene = state.read(), state.scene()
        batch, running = (LENGTHS[state.arm, state.look, name] for name in STATISTICS)
        ends = {"batch": batch.max((1, 2)), "running": running.max((1, 2))}
        for name, longest in ends.items():
            np.testing.assert_array_equal(reading.lengths[name], longest)
        last = max(i for i in range(DEPTH) if np.isfinite(ends["running"][i]))
        assert reading.last == last
        assert reading.token == np.unravel_index(running[last].argmax(), running[last].shape)
        apart = [i for i in range(DEPTH) if not ends["running"][i] <= 2 * ends["batch"][i]]
        assert reading.apart == (apart[0] if apart else None)
        words = [label.text for label in scene.labels]
        name = style_of(state.arm).name
        assert f"Longest of all test tokens after every block ({name}, step {reading.step})" in words
        assert ("not finite from block 3 on" in words) == (state.arm == "bn+ffnbn")
        assert f"has length {ends['batch'][-1]:.3g} by each batch's own statistics" in scene.alt
        assert f"patch {reading.token[1]} of test image {reading.token[0]}." in scene.alt
        dots = {len(item.points) for item in named(scene, "dots")}
        assert dots == {DEPTH, int(np.isfinite(ends["running"]).sum())}


def test_curves_lie_where_the_lengths_are():
    state = Evaluation(LOOKS, IMAGES, arm="bn", look=0)
    lines = {name: named(state.scene(), name)[0].points for name in STATISTICS}
    top = next(t for t in TOPS if t >= max(v.max() for v in state.read().lengths.values()))
    for name, lengths in state.read().lengths.items():
        heights = (82 + 240 - np.append(lines[name][:, 0, 1], lines[name][-1, 1, 1])) / 240  # the chart's own box
        np.testing.assert_allclose(heights, np.log(np.maximum(lengths, 1)) / np.log(top), atol=1e-9)


@pytest.mark.parametrize("lengths", [[1e3, np.nan], [np.nan, np.nan], [np.inf, 2.0]])
def test_what_is_not_finite_is_told_and_leaves_the_sheet_legible(lengths):
    rows = [[length, 0, 0] for length in lengths]
    scene = Evaluation({"bn": [{"step": 3, "test": {"batch": rows, "running": rows}}]}, IMAGES).scene()
    assert scene.overlaps() == [] and scene.labels_outside() == []
    assert ("is no longer finite" in scene.alt) == (not np.isfinite(lengths[-1]))
    assert ("the last finite one" in scene.alt) == (lengths[0] == 1e3)


@pytest.mark.parametrize(("looks", "images", "options", "words"), [
    ({}, IMAGES, {}, "looks"),
    ({"ln": [{"step": 0}]}, IMAGES, {}, "looks has .*'test'"),
    (LOOKS | {"x": LOOKS["ln"][:1]}, IMAGES, {}, "looks has unlike"),
    (LOOKS, IMAGES, {"arm": "rms"}, "arm='rms' must be one of"),
    (LOOKS, IMAGES[:3], {}, "images holds 3"),
    (LOOKS, IMAGES, {"patch": 100}, "patch=100 must divide"),
])  # fmt: skip
def test_what_it_cannot_show(looks, images, options, words):
    with pytest.raises(ValueError, match=words):
        Evaluation(looks, images, **options)
