"""Past one machine: a training on two processes that torchrun starts, a study on the workers of a Dask scheduler."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import nn

from normviz.lab import STUDIES, History, ViT, load_study, preset, run_study, train
from normviz.lab.parallel import SyncBatchNorm, joined, place, synchronized

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
ALONE = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")} | {
    "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""
}  # fmt: skip

# Plain SGD: AdamW turns the rounding in a gradient of 0 (a bias before BatchNorm has one) into whole steps
SMALL = {
    "depth": 2, "width": 24, "steps": 12, "warmup": 2, "eval_every": 4, "probe_every": 4, "batch": 32,
    "optimizer": "sgd", "lr": 0.05,
}  # fmt: skip
RECIPES = {
    "ln": preset("heavy", "ln", **SMALL), "bn": preset("heavy", "bn", **SMALL), "sync": preset("heavy", "bn", **SMALL),
    "prepbn": preset("heavy", "prepbn", **SMALL | {"lr": 1e-3}),
}  # fmt: skip

BOTH = """
import json, sys
from pathlib import Path
import torch
from normviz.lab import CheckpointError, Recipe, train
from normviz.lab.parallel import joined, place

out, recipes = Path(sys.argv[1]), json.loads(sys.argv[2])
with joined("cpu") as device:
    rank, processes = place()
    assert processes == 2
    run = lambda name, on_step=None, **more: train(
        Recipe(**recipes[name]), on_step, out=out / name, device=device, progress=False, checkpoint_every=4, **more)
    for name in ("ln", "bn"):
        run(name)
    sync = run("sync", sync_batchnorm=True)
    run("prepbn", sync_batchnorm=True)

    # Stopped by the first process after 6 steps, gone on with, and refused where it is another training
    recipes["resumed"] = recipes["sync"]
    stopped = run("resumed", lambda history: len(history.loss) < 6 if rank == 0 else 1 / 0, sync_batchnorm=True)
    assert stopped.meta["stopped"] == 6
    again = run("resumed", resume=True, sync_batchnorm=True)
    assert again.loss == sync.loss, (again.loss, sync.loss)
    for wrong in ({"resume": True}, {"sync_batchnorm": True}):
        try:
            run("resumed", **wrong)
        except CheckpointError as error:
            (out / f"refused-{len(wrong)}-{'resume' in wrong}-{rank}").write_text(str(error))
    refusals = {"cannot be divided among 2 processes": {"batch": 33}, "no RBN over several": {"arm": "rbn"}}
    for says, change in refusals.items():
        try:
            train(Recipe(**recipes["sync"] | change), device=device, progress=False, sync_batchnorm=True)
        except ValueError as error:
            assert says in str(error), error
        else:
            raise AssertionError(says)
print("done")
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same recipes in one process and in two: {name: (alone, together)}, and the folder of those of the two."""
    if sys.platform == "win32":
        pytest.skip("torchrun wants libuv, which torch for Windows is built without")
    out = tmp_path_factory.mktemp("parallel")
    (out / "both.py").write_text(BOTH)
    words = json.dumps({name: recipe.to_dict() for name, recipe in RECIPES.items()})
    both = subprocess.run(
        [*TORCHRUN, str(out / "both.py"), str(out), words], capture_output=True, text=True, timeout=300, env=ALONE
    )
    assert both.returncode == 0 and both.stdout.count("done") == 2, both.stderr
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = {name: train(recipe, device="cpu", progress=False) for name, recipe in RECIPES.items()}
    torch.set_num_threads(before)
    return {name: (alone[name], History.load(out / name / "history.json")) for name in RECIPES}, out


def apart(alone: History, together: History) -> float:
    """The largest difference of a loss, in training or on the test images."""
    evals = [
        abs(a[name] - b[name])
        for a, b in zip(alone.evals, together.evals, strict=True)
        for name in ("loss", "batch_loss", "train_loss")
    ]
    return max(evals + [abs(a - b) for a, b in zip(alone.loss, together.loss, strict=True)])


@pytest.mark.parametrize("name", ["ln", "sync"])
def test_two_processes_train_as_one_does_on_the_whole_batch(name, runs):
    alone, together = runs[0][name]
    assert apart(alone, together) < 1e-5
    assert together.grad_norm == pytest.approx(alone.grad_norm, rel=1e-4)
    assert together.meta["processes"] == 2 and "processes" not in alone.meta


def test_layers_that_leave_parameters_alone_train_too(runs):
    """PRepBN gives up its LayerNorm at half time; then it explodes, by itself, and with it the rounding."""
    alone, together = runs[0]["prepbn"]
    assert together.loss[:4] == pytest.approx(alone.loss[:4], abs=1e-5) and len(together.loss) == 12


def test_batchnorm_sees_its_part_alone(runs):
    alone, together = runs[0]["bn"]
    assert apart(alone, together) > 1e-3
    assert abs(alone.loss[0] - together.loss[0]) > 1e-4  # from the first step on: it is no rounding
    bounds = [history.meta["outlier_bound"] for history in (alone, together, runs[0]["sync"][1])]
    assert bounds[0] == bounds[2] == pytest.approx((32 * 16 - 1) ** 0.5) and bounds[1] == pytest.approx(255**0.5)


def test_a_run_of_two_processes_is_resumed_by_both_and_belongs_to_them(runs):
    """What `BOTH` checks beside: bit-identical after a stop, and refusals that every process gets."""
    for rank in (0, 1):
        refused = [(runs[1] / f"refused-1-{resume}-{rank}").read_text() for resume in (True, False)]
        assert "of another number of processes: sync_batchnorm=True not False" in refused[0]
        assert "resume=True goes on from there" in refused[1]
    with pytest.raises(Exception, match="of another number of processes: processes=2 not 1"):
        train(preset("heavy", "bn", **SMALL), device="cpu", progress=False, out=runs[1] / "sync", resume=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="torchrun wants libuv, which torch for Windows is built without")
def test_torchrun_and_the_command_line(tmp_path):
    line = [
        *TORCHRUN,
        "-m",
        "normviz",
        "train",
        "--preset",
        "heavy",
        "--arm",
        "bn",
        "--sync-batchnorm",
        "--device",
        "cpu",
    ]
    line += ["--depth", "1", "--steps", "4", "--warmup", "1", "--quiet", "--no-probes", "--out", str(tmp_path / "run")]
    run = subprocess.run(line, capture_output=True, text=True, timeout=300, env=ALONE)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("heavy bn seed 0: stalled") == 1  # one of them speaks
    assert History.load(tmp_path / "run" / "history.json").meta["sync_batchnorm"] is True


def test_one_process_alone_is_left_alone():
    assert place() == (0, 1)
    with joined("cpu") as device:
        assert device == "cpu" and place() == (0, 1)


def test_a_synchronized_model_has_the_parameters_that_it_had():
    model = ViT("bn+ffnbn", depth=1, width=12, seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = synchronized(model)
    assert sum(isinstance(module, SyncBatchNorm) for module in found.modules()) == 4
    assert not any(type(module) is nn.BatchNorm1d for module in found.modules())
    assert before.keys() == found.state_dict().keys()
    assert all(torch.equal(before[name], value) for name, value in found.state_dict().items())


# Studies --------------------------------------------------------------------------------------------------------


@contextmanager
def started(module: str, *words: str):
    """A process of `python -m module words`, ended with the context."""
    line = [sys.executable, "-m", module, *words]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ALONE)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(what, seconds: float = 60):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


@pytest.mark.slow
@pytest.mark.long
def test_the_workers_of_a_scheduler_do_every_run_once_though_one_is_killed(tmp_path):
    from distributed import Client

    file = tmp_path / "scheduler.json"
    tiny = {"depth": 1, "width": 12, "steps": 60, "warmup": 1, "eval_every": 60, "probe_every": 0}
    grid = tuple(preset("tame", arm, seed, **tiny) for seed in range(3) for arm in ("ln", "bn"))
    scheduler = ("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    worker = (
        "distributed.cli.dask_worker",
        "--scheduler-file",
        str(file),
        "--nthreads",
        "1",
        "--no-nanny",
        "--no-dashboard",
    )
    with started(*scheduler, "--scheduler-file", str(file)), started(*worker) as doomed, started(*worker):
        address = json.loads(until(lambda: file.exists() and file.read_text()))["address"]
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        lines: list[str] = []

        def tell(line: str) -> None:
            lines.append(line)
            if len(lines) == 2:  # the first run is done, and both workers are at others
                doomed.kill()

        path = run_study("own", tmp_path, recipes=grid, scheduler=address, tell=tell)
        doomed.wait(20)
    assert doomed.returncode == (-signal.SIGKILL if sys.platform != "win32" else 1)
    assert f"as many at a time as the workers take at {address}" in lines[0]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert not [row["error"] for row in rows if "error" in row]
    assert sorted(str(row["recipe"]) for row in rows) == sorted(str(recipe.to_dict()) for recipe in grid)
    here = run_study("here", tmp_path, recipes=grid[:1], jobs=1, device="cpu", tell=lambda line: None)
    (there,) = (run for run in load_study("own", tmp_path) if run.recipe == grid[0])
    assert there.loss == json.loads(here.read_text())["loss"]


def test_a_scheduler_that_does_not_answer_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("normviz.lab.study.ANSWER_S", 1)
    grid = (replace(STUDIES["tame"].recipes[0], steps=1),)
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        with pytest.raises(ValueError, match=f"scheduler='{address}' does not answer"):
            run_study("own", tmp_path, recipes=grid, scheduler=address, tell=lambda line: None)
