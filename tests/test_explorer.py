"""The axes explorer under random events, against an oracle computed from torch."""

import random
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch

import normviz as nv

#: Dimensions of (N, C, H, W) that one set spans, written down here on their own
DIMS = {
    "batch": (0, 2, 3), "layer": (1, 2, 3), "layer_token": (1,), "instance": (2, 3), "group": (1, 2, 3), "rms": (1,),
}  # fmt: skip


def oracle(x, method, groups, cursor):
    """Size, mean and variance of the cursor's set (RMSNorm: mean square), and the number of sets, from torch."""
    n, c = cursor[:2]
    if method == "group":
        per = x.shape[1] // groups
        members = x[n, (c // per) * per : (c // per + 1) * per].flatten()
        sets = x.shape[0] * groups
    else:
        index = tuple(slice(None) if i in DIMS[method] else at for i, at in enumerate(cursor))
        members = x[index].flatten()
        sets = x.numel() // members.numel()
    members = members.double()
    if method == "rms":
        return members.numel(), 0.0, float(members.square().mean()), sets
    return members.numel(), float(members.mean()), float(members.var(correction=0)), sets


def drawn(explorer):
    """The pairs cell -> set in the SVGs that are shown; the layers of one block must not contradict each other."""
    layers = re.findall(r"<svg.*?</svg>", explorer._backdrop.value + explorer._picture.value, re.S)
    faces = [e.attrib for layer in layers for e in ET.fromstring(layer).iter() if "data-cell" in e.attrib]
    if not explorer.state.compare:
        assert len({(f["data-cell"], f["data-set"]) for f in faces}) == len({f["data-cell"] for f in faces})
    return {tuple(map(int, f["data-cell"].split(","))): int(f["data-set"]) for f in faces}


def random_event(explorer, rng):
    """Turn one control to a value that it takes."""
    name = rng.choice(list(explorer.controls))
    control = explorer.controls[name]
    if hasattr(control, "options"):
        options = [option[1] if isinstance(option, tuple) else option for option in control.options]
        if name == "method":
            options = list(nv.METHODS)
        control.value = rng.choice(options)
    elif name == "compare":
        control.value = rng.random() < 0.2
    elif name == "eps":
        control.value = 10 ** rng.uniform(-8, 0)
    elif name in ("gamma", "beta"):
        control.value = rng.uniform(-3, 3)
    else:
        control.value = rng.randint(control.min, control.max)


def check(explorer):
    state, reading, x = explorer.state, explorer.reading, explorer.x
    assert tuple(x.shape) == tuple(explorer.controls[letter].value for letter in "NCHW")
    assert all(0 <= i < n for i, n in zip(state.cursor, x.shape, strict=True))
    assert x.shape[1] % state.num_groups == 0
    size, mean, var, sets = oracle(x, state.method, state.num_groups, state.cursor)
    assert (reading.size, reading.count.sets) == (size, sets)
    np.testing.assert_allclose([reading.mean, reading.var], [mean, var], rtol=1e-5, atol=1e-6)
    assert len(np.unique(reading.labels)) == sets
    if reading.refusal is None:
        finite = np.abs(reading.steps["affine"])
        assert reading.deviation < 1e-5 * max(1.0, finite.max())
    else:
        assert state.method in ("batch", "instance") and size == 1
    cells = drawn(explorer)
    assert cells
    if not state.compare:
        assert all(reading.labels[cell] == label for cell, label in cells.items())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_thousand_random_events(seed):
    rng, explorer = random.Random(seed), nv.explore_axes()
    for _ in range(334):
        random_event(explorer, rng)
        check(explorer)


def test_one_event_is_one_picture():
    explorer, pictures = nv.explore_axes(method="group"), []
    explorer._picture.observe(lambda change: pictures.append(change["new"]), names="value")
    explorer.controls["C"].value = 6  # changes the groups and perhaps the cursor along with it
    assert len(pictures) == 1
    explorer.controls["N"].value = 1
    assert len(pictures) == 2
    assert explorer.state.cursor[0] == 0 and explorer.controls["n"].disabled


def test_the_groups_return_to_what_was_chosen():
    controls = nv.explore_axes(method="group").controls
    controls["groups"].value = 4
    seen = []
    for channels in (7, 6, 1, 8):
        controls["C"].value = channels
        seen.append(controls["groups"].value)
    assert seen == [1, 3, 1, 4]


@pytest.mark.parametrize(("groups", "name"), [(1, "LayerNorm (whole sample)"), (8, "InstanceNorm")])
def test_it_says_where_groupnorm_coincides(groups, name):
    explorer = nv.explore_axes(method="group")
    explorer.controls["groups"].value = groups
    assert f"those of {name}: the two coincide" in explorer._text.value
    explorer.controls["groups"].value = 2
    assert "coincide" not in explorer._text.value


def test_a_refusal_is_shown_and_not_raised():
    explorer = nv.explore_axes(method="instance")
    explorer.controls["H"].value = explorer.controls["W"].value = 1
    assert explorer.reading.refusal and "Refused by torch" in explorer._text.value
    with pytest.raises(ValueError):  # torch does refuse it
        nv.torch_layer("instance", explorer.x.shape)(explorer.x)


def test_the_snippet_is_code_that_runs_and_agrees():
    explorer = nv.explore_axes(method="layer_token")
    explorer.controls["gamma"].value, explorer.controls["beta"].value = 2.0, -0.5
    names = {"nn": torch.nn, "x": explorer.x}
    exec(explorer.reading.snippet, names)
    expected = 2.0 * nv.normalize(explorer.x, "layer_token") - 0.5
    torch.testing.assert_close(names["y"].detach(), expected, atol=1e-5, rtol=1e-5)


def test_side_by_side_shows_every_method():
    explorer = nv.explore_axes()
    explorer.controls["compare"].value = True
    for row in nv.METHODS.values():
        assert row.name in explorer._picture.value


@pytest.mark.parametrize(
    ("x", "layout"),
    [
        (torch.randn(2, 6, 3, 3), "NCHW"),
        (torch.randn(2, 6, 9, dtype=torch.float64), "NCHW"),
        (torch.randn(5, 6).bfloat16(), "NCHW"),
        (np.arange(24).reshape(2, 3, 4), "BTD"),
        (torch.full((2, 4, 2, 2), float("nan")), "NCHW"),
        (torch.tensor([[[1.0, float("inf")], [2.0, float("-inf")]]]), "NCHW"),
        (torch.randn(20, 64, 32, 32), "NCHW"),
    ],
)
def test_a_tensor_of_the_readers_own(x, layout):
    for method in nv.METHODS:
        explorer = nv.explore_axes(x, layout=layout, method=method)
        labels = explorer.reading.labels
        assert all(labels[cell] == label for cell, label in drawn(explorer).items())
    assert ("the sliders reach" in explorer._text.value) == (max(x.shape) > 16)


@pytest.mark.parametrize(
    ("call", "error", "word"),
    [
        (lambda: nv.explore_axes("digits"), TypeError, "x must be a tensor"),
        (lambda: nv.explore_axes(torch.randn(2, 3).to(torch.complex64)), TypeError, "x must be a tensor"),
        (lambda: nv.explore_axes(torch.randn(2, 2, 2, 2, 2)), ValueError, "rank 5"),
        (lambda: nv.explore_axes(torch.randn(0, 2)), ValueError, "N=0"),
        (lambda: nv.explore_axes(torch.randn(2, 2), layout="HWC"), ValueError, "layout='HWC'"),
        (lambda: nv.explore_axes(layout="BTD"), ValueError, "layout='BTD'"),
        (lambda: nv.explore_axes(method="bn"), ValueError, "method='bn'"),
    ],
)
def test_bad_input_is_named(call, error, word):
    with pytest.raises(error) as caught:
        call()
    assert word in str(caught.value)


def test_a_saved_notebook_gets_a_picture():
    data, metadata = nv.explore_axes()._repr_mimebundle_()
    assert set(data) == {"image/png", "text/plain", "application/vnd.jupyter.widget-view+json"}
    assert data["text/plain"] == "AxesExplorer" and data["image/png"].startswith(b"\x89PNG")
    assert "64 sets" not in metadata["image/png"]["alt"] and "8 sets in all" in metadata["image/png"]["alt"]
