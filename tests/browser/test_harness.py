"""The harness itself: it notices whatever goes wrong on a page, and an explorer that shows something else."""

import pytest
from browser.driver import Driver, explorers
from browser.servers import write_notebook

pytestmark = pytest.mark.browser


def test_a_failing_cell_console_errors_and_requests_elsewhere_are_noticed(open_lab, lab):
    script = "<script>console.error('seen'); fetch('https://example.org/')</script>"
    noise = f"from IPython.display import HTML\nHTML({script!r})"
    page = open_lab(write_notebook(lab[1], "fails.ipynb", noise, "1 / 0", "print('not reached')"))
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        page.run_all()
    page.page.wait_for_timeout(200)
    seen, page.errors[:] = list(page.errors), []
    assert any("seen" in error for error in seen)
    assert any(error.startswith("asked elsewhere: https://example.org/") for error in seen)


def test_an_explorer_that_shows_something_else_is_noticed(open_lab, lab, monkeypatch):
    """ε, which no notebook shows: driven, and then expected to be what it is not."""
    page = open_lab(write_notebook(lab[1], "epsilon.ipynb", "import normviz as nv", "nv.explore.epsilon()"))
    page.run_all()
    (epsilon,) = explorers(page)
    epsilon.walk()
    epsilon.screenshot("light")
    epsilon.is_legible()
    monkeypatch.setattr("browser.driver.WAIT_MS", 300)
    with pytest.raises(AssertionError):
        Driver(page, epsilon.state.turn(method="batch"))
