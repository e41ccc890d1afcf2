"""Faults that trials have found: bad input is named, no test leaves this machine, a home may be missing.

The losses (folders, checkpoints, caches, records) are tried in test_lab_training, test_lab_data, test_lab_study and
test_cli, and many times over in test_soak.
"""

import os
import socket
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
import torch

import normviz as nv
from normviz.lab import ViT, evaluate, load_images, run_layer, summary, train
from normviz.lab.history import History
from normviz.lab.recipe import preset

X = torch.ones(2, 3, 4, 4)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: run_layer("layernorm", torch.ones(2, 3), torch.ones(4, 3)), ValueError, "kind='layernorm' is unknown"),
        (lambda: nv.torch_layer("batch", X.shape, eps=-1), ValueError, "eps=-1 must be a finite number >= 0"),
        (lambda: nv.normalize(X, "batch", eps=float("nan")), ValueError, "eps=nan must be a finite number >= 0"),
        (lambda: nv.torch_layer("batch", X.shape, momentum="0.1"), ValueError, "momentum='0.1' must be a number"),
        (lambda: nv.normalize(torch.ones(1, 3), "group", 3), ValueError, "gives 'group' a single value per group"),
        (lambda: nv.partition("batch", (4.7, 6.2)), TypeError, "shape=(4.7, 6.2) is no sequence of integers"),
        (lambda: nv.partition("batch", "4633"), TypeError, "shape='4633' is no sequence of integers"),
        (lambda: nv.explore.axes(cursor=(0.9, 1, 1, 1)), ValueError, "cursor=(0.9, 1, 1, 1) must be integers"),
        (lambda: nv.draw.block_scene(X, "batch", cursor=(0.9, 1, 1, 1)), ValueError, "cursor=(0.9, 1, 1, 1) is no"),
        (lambda: nv.draw.ratios_scene({}, 1.0), ValueError, "runs={} holds no ratios"),
        (lambda: nv.draw.accuracies_scene({}), ValueError, "accuracies={} has an empty place"),
        (lambda: nv.draw.photos_scene([[np.zeros((2, 0))]], ["a"], ["b"], ""), ValueError, "one of shape (2, 0)"),
        (lambda: nv.normalize(X, "batch", weight=[1.0] * 3), TypeError, "weight must be a Tensor, as x is, got list"),
        (lambda: nv.normalize(X, "batch", running=([0], [1])), TypeError, "running mean must be a Tensor"),
        (lambda: nv.explore.batches(evaluation="8"), ValueError, "evaluation='8' is unknown; it takes"),
        (lambda: nv.explore.geometry(azimuth=float("nan")), ValueError, "azimuth=nan must be a number"),
        (lambda: nv.explore.invariance(scale=[1]), ValueError, "scale=[1] is unknown"),
        (lambda: ViT(ffn="x"), ValueError, "ffn='x' is unknown; it takes one of gelu, swiglu"),
        (lambda: ViT(heads=4, width=6), ValueError, "heads=4 does not divide width=6"),
        (lambda: ViT(depth=0), ValueError, "depth=0 must be an integer >= 1"),
        (lambda: evaluate(ViT(depth=1), load_images(), count=-5), ValueError, "count=-5 must be an integer >= 1"),
        (lambda: evaluate(ViT(depth=1), load_images(), count="5"), ValueError, "count='5' must be an integer >= 1"),
        (lambda: evaluate(ViT(depth=1), load_images(), count=1.5), ValueError, "count=1.5 must be an integer >= 1"),
        (lambda: train(preset("tame"), checkpoint_every="9"), ValueError, "checkpoint_every='9' must be an integer"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error) as caught:
        call()
    assert says in str(caught.value)


def test_a_block_of_a_diverged_model_is_drawn_as_any_other():
    model = ViT("bn", depth=1)
    sound = nv.draw.vit_block_scene(model).alt
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    assert nv.draw.vit_block_scene(model).alt == sound


def test_counting_needs_no_room():
    counted = nv.count_statistics("layer_token", (10**9, 3))
    assert counted.sets == 10**9 and counted.values == 2 * 10**9


def test_a_summary_takes_a_run_that_was_never_evaluated():
    (row,) = summary([History(preset("tame"), [2.3])])
    assert row["runs"] == 1 and np.isnan(row["accuracy"][0])


def test_tests_stay_on_this_machine(asked_elsewhere):
    """The guard itself, on an address and on a name of which there are none (RFC 5737, RFC 2606)."""
    with pytest.raises(ConnectionRefusedError), socket.socket() as stranger:
        stranger.connect(("192.0.2.1", 80))
    with pytest.raises(OSError, match=r"asked for normviz\.invalid"):
        urllib.request.urlopen("http://normviz.invalid/", timeout=1)
    assert len(asked_elsewhere) == 2
    asked_elsewhere.clear()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass


HOMELESS = """
import sys
import matplotlib
from normviz import explore
from normviz.lab import DataError, load_images, preset, train
from normviz.lab import cifar10
assert explore.axes().figure().alt
history = train(preset("tame", "bn", depth=1, steps=2, warmup=1), device="cpu", progress=False)
cifar10.SOURCES = ("http://127.0.0.1:9/a", "http://127.0.0.1:9/b")
try:
    load_images("cifar10")
except DataError as error:
    assert "cannot be kept in" in str(error) or "could not be fetched" in str(error), error
    print(len(history.loss), "sound")
"""


def test_a_home_that_cannot_be_written_is_no_reason_to_stop(tmp_path):
    """Home is a file here: that stops root, too."""
    home = tmp_path / "home"
    home.write_text("no folder")
    places = ("HOME", "USERPROFILE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "LOCALAPPDATA")
    environment = os.environ | dict.fromkeys(places, str(home))
    for name in ("MPLCONFIGDIR", "NORMVIZ_CIFAR10"):
        environment.pop(name, None)
    run = subprocess.run([sys.executable, "-c", HOMELESS], capture_output=True, text=True, env=environment, timeout=120)
    assert run.returncode == 0 and run.stdout.split() == ["2", "sound"], run.stderr
    doctor = subprocess.run(
        [sys.executable, "-m", "normviz", "doctor"], capture_output=True, text=True, env=environment, timeout=120
    )
    assert "note   disk of the cache: " in doctor.stdout or "ok     disk of the cache: " in doctor.stdout, doctor.stderr
