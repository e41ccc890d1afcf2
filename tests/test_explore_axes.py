"""The axes explorer under random events, against an oracle computed from torch."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from shortened import mostly_long
from turns import walk

import normviz as nv
from normviz.explore.axes import Axes
from normviz.explore.base import Code
from normviz.picture.scene import Shapes

#: Dimensions of (N, C, H, W) that one set spans, written down here on their own
DIMS = {
    "batch": (0, 2, 3), "layer": (1, 2, 3), "layer_token": (1,), "instance": (2, 3), "group": (1, 2, 3), "rms": (1,),
}  # fmt: skip


def oracle(x, method, groups, cursor):
    """Size, mean and variance of the cursor's set (RMSNorm: mean square), and the number of sets, from torch."""
    x = torch.from_numpy(x)
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


def drawn(state):
    """The pairs cell -> set that are drawn; the layers of one block must not contradict each other."""
    faces = [pair for item in state.scene().drawn if isinstance(item, Shapes) for pair in item.data or ()]
    if not state.compare:
        assert len(set(faces)) == len({cell for cell, _ in faces})
    return {tuple(map(int, cell.split(","))): int(label) for cell, label in faces}


def check(state, *, picture=True):
    reading, sizes = state.read(), state.sizes
    sets = reading.sets
    assert reading.x.shape == sizes == sets.shape
    assert all(0 <= i < n for i, n in zip(state.cursor, sizes, strict=True))
    assert sizes[1] % state.groups == 0
    size, mean, var, number = oracle(reading.x, state.method, state.groups, state.cursor)
    assert (reading.size, sets.count.sets) == (size, number)
    np.testing.assert_allclose([reading.mean, reading.std**2], [mean, var], rtol=1e-5, atol=1e-6)
    assert len(np.unique(sets.labels)) == number
    layer = nv.torch_layer(state.method, sizes, sets.num_groups, eps=state.eps)
    for name, value in (("weight", state.gamma), ("bias", state.beta)):
        if getattr(layer, name, None) is not None:
            torch.nn.init.constant_(getattr(layer, name), value)
    if reading.refusal:
        assert state.method in ("batch", "instance") and size == 1
        with pytest.raises(ValueError):  # torch does refuse it
            layer(torch.from_numpy(reading.x))
    else:
        y = layer(torch.from_numpy(reading.x)).detach().numpy()
        np.testing.assert_allclose(reading.steps["affine"], y, rtol=1e-4, atol=1e-5 * max(1, np.abs(y).max()))
    if picture:
        cells = drawn(state)
        assert cells
        assert state.compare or all(sets.labels[cell] == label for cell, label in cells.items())


@pytest.mark.parametrize("seed", mostly_long(range(3), (0,)))
def test_a_thousand_random_events(seed):
    for k, state in enumerate(walk(Axes(), 334, seed)):
        check(state, picture=k % 4 == 0)


def test_the_groups_return_to_what_was_chosen():
    state, seen = Axes(method="group").turn(groups=4), []
    for channels in (7, 6, 1, 8):
        state = state.turn(C=channels)
        seen.append(state.controls()["groups"].value)
    assert seen == [1, 3, 1, 4]
    with pytest.raises(ValueError, match="groups=3"):
        state.turn(groups=3)


def test_the_cursor_stays_inside_and_rests_where_there_is_one_cell():
    state = Axes(cursor=(3, 7, 3, 3)).turn(N=1, C=5)
    assert state.cursor == (0, 4, 3, 3)
    assert not state.controls()["n"].enabled and state.controls()["c"].high == 4
    assert not state.controls()["groups"].enabled  # BatchNorm has none
    assert state.turn(compare=True).controls()["groups"].enabled


@pytest.mark.parametrize(("groups", "name"), [(1, "LayerNorm (whole sample)"), (8, "InstanceNorm")])
def test_it_says_where_groupnorm_coincides(groups, name):
    state = Axes(method="group").turn(groups=groups)
    assert f"those of {name}: the two coincide" in state.notes(state.read())[0]
    state = state.turn(groups=2)
    assert "coincide" not in state.notes(state.read())[0]


def test_a_refusal_is_shown_and_not_raised():
    state = Axes(method="instance").turn(H=1, W=1)
    notes = state.notes(state.read())
    assert "Refused by torch: x of shape (4, 8, 1, 1)" in notes[0] and "not run" in notes[-1]
    assert "after" not in " ".join(label.text for label in state.scene().labels)


@pytest.mark.parametrize("method", nv.METHODS)
def test_the_snippet_is_code_that_runs_and_agrees(method):
    state = Axes(method=method, gamma=2.0, beta=-0.5, eps=1e-3)
    reading, before = state.read(), torch.get_rng_state()
    *_, code, ran = state.notes(reading)
    assert isinstance(code, Code) and "ran just now" in ran
    assert torch.equal(torch.get_rng_state(), before)  # the reader's seed is the reader's
    names = {"nn": torch.nn, "x": torch.from_numpy(reading.x)}
    exec(code, names)
    groups = 2 if method == "group" else None
    expected = 2.0 * nv.normalize(reading.x, method, groups, eps=1e-3) - (0.0 if method == "rms" else 0.5)
    np.testing.assert_allclose(names["y"].detach().numpy(), expected, atol=1e-5, rtol=1e-5)
    told = float(ran.split("within ")[1].split(" of ")[0].replace("−", "-"))
    actual = np.abs(names["y"].detach().numpy() - nv.normalize(
        reading.x, method, groups, eps=1e-3, **{
            name: np.full(reading.sets.affine_shape, value, np.float32)
            for name, value in (("weight", 2.0), ("bias", -0.5)) if (method, name) != ("rms", "bias")
        },
    )).max()  # fmt: skip
    assert told == pytest.approx(actual, rel=0.06, abs=1e-12) and told < 1e-5


def test_a_wrong_snippet_would_be_found_out(monkeypatch):
    from normviz.norms import Cut

    right = Cut.snippet
    monkeypatch.setattr(
        Cut, "snippet", lambda *args, **kwargs: right(*args, **kwargs).replace("layer(x)", "layer(x) + 1")
    )
    state = Axes(eps=0.1)  # a state that no other test has read
    assert "within 1 of nv.normalize" in state.notes(state.read())[-1]


def test_without_torch_the_snippet_is_shown_and_not_run():
    code = """
import sys
from normviz.explore.axes import Axes
state = Axes()
print(state.notes(state.read())[-1])
state.html(most=8)
assert not {"torch", "ipywidgets", "matplotlib", "PIL", "sklearn"} & set(sys.modules)
print(Axes().live().sheet.words)
"""
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    plain, live = run.stdout.split("\n", 1)
    assert plain == "The code above was not run here." and "ran just now" in live


def test_side_by_side_shows_every_method():
    scene = Axes(compare=True).scene()
    for row in nv.METHODS.values():
        assert row.name in " ".join(label.text for label in scene.labels) and row.name in scene.alt


def test_it_opens_where_the_method_does_something():
    state = Axes()
    before, after = (item for item in state.scene().labels if item.text.startswith("μ="))
    assert before.text != after.text == "μ=0  σ=1"


def test_moving_the_cursor_leaves_the_backdrop():
    state = Axes(method="layer_token", sizes=(8, 8, 8, 8))  # four samples of it fit into the unfolded view
    first = state.scene().backdrop
    assert state.turn(c=0).turn(h=5).scene().backdrop is first
    assert state.turn(n=7).scene().backdrop is not first
    assert state.turn(method="rms").scene().backdrop is not first


@pytest.mark.parametrize(
    ("x", "layout"),
    [
        (torch.randn(2, 6, 3, 3), "NCHW"),
        (torch.randn(2, 6, 9, dtype=torch.float64, requires_grad=True), "NCHW"),
        (torch.randn(5, 6).bfloat16(), "NCHW"),
        (np.arange(24).reshape(2, 3, 4), "BTD"),
        (torch.full((2, 4, 2, 2), float("nan")), "NCHW"),
        (torch.tensor([[[1.0, float("inf")], [2.0, float("-inf")]]]), "NCHW"),
        (torch.randn(20, 64, 32, 32), "NCHW"),
    ],
)
def test_a_tensor_of_the_readers_own(x, layout):
    for method in nv.METHODS:
        state = Axes(x, layout=layout, method=method)
        reading, texts = state.read(), state.notes(state.read())
        assert all(reading.sets.labels[cell] == label for cell, label in drawn(state).items())
        part = np.asarray(x.detach().float() if torch.is_tensor(x) else x)[tuple(map(slice, state.sizes))]
        np.testing.assert_allclose(reading.x, part, rtol=1e-6)
        assert "within" in texts[-1] or reading.refusal
        assert "within nan" not in texts[-1]
    assert any("the sliders reach x[:8, :16, :8, :8]" in text for text in texts) == (max(x.shape) > 16)


@pytest.mark.parametrize(
    ("call", "error", "word"),
    [
        (lambda: Axes("digits"), TypeError, "x must be a tensor"),
        (lambda: Axes(torch.randn(2, 3).to(torch.complex64)), TypeError, "x must be a tensor"),
        (lambda: Axes(torch.randn(2, 2, 2, 2, 2)), ValueError, "rank 5"),
        (lambda: Axes(torch.randn(0, 2)), ValueError, "N=0"),
        (lambda: Axes(torch.randn(2, 2), layout="HWC"), ValueError, "layout='HWC'"),
        (lambda: Axes(layout="BTD"), ValueError, "layout='BTD'"),
        (lambda: Axes(method="bn"), ValueError, "method='bn'"),
        (lambda: Axes(sizes=(9, 1, 1, 1)), ValueError, "sizes=(9, 1, 1, 1) must be from (1, 1, 1, 1) to (8, 8, 8, 8)"),
        (lambda: Axes(sizes=(0, 1, 1, 1)), ValueError, "sizes=(0, 1, 1, 1)"),
        (lambda: Axes(sizes=4), ValueError, "sizes=4 must be integers"),
        (lambda: Axes(cursor=(0, 8, 0, 0)), ValueError, "cursor=(0, 8, 0, 0) must be from (0, 0, 0, 0) to (3, 7"),
        (lambda: Axes(cursor=(0, 0)), ValueError, "cursor=(0, 0)"),
    ],
)
def test_bad_input_is_named(call, error, word):
    with pytest.raises(error) as caught:
        call()
    assert word in str(caught.value)
