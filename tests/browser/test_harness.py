"""The harness itself, on a small notebook of its own: what it reads is what the kernel drew."""

import nbformat
import pytest

pytestmark = pytest.mark.browser

STRIP = """
import ipywidgets as widgets
count = widgets.IntSlider(value=2, min=0, max=9, description="k")
picture = widgets.HTML()
def draw(_=None):
    cells = (f'<rect data-cell="{i},0,0,0" data-set="{i % 2}" x="{20 * i}" width="15" height="40"/>'
             for i in range(count.value))
    picture.value = f'<svg width="200" height="40">{"".join(cells)}</svg>'
count.observe(draw, "value")
draw()
widgets.VBox([count, picture])
""".strip()


@pytest.fixture
def scratch(lab):
    """A function that writes a notebook of the given code cells beside the others; returns its name."""
    _, notebooks, _ = lab

    def write(name: str, *sources: str) -> str:
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernelspec})
        nbformat.write(notebook, notebooks / name)
        return name

    return write


def test_arrow_keys_move_a_slider_and_the_picture_follows(open_lab, scratch):
    page = open_lab(scratch("strip.ipynb", STRIP, "assert count.value == 2"))
    page.run_all()
    assert page.wait_for_drawn(bool) == {(0, 0, 0, 0): 0, (1, 0, 0, 0): 1}
    page.press("k", "ArrowRight", times=3)
    drawn = page.wait_for_drawn(lambda sets: len(sets) == 5)
    assert drawn == {(i, 0, 0, 0): i % 2 for i in range(5)}
    assert page.value("k") == "5"


def test_a_failing_cell_fails_run_all(open_lab, scratch):
    page = open_lab(scratch("fails.ipynb", "1 / 0", "print('not reached')"))
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        page.run_all()


def test_console_errors_and_requests_elsewhere_are_noticed(open_lab, scratch):
    script = "<script>console.error('seen'); fetch('https://example.org/')</script>"
    page = open_lab(scratch("noisy.ipynb", f"from IPython.display import HTML\nHTML({script!r})"))
    page.run_all()
    page.page.wait_for_timeout(200)
    seen, page.errors[:] = list(page.errors), []
    assert any("seen" in error for error in seen)
    assert any(error.startswith("asked elsewhere: https://example.org/") for error in seen)


@pytest.mark.parametrize("dark", [False, True])
def test_the_theme_is_the_one_asked_for(open_lab, scratch, dark):
    page = open_lab(scratch("theme.ipynb", "1"), dark=dark)
    assert page.page.get_attribute("body", "data-jp-theme-light") == ("false" if dark else "true")
