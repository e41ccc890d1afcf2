"""The pictures of images/ are what the code draws."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from PIL import Image

from normviz.__main__ import main
from normviz.arms import HUES
from normviz.draw.gallery import IMAGES, write_image
from normviz.picture.color import rgb

COMMITTED = Path(__file__).resolve().parents[1] / "images"
#: Fonts are rasterised a little differently from one freetype to the next: only so many pixels may differ clearly
DIFFERENT, SHARE = 0.25, 0.002


def clearly_different(a: np.ndarray, b: np.ndarray) -> float:
    """The share of pixels whose colour is clearly another."""
    return float((np.abs(a[..., :3] - b[..., :3]).max(axis=-1) > DIFFERENT).mean())


@pytest.mark.parametrize("name", IMAGES)
def test_the_committed_picture_is_what_the_code_draws(name, tmp_path):
    fresh, kept = write_image(name, tmp_path), COMMITTED / name
    with Image.open(fresh) as a, Image.open(kept) as b:
        assert a.text["Description"] == b.text["Description"] == IMAGES[name]().alt
    a, b = imread(fresh), imread(kept)
    assert a.shape == b.shape
    assert clearly_different(a, b) < SHARE, "run `make images`"


def test_the_comparison_sees_a_cell_of_another_colour():
    picture = imread(COMMITTED / "ln.png")
    changed = picture.copy()
    changed[200:240, 300:350, :3] = rgb(HUES[5]) / 255  # as large as a cell of the block in ln.png
    assert clearly_different(picture, changed) > SHARE


def test_every_committed_picture_has_its_code():
    assert {path.name for path in COMMITTED.glob("*.png")} == set(IMAGES)


def test_the_command_names_what_it_does_not_know(capsys):
    assert main(["images", "lnn.png"]) == 2
    assert "Did you mean 'ln.png'?" in capsys.readouterr().err
    with pytest.raises(ValueError, match="is unknown"):
        write_image("lnn.png", Path())


def test_the_command_writes_where_it_is_told(tmp_path, capsys):
    assert main(["images", "ln.png", "--out", str(tmp_path / "new")]) == 0
    assert (tmp_path / "new" / "ln.png").is_file()


def test_claims_need_their_markers(tmp_path, capsys):
    file = tmp_path / "README.md"
    file.write_text("no table here")
    assert main(["claims", "--write", str(file)]) == 2 and file.read_text() == "no table here"


def test_the_readme_holds_the_ledger_of_the_recorded_runs():
    from normviz.lab.claims import insert

    readme = (COMMITTED.parent / "README.md").read_text(encoding="utf-8")
    assert insert(readme, COMMITTED.parent / "results") == readme, "run `make claims`"
