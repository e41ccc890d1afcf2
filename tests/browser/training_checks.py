"""A training that runs in a notebook and is stopped by its button; the JupyterLab and the Colab tests share it."""

import re

from browser.pages import NotebookPage

STEPS = 20_000  # half an hour of them: the test ends early or fails
_TRAIN = f"""
from IPython.display import display
import torch
import normviz as nv
from normviz.lab import preset, train

torch.set_num_threads(1)
chart = nv.explore.LiveChart()
display(chart)
recipe = preset("tame", "bn", depth=2, width=24, steps={STEPS}, eval_every=5000, eval_images=100)
history = train(recipe, on_step=chart.on_step, device="cpu", progress=False)
print("said by the training's cell")
""".strip()
_CHECK = f"""
assert chart.stopped and 0 < len(history.loss) < {STEPS}
assert history.meta["stopped"] == len(history.loss)
print("kept", len(history.loss))
""".strip()
CELLS = (_TRAIN, _CHECK)


def stop_by_keyboard(page: NotebookPage, name: str) -> None:
    """Run the notebook, press Stop once curves are seen to grow; its cells end, the checks in them hold."""
    page.start()
    text = page.page.locator(".normviz p", has_text="steps/s")
    text.wait_for()
    first = text.inner_text()
    page.page.wait_for_function(
        "first => ![...document.querySelectorAll('.normviz p')].some(e => e.innerText === first)", arg=first
    )  # it moves on by itself
    page.screenshot(f"training-{name}")
    button = page.page.locator(".jupyter-button", has_text=re.compile(r"^\s*Stop\s*$"))
    button.focus()
    page.page.keyboard.press("Enter")
    page.page.locator(".normviz p", has_text="stopped, the record is kept").wait_for()
    page.finish()
    page.screenshot(f"training-{name}-stopped")
