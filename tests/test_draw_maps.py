"""`nv.draw.block(x, maps=True)`: the maps, the table and the block hold the same cells, each in its place."""

import numpy as np
import pytest

from normviz.draw import block_scene
from normviz.picture.scene import Shapes


def shapes(scene, name):
    return [item for item in scene.items if isinstance(item, Shapes) and item.name == name]


@pytest.mark.parametrize("shape", [(4, 8, 4, 4), (3, 2, 2, 5), (2, 5, 1, 1)])
def test_maps_table_and_block_agree(shape):
    x = np.random.default_rng(0).normal(size=shape)
    scene = block_scene(x, maps=True)
    n, c, h, w = shape
    tiles, (table,) = shapes(scene, "map"), shapes(scene, "front")
    assert [len(tile.fills) for tile in tiles] == [h * w] * (n * c)
    # A column of the table is a map of sample 0, and the table is the front of the block
    columns = np.array(table.fills).reshape(h * w, c)
    for k in range(c):
        assert columns[:, k].tolist() == tiles[k].fills
    front = next(item for item in shapes(scene, "cell") if len(item.fills) == c * h * w)
    places = {tuple(map(int, at.split(","))): fill for (at, _), fill in zip(front.data, front.fills, strict=True)}
    for p in range(h * w):
        for k in range(c):
            assert places[0, k, p // w, p % w] == columns[p, k]
    assert f"{n} times {c} maps of {h} × {w}" in scene.alt
    boxes = np.concatenate([item.points.reshape(-1, 2) for item in [*tiles, table]])
    assert boxes.min() >= 0 and (boxes <= [scene.width, scene.height]).all()


def test_maps_take_no_method():
    with pytest.raises(ValueError, match="maps=True needs method=None, got 'batch'"):
        block_scene(np.ones((2, 2, 2, 2)), "batch", maps=True)
