"""The explorers of notebook 03 against torch's own layers, under random events; the geometry they draw is true."""

import random
import re
import xml.etree.ElementTree as ET
from html import escape

import numpy as np
import pytest
import torch
from torch import nn

import normviz as nv
from normviz.lab import computed_sets, moved_by_company
from normviz.picture import geometry, invariance
from normviz.picture.scene import Shapes, Strokes
from normviz.picture.svg import to_svg

SVG = "{http://www.w3.org/2000/svg}"


def turn_one(explorer, rng):
    """Set one control to a value that it takes."""
    control = explorer.controls[rng.choice(list(explorer.controls))]
    if hasattr(control, "options"):
        control.value = rng.choice([o[1] if isinstance(o, tuple) else o for o in control.options])
    elif hasattr(control, "base"):
        control.value = control.base ** rng.uniform(control.min, control.max)
    elif isinstance(control.value, int):
        control.value = rng.randint(control.min, control.max)
    else:
        control.value = rng.uniform(control.min, control.max)


def torch_norm(method, x, eps, gamma=None, beta=None):
    """x (B, T, D) through torch's own layer in training mode, with weight and bias; None for BN, LN, RMSNorm."""
    size = x.shape[-1]
    name = {"layer_token": nn.LayerNorm, "rms": nn.RMSNorm, "batch": nn.BatchNorm1d}[method]
    layer = name(size, eps=eps, dtype=x.dtype)
    with torch.no_grad():
        y = layer(x.flatten(0, 1)).reshape(x.shape)
    return y if gamma is None else y * torch.tensor(gamma, dtype=x.dtype) + torch.tensor(beta, dtype=x.dtype)


# Tokens in space -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_the_tokens_are_where_torch_puts_them_under_random_events(seed):
    rng, explorer = random.Random(seed), nv.explore_geometry()
    for _ in range(60):
        turn_one(explorer, rng)
        state, panels = explorer.state, explorer.panels
        x = torch.from_numpy(geometry.tokens_of(state.tokens, state.images))
        for method, panel in panels.items():
            scaled = torch_norm(method, x, state.eps).reshape(-1, 3).numpy()
            gamma, beta = [state.gamma, 1.0, 1.0], [state.beta, 0.0, 0.0]
            affine = torch_norm(method, x, state.eps, gamma, beta).reshape(-1, 3).numpy()
            for step, expected in ((0, x.reshape(-1, 3).numpy()), (2, scaled), (3, affine)):
                np.testing.assert_allclose(panel.steps[step], expected, rtol=1e-6, atol=1e-9)
            low = min(int(state.step), 2)
            share = state.step - low
            between = (1 - share) * panel.steps[low] + share * panel.steps[low + 1]
            np.testing.assert_allclose(panel.points, between, atol=1e-12)
        scene = explorer.scene()
        assert escape(scene.alt) in explorer._text.value and to_svg(scene) in explorer._picture.value
        assert explorer.twin().alt == scene.alt
        check_drawing(scene, state, panels)


def check_drawing(scene, state, panels):
    """Every token is drawn once a panel, where the view has it, and nothing leaves its panel."""
    drawn = [item for item in scene.items if isinstance(item, Shapes) and item.name == "token"]
    assert sum(len(item.points) for item in drawn) == 3 * 16 * state.images
    for followed, panel in zip(
        (item for item in scene.items if getattr(item, "name", "") == "followed"),
        panels.values(),
        strict=True,
    ):
        k = list(panels).index(panel.method)
        wide = geometry.WIDTH / 3
        half = min(wide - 8, 280) / 2
        view = geometry.View(
            state.turn, state.tilt, ((k + 0.5) * wide, 44 + 140), half / geometry.extent(panels)
        )
        np.testing.assert_allclose(followed.points[0].mean(axis=0), view(panel.points[state.token]), atol=0.5)
        assert k * wide <= followed.points[..., 0].min() and followed.points[..., 0].max() <= (k + 1) * wide


def test_layer_norm_lands_on_a_circle_and_rms_norm_on_a_sphere():
    panels = geometry.read(geometry.State(tokens="filters", eps=1e-12))
    ln, rms, bn = (panels[method].points for method in ("layer_token", "rms", "batch"))
    np.testing.assert_allclose(ln.sum(axis=1), 0, atol=1e-9)  # the plane
    np.testing.assert_allclose(np.linalg.norm(ln, axis=1), 3**0.5, rtol=1e-6)  # the sphere
    np.testing.assert_allclose(np.linalg.norm(rms, axis=1), 3**0.5, rtol=1e-6)
    assert np.ptp(rms.sum(axis=1)) > 3  # no plane
    # Rank 2 against 3: the circle has one dimension less than the sphere
    assert np.linalg.matrix_rank(ln, tol=1e-6) == 2 and np.linalg.matrix_rank(rms, tol=1e-6) == 3
    # BatchNorm holds the sphere in the mean square alone
    lengths = np.linalg.norm(bn, axis=1)
    assert np.mean(lengths**2) == pytest.approx(3, rel=1e-6) and np.ptp(lengths) > 1


def test_the_circle_and_the_surface_go_where_the_tokens_go():
    state = geometry.State(tokens="filters", step=3, gamma=1.7, beta=-0.6, eps=1e-12)
    panels = geometry.read(state)
    for method in ("layer_token", "rms"):
        panel = panels[method]
        on_sphere = (panel.points - panel.centre) / panel.axes
        np.testing.assert_allclose(np.linalg.norm(on_sphere, axis=1), 1, rtol=1e-6)
    # The ellipsoid of BN: centre and half axes are mean and √3·σ of the cloud, at every step
    for step in (0.0, 0.4, 1.0, 1.5, 2.0, 2.7, 3.0):
        bn = geometry.read(geometry.State(step=step, gamma=1.7, beta=-0.6))["batch"]
        np.testing.assert_allclose(bn.centre, bn.points.mean(axis=0), atol=1e-9)
        np.testing.assert_allclose(bn.axes, 3**0.5 * bn.points.std(axis=0), rtol=1e-6)


def test_the_ring_of_the_plane_is_a_unit_circle_of_mean_zero():
    np.testing.assert_allclose(geometry.PLANE.sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(geometry.PLANE, axis=1), 1)
    np.testing.assert_allclose(np.linalg.norm(geometry.GLOBE, axis=2), 1)


def test_the_view_is_a_rotation_and_the_painter_starts_behind():
    rng = np.random.default_rng(0)
    for turn, tilt in rng.uniform(-180, 180, (20, 2)):
        view = geometry.View(turn, tilt, (0, 0), 1.0)
        frame = np.vstack([view.screen, view.eye])
        np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-12)
    # From the front feature 1 points at the eye, 2 to the right and 3 up (pixels point down)
    view = geometry.View(0, 0, (0, 0), 1.0)
    np.testing.assert_allclose(view(np.eye(3)), [(0, 0), (1, 0), (0, -1)], atol=1e-12)
    points = rng.normal(size=(32, 3))
    state = geometry.State(images=2, tokens="pixels")
    view = geometry.View(state.turn, state.tilt, (0, 0), 1.0)
    (drawn,) = geometry._dots(view, points, np.arange(32))
    order = [16 * int(cell.split(",")[0]) + int(cell.split(",")[1]) for cell, _ in drawn.data]
    assert sorted(order) == list(range(32)) and np.all(np.diff(view.depth(points[order])) >= 0)


def test_along_the_diagonal_the_circle_is_drawn_round():
    state = geometry.State(turn=45.0, tilt=float(np.degrees(np.arctan(0.5**0.5))))
    scene = geometry.geometry_scene(state, geometry.read(state))
    (circle,) = (item for item in scene.items if isinstance(item, Strokes) and item.name == "circle")
    corners = circle.points[:, 0]
    radii = np.linalg.norm(corners - corners.mean(axis=0), axis=1)
    np.testing.assert_allclose(radii, radii.mean(), rtol=1e-9)


def test_company_moves_batch_norm_alone():
    few, many = (geometry.read(geometry.State(images=n)) for n in (1, 4))
    for method in geometry.SHOWN:
        same = np.array_equal(few[method].points[:16], many[method].points[:16])
        assert same == (method != "batch")


def test_a_blank_patch_stays_at_the_centre():
    panels = geometry.read(geometry.State(tokens="pixels"))
    blank = np.flatnonzero(~panels["rms"].steps[0].any(axis=1))
    assert len(blank)
    for method in ("layer_token", "rms"):
        np.testing.assert_array_equal(panels[method].points[blank], 0)
    assert np.abs(panels["batch"].points[blank]).min() > 0.5


# What the output does not notice ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_the_moves_are_those_of_torch_layers_under_random_events(seed):
    rng, explorer = random.Random(seed), nv.explore_invariance()
    base = torch.from_numpy(nv.digit_features(1, 8, 4, 4)[0].reshape(8, 16).T.astype(float))
    for _ in range(60):
        turn_one(explorer, rng)
        state, reading = explorer.state, explorer.reading
        x = base * state.weights
        rows = {"token": [5], "feature": range(16), "all": range(16)}[state.scope]
        columns = {"token": range(8), "feature": [2], "all": range(8)}[state.scope]
        inside = np.zeros((16, 8), bool)
        inside[np.ix_(list(rows), list(columns))] = True
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
                old = layer(base).numpy()
                new = layer(x).numpy()
            np.testing.assert_allclose(reading.moves[method], new - old, rtol=1e-6, atol=1e-9)
            for cells, shares in ((inside, reading.inside), (~inside, reading.outside)):
                if cells.any():
                    share = np.linalg.norm((new - old)[cells]) / np.linalg.norm(old[cells])
                    assert shares[method] == pytest.approx(share, rel=1e-6, abs=1e-9)
                else:
                    assert np.isnan(shares[method])
        scene = explorer.scene()
        assert escape(scene.alt) in explorer._text.value and to_svg(scene) in explorer._picture.value
        told = re.findall(r"([\w ]+): ([\d.e-]+|—) %", scene.alt)
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
    reading = invariance.read(invariance.State(**change))
    assert {m for m in invariance.METHODS_SHOWN if invariance.is_still(reading, m)} == still


def test_nothing_done_nothing_moved():
    for evaluation in (False, True):
        reading = invariance.read(invariance.State(evaluation=evaluation))
        assert all(not move.any() for move in reading.moves.values())


# Both ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: nv.explore_geometry("words"), "tokens='words'"),
        (lambda: nv.explore_geometry(step=4), "step=4"),
        (lambda: nv.draw_geometry(images=0), "images=0"),
        (lambda: nv.explore_invariance("row"), "scope='row'"),
        (lambda: nv.explore_invariance(scale=3.0), "scale=3.0"),
        (lambda: nv.draw_invariance(shift=9), "shift=9"),
        (lambda: nv.draw_invariance(weights=0.3), "weights=0.3"),
    ],
)
def test_bad_input_is_named(call, word):
    with pytest.raises(ValueError) as caught:
        call()
    assert word in str(caught.value)


@pytest.mark.parametrize("figure", [nv.draw_geometry, nv.draw_invariance])
def test_a_figure_says_what_it_shows(figure):
    assert "LayerNorm" in figure().alt


def test_the_pictures_are_sound_svg():
    for explorer in (nv.explore_geometry(), nv.explore_invariance()):
        svg = re.search(r"<svg.*</svg>", explorer._picture.value, re.S)[0]
        texts = list(ET.fromstring(svg).iter(f"{SVG}text"))
        assert texts and all(float(text.get("font-size")) >= 12 for text in texts)


# Which statistics are computed at inference ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "groups"), [(m, 2 if row.grouped else None) for m, row in nv.METHODS.items()]
)
def test_computed_sets_agree_with_the_table(method, groups):
    shape = (2, 4, 2, 2)
    layer = nv.torch_layer(method, shape, groups)
    expected = nv.count_statistics(method, shape, num_groups=groups).sets
    assert computed_sets(layer, shape) == expected
    assert computed_sets(layer.eval(), shape) == (0 if nv.METHODS[method].running else expected)


def test_asking_leaves_the_layer_as_it_was():
    layer = nn.BatchNorm2d(4)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    computed_sets(layer, (2, 4, 2, 2))
    moved_by_company(layer, torch.randn(2, 4, 2, 2), torch.randn(2, 4, 2, 2))
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert layer.weight.dtype == torch.float32


def test_the_ledger_says_what_was_measured():
    from normviz.lab.claims import CLAIMS

    (claim,) = (claim for claim in CLAIMS if claim.notebook == "03_layer_norm")
    finding = claim.measure(None)
    assert finding.verdict == "holds" and "8 sets in training and 8 in evaluation" in finding.numbers
