"""The section "On a GPU" of notebook 08, on the CPU: its dtypes and its fall-back."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from normviz.explore import Race
from normviz.lab import preset, steps

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
import gpu_cell

ARMS = ("ln", "bn", "bn+ffnbn", "bn+ffnbn-before", "bn+embedln")


@pytest.fixture
def cells(monkeypatch):
    """What the section's cells define, and the cell of the race, which nobody has run yet."""
    monkeypatch.setenv("NORMVIZ_RUN", "short")
    names: dict = {}
    *before, race = gpu_cell.sources()
    for source in before:
        exec(source, names)
    names["display"] = lambda shown: names["said"].append(shown)
    names["said"] = []
    return names, race


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_five_arms_take_a_few_steps_in_half_precision(precision, cells, capsys):
    names, race = cells
    names["work"]["precision"] = precision
    exec(race, names)
    said, ended = capsys.readouterr().out, names["gpu_race"]
    assert "CIFAR-10 cannot be had (no CIFAR-10 in nowhere" in said and "1,500 images of digits" in said
    # How long it will take is said before it starts: the picture is shown after that, and the race goes on
    assert f"6 steps each in {precision}: about " in said and names["said"] == [ended]
    assert tuple(ended.runs) == ARMS and ended.step == 6
    for arm, run in ended.runs.items():
        assert run.history.meta["precision"] == precision and run.recipe.arm == arm
        assert np.isfinite(run.history.loss).all() and len(run.history.loss) == 6
        assert run.scaler.is_enabled() == (precision == "fp16")
        assert 0 <= run.history.evals[-1]["accuracy"] <= 1
        assert all(p.dtype == torch.float32 for p in run.model.parameters())
    assert said.count("test accuracy") == 5
    assert ended.fields[0]["bn"].shape[0] == 2 and np.isfinite(ended.fields[0]["bn"]).all()


def test_an_overflow_in_float16_skips_the_step_and_the_race_goes_on():
    recipe = preset("swiglu", "bn", depth=2, steps=9, batch=32, eval_images=64, precision="fp16")
    race = Race({"bn": steps(recipe, device="cpu")})
    race.run(until=6)
    run = race.runs["bn"]
    with torch.no_grad():
        run.model.head.weight.mul_(1e6)  # logits beyond 65,504
    before, scale = run.model.head.weight.detach().clone(), run.scaler.get_scale()
    race.run()
    assert run.step == 9 and not np.isfinite(run.history.loss[6:]).any() and run.history.meta["first_nonfinite"] == 6
    assert torch.equal(run.model.head.weight, before)  # every step since was left out
    assert run.scaler.get_scale() == scale / 8
    assert "BN NaN" in race.status() and "× NaN" in race.shown


def test_where_steps_are_replayed_the_tokens_are_seen_all_the_same():
    """A replayed step calls no hook, so steps that are looked at are taken as they are, and compute the same."""
    recipe = preset("swiglu", "bn", depth=2, steps=60, batch=32, eval_every=60, eval_images=64)
    races = [Race({"bn": steps(recipe, device="cpu", probes=False)}) for _ in range(2)]
    for race in races:
        race.run(until=1)
    run, replayed = races[0].runs["bn"], []

    def replay(x, y, *settings):
        assert not any(layer._forward_pre_hooks for layer in run.model.modules())
        replayed.append(run.step)
        return run._step(x, y, *settings)

    run._take = replay
    for race in races:
        race.run()
    assert run._take is replay and len(replayed) >= 8 and min(replayed) > 40  # every step is looked at before that
    assert run.history.loss == races[1].histories["bn"].loss
    assert races[0].fields.keys() == races[1].fields.keys() and len(races[0].fields) > 25


def test_the_script_keeps_what_the_cells_say_and_draw(tmp_path, capsys):
    gpu_cell.main(["--out", str(tmp_path), "--measure"])
    said = (tmp_path / "said.txt").read_text("utf-8")
    assert said == capsys.readouterr().out and "five arms, 6 steps each in bf16" in said
    assert '"as it is"' in (tmp_path / "measured.json").read_text("utf-8")
    assert {f"{arm}.json" for arm in ARMS} <= {path.name for path in tmp_path.iterdir()}
    for name in ("race", "replay"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "6 of 6 steps" in (tmp_path / "race.txt").read_text("utf-8")
