"""Training: the record, determinism, stopping, checkpoints that survive SIGKILL, NaN, and real short runs."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch

from normviz.lab import (
    CheckpointError,
    History,
    Images,
    Recipe,
    ViT,
    evaluate,
    load_images,
    preset,
    steps,
    train,
    verdict,
)  # fmt: skip
from normviz.lab.checkpoint import checkpoints, load_checkpoint

SMALL = {"depth": 2, "width": 24, "steps": 12, "warmup": 2, "eval_every": 5, "probe_every": 4, "batch": 32}


@pytest.fixture(scope="module")
def images():
    return load_images("digits")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small(arm="bn+ffnbn", **overrides):
    return preset("heavy", arm, **SMALL | overrides)


def quiet(recipe, *arguments, **options):
    return train(recipe, *arguments, device="cpu", progress=False, **options)


def same(a: History, b: History) -> bool:
    """Equal to the last bit in everything but the time taken; text, because NaN is not equal to itself."""
    return all(json.dumps(getattr(a, n)) == json.dumps(getattr(b, n)) for n in ("loss", "evals", "probes"))


def contents(folder: Path) -> list[str]:
    """The names in a folder, but for the lock, which stays."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_the_record_is_whole(images):
    history = quiet(small("bn"), images=images)
    assert len(history.loss) == 12 and all(map(math.isfinite, history.loss))
    assert [e["step"] for e in history.evals] == [5, 10, 12]
    assert history.evals[1]["train_loss"] == pytest.approx(sum(history.loss[5:10]) / 5)
    assert history.probes["step"] == [0, 4, 8]
    assert [len(row) for row in history.probes["norm2_outlier"]] == [2, 2, 2]
    assert history.meta["classes"] == 10 and history.meta["tokens"] == 16
    assert history.meta["outlier_bound"] == pytest.approx(math.sqrt(32 * 16 - 1))
    assert history.meta["seconds"] > 0 and history.meta["stopped"] is None


def test_equal_recipes_give_equal_histories_and_probes_change_nothing(images):
    first, second = quiet(small(), images=images), quiet(small(), images=images)
    assert same(first, second)
    assert quiet(small(), images=images, probes=False).loss == first.loss
    assert quiet(small(seed=1), images=images).loss != first.loss


def test_history_survives_json_with_nan_and_infinity(tmp_path):
    history = History(small(), loss=[1.5, math.nan, math.inf, -math.inf, 0.1 + 0.2], meta={"device": "cpu"})
    history.evals.append({"step": 2, "loss": math.nan})
    history.save(tmp_path / "h.json")
    json.loads((tmp_path / "h.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    back = History.load(tmp_path / "h.json")
    assert same(back, history) and back.recipe == history.recipe and back.meta == history.meta
    assert History.from_dict(history.to_dict(digits=2)).loss[4] == 0.3


def test_callback_sees_every_step_and_can_stop(images, tmp_path):
    seen = []

    def stop_at_seven(history):
        seen.append(len(history.loss))
        return len(history.loss) < 7

    history = quiet(small(), stop_at_seven, images=images, out=tmp_path)
    assert seen == list(range(1, 8)) and len(history.loss) == 7 and history.meta["stopped"] == 7
    resumed = quiet(small(), images=images, out=tmp_path, resume=True)
    assert same(resumed, quiet(small(), images=images)) and resumed.meta["stopped"] is None


def test_a_callback_that_returns_nothing_does_not_stop(images):
    assert len(quiet(small(), lambda history: None, images=images).loss) == 12


def test_interrupt_keeps_the_record(images):
    def interrupt(history):
        if len(history.loss) == 4:
            raise KeyboardInterrupt

    history = quiet(small(), interrupt, images=images)
    assert len(history.loss) == 4 and history.meta["stopped"] == 4


def test_nan_does_not_stop_the_record(images):
    history = quiet(small("ln", lr=1e30, warmup=0), images=images)
    assert len(history.loss) == 12
    step = history.meta["first_nonfinite"]
    assert step is not None and not math.isfinite(history.loss[step])
    assert all(map(math.isfinite, history.loss[:step]))
    assert verdict(history).kind == "diverged" and verdict(history).step == step
    assert history.evals[-1]["nonfinite"] == 297 and history.evals[-1]["accuracy"] == 0


KILLED = """
import os, signal, sys, torch
torch.set_num_threads(1)
from normviz.lab import train, Recipe
import json
recipe = Recipe(**json.loads(sys.argv[1]))
where, out = sys.argv[2], sys.argv[3]
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
if where == "writing":      # the second checkpoint is written under its other name, and not yet renamed
    rename, count = os.replace, [0]
    def replace(a, b):
        count[0] += 1
        if count[0] == 2:
            die()
        rename(a, b)
    os.replace = replace
else:
    stop = int(where)
def on_step(history):
    if where != "writing" and len(history.loss) == stop:
        die()
train(recipe, on_step, out=out, checkpoint_every=4, device="cpu", progress=False)
"""


UNIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither SIGKILL nor a umask")


@UNIX
@pytest.mark.parametrize("where", ["7", "8", "writing"])
def test_resumed_after_sigkill_is_bit_identical(where, images, tmp_path):
    recipe = small("bn+ffnbn", ffn="swiglu", clip=1.0)
    line = [sys.executable, "-c", KILLED, json.dumps(recipe.to_dict()), where, str(tmp_path)]
    died = subprocess.run(line, timeout=120)
    assert died.returncode == -signal.SIGKILL
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000004.safetensors"]
    resumed = quiet(recipe, images=images, out=tmp_path, resume=True)
    assert same(resumed, quiet(recipe, images=images))
    assert same(History.load(tmp_path / "history.json"), resumed)
    assert [name for name in contents(tmp_path) if name.startswith(".")] == []  # what the kill left is gone


def test_two_checkpoints_are_kept_and_nothing_half_written(images, tmp_path):
    (tmp_path / "step-a.safetensors").write_text("somebody else's")
    (tmp_path / ".step-000004.safetensors.0123abcd.tmp").write_text("half of one")
    quiet(small(), images=images, out=tmp_path, checkpoint_every=3)
    names = ["history.json", "step-000009.safetensors", "step-000012.safetensors", "step-a.safetensors"]
    assert contents(tmp_path) == names


@UNIX
def test_files_are_as_the_umask_has_them(images, tmp_path):
    before = os.umask(0o027)
    try:
        quiet(small(), images=images, out=tmp_path)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}


@pytest.fixture(scope="module")
def stopped(images, tmp_path_factory):
    """A run of 12 steps, stopped after 8, with the checkpoints of steps 4 and 8, and what it gives when it is whole."""
    folder = tmp_path_factory.mktemp("stopped")
    quiet(small(), lambda history: len(history.loss) < 8, images=images, out=folder, checkpoint_every=4)
    return folder, quiet(small(), images=images)


def change(content: bytes, old: bytes, new: bytes) -> bytes:
    assert old in content
    return content.replace(old, new, 1)


def replaced(make):
    """The file gives way to something else of its name."""

    def damage(path):
        path.unlink()
        make(path)

    return damage


def edited(edit):
    return lambda path: path.write_bytes(edit(path.read_bytes()))


DAMAGES = {
    "a tensor's last bit": edited(lambda b: b[:-1] + bytes([b[-1] ^ 1])),
    "a digit of the history": edited(lambda b: change(b, b'\\"lr\\": 0.004', b'\\"lr\\": 0.005')),
    "a dot that becomes e": edited(lambda b: change(b, b"2.", b"2e")),
    "a byte of the header": edited(lambda b: b[:20] + b"x" + b[21:]),
    "the header's length": edited(lambda b: b"\xff" * 8 + b[8:]),
    "truncated": edited(lambda b: b[:100]),
    "empty": edited(lambda b: b""),
    "no longer sealed": edited(lambda b: change(b, b'"sha256"', b'"sha257"')),
    "JSON nested too deeply": edited(lambda b: len(n := b"[" * 100_000).to_bytes(8, "little") + n),
    "a folder": replaced(Path.mkdir),
}
if sys.platform != "win32":
    DAMAGES |= {"a pipe": replaced(os.mkfifo), "a link to itself": replaced(lambda path: path.symlink_to(path))}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_checkpoint_is_refused_and_the_one_before_used(damage, images, stopped, tmp_path):
    folder = shutil.copytree(stopped[0], tmp_path / "run")
    newest, before = checkpoints(folder)
    damage(newest)
    with pytest.warns(UserWarning, match=f"{newest.stem}.*(damaged|missing).*going on from {before.name}"):
        resumed = quiet(small(), images=images, out=folder, resume=True, checkpoint_every=4)
    assert same(resumed, stopped[1])
    assert [path.name for path in checkpoints(folder)] == ["step-000012.safetensors", "step-000008.safetensors"]


def test_any_damaged_byte_is_noticed(images, stopped, tmp_path):
    run = steps(small(), images=images, device="cpu")
    content = checkpoints(stopped[0])[0].read_bytes()
    path, random = tmp_path / "step-000008.safetensors", Random(0)
    path.write_bytes(content)
    load_checkpoint(path, run)  # as it is, it is sound
    for at in [*random.sample(range(len(content)), 60), *range(0, 16)]:
        path.write_bytes(content[:at] + bytes([content[at] ^ random.randrange(1, 256)]) + content[at + 1 :])
        with pytest.raises(CheckpointError, match="step-000008"):
            load_checkpoint(path, run)


def test_a_checkpoint_of_a_newer_version_names_itself(images, stopped, tmp_path, monkeypatch):
    folder = shutil.copytree(stopped[0], tmp_path / "run")
    run = steps(small(), images=images, device="cpu")
    monkeypatch.setattr(History, "from_dict", classmethod(lambda cls, values: Recipe.from_dict({"colour": 1})))
    with pytest.raises(CheckpointError, match=r"step-000008.*another version of normviz: colour: no such field"):
        load_checkpoint(checkpoints(folder)[0], run)


def test_no_sound_checkpoint_is_an_error(images, stopped, tmp_path):
    folder = shutil.copytree(stopped[0], tmp_path / "run")
    for path in checkpoints(folder):
        DAMAGES["truncated"](path)
    with pytest.raises(CheckpointError, match=r"no checkpoint can be used: .*step-000008.*damaged.*step-000004"):
        quiet(small(), images=images, out=folder, resume=True)


@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_belongs_to_one_recipe(resume, images, stopped):
    before = {path.name: path.read_bytes() for path in stopped[0].iterdir()}
    with pytest.raises(CheckpointError, match=r"of another recipe: lr=0\.004 not 0\.001; name another folder"):
        quiet(small(lr=1e-3), images=images, out=stopped[0], resume=resume)
    other = Images.of(images.train_x[:700], images.train_y[:700], images.test_x, images.test_y, name="fewer")
    with pytest.raises(CheckpointError, match="of another data: images=None not 'fewer', train_images=1500 not 700"):
        quiet(small(), images=other, out=stopped[0], resume=resume)
    assert {path.name: path.read_bytes() for path in stopped[0].iterdir()} == before


def test_a_run_is_not_begun_anew_over_its_own_checkpoints(images, stopped):
    with pytest.raises(CheckpointError, match="holds this run up to step 8: resume=True goes on from there"):
        quiet(small(), images=images, out=stopped[0])
    assert len(checkpoints(stopped[0])) == 2


def test_a_second_process_is_told_that_the_folder_is_in_use(images, tmp_path):
    def again(history):
        with pytest.raises(CheckpointError, match="is in use: another process trains in it"):
            quiet(small(), images=images, out=tmp_path, resume=True)
        return False

    quiet(small(), again, images=images, out=tmp_path)
    quiet(small(), images=images, out=tmp_path, resume=True)  # it is free again


def test_an_unwritable_folder_is_noticed_before_the_work(images, tmp_path):
    (tmp_path / "file").write_text("")
    steps_taken = []
    with pytest.raises(OSError, match="file"):
        quiet(small(), steps_taken.append, images=images, out=tmp_path / "file" / "run")
    assert not steps_taken


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path):
    for step in (999950, 1000000, 5):
        (tmp_path / f"step-{step:06}.safetensors").touch()
    assert [int(path.stem[5:]) for path in checkpoints(tmp_path)] == [1000000, 999950, 5]


def test_resume_of_nothing_begins_and_of_a_finished_run_ends(images, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = quiet(small(), images=images, out=tmp_path, resume=True)
        again = quiet(small(), images=images, out=tmp_path, resume=True)
    assert same(first, again) and len(first.loss) == 12


def test_arguments_that_do_not_go_together(images):
    with pytest.raises(ValueError, match="needs out="):
        quiet(small(), images=images, resume=True)
    with pytest.raises(ValueError, match="checkpoint_every=0 must be"):
        quiet(small(), images=images, checkpoint_every=0)
    for device in ("cuda:7", "tpu"):
        with pytest.raises(ValueError, match=f"device='{device}' cannot be used here"):
            train(small(), images=images, device=device)
    with pytest.raises(ValueError, match="count=0 must be an integer >= 1"):
        evaluate(ViT("bn", depth=1), images, count=0)


def test_clipping_limits_the_step(images):
    loose, tight = quiet(small(), images=images), quiet(small(clip=1e-6), images=images)
    assert loose.loss[0] == tight.loss[0] and loose.loss[-1] != tight.loss[-1]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains(precision, images):
    history = quiet(small("ln", precision=precision), images=images)
    full = quiet(small("ln"), images=images)
    assert history.meta["precision"] == precision and len(history.loss) == 12
    assert history.loss != full.loss
    assert history.loss[-1] == pytest.approx(full.loss[-1], rel=0.05)


def test_evaluation_leaves_the_model_alone(images):
    model = ViT("bn", depth=2, width=24, seed=0).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = evaluate(model, images, count=100)
    assert model.training and all(m.training for m in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    # Running statistics are still those of the beginning (0 and 1), the batches' own are not
    assert found["loss"] != found["batch_loss"]
    logits = model.eval()(images.standardise(images.test_x[:100]))
    expected = torch.nn.functional.cross_entropy(logits, images.test_y[:100]).item()
    assert found["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("arm", "kinds"),
    [
        ("ln", {"trained"}),
        pytest.param("rms", {"trained"}, marks=pytest.mark.long),
        pytest.param("bn+ffnbn", {"trained"}, marks=pytest.mark.long),
        pytest.param("bn", {"stalled", "delayed"}, marks=pytest.mark.long),
    ],
)
def test_a_real_short_run_of_every_arm_and_its_verdict(arm, kinds, images):
    """Depth 8, 120 steps of SwiGLU: all arms learn the digits but BN, which is near chance, with one long token."""
    recipe = preset("swiglu", arm, depth=8, steps=120, warmup=20, eval_every=120)
    history = quiet(recipe, images=images)
    assert verdict(history).kind in kinds, verdict(history).why
    longest = max(map(max, history.probes["norm2_outlier"]))
    if arm in ("ln", "rms"):
        assert longest < 1.2
    else:
        assert 3 < longest <= history.meta["outlier_bound"] * 1.01


def test_default_recipe_names_itself():
    assert Recipe().name == "custom"


def test_a_training_goes_on_from_where_it_was_saved(tmp_path):
    """Driven by hand, with a setting changed on the way: `save` and `load` are as good as never stopping."""
    recipe = small(steps=8)
    whole, first, second = (steps(recipe, device="cpu") for _ in range(3))
    for run in (whole, first):
        for _ in range(3):
            next(run)
    first.save(tmp_path / "run")
    second.load(tmp_path / "run")
    second.load(tmp_path / "nothing here")  # no checkpoint, no change
    for run in (whole, second):
        run.recipe = replace(recipe, sigma=0.0)  # the batches follow the recipe
        list(run)
    assert second.step == 8 and second.history.loss == whole.history.loss
    plain = list(steps(recipe, device="cpu"))[-1]
    assert plain.loss[:3] == whole.history.loss[:3] and plain.loss[3:] != whole.history.loss[3:]
