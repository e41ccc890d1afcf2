"""A race in the reader's hands: the JupyterLab and the Colab tests share it."""

import re

from browser.pages import NotebookPage

STEPS = 20_000  # an hour of them: the test stops early or fails
_NETWORKS = f"""
from pathlib import Path
import numpy as np
import torch
from IPython.display import display
import normviz as nv
from normviz.lab import preset, steps

torch.set_num_threads(1)
tiny = dict(depth=2, width=12, batch=16, steps={STEPS}, warmup=2, eval_every={STEPS}, eval_images=20, probe_every=0)
runs = {{arm: steps(preset("swiglu", arm, **tiny), device="cpu") for arm in ("ln", "bn", "bn+ffnbn")}}
race = nv.explore.Race(runs, out=Path("kept"), save_every=10)
print("from", race.step)
""".strip()
_RUN = """
display(race)
race.run()
print("paused at", race.step)
""".strip()
_GO_ON = """
assert race.buttons["Stop"].disabled and "race.run() goes on" in race.shown and race.events == []
paused = race.step
race.run()
print("paused again at", race.step)
""".strip()
_CHECK = f"""
(forgot, one), (shocked, other) = race.events
assert (one, other) == ("forget", "shock") and 0 < paused <= forgot < shocked < race.step < {STEPS}
for arm, run in race.runs.items():
    assert len(run.history.loss) == run.step == race.step  # all of them, and their records
    assert run.history.meta["events"] == [[forgot, "forget", 1.0], [shocked, "shock", 1.0]]
    assert (run.recipe.sigma_at(shocked - 1), run.recipe.sigma_at(shocked)) == (0.0, 1.0)
    at, moved = race.moves[arm]
    assert abs(moved[at == forgot][0] - 1) < 0.02  # a step of ±lr each: the memory was empty
assert f"Before step {{forgot}} the optimizers' memory is cleared" in race.say()
print("done to all three")
""".strip()
CELLS = (_NETWORKS, _RUN, _GO_ON, _CHECK, "race.replay()")


class RacePage:
    """What a reader sees and touches of the only race on a page, whose cell runs."""

    def __init__(self, page: NotebookPage):
        self.page = page.page
        self.root = self.page.locator(".normviz").first

    def button(self, name: str):
        return self.root.locator("button", has_text=re.compile(rf"^\s*{name}\s*$"))

    def step(self, beyond: int = 0) -> int:
        """The step that is shown, once it is beyond another one."""
        find = "([beyond]) => { const found = /Step (\\d+) of/.exec(document.querySelector('.normviz')?.textContent); "
        self.page.wait_for_function(f"{find} return found && +found[1] > beyond; }}", arg=[beyond])
        return int(re.search(r"Step (\d+) of", self.root.text_content())[1])

    def marked(self, what: str) -> None:
        """Both charts have an upright for an event, and one of them says which and when."""
        self.root.locator("text", has_text=re.compile(rf"^{what} \d+$")).first.wait_for(state="attached")


def race_and_restart(page: NotebookPage, restart) -> None:
    """A kernel dies in mid-race; its notebook is run again, and the reader's hands do all that they can do.

    restart: ends the kernel while the cell runs, and returns when there is another one.
    """
    page.start()
    race = RacePage(page)
    reached = race.step(10)  # it moves on by itself
    restart()
    page.start()
    race.page.locator(".normviz").first.wait_for()
    before = race.step()
    assert before >= reached // 10 * 10  # from its folder, which has every tenth step
    race.step(before)

    race.button("Stop").click()  # the next cell goes on
    race.page.get_by_text(re.compile(r"^\s*paused at \d+\s*$")).wait_for()
    now = race.step(race.step())
    race.button("forget").click()
    race.marked("forget")
    race.step(now)

    race.button("Stop").focus()
    race.page.keyboard.press("Tab")
    race.page.keyboard.press("Tab")
    race.page.keyboard.press("Space")  # shock
    race.marked("shock")
    heading = race.root.locator("text", has_text=re.compile("^Tokens of LN before the FFN, step"))
    race.root.locator("button", has_text=re.compile(r"^\s*LN\s*$")).press("Enter")
    heading.wait_for(state="attached")
    race.step(race.step())
    page.screenshot("race-running")
    race.button("Stop").press("Space")
    page.finish()
    for name in ("Stop", "forget", "shock"):
        assert race.button(name).is_disabled() == (name == "Stop")  # it is paused, not over
    assert "race.run() goes on." in race.root.text_content()
    page.screenshot("race-paused")


FILM = """
import numpy as np
import normviz as nv
rng = np.random.default_rng(0)
lengths = {arm: np.exp(rng.normal(0, 0.5, (30, 4, 6, 16))) for arm in ("ln", "bn")}
film = nv.explore.Tokens(lengths, rng.integers(0, 17, (6, 8, 8)), range(0, 60, 2))
film.show(0)
film
""".strip()


def film_plays(page: NotebookPage) -> None:
    """The film runs by itself when its button is pressed, and goes frame by frame with the arrow keys."""
    page.run_all()
    root = page.page.locator(".normviz").first
    said = "k => +/Step (\\d+):/.exec(document.querySelector('.normviz').textContent)[1] "
    page.page.wait_for_function(f"{said} === 0")
    buttons = root.locator(".widget-play button")
    buttons.first.press("Enter")
    page.page.wait_for_function(f"{said} >= 6")
    buttons.nth(1 if buttons.count() > 3 else 0).press("Enter")  # ipywidgets 7 has a button of its own for the pause
    page.page.wait_for_timeout(1000)
    reached = page.ask("", "film.steps[film.frame]")
    assert 6 <= reached < 58
    page.handle(root.locator(".widget-hslider").first).press("ArrowLeft")
    page.page.wait_for_function(f"{said} === {reached - 2}")
    assert page.ask("", "film.slider.label") == str(reached - 2)
    page.screenshot("film")
