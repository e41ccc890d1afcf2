"""How far outputs move, against torch's own layers and the published table."""

import re

import numpy as np
import pytest
import torch
from torch import nn
from turns import named, walk

import normviz as nv
from normviz.explore.invariance import SHOWN, Invariance


@pytest.mark.parametrize("seed", [0, 1])
def test_the_moves_are_those_of_torch_layers_under_random_events(seed):
    base = torch.from_numpy(nv.samples.digit_features(1, 8, 4, 4)[0].reshape(8, 16).T.astype(float))
    for state in walk(Invariance(), 60, seed):
        reading = state.read()
        rows = {"token": [5], "feature": range(16), "all": range(16)}[state.scope]
        columns = {"token": range(8), "feature": [2], "all": range(8)}[state.scope]
        inside = np.zeros((16, 8), bool)
        inside[np.ix_(list(rows), list(columns))] = True
        x = base * state.weights
        x = torch.where(torch.from_numpy(inside), x * state.scale + state.shift, x)
        np.testing.assert_allclose(reading.after, x.numpy(), rtol=1e-12, atol=1e-12)
        layers = {None: nn.Identity(), "layer_token": nn.LayerNorm(8), "rms": nn.RMSNorm(8, eps=1e-5)}
        layers["batch"] = nn.BatchNorm1d(8, momentum=1.0)
        for method, layer in layers.items():
            layer.double()
            if state.evaluation:
                layer(base)  # momentum 1: exactly these statistics are stored
                layer.eval()
            with torch.no_grad():
                old, new = layer(base).numpy(), layer(x).numpy()
            np.testing.assert_allclose(reading.moves[method], new - old, rtol=1e-6, atol=1e-9)
            for cells, shares in ((inside, reading.inside), (~inside, reading.outside)):
                if cells.any():
                    share = np.linalg.norm((new - old)[cells]) / np.linalg.norm(old[cells])
                    assert shares[method] == pytest.approx(share, rel=1e-6, abs=1e-9)
                else:
                    assert np.isnan(shares[method])
        check_drawing(state, reading, inside)


def check_drawing(state, reading, inside):
    """The frame of each map is around the changed cells; caption, bars and titles show what was read."""
    scene = state.scene(reading)
    every = (reading.after, *reading.moves.values())
    for cells, frame, values in zip(named(scene, "difference"), named(scene, "changed"), every, strict=True):
        framed = cells.points[inside.ravel()].reshape(-1, 2)
        for end in (np.min, np.max):
            np.testing.assert_allclose(end(frame.points.reshape(-1, 2), axis=0), end(framed, axis=0))
        shown = [float(title.rsplit(" ", 1)[1]) for title in cells.titles]
        np.testing.assert_allclose(shown, values.ravel(), rtol=5.1e-3, atol=1e-12)
    shares = [(reading.inside[m], reading.outside[m]) for m in SHOWN]
    shares = [min(share, 1.0) for pair in shares for share in pair if not np.isnan(share)]
    widths = [np.ptp(bar.points[..., 0]) / (8 * 15.5) for bar in named(scene, "bar")]
    np.testing.assert_allclose(widths, shares, atol=1e-9)
    told = re.findall(r"([\w ]+): ([\d.e−]+|—) %", scene.alt)
    assert [name.strip() for name, _ in told] == ["no norm", "LayerNorm", "RMSNorm", "BatchNorm"]


#: Ba, Kiros & Hinton 2016, table 1, for LN and BN; Zhang & Sennrich 2019, table 1, adds RMSNorm
@pytest.mark.parametrize(
    ("change", "still"),
    [
        ({"scope": "all", "weights": 4.0}, {"layer_token", "rms", "batch"}),
        ({"scope": "feature", "scale": 4.0}, {"batch"}),
        ({"scope": "all", "scale": 0.5}, {"layer_token", "rms", "batch"}),
        ({"scope": "token", "scale": 8.0}, {"layer_token", "rms"}),
        ({"scope": "token", "shift": 2.0}, {"layer_token"}),
        ({"scope": "feature", "shift": 2.0}, {"batch"}),
        ({"scope": "all", "weights": 4.0, "evaluation": True}, {"layer_token", "rms"}),
    ],
)
def test_who_stands_still_is_as_published(change, still):
    reading = Invariance(**{"scale": 1.0, "shift": 0.0} | change).read()
    assert {method for method in SHOWN if reading.is_still(method)} == still


def test_nothing_done_nothing_moved():
    for evaluation in (False, True):
        reading = Invariance(scale=1.0, shift=0.0, evaluation=evaluation).read()
        assert all(not move.any() for move in reading.moves.values())


def test_the_caption_says_what_is_measured():
    assert Invariance("feature", 8.0, -3.0).scene().alt == (
        "Weights × 1; feature 2 becomes 8·x − 3; training. The output moves by: no norm: 728 % in feature 2, 0 % "
        "elsewhere; LayerNorm: 80 % in feature 2, 72 % elsewhere; RMSNorm: 79 % in feature 2, 72 % elsewhere; "
        "BatchNorm: 0.00022 % in feature 2, 0 % elsewhere."
    )
