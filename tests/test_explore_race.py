"""The race: the same trainings as alone, what the reader's hands do to them, and what is shown of it."""

import signal
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from normviz.explore import race as module
from normviz.explore.live import INTERVAL, SHARE
from normviz.explore.race import COLUMNS, Race, adamw_move
from normviz.lab import History, preset, steps
from normviz.lab.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from normviz.lab.errors import CheckpointError
from normviz.lab.probe import token_lengths
from normviz.lab.training import Training
from normviz.series import smooth

ARMS = ("ln", "bn", "bn+ffnbn")
TINY = {
    "depth": 2, "width": 12, "steps": 8, "warmup": 2, "batch": 16, "eval_every": 4, "eval_images": 20, "probe_every": 0,
}  # fmt: skip


def one(arm="bn", kind=steps, **changes):
    return kind(preset("swiglu", arm, **TINY | changes), device="cpu")


def three(kind=steps, **changes) -> dict:
    return {arm: one(arm, kind, **changes) for arm in ARMS}


def alone(arm, act=lambda run: None, **changes) -> Training:
    """The same training without a race; `act` is called before every step."""
    run = one(arm, **changes)
    while run.step < run.recipe.steps:
        act(run)
        run.advance()
        run.read()
    return run


def same(one, other) -> bool:
    """The same record and the same network, to the last bit."""
    states = zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True)
    return one.history.loss == other.history.loss and all(torch.equal(a, b) for a, b in states)


# The trainings ---------------------------------------------------------------------------------------------


def test_a_race_trains_each_network_as_it_would_train_alone():
    race = Race(three())
    race.run()
    for arm, run in race.runs.items():
        reference = alone(arm)
        assert same(run, reference)
        assert [e["loss"] for e in run.history.evals] == [e["loss"] for e in reference.history.evals]
    assert race.step == 8 and race.events == [] and "events" not in run.history.meta


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_networks_step_side_by_side_where_torch_has_one_thread(threads, monkeypatch):
    seen, advance = set(), Training.advance
    monkeypatch.setattr(Training, "advance", lambda run: seen.add(threading.get_ident()) or advance(run))
    race = Race(three(sigma=1.0))
    race.run()
    monkeypatch.undo()
    assert (seen == {threading.get_ident()}) == (threads > 1)
    assert all(same(run, alone(arm, sigma=1.0)) for arm, run in race.runs.items())


def test_a_step_that_fails_ends_the_race_with_its_own_error(threads):
    race = Race(three())
    race.runs["bn"].model.head = None
    with pytest.raises(TypeError):
        race.run()
    assert race.buttons["Stop"].disabled and race.step == 0


def test_networks_step_in_turn():
    order = []

    class Noted(Training):
        def advance(self):
            order.append((self.step, self.recipe.arm))
            super().advance()

    Race(three(Noted)).run(until=3)
    assert order == [(step, arm) for step in range(3) for arm in ARMS]


def test_each_ends_by_itself():
    race = Race({"short": one(steps=3), "long": one(steps=6)})
    race.run()
    assert [run.step for run in race.runs.values()] == [3, 6] == [len(h.loss) for h in race.histories.values()]


def test_run_goes_on_where_it_stopped():
    race = Race(three())
    race.run(until=3)
    assert race.step == 3
    race.run(until=3)
    assert race.step == 3
    race.run()
    assert race.step == 8 and same(race.runs["bn"], alone("bn"))
    race.run()  # once more does nothing
    assert race.step == 8


def test_losses_that_come_every_tenth_step_as_on_a_gpu():
    runs = three(steps=25, eval_every=25)
    for run in runs.values():
        run.read_every = {10, 25}
    race = Race(runs)
    race.run(until=17)
    assert len(race.histories["bn"].loss) == 17  # a pause brings the record up to date
    race.run()
    assert race.histories["bn"].loss == alone("bn", steps=25, eval_every=25).history.loss


# The reader's hands ----------------------------------------------------------------------------------------


def clear(run):
    if run.step == 4:
        run.optimizer.state.clear()


def jitter(run):
    if run.step == 4:
        run.recipe = run.batches.recipe = replace(run.recipe, sigma=1.0, sigma_from=0.0)


@pytest.mark.parametrize(("what", "act"), [("forget", clear), ("shock", jitter)])
@pytest.mark.parametrize("how", ["planned", "called", "button"])
def test_an_event_does_to_every_network_what_it_says(what, act, how):
    race = Race(three())
    if how == "planned":
        race.at(4, what)
    else:
        race.run(until=4)
        before = race.runs["bn"].recipe
        {"called": getattr(race, what), "button": race.buttons[what].click}[how]()
        assert race.events == [(4, what)]  # at once
        if what == "forget":
            assert not any(run.optimizer.state for run in race.runs.values())
        else:
            changed = race.runs["bn"].recipe
            assert (changed.sigma, before.sigma) == (1.0, 0.0) == (changed.sigma_at(4), changed.sigma_at(3))
    race.run()
    assert race.events == [(4, what)]
    for arm, run in race.runs.items():
        assert same(run, alone(arm, act)) and not same(run, alone(arm))
        assert run.history.meta["events"] == [[4, what, 1.0]]


def test_a_shock_starts_at_its_step_whatever_the_number_of_steps():
    for count in (7, 49, 400):
        run = one(steps=count)
        for step in range(0, count, 3):
            module._apply(module.Event(step, "shock", 0.5), run)
            assert run.recipe.sigma_at(step) == 0.5 and (step == 0 or run.recipe.sigma_at(step - 1) == 0.0)


def test_buttons_and_threads_reach_a_race_that_is_on(monkeypatch):
    race, rounds = Race(three()), []

    def deliver():
        rounds.append(race.step)
        if race.step == 2:
            race.buttons["forget"].click()
        if race.step == 3:
            thread = threading.Thread(target=race.buttons["shock"].click)  # as JupyterLab's subshells do
            thread.start()
            thread.join()
        if race.step == 5:
            assert not race.buttons["Stop"].disabled
            race.buttons["Stop"].click()

    monkeypatch.setattr(module, "deliver_comms", deliver)
    race.run()
    assert rounds == [0, 1, 2, 3, 4, 5] and race.step == 5
    assert race.events == [(2, "forget"), (3, "shock")]
    assert race.buttons["Stop"].disabled and "goes on" in race.shown
    monkeypatch.setattr(module, "deliver_comms", lambda: None)
    race.run()
    assert race.step == 8 and race.buttons["forget"].disabled and "over" in race.shown


def test_an_interrupt_lets_the_round_end_and_a_second_one_does_not(threads):
    class Interrupted(Training):
        times = 1

        def advance(self):
            if self.recipe.arm == "bn" and self.step == 2:
                for _ in range(self.times):
                    signal.raise_signal(signal.SIGINT)
            super().advance()

    before = signal.getsignal(signal.SIGINT)
    race = Race(three(Interrupted))
    race.run()
    assert race.step == 3 and {run.step for run in race.runs.values()} == {3}
    race.run()
    assert same(race.runs["bn"], alone("bn"))
    race = Race(three(Interrupted))
    Interrupted.times = 2
    race.run()
    assert [run.step for run in race.runs.values()] == ([3, 3, 3] if threads == 1 else [3, 2, 2])
    Interrupted.times = 0
    race.forget()  # for those who have not come so far, when they have
    assert race.events == [(3, "forget")]
    race.run()

    def third(run):
        if run.step == 3:
            run.forget()

    assert all(same(run, alone(arm, third)) for arm, run in race.runs.items())
    assert signal.getsignal(signal.SIGINT) is before


def test_refusals_name_what_came():
    with pytest.raises(ValueError, match="runs="):
        Race({})
    with pytest.raises(TypeError, match=r"runs\['bn'\] has no .advance"):
        Race({"bn": 3})
    with pytest.raises(ValueError, match="recorded has 'ln'"):
        Race({"bn": one()}, recorded={"ln": []})
    race = Race({"bn": one()})
    for wrong in (-1, 8):
        with pytest.raises(ValueError, match=f"step={wrong}"):
            race.at(wrong, "forget")
    with pytest.raises(ValueError, match="what='sleep'"):
        race.at(3, "sleep")
    with pytest.raises(ValueError, match="until=0"):
        race.run(until=0)
    with pytest.raises(ValueError, match="before the first step"):
        race.replay()
    race.run()
    with pytest.raises(ValueError, match="over"):
        race.forget()


# What is measured ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forget", [False, True])
def test_the_move_is_what_a_step_did_to_the_parameters(forget):
    run = one(weight_decay=0.2, beta2=0.95)
    for step in range(5):
        run.advance()
        if forget and step == 3:
            run.forget()
        before = {p: p.detach().double().clone() for p in run.model.parameters()}
    run.advance()
    moved = []
    for group in run.optimizer.param_groups:
        lr, decay = group["lr"], group["weight_decay"]
        moved += [((before[p] - p.detach().double() - lr * decay * before[p]) / lr).flatten() for p in group["params"]]
    expected = torch.cat(moved).square().mean().sqrt()
    assert float(adamw_move(run.optimizer)) == pytest.approx(float(expected), rel=1e-4)


def test_the_first_step_is_one_of_signs_and_a_cleared_or_other_optimizer_has_none():
    run = one()
    assert adamw_move(run.optimizer) is None
    run.advance()
    assert float(adamw_move(run.optimizer)) == pytest.approx(1.0, abs=0.02)
    run.forget()
    assert adamw_move(run.optimizer) is None
    run = one(optimizer="sgd")
    run.advance()
    assert adamw_move(run.optimizer) is None
    race = Race({"bn": one(optimizer="sgd")})
    race.run()
    assert len(race.moves["bn"][0]) == 0 and "AdamW last" not in race.say()


def test_after_forgetting_the_race_shows_steps_of_signs_again():
    race = Race(three(steps=40))
    race.at(30, "forget")
    race.run()
    for at, values in race.moves.values():
        assert values[list(at).index(30)] == pytest.approx(1.0, abs=0.02)
        assert values[list(at).index(29)] < 0.9
        assert 20 <= len(at) <= 40


def test_the_field_is_the_length_of_every_token_before_the_ffn():
    race, twin = Race({"bn": one(batch=64)}), one(batch=64)
    race.run(until=1)
    seen = []
    for block in twin.model.blocks:
        block.norm2.register_forward_pre_hook(lambda m, x: seen.append(token_lengths(x[0]).flatten().numpy()))
    twin.advance()
    field = race.fields[0]["bn"]
    assert field.shape == (2, COLUMNS) and seen[0].shape == (1024,)
    for row, lengths in zip(field, seen, strict=True):
        ratios = np.sort(lengths / np.sqrt((lengths.astype(float) ** 2).mean()))
        assert row[[0, -1]] == pytest.approx(ratios[[0, -1]], rel=1e-5)
        assert np.isin(row.round(4), ratios.astype(np.float32).round(4)).mean() > 0.9 and (np.diff(row) >= 0).all()
    assert not any(block.norm2._forward_pre_hooks for block in race.runs["bn"].model.blocks)
    assert f"{field[:, -1].max():.3g} times" in race.say()


def test_networks_without_blocks_race_without_a_field():
    race = Race({"ln": steps(preset("conv", "ln", steps=2, depth=2, width=8, batch=8, eval_images=20), device="cpu")})
    race.run()
    assert race.fields == {} and "Tokens" not in race.say() and race.picked.value is None
    assert race.scene().height < Race({"bn": one()}).scene().height and "Loss" in race.replay().alt.replace(
        "loss", "Loss"
    )


# The picture -----------------------------------------------------------------------------------------------


def words(scene) -> list[str]:
    return [label.text for label in scene.labels]


def test_the_picture_marks_events_and_its_alt_text_says_what_happened():
    recorded = [alone(arm, seed=seed).history for arm in ARMS for seed in (1, 2)]
    race = Race(three(), recorded=recorded)
    assert "8 steps to come" in race.painted.alt
    race.at(3, "forget")
    race.at(5, "shock", 0.5)
    race.run()
    scene = race.painted
    assert {"forget 3", "shock 5, σ 0.5"} <= set(words(scene))
    for count, name in ((4, "event"), (1, "band-bn")):
        assert sum(getattr(item, "name", "") == name for item in scene.drawn) == count
    alt = scene.alt
    for arm, name in zip(ARMS, ("LN", "BN", "BN + FFN-BN"), strict=True):
        assert f"{name} {race.histories[arm].loss[-1]:.3f}" in alt  # the last tenth of eight steps is the last
        assert f"{name}  {smooth(race.histories[arm].loss)[-1]:.3f}" in words(scene)
    assert "8 of 8 steps" in alt and "2 recorded seeds" in alt
    assert "Before step 3 the optimizers' memory is cleared; before step 5 contrast jitter σ = 0.5 begins." in alt
    assert "aria-live" in race.shown and alt.split(".")[0] in race.shown
    figure = race.figure()
    assert figure.alt == alt and race.twin().alt == alt


def test_nothing_overlaps_at_any_step():
    race = Race(three(steps=30), recorded=[History(preset("swiglu", "bn"), [2.0] * 50)])
    for at, what in ((0, "shock"), (3, "forget"), (4, "forget"), (11, "shock"), (28, "forget"), (29, "shock")):
        race.at(at, what)
    for until in (None, 1, 2, 5, 12, 20, 30):
        if until:
            race.run(until=until)
        for arm in ARMS:
            race.picked.value = arm
            assert race.painted.overlaps() == [] == race.painted.labels_outside()
            assert f"Tokens of {race.styles[arm].name} before the FFN" in " ".join(words(race.painted))
    assert race.replay_scene().overlaps() == [] == race.replay_scene().labels_outside()


def test_a_loss_that_is_not_finite_is_marked_and_said():
    race = Race({"bn": one()})
    race.run(until=4)
    with torch.no_grad():
        race.runs["bn"].model.head.bias.fill_(float("nan"))
    race.run()
    assert "× NaN" in words(race.painted) and "BN NaN" in race.painted.alt and "BN NaN" in race.status()
    assert "not finite" in race.painted.alt and "not finite" in race.replay().alt


def test_the_replay_shows_five_moments_with_their_numbers():
    race = Race(three(steps=40))
    race.at(10, "forget")
    race.run()
    scene, alt = race.replay_scene(), race.replay().alt
    headings = [text for text in words(scene) if text.startswith("step ")]
    assert len(headings) == 5 and headings[0] == "step 0" and headings[-1] == "step 39" and "step 10" in headings
    assert sum(type(item).__name__ == "Raster" for item in scene.items) == 5 * 3 + 1
    smoothed = smooth(race.histories["bn"].loss, 5)
    assert f"BN {smoothed[0]:.3f}" in alt and f"{smoothed[39]:.3f}" in alt and "Before step 10" in alt
    assert f"{race.fields[39]['ln'][:, -1].max():.3g} ×" in alt
    assert [t for t in words(race.replay_scene([1, 20])) if t.startswith("step ")] == ["step 1", "step 20"]


def test_names_that_are_no_arm_have_looks_of_their_own():
    race = Race({"bn": one(), "β₂ = 0.95": one(beta2=0.95), "lr × 3": one(lr=0.012)})
    looks = {(style.color, style.marker) for style in race.styles.values()}
    assert len(looks) == 3 and race.picked.value == "bn"
    assert len(Race({"lr × 3": one()}).picked.options) == 1


def test_pictures_take_their_share_of_the_time_and_no_more(monkeypatch):
    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    class Quick(Training):
        def advance(self):
            clock.now += 0.05
            self._pending.append((torch.tensor(2.0),))
            self.step += 1

    clock = Clock()
    race, drawn = Race({"bn": one("bn", Quick, steps=1000, eval_every=1000)}, clock=clock), []
    paint = race.paint

    def slow(scene, *args, **options):
        drawn.append(clock.now)
        clock.now += 0.04
        paint(scene, *args, **options)

    monkeypatch.setattr(race, "paint", slow)
    race.seconds = 0.0
    race.run()
    assert drawn[0] == pytest.approx(0.05)  # the first at once
    assert race.seconds == pytest.approx(0.04 * len(drawn)) and race.seconds <= 1.05 * SHARE * clock.now + 0.08
    assert len(drawn) > 10 and min(np.diff(drawn[:-1])) >= INTERVAL


def test_while_it_runs_a_screen_reader_is_left_in_peace(monkeypatch):
    race, told = Race(three()), []
    paint = race.paint

    def noted(scene, more, *, spoken):
        paint(scene, more, spoken=spoken)
        told.append((spoken, "aria-live" in race.shown, more))

    monkeypatch.setattr(race, "paint", noted)
    race.run()
    assert "training loss LN" in told[0][2] and "s left" in told[0][2]
    *running, ended = [(spoken, live) for spoken, live, _ in told]
    assert set(running) == {(False, False)} and ended == (True, True)


def test_what_was_displayed_is_brought_up_to_date(monkeypatch):
    sent = []
    monkeypatch.setattr("IPython.display.display", lambda data, **options: sent.append((data, options)))
    race = Race({"bn": one()})
    race.run(until=2)
    assert sent == []  # nobody looks: without a kernel nothing is shown
    race._ipython_display_()
    race.run()
    (first, one_way), (last, other) = sent
    assert (one_way["update"], other["update"]) == (False, True) and one_way["display_id"] == other["display_id"]
    assert first["image/png"] != last["image/png"] and "8 of 8 steps" in other["metadata"]["image/png"]["alt"]
    assert set(last) == {"text/plain", "image/png", "application/vnd.jupyter.widget-view+json"}


# A folder that keeps it ------------------------------------------------------------------------------------


class Kept(Training):
    """A training with the two methods that a kept race asks for."""

    def save(self, folder):
        folder.mkdir(exist_ok=True)
        save_checkpoint(folder, self)

    def load(self, folder):
        for path in checkpoints(folder)[:1]:
            load_checkpoint(path, self)


def test_a_race_survives_its_kernel(tmp_path):
    whole = Race(three())
    for race in (whole, Race(three(Kept), out=tmp_path, save_every=3)):
        race.at(2, "shock", 0.5)
        race.at(4, "forget")
        race.run(until=None if race is whole else 5)
    again = Race(three(Kept), out=tmp_path, save_every=3)  # another kernel
    assert again.step == 5 and again.events == [(2, "shock"), (4, "forget")]
    again.at(2, "shock", 0.5)  # the cell is run once more
    again.run()
    assert all(same(run, whole.runs[arm]) for arm, run in again.runs.items())
    for arm in ARMS:
        np.testing.assert_array_equal(again.moves[arm], whole.moves[arm])
        assert all((again.fields[step][arm] == whole.fields[step][arm]).all() for step in range(8))
    assert again.say() == whole.say()
    over = Race(three(Kept), out=tmp_path)
    assert over.step == 8 and "over" in over.shown and over.say() == whole.say()


@pytest.mark.parametrize(("save_every", "kept"), [(3, 3), (6, 0)])  # by every network before the kill
def test_a_kill_between_two_checkpoints_is_caught_up_with(tmp_path, save_every, kept):
    class Killed(Kept):
        def save(self, folder):
            if self.recipe.arm == "bn" and self.step == 6:
                raise SystemExit
            super().save(folder)

    race = Race(three(Killed), out=tmp_path, save_every=save_every)
    race.at(4, "forget")
    with pytest.raises(SystemExit):
        race.run()
    again = Race(three(Kept), out=tmp_path, save_every=save_every)
    assert [run.step for run in again.runs.values()] == [6, kept, kept] and again.events == [(4, "forget")]
    again.run()
    assert all(same(run, alone(arm, clear)) for arm, run in again.runs.items())


def test_a_folder_belongs_to_its_recipes_and_to_trainings_that_can_be_kept(tmp_path):
    Race({"bn": one(kind=Kept)}, out=tmp_path).run(until=1)
    with pytest.raises(CheckpointError, match="seed=0 not 1"):
        Race({"bn": one(kind=Kept, seed=1)}, out=tmp_path)
    bare = type("Bare", (), dict.fromkeys(("advance", "read", "forget", "recipe", "history")))()
    with pytest.raises(TypeError, match=r"has no \.save"):
        Race({"bn": bare}, out=tmp_path)


def test_one_network_is_no_race_and_its_band_has_the_name_of_what_was_recorded():
    recorded = {"β₂ = 0.95": [alone("bn", seed=seed).history for seed in (1, 2)]}
    race = Race({"β₂ = 0.95": one(beta2=0.95)}, recorded=recorded)
    assert race.say().startswith("A training, β₂ = 0.95: 8 steps to come. Band: 2 recorded seeds, ending at BN 2.")
    assert sum(getattr(item, "name", "") == "band-β₂ = 0.95" for item in race.painted.drawn) == 1
