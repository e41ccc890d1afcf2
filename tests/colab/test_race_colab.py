"""A race in the classic page with Colab's versions, in the reader's hands."""

import pytest
from browser.pages import CLASSIC_QUIET
from browser.race_checks import CELLS, FILM, film_plays, race_and_restart
from browser.servers import write_notebook

pytestmark = [pytest.mark.colab, pytest.mark.browser]


def test_a_race_obeys_the_reader_and_survives_its_kernel(classic, tmp_path):
    page = classic(write_notebook(tmp_path / "notebooks", "race.ipynb", *CELLS))

    def restart():
        page.page.evaluate("Jupyter.notebook.kernel.restart()")
        page.page.wait_for_function("!Jupyter.notebook.kernel.is_connected()")
        page.page.evaluate("window.quietSince = null")
        page.page.wait_for_function(CLASSIC_QUIET)

    race_and_restart(page, restart)
    said = page.page.locator(".output_stdout").all_inner_texts()
    assert any("done to all three" in text for text in said)


def test_a_film_of_tokens_plays(classic, tmp_path):
    film_plays(classic(write_notebook(tmp_path / "notebooks", "film.ipynb", FILM)))
