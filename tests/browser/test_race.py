"""A race in JupyterLab: stopped, resumed, changed by the reader's hands, and taken up again after its kernel died."""

import base64
import re
from io import BytesIO

import matplotlib.image
import numpy as np
import pytest
from browser.pages import LAB_READY
from browser.race_checks import CELLS, FILM, STEPS, film_plays, race_and_restart
from browser.servers import write_notebook

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_a_race_obeys_the_reader_and_survives_its_kernel(open_lab, lab):
    page = open_lab(write_notebook(lab[1], "race.ipynb", *CELLS))

    def restart():
        page.page.evaluate("jupyterapp.shell.currentWidget.sessionContext.restartKernel()")
        page.page.evaluate(LAB_READY)

    race_and_restart(page, restart)
    made, shown, went_on, checked, replay = page.cells()
    said = ["".join(o.get("text", "") for o in cell["outputs"]) for cell in (made, shown, went_on, checked)]
    begun, paused, end = (int(re.search(r"(?:from|at) (\d+)", text)[1]) for text in said[:3])
    assert 0 < begun < paused < end and "done to all three" in said[3]
    # What is saved: the race as it ended, and the replay, as pictures with their words
    alts = [picture(cell) for cell in (shown, replay)]
    assert alts[0].startswith(f"A race of LN, BN and BN + FFN-BN, {end} of {STEPS} steps.")
    moments = re.match(r"The race at steps (0(?:, \d+){4})\.", alts[1])[1].split(", ")
    assert int(moments[-1]) < end
    assert int(moments[-1]) >= int(re.search(r"Before step (\d+)", alts[0])[1])
    assert all(re.search(r"memory is cleared[;.] before step \d+ contrast jitter", alt, re.I) for alt in alts)


def picture(cell: dict) -> str:
    """The words of a cell's only picture: a PNG that is one, and no other that a page could show in its place."""
    (output,) = [o for o in cell["outputs"] if "image/png" in o.get("data", {})]
    assert not {"text/html", "image/svg+xml"} & set(output["data"])
    png = matplotlib.image.imread(BytesIO(base64.b64decode("".join(output["data"]["image/png"]))), format="png")
    assert png.shape[1] >= 944 and len(np.unique(png[:, :, 0])) > 8
    return output["metadata"]["image/png"]["alt"]


def test_a_film_of_tokens_plays(open_lab, lab):
    film_plays(open_lab(write_notebook(lab[1], "film.ipynb", FILM)))
