"""A chart of trainings as they run, with a button that ends them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from html import escape

import ipywidgets as w

from normviz.arms import style_of
from normviz.draw.common import NOTEBOOK_WIDTH
from normviz.draw.runs import loss_scene, outlier_ratios, ratios_scene
from normviz.explore.comms import deliver_comms
from normviz.explore.live import FLOW, Running
from normviz.picture.color import MUTED
from normviz.picture.scene import Label, Scene, arrange

WAITING = "A live chart: the curves of a training grow here while its cell runs."


def training_scene(histories: Iterable) -> Scene:
    """Loss curves of every run above their outlier ratios beside the bound; both axes reach to the last step to come.

    histories: of `normviz.lab.train`, finished or not; those without a step are left out.
    """
    shown = [history for history in histories if history.loss]
    if not shown:
        return Scene(NOTEBOOK_WIDTH, 44, [Label(12, 27, WAITING, 13, color=MUTED)], WAITING)
    look = {"steps": max(history.recipe.steps for history in shown), "size": (NOTEBOOK_WIDTH, 270)}
    panels = [loss_scene(shown, chance=shown[-1].chance, **look)]
    if ratios := outlier_ratios(shown):
        panels.append(ratios_scene(ratios, max(history.meta["outlier_bound"] for history in shown), **look))
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
    return f"{text}, {rate:.3g} steps/s, {f'{(steps - done) / rate:.0f} s left' if done < steps else 'done'}"


class LiveChart(Running):
    """Loss and outlier ratio of trainings while they run, with a Stop button.

        chart = nv.explore.LiveChart()
        display(chart)
        history = train(recipe, on_step=chart.on_step, progress=False)

    One chart may follow several runs in turn; `histories` are those it has seen.  Stop ends the run that is on and
    every later one of this chart; `stopped` says so.  The run keeps its record, as one does whose cell is interrupted.
    A saved notebook shows how the last run ended.

    Pictures are drawn when they are due, not every step: they take about a fiftieth of the time at most; `seconds` is
    what they have taken.
    """

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter):
        self.histories: list = []
        self._stop = threading.Event()  # the button's click may come in a thread of its own
        hint = "End the training after this step; what was recorded is kept"
        button = w.Button(description="Stop", tooltip=hint, icon="stop")
        button.on_click(lambda _: self.stop())
        bar = w.IntProgress(value=0, min=0, max=1, layout=w.Layout(width="320px"))
        self.controls = {"stop": button, "progress": bar}
        super().__init__([w.HBox([button, bar], layout=w.Layout(**FLOW))], clock)
        self.paint(training_scene([]))

    @property
    def stopped(self) -> bool:
        """Whether Stop was pressed."""
        return self._stop.is_set()

    def stop(self) -> None:
        """What the button does: the next step is the last."""
        self._stop.set()
        self.controls["stop"].description = "Stopping"

    def on_step(self, history) -> bool:
        """To be called with the growing history, see `normviz.lab.train`; False when Stop was pressed."""
        if not any(history is known for known in self.histories):
            self.histories.append(history)
        deliver_comms()
        over = self.stopped or len(history.loss) >= history.recipe.steps
        if over or self._clock() >= self._due:
            with self._drawing():
                self._draw(history, over)
        return not self.stopped

    def _draw(self, history, over: bool) -> None:
        bar, line = self.controls["progress"], status(history)
        bar.max, bar.value = history.recipe.steps, len(history.loss)
        if self.stopped:
            self.controls["stop"].description = "Stopped"
            line += "; stopped, the record is kept"
        # A screen reader is told of the end, not of every picture
        self.paint(training_scene(self.histories), f"<p>{escape(line)}</p>", spoken=over)
        if over:
            self._publish()

    def twin(self) -> Scene:
        return super().twin() if self.histories else self.painted
