"""The live chart: what it shows and says, what it costs, and that Stop ends a training with its record kept."""

import asyncio
import itertools
import json
import threading
from types import SimpleNamespace

import pytest

from normviz.explore.comms import deliver_comms
from normviz.explore.live import INTERVAL, SHARE
from normviz.explore.training import WAITING, LiveChart, status, training_scene
from normviz.lab import History, preset, train
from normviz.picture.png import to_png


def a_run(arm="bn", done=100, steps=400, **changes) -> History:
    probes = {"step": [0, 50], "norm2_outlier": [[2.0, 3.0], [4.0, 31.0]]}
    meta = {"classes": 10, "outlier_bound": 31.98, "seconds": 10.0}
    recipe = preset("swiglu", arm, steps=steps)
    loss = [2.0 + 1 / (i + 1) for i in range(done)]
    return History(recipe, **{"loss": loss, "probes": probes, "meta": meta} | changes)


def test_the_picture_has_the_loss_and_the_ratio_beside_its_bound():
    scene = training_scene([a_run("ln"), a_run("bn")])
    words = [label.text for label in scene.labels]
    assert words.count("400") == 2  # both axes reach to the last step to come
    assert "chance 2.30" in words and "bound √(N−1) = 31.98" in words
    assert "LN (1 run)" in scene.alt and "BN reaches 31" in scene.alt
    assert scene.overlaps() == [] and scene.labels_outside() == []
    assert to_png(scene).startswith(b"\x89PNG")


def test_without_probes_there_is_the_loss_alone():
    scene = training_scene([a_run(probes={})])
    assert "bound" not in scene.alt and scene.height < training_scene([a_run()]).height


def test_before_the_first_step_it_says_what_it_will_be():
    chart = LiveChart()
    assert chart.twin().alt == WAITING and [label.text for label in chart.twin().labels] == [WAITING]
    assert chart.on_step(a_run(done=0, probes={})) is True


def test_the_status_tells_rate_and_time_left():
    assert status(a_run()) == "BN, seed 0: step 100 of 400, loss 2.010, 10 steps/s, 30 s left"
    over = status(a_run(done=400, evals=[{"accuracy": 0.123}]))
    assert over.endswith("test accuracy 0.12, 40 steps/s, done")


class Clock:
    """A clock that moves only when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_pictures_take_their_share_of_the_time_and_no_more(monkeypatch):
    clock = Clock()
    chart, drawn = LiveChart(clock=clock), []

    def slow_picture(history, over):
        drawn.append(clock.now)
        clock.now += 0.08  # a busy machine

    monkeypatch.setattr(chart, "_draw", slow_picture)
    history = a_run(done=0, steps=10_000)
    for _ in range(5000):  # 50 seconds of steps
        clock.now += 0.01
        history.loss.append(2.0)
        assert chart.on_step(history)
    assert chart.seconds == pytest.approx(0.08 * len(drawn))
    assert chart.seconds <= 1.05 * SHARE * clock.now
    assert len(drawn) > 5 and min(b - a for a, b in itertools.pairwise(drawn)) >= INTERVAL


def test_the_last_step_of_each_run_is_drawn_even_if_not_due():
    clock = Clock()
    chart = LiveChart(clock=clock)
    for arm in ("ln", "bn"):
        history = a_run(arm, done=10, steps=10)
        chart.on_step(history)
        assert "done" in chart.shown and "aria-live" in chart.shown
    assert [run.recipe.arm for run in chart.histories] == ["ln", "bn"]
    assert "BN (1 run)" in chart.shown


def test_while_it_runs_a_screen_reader_is_left_in_peace():
    chart = LiveChart()
    chart.on_step(a_run())
    assert "step 100 of 400" in chart.shown and "aria-live" not in chart.shown
    assert (chart.controls["progress"].value, chart.controls["progress"].max) == (100, 400)


@pytest.mark.parametrize("presses", ["from the cell's thread", "from another thread"])
def test_stop_ends_a_real_training_and_keeps_its_record(presses, tmp_path):
    chart, recipe = LiveChart(), preset("tame", depth=1, width=12, steps=50, warmup=2)

    def on_step(history):
        if len(history.loss) == 5:
            click = chart.controls["stop"].click
            if presses == "from another thread":  # as JupyterLab's subshells do
                thread = threading.Thread(target=click)
                thread.start()
                thread.join()
            else:
                click()
        return chart.on_step(history)

    history = train(recipe, on_step=on_step, out=tmp_path, device="cpu", progress=False)
    assert len(history.loss) == history.meta["stopped"] == 5
    assert chart.stopped and chart.histories == [history]
    assert "the record is kept" in chart.shown
    assert len(History.load(tmp_path / "history.json").loss) == 5
    resumed = train(recipe, out=tmp_path, resume=True, device="cpu", progress=False)
    assert len(resumed.loss) == 50 and resumed.loss[:5] == history.loss


def test_a_saved_notebook_shows_how_the_run_ended(monkeypatch):
    sent = []
    monkeypatch.setattr("IPython.display.display", lambda data, **options: sent.append((data, options)))
    chart = LiveChart()
    chart.on_step(a_run(done=400))
    assert sent == []  # nobody looks
    chart._ipython_display_()
    chart.on_step(a_run())
    ((_, shown),) = sent  # pictures on the way are the widget's alone
    chart.on_step(a_run(done=400))
    data, options = sent[1]
    assert options["display_id"] == shown["display_id"] and (shown["update"], options["update"]) == (False, True)
    metadata = options["metadata"]
    assert set(data) == {"text/plain", "image/png", "application/vnd.jupyter.widget-view+json"}
    assert metadata["image/png"]["alt"] == chart.twin().alt and "BN (3 runs)" in chart.twin().alt
    assert any("Chance" in label.text for label in chart.twin().labels)  # the caption is in the picture


def test_a_stopped_chart_stops_the_arms_that_follow():
    chart = LiveChart()
    chart.stop()
    assert chart.on_step(a_run()) is False
    assert chart.controls["stop"].description == "Stopped"


class Kernel:
    """What `deliver_comms` meets of ipykernel 6: a socket with waiting messages, and who would answer them."""

    def __init__(self, *kinds: str):
        self.waiting = [[b"id", b"signature", json.dumps({"msg_type": kind}).encode()] for kind in kinds]
        self.answered, self.queued, self.callbacks = [], [], []
        self.session = SimpleNamespace(feed_identities=lambda frames, copy: ([frames[0]], frames[1:]))
        socket = SimpleNamespace(
            poll=lambda timeout: len(self.waiting), recv_multipart=lambda copy: self.waiting.pop(0)
        )
        loop = SimpleNamespace(add_callback=self.add_callback)
        self.shell_stream = SimpleNamespace(socket=socket, io_loop=loop, flush=lambda: None)
        self._parent_ident, self.parent = {"shell": b"cell"}, "the cell"
        self.saved_sigint_handler = "the idle kernel's"

    def get_parent(self, channel):
        return self.parent

    def set_parent(self, ident, parent, channel):
        self._parent_ident[channel], self.parent = ident, parent

    async def dispatch_shell(self, frames):
        self.set_parent(frames[0], "the message", "shell")
        self.saved_sigint_handler = "the cell's"
        self.answered.append(json.loads(frames[2])["msg_type"])

    def schedule_dispatch(self, dispatch, frames):
        self.queued.append(json.loads(frames[2])["msg_type"])

    def add_callback(self, callback, *args):
        self.callbacks.append(callback)


class Kernel7(Kernel):
    """ipykernel 7: a thread of its own reads the socket and passes on what is for the main thread."""

    def __init__(self, *kinds: str):
        super().__init__(*kinds)
        pair, self.shell_stream = SimpleNamespace(to_stream=self.shell_stream), None
        manager = SimpleNamespace(get_shell_channel_to_subshell_pair=lambda subshell: pair)
        self.shell_channel_thread = SimpleNamespace(manager=manager)

    def shell_main(self, subshell, frames):
        raise AssertionError("called by the loop, after the cell")

    def add_callback(self, callback, *args):
        if callback == self.shell_main:
            self.queued.append(json.loads(args[1][2])["msg_type"])
        else:
            self.callbacks.append(callback)


@pytest.mark.parametrize("make", [Kernel, Kernel7])
def test_widget_messages_are_answered_now_and_cells_later(make):
    kernel = make("comm_msg", "execute_request", "comm_msg")
    assert deliver_comms(kernel) == 2
    assert kernel.answered == ["comm_msg", "comm_msg"] and kernel.queued == ["execute_request"]
    assert (kernel.parent, kernel._parent_ident["shell"]) == ("the cell", b"cell")  # outputs stay with the cell
    assert kernel.saved_sigint_handler == "the idle kernel's"
    assert len(kernel.callbacks) == 1  # the loop looks once more
    assert deliver_comms(kernel) == 0 and len(kernel.callbacks) == 1


def test_a_message_that_waits_for_the_loop_is_an_error_not_a_hang():
    class Waiting(Kernel):
        async def dispatch_shell(self, frames):
            await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="put off"):
        deliver_comms(Waiting("comm_msg"))


def test_messages_are_left_alone_by_other_threads_and_in_other_kernels():
    kernel, found = Kernel("comm_msg"), []
    thread = threading.Thread(target=lambda: found.append(deliver_comms(kernel)))
    thread.start()
    thread.join()
    assert found == [0] and len(kernel.waiting) == 1
    assert deliver_comms(SimpleNamespace(shell_channel_thread=object())) == 0  # of another make
    assert deliver_comms() == 0  # no kernel at all
