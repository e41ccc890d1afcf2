"""A chart of trainings as they run, with a button that ends them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from html import escape

import ipywidgets as w

from normviz.picture.colors import MUTED
from normviz.picture.comms import deliver_comms
from normviz.picture.curves import (
    loss_curves,
    outlier_ratios,
    ratio_curves,
    style_of,
    with_caption,
)
from normviz.picture.figures import NOTEBOOK_WIDTH
from normviz.picture.scene import Label, Scene, arrange
from normviz.picture.widgets import COLORS, Explorer

SHARE = 0.02  # of the time that the chart may take
INTERVAL = 0.5  # seconds between two pictures, at least
PANEL = (NOTEBOOK_WIDTH, 270)
WAITING = "A live chart: the curves of a training grow here while its cell runs."


def live_scene(histories: Iterable) -> Scene:
    """Loss curves of every run above their outlier ratios beside the bound; both axes reach to the last step to come.

    histories: of `normviz.lab.train`, finished or not; those without a step are left out.
    """
    shown = [history for history in histories if history.loss]
    if not shown:
        return Scene(NOTEBOOK_WIDTH, 44, WAITING, [Label(12, 27, WAITING, 13, color=MUTED)])
    steps = max(history.recipe.steps for history in shown)
    panels = [loss_curves(shown, chance=shown[-1].chance, steps=steps, size=PANEL)]
    if ratios := outlier_ratios(shown):
        bound = max(history.meta["outlier_bound"] for history in shown)
        panels.append(ratio_curves(ratios, bound, steps=steps, size=PANEL))
    return arrange(panels)


def status(history) -> str:
    """Where a run is: step, loss, last test accuracy, steps a second and the time left."""
    done, steps = len(history.loss), history.recipe.steps
    text = f"{style_of(history.recipe.arm).name}, seed {history.recipe.seed}: step {done} of {steps}"
    if not done:
        return text
    text += f", loss {history.loss[-1]:.3f}"
    if history.evals:
        text += f", test accuracy {history.evals[-1]['accuracy']:.2f}"
    rate = done / max(history.meta["seconds"], 1e-9)
    text += f", {rate:.3g} steps/s"
    return text + (f", {(steps - done) / rate:.0f} s left" if done < steps else ", done")


class LiveChart(Explorer):
    """Loss and outlier ratio of trainings while they run, with a Stop button.

        chart = nv.LiveChart()
        display(chart)
        history = train(recipe, on_step=chart.on_step, progress=False)

    One chart may follow several runs in turn; `histories` are those it has seen.  Stop ends the run that is on and
    every later one of this chart; `stopped` says so.  The run keeps its record, as one does whose cell is interrupted.

    Pictures are drawn when they are due, not every step: they take about `SHARE` of the time at most; `seconds` is
    what they have taken.
    """

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter):
        self.histories: list = []
        self.seconds = 0.0
        self._clock, self._due = clock, 0.0
        self._stop = threading.Event()  # the button's click may come in a thread of its own
        self._bar = w.IntProgress(value=0, min=0, max=1, layout=w.Layout(width="320px"))
        self._button = w.Button(
            description="Stop",
            tooltip="End the training after this step; what was recorded is kept",
            icon="stop",
        )
        self._button.on_click(lambda button: self.stop())
        self.controls = {"stop": self._button, "progress": self._bar}
        row = w.HBox([self._button, self._bar], layout=w.Layout(flex_flow="row wrap", align_items="center"))
        super().__init__([row])
        self._paint(self._scene())

    @property
    def stopped(self) -> bool:
        """Whether Stop was pressed."""
        return self._stop.is_set()

    def stop(self) -> None:
        """What the button does: the next step is the last."""
        self._stop.set()
        self._button.description = "Stopping"

    def on_step(self, history) -> bool:
        """To be called with the growing history, see `normviz.lab.train`; False when Stop was pressed."""
        now = self._clock()
        if not any(history is known for known in self.histories):
            self.histories.append(history)
        deliver_comms()
        over = self.stopped or len(history.loss) >= history.recipe.steps
        if over or now >= self._due:
            self._draw(history, over)
            spent = self._clock() - now
            self.seconds += spent
            self._due = self._clock() + max(INTERVAL, spent / SHARE)
        return not self.stopped

    def _draw(self, history, over: bool) -> None:
        self._bar.max, self._bar.value = history.recipe.steps, len(history.loss)
        line = status(history)
        if self.stopped:
            self._button.description = "Stopped"
            line += "; stopped, the record is kept"
        with self._text.hold_sync():  # one message, though the text is set twice
            self._paint(self._scene(), f"<p>{escape(line)}</p>")
            if not over:  # a screen reader is told of the end, not of every picture
                self._text.value = f'<div style="{COLORS};padding:6px 12px">{escape(line)}</div>'

    def _scene(self) -> Scene:
        return live_scene(self.histories)

    def twin(self):
        scene = self._scene()
        return with_caption(scene) if self.histories else scene
