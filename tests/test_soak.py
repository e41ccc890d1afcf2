"""Trials by the dozen here, by the thousand in `make soak` (NORMVIZ_SOAK=long), which prints how many there were.

SIGKILLs, damaged checkpoints, full disks, hostile archives and checkpoints, kernels that restart in mid-training, two
kernels on one folder and one cache, and explorers that are played with for hours.
"""

import gc
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import time
import warnings
from html import escape
from io import BytesIO
from pathlib import Path
from random import Random

import numpy as np
import psutil
import pytest
from starts import start

from normviz.explore import EXPLORERS
from normviz.lab import CheckpointError, DataError, cifar10, preset, steps, train
from normviz.lab.checkpoint import checkpoints, load_checkpoint

LONG = os.environ.get("NORMVIZ_SOAK") == "long"
SEED = int(os.environ.get("NORMVIZ_SOAK_SEED", "0"))
UNIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither fork nor limits")
STEPS = 300 if LONG else 120  # of the runs that are disturbed
SMALL = {"depth": 1, "width": 12, "warmup": 2, "eval_every": 100, "probe_every": 50, "batch": 16}


def count(short: int, long: int) -> int:
    return long if LONG else short


def say(text: str) -> None:
    """A line of the tally; `make soak` shows it."""
    print(text, flush=True)


def last_words(script: str, *words: str, timeout: float = 3000) -> dict:
    """What a script in a process of its own prints last, as JSON; it forks from a state without threads."""
    line = [sys.executable, "-c", script, *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=timeout)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


# A child trains; its parent kills it at any moment, or forbids it files beyond a size
_FORKED = """
import json, os, random, resource, signal, sys, time, warnings
from pathlib import Path
import torch
torch.set_num_threads(1)
from normviz.lab import CheckpointError, History, load_images, preset, train

out, trials, seed, length, small = Path(sys.argv[1]), *map(int, sys.argv[2:5]), json.loads(sys.argv[5])
images, rng = load_images("digits"), random.Random(seed)

def run(number, folder=None, limit=None, every=3):
    "The exit code of a child that trains on, or the history of a whole run in this process."
    recipe = preset("heavy", ("ln", "bn", "bn+ffnbn")[number % 3], number, steps=length, **small)
    go = lambda: train(recipe, out=folder, resume=folder is not None, checkpoint_every=every, images=images,
                       device="cpu", progress=False)
    if folder is None:
        return go()
    child = os.fork()
    if child:
        return child
    try:
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # no checkpoint may be found damaged
            go()
        os._exit(0)
    except OSError:
        os._exit(1)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(2)

def same(a, b):
    return all(json.dumps(getattr(a, n)) == json.dumps(getattr(b, n)) for n in ("loss", "evals", "probes", "grad_norm"))
"""

_KILLED = (
    _FORKED
    + """
kills = resumed = finished = 0
number = 0
while kills < trials:
    folder = out / str(number)
    child = run(number, folder)
    ahead = rng.choice((0, 1, 1, 2, 5, 20))  # checkpoints that it gets to write; 0: killed as it starts
    seen = set(folder.glob("step-*"))
    while ahead and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if new := set(folder.glob("step-*")) - seen:
            seen, ahead = seen | new, ahead - 1
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.05))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        kills += 1
        resumed += bool(list(folder.glob("step-*.safetensors")))
    else:
        assert os.waitstatus_to_exitcode(status) == 0, status
    if (folder / "history.json").exists() or kills == trials:
        _, status = os.waitpid(run(number, folder), 0)  # to the end, undisturbed
        assert os.waitstatus_to_exitcode(status) == 0
        assert same(History.load(folder / "history.json"), run(number)), number
        names = sorted(path.name for path in folder.iterdir())
        kept = [f"step-{step:06}.safetensors" for step in (length - 3, length)]
        assert names == [".lock", "history.json", *kept], names
        finished, number = finished + 1, number + 1
print(json.dumps({"kills": kills, "resumed": resumed, "finished": finished}))
"""
)

_FULL = (
    _FORKED
    + """
full = 0
number = 0
whole = {}
for _ in range(trials):
    folder = out / str(number)
    limit = rng.choice((100, 4096, 20_000, 30_000, 40_000, 60_000))
    _, status = os.waitpid(run(number, folder, limit, every=25), 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 1), code  # an OSError, nothing else
    full += code
    left = [path.name for path in folder.iterdir() if path.name.startswith(".") and path.name != ".lock"]
    assert not left, left  # nothing half written
    if code == 0 or rng.random() < 0.3:
        _, status = os.waitpid(run(number, folder, every=25), 0)  # there is room again
        assert os.waitstatus_to_exitcode(status) == 0
        assert same(History.load(folder / "history.json"), run(number)), number
        number += 1
print(json.dumps({"full": full, "finished": number}))
"""
)


@UNIX
@pytest.mark.long
def test_a_run_that_is_killed_again_and_again_ends_as_it_would_have(tmp_path):
    kills = count(2, 50)
    found = last_words(_KILLED, str(tmp_path), str(kills), str(SEED), str(STEPS), json.dumps(SMALL))
    assert found["kills"] == kills and found["finished"] >= 1
    say(f"{kills} SIGKILLs, {found['resumed']} with a checkpoint; {found['finished']} runs ended bit-identical")


@UNIX
@pytest.mark.long
def test_a_full_disk_costs_what_was_not_written_yet_and_no_more(tmp_path):
    trials = count(2, 60)
    found = last_words(_FULL, str(tmp_path), str(trials), str(SEED), str(STEPS), json.dumps(SMALL))
    say(f"{trials} disks, {found['full']} of them full in mid-run; {found['finished']} runs ended bit-identical")


def damaged(content: bytes, rng: Random) -> bytes:
    """The bytes with one thing wrong, of the kinds that disks and copies do."""
    at = rng.randrange(len(content))
    kind = rng.randrange(6)
    if kind == 0:  # a bit
        return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
    if kind == 1:  # an end that never came
        return content[:at]
    if kind == 2:  # a block of zeros
        return content[:at] + bytes(min(512, len(content) - at)) + content[at + 512 :]
    if kind == 3:  # bytes too many
        return content[:at] + rng.randbytes(rng.randrange(1, 9)) + content[at:]
    if kind == 4:  # a header that lies about its length
        return struct.pack("<Q", rng.choice((0, 1, 2**31, 2**63, 2**64 - 1, rng.randrange(2**20)))) + content[8:]
    header = 8 + int.from_bytes(content[:8], "little")  # a byte of the history, which stays readable text
    at = rng.randrange(8, header)
    return content[:at] + bytes([rng.randrange(32, 127)]) + content[at + 1 :]


def test_no_damage_to_a_checkpoint_goes_unnoticed(tmp_path):
    recipe = preset("heavy", "bn+ffnbn", steps=8, **SMALL)
    train(recipe, out=tmp_path / "sound", checkpoint_every=4, device="cpu", progress=False)
    newest, before = checkpoints(tmp_path / "sound")
    content, rng = newest.read_bytes(), Random(SEED)
    run = steps(recipe, device="cpu")
    load_checkpoint(before, run)
    expected = {name: value.clone() for name, value in run.model.state_dict().items()}
    trials, noticed = count(40, 500), 0
    while noticed < trials:
        wrong = damaged(content, rng)
        if wrong == content:
            continue
        folder = tmp_path / "damaged"
        shutil.copytree(tmp_path / "sound", folder)
        (folder / newest.name).write_bytes(wrong)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            run.load(folder)
        assert run.step == 4 and [newest.name in str(w.message) for w in warned] == [True]
        assert all(bool((expected[name] == value).all()) for name, value in run.model.state_dict().items())
        shutil.rmtree(folder)
        noticed += 1
    say(f"{noticed} damaged checkpoints, all noticed, the one before used")


class _Trap:
    """Unpickled, it would leave a file."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def hostile(trap: Path, sound: bytes) -> dict[str, bytes]:
    def headed(header: dict | str, rest: bytes = b"") -> bytes:
        text = header if isinstance(header, str) else json.dumps(header)
        return struct.pack("<Q", len(text.encode())) + text.encode() + rest

    meta = {"sha256": "0" * 64, "state": "{}"}
    huge = {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 2**62]}
    return {
        "a pickle": pickle.dumps(_Trap(trap)),
        "a pickle as torch had them": b"\x80\x02" + pickle.dumps(_Trap(trap), 2)[2:],
        "a header longer than any file": struct.pack("<Q", 2**62) + b"{}",
        "JSON of a hundred thousand brackets": headed("[" * 100_000),
        "a tensor of exabytes": headed({"__metadata__": meta, "model.x": huge}),
        "offsets that overlap": headed(
            {
                "__metadata__": meta,
                "model.a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                "model.b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
            },
            bytes(12),
        ),
        "no metadata": headed({"model.a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        "metadata that is a number": headed({"__metadata__": 5}),
        "a seal in the data": headed({"__metadata__": {}}, b'"sha256":"' + b"0" * 64 + b'"'),
        "two sound ones in a row": sound + sound,
        "an archive": b"PK\x03\x04" + bytes(100),
    }


def test_hostile_checkpoints_are_refused_and_never_run(tmp_path):
    recipe = preset("heavy", "bn", steps=4, **SMALL)
    train(recipe, out=tmp_path / "run", device="cpu", progress=False)
    (path,) = checkpoints(tmp_path / "run")
    run, trap = steps(recipe, device="cpu"), tmp_path / "trap"
    cases = hostile(trap, path.read_bytes())
    for name, content in cases.items():
        path.write_bytes(content)
        began = time.perf_counter()
        with pytest.raises(CheckpointError, match=path.name):
            load_checkpoint(path, run)
        assert time.perf_counter() - began < 5, name
    assert not trap.exists()
    say(f"{len(cases)} hostile checkpoints refused")


RECORD = bytes(3073)
FILES = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]


def archive(rng: Random) -> tuple[bytes, bool]:
    """A tar of hostile members around the six files, some of which may be missing or no files; whether it is whole."""
    names = [
        "../evil",
        "/evil",
        "x/../../evil",
        f"{cifar10.FOLDER}/../../evil",
        "C:\\evil",
        "..\\evil",
        "evil\0x",
        "a" * 300,
    ]
    kinds = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
    members, whole = [], True
    for _ in range(rng.randrange(8)):
        info = tarfile.TarInfo(rng.choice(names))
        info.type = rng.choice([tarfile.REGTYPE, *kinds])
        info.linkname = rng.choice(["/etc/passwd", "../../evil", cifar10.FOLDER])
        info.mode = rng.choice((0o644, 0o4777, 0))
        members.append((info, RECORD if info.isreg() else b""))
    for name in FILES:
        info = tarfile.TarInfo(f"{cifar10.FOLDER}/{name}")
        if rng.random() < 0.05:
            info.type, info.linkname, whole = rng.choice(kinds), "/etc/passwd", False
        elif rng.random() < 0.05:
            whole = False
            continue
        members.append((info, RECORD if info.isreg() else b""))
    rng.shuffle(members)
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, BytesIO(content))
    return buffer.getvalue(), whole


def test_hostile_archives_write_nothing_outside_and_nothing_half(tmp_path, monkeypatch):
    rng, trials, refused = Random(SEED), count(25, 400), 0
    for trial in range(trials):
        content, whole = archive(rng)

        def download(place: Path, content=content) -> Path:
            (place / "archive.tar.gz").write_bytes(content)
            return place / "archive.tar.gz"

        monkeypatch.setattr(cifar10, "_download", download)
        cache = tmp_path / str(trial) / "deep" / "cache"
        if whole:
            assert cifar10.fetch_cifar10(cache) == cache / cifar10.FOLDER
        else:
            refused += 1
            with pytest.raises(DataError, match="the archive lacks"):
                cifar10.fetch_cifar10(cache)
        there = {path.relative_to(cache).as_posix() for path in cache.rglob("*")} - {".lock"}
        assert there == ({cifar10.FOLDER, *(f"{cifar10.FOLDER}/{name}" for name in FILES)} if whole else set())
        assert {path for path in (tmp_path / str(trial)).rglob("*") if cache not in (path, *path.parents)} == {
            cache.parent
        }
    assert not list(tmp_path.rglob("*evil*"))
    say(f"{trials} hostile archives, {refused} refused, nothing outside")


# Kernels --------------------------------------------------------------------------------------------------------

CELL = """
import json, sys, time, torch
from pathlib import Path
from normviz.lab import CheckpointError, cifar10, preset, train
torch.set_num_threads(1)
recipe = preset("heavy", "bn", steps={steps}, **{small})
def hold(history):  # in mid-training for as long as the test wants it
    while len(history.loss) >= 20 and Path({held!r}).exists():
        time.sleep(0.01)
try:
    history = train(
        recipe, out={out!r}, resume=True, checkpoint_every=5, device="cpu", progress=False, on_step=hold
    )
    print("ended", json.dumps(history.loss))
except CheckpointError as error:
    print("refused", error)
"""
FILL = """
import shutil
from normviz.lab import cifar10
def download(place):
    return shutil.copy({archive!r}, place)
cifar10._download = download
print("filled", len(cifar10.read_cifar10(cache={cache!r})[0]))
"""


class Kernel:
    """A Jupyter kernel of this Python; `run` gives what a cell prints."""

    def __init__(self):
        from jupyter_client.manager import start_new_kernel

        self.manager, self.client = start_new_kernel(kernel_name="python3")

    def start(self, code: str) -> str:
        return self.client.execute(code)

    def end(self, asked: str) -> str:
        printed = []
        while True:
            message = self.client.get_iopub_msg(timeout=300)
            if message["parent_header"].get("msg_id") != asked:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                printed.append(content["text"])
            assert kind != "error", "\n".join(content["traceback"])
            if kind == "status" and content["execution_state"] == "idle":
                return "".join(printed)

    def restart(self) -> None:
        self.manager.restart_kernel(now=True)
        self.client.wait_for_ready(timeout=120)

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def kernels(monkeypatch):
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    started: list[Kernel] = []
    try:
        for _ in range(2):
            started.append(Kernel())
        yield started
    finally:
        for kernel in started:
            kernel.close()


@pytest.mark.long
def test_kernels_restart_in_mid_training_and_share_a_folder_and_a_cache(kernels, tmp_path):
    first, second = kernels
    whole = tmp_path / "archive.tar.gz"
    with tarfile.open(whole, "w:gz") as tar:
        for name in FILES:
            info = tarfile.TarInfo(f"{cifar10.FOLDER}/{name}")
            info.size = len(RECORD)
            tar.addfile(info, BytesIO(RECORD))
    for kernel in kernels:
        kernel.end(kernel.start("import normviz.lab.training"))
    rounds = count(1, 5)
    for trial in range(rounds):
        out = tmp_path / f"run{trial}"
        (held := tmp_path / "held").touch()
        cell = CELL.format(steps=2 * STEPS, small=SMALL, out=str(out), held=str(held))
        first.start(cell)
        end = time.monotonic() + 120
        while not checkpoints(out):
            assert time.monotonic() < end
            time.sleep(0.02)
        refused = second.end(second.start(cell))
        assert refused.startswith("refused") and "another process trains in it" in refused
        first.restart()  # in mid-training
        held.unlink()
        assert not (out / "history.json").exists()
        said = first.end(first.start(cell))
        assert said.startswith("ended")
        alone = train(preset("heavy", "bn", steps=2 * STEPS, **SMALL), device="cpu", progress=False)
        assert json.loads(said.removeprefix("ended")) == alone.loss
        fill = FILL.format(archive=str(whole), cache=str(tmp_path / f"cache{trial}"))
        asked = [kernel.start(fill) for kernel in kernels]
        assert [kernel.end(ask) for kernel, ask in zip(kernels, asked, strict=True)] == ["filled 5\n"] * 2
    say(f"{rounds} kernels restarted in mid-training, {rounds} folders and caches with two kernels on them")


# Explorers ------------------------------------------------------------------------------------------------------

EVENTS = count(40, int(os.environ.get("NORMVIZ_SOAK_EVENTS", "20000")))


@pytest.mark.long
@pytest.mark.parametrize("name", EXPLORERS)
def test_an_explorer_can_be_played_with_for_hours(name):
    """Random events of its widgets, as a browser sends them; memory after the first half is memory at the end."""
    live, rng, process = start(name).live(), np.random.default_rng(SEED), psutil.Process()

    def event(number: int) -> None:
        enabled = [control for control in live.state.controls().values() if control.enabled]
        control = enabled[rng.integers(len(enabled))]
        offered = control.offers()
        chosen = offered[rng.integers(len(offered))]
        place = list(control.values).index(chosen) if control.values else chosen
        if control.name not in live.controls:  # moved by hand, in the picture
            live.sheet.hand = {"changes": {control.name: place}, "number": number}
        elif hasattr(widget := live.controls[control.name], "index"):  # the browser sends the place in a list
            widget.index = place
        else:
            widget.value = chosen
        assert live.state.controls()[control.name].value == chosen

    def weigh() -> tuple[int, int]:
        gc.collect()
        return process.memory_info().rss, len(gc.get_objects())

    for number in range(EVENTS // 2):
        event(number)
    bytes_before, objects_before = weigh()
    for number in range(EVENTS // 2, EVENTS):
        event(number)
    bytes_after, objects_after = weigh()
    assert escape(live.state.scene().alt) in live.sheet.words
    live.close()
    grown, more = (bytes_after - bytes_before) / 2**20, objects_after - objects_before
    say(f"{name}: {EVENTS:,} events; in the second half memory {grown:+.1f} MiB, objects {more:+,}")
    if LONG:
        assert grown < 8 and more < 5000
