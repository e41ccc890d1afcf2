"""The explorer of GroupNorm against torch: maps, their statistics, what gets through, and how the block is cut."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits, load_sample_images
from turns import named, walk

from normviz.explore.groups import IMAGES, MAPS, Groups
from normviz.picture.svg import to_svg
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


def check(state):
    reading = state.read()
    raw, after = oracle(state)
    here = after[state.num_groups]
    np.testing.assert_allclose(reading.raw, raw, atol=1e-5)
    np.testing.assert_allclose(reading.normalized, here, atol=1e-3)
    sets = raw.reshape(2, state.num_groups, -1)
    np.testing.assert_allclose(reading.mean, sets.mean(2), atol=1e-5)
    np.testing.assert_allclose(reading.std, sets.std(2, correction=0), atol=1e-5)
    np.testing.assert_allclose(reading.kept, here.std((2, 3), correction=0), atol=1e-3)
    np.testing.assert_allclose(reading.differs, (here[1] - here[0]).square().mean((1, 2)).sqrt(), atol=1e-3)
    caption = state.say(reading)
    left = dict(re.findall(r"([\d.]+) with G=(\d)", caption))
    assert len(re.findall(r"with G=\d", caption)) == 4
    for value, groups in left.items():
        through = (after[int(groups)][1] - after[int(groups)][0]).square().mean().sqrt()
        assert float(value) == pytest.approx(float(through), abs=0.006)
    # The block is cut as the method cuts: (image, channel) -> set
    svg = ElementTree.fromstring(to_svg(state.scene()))
    cells = [e.attrib for e in svg.iter() if "data-cell" in e.attrib]
    assert cells
    for cell in cells:
        n, c = map(int, cell["data-cell"].split(",")[:2])
        assert int(cell["data-set"]) == n * state.num_groups + c // (len(MAPS) // state.num_groups)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_turns_against_torch(seed):
    for state in walk(Groups(), 30, seed):
        check(state)


@pytest.mark.parametrize(
    ("change", "let_through"),
    [
        ({"contrast": 0.5, "brightness": 0.0}, ()),
        # "ink" and "blur" move alike, and fill a group of two
        ({"contrast": 1.0, "brightness": 0.3}, (1, 2)),
        ({"contrast": 1.0, "brightness": 0.0, "gain": 2.0}, (1, 2, 4)),
        ({"contrast": 1.0, "brightness": 0.0}, ()),
    ],
)
def test_a_change_that_moves_a_set_as_one_is_forgotten(change, let_through):
    through = Groups(**change).read().through
    assert tuple(groups for groups, value in through.items() if value > 0.02) == let_through
    assert all(value < 0.003 for groups, value in through.items() if groups not in let_through)


def test_the_caption_names_the_ends_and_the_change():
    assert "GroupNorm, G=8, with the sets of InstanceNorm: 8 maps of the temple in groups of 1" in Groups(8).scene().alt
    assert "G=1, with the sets of LayerNorm (whole sample)" in Groups().scene().alt
    scene = Groups(4, image="digit", brightness=-0.3, gain=2.0).scene()
    assert "GroupNorm, G=4: 8 maps of the digit in groups of 2" in scene.alt
    assert "the changed image is 0.5 · image −0.3, its map “edge |” times 2." in scene.alt
    words = {label.text for label in scene.labels}
    assert {
        "changed = 0.5 · original − 0.3",
        "and its map “edge |” × 2",
        "8 sets of 192 cells, 2NG = 16 statistics",
    } <= words


def test_what_gets_through_is_as_high_as_its_number():
    scene = Groups().scene()
    bars = {int(bar.titles[0][2]): bar for bar in named(scene, "through")}
    through = Groups().read().through
    high = {groups: np.ptp(bar.points[0, :, 1]) for groups, bar in bars.items()}
    assert high[2] / high[1] == pytest.approx(through[2] / through[1])
    assert [groups for groups, bar in bars.items() if bar.width > 1] == [1]
