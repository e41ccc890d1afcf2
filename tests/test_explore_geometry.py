"""Tokens in space against torch's own layers, and the geometry that is drawn of them."""

import numpy as np
import pytest
import torch
from torch import nn
from turns import named, walk

from normviz.explore.geometry import CIRCLE, GLOBE, PLANE, SHOWN, Geometry, View, dots, extent, stations, tokens_of

LAYERS = {"layer_token": nn.LayerNorm, "rms": nn.RMSNorm, "batch": nn.BatchNorm1d}


def torch_norm(method, x, eps, gamma=1.0, beta=0.0):
    """x (B, T, 3) through torch's own layer in training mode, as (B·T, 3); gamma, beta: of the first feature."""
    with torch.no_grad():
        y = LAYERS[method](3, eps=eps, dtype=x.dtype)(x.flatten(0, 1))
        weight, bias = (torch.tensor(values, dtype=x.dtype) for values in ([gamma, 1.0, 1.0], [beta, 0.0, 0.0]))
        return (y * weight + bias).numpy()


@pytest.mark.parametrize("seed", [0, 1])
def test_the_tokens_are_where_torch_puts_them_under_random_events(seed):
    for state in walk(Geometry(), 60, seed):
        reading = state.read()
        x = torch.from_numpy(tokens_of(state.tokens, state.images))
        raw = x.reshape(-1, 3).numpy()
        mean = {"layer_token": raw.mean(1, keepdims=True), "rms": 0, "batch": raw.mean(0)}
        for method, panel in reading.items():
            scaled = torch_norm(method, x, state.eps)
            affine = torch_norm(method, x, state.eps, state.gamma, state.beta)
            for step, expected in enumerate((raw, raw - mean[method], scaled, affine)):
                np.testing.assert_allclose(panel.steps[step], expected, rtol=1e-6, atol=1e-9)
            low = min(int(state.step), 2)
            between = (low + 1 - state.step) * panel.steps[low] + (state.step - low) * panel.steps[low + 1]
            np.testing.assert_allclose(panel.points, between, atol=1e-12)
        check_drawing(state, reading)


def check_drawing(state, reading):
    """Every token is drawn once a panel, where the view has it, and nothing leaves its panel."""
    scene = state.draw(reading)
    assert sum(len(item.points) for item in named(scene, "token")) == 3 * 16 * state.images
    for k, (followed, panel) in enumerate(zip(named(scene, "followed"), reading.values(), strict=True)):
        view = View(state.azimuth, state.tilt, ((k + 0.5) * 280, 184), 136 / extent(reading))
        np.testing.assert_allclose(followed.points[0].mean(axis=0), view(panel.points[state.token]), atol=0.5)
        assert k * 280 <= followed.points[..., 0].min() and followed.points[..., 0].max() <= (k + 1) * 280


def test_layer_norm_lands_on_a_circle_and_rms_norm_on_a_sphere():
    # An eps that no control has, so that nothing but the arithmetic is left
    ln, rms, bn = (steps[2] for steps, *_ in stations("filters", 4, 1e-12, 1.0, 0.0).values())
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
    for method in ("layer_token", "rms"):
        steps, _, centres, axes = stations("filters", 4, 1e-12, 1.7, -0.6)[method]
        on_sphere = (steps[3] - centres[3]) / axes[3]
        np.testing.assert_allclose(np.linalg.norm(on_sphere, axis=1), 1, rtol=1e-6)
    # The ellipsoid of BN: centre and half axes are mean and √3·σ of the cloud, at every step
    for step in (0.0, 0.4, 1.0, 1.5, 2.0, 2.7, 3.0):
        bn = Geometry(step=step, gamma=1.7, beta=-0.6).read()["batch"]
        np.testing.assert_allclose(bn.centre, bn.points.mean(axis=0), atol=1e-9)
        np.testing.assert_allclose(bn.axes, 3**0.5 * bn.points.std(axis=0), rtol=1e-6)


def test_the_rings_are_unit_circles_and_the_plane_has_mean_zero():
    np.testing.assert_allclose(PLANE.sum(axis=1), 0, atol=1e-12)
    for ring in (CIRCLE, PLANE, GLOBE):
        np.testing.assert_allclose(np.linalg.norm(ring, axis=-1), 1)


def test_the_view_is_a_rotation_and_the_painter_starts_with_the_farthest():
    rng = np.random.default_rng(0)
    for azimuth, tilt in rng.uniform(-180, 180, (20, 2)):
        view = View(azimuth, tilt, (0, 0), 1.0)
        frame = np.vstack([view.screen, view.eye])
        np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-12)
    # At azimuth 0 feature 1 points at the eye, 2 to the right and 3 up (pixels point down)
    np.testing.assert_allclose(View(0, 0, (0, 0), 1.0)(np.eye(3)), [(0, 0), (1, 0), (0, -1)], atol=1e-12)
    points, view = rng.normal(size=(32, 3)), View(70, 15, (0, 0), 1.0)
    cells = [cell.split(",") for cell, _ in dots(view, points, np.arange(32)).data]
    order = [16 * int(image) + int(place) for image, place in cells]
    assert sorted(order) == list(range(32)) and np.all(np.diff(view.depth(points[order])) >= 0)


def test_near_and_far_halves_and_both_sides_of_the_plane_are_told_apart():
    state = Geometry(azimuth=0, tilt=90, step=0)  # the eye is at the end of feature 3
    reading, scene = state.read(), state.scene()
    ln = reading["layer_token"].points
    raised = {f"{i // 16},{i % 16}": ln[i].sum() for i in range(len(ln))}  # height over the plane x₁ + x₂ + x₃ = 0
    far, near = ([raised[cell] for cell, _ in item.data] for item in named(scene, "token")[:2])
    assert max(far) < 0 <= min(near)
    half = named(scene, "near")[0]  # RMSNorm's
    # Around the pole: half of the 36 pieces of each of 4 meridians, and the parallel of +40°, not that of -40°; that of
    # 0° lies on the edge, where rounding decides
    assert 4 * 18 + 36 <= len(half.points) <= 4 * 18 + 2 * 36


def test_along_the_diagonal_the_circle_is_drawn_round():
    scene = Geometry(azimuth=45.0, tilt=float(np.degrees(np.arctan(0.5**0.5)))).scene()
    (circle,) = named(scene, "circle")
    corners = circle.points[:, 0]
    radii = np.linalg.norm(corners - corners.mean(axis=0), axis=1)
    np.testing.assert_allclose(radii, radii.mean(), rtol=1e-9)


def test_axes_that_fall_together_keep_their_names_apart():
    for azimuth in (135, 315):
        scene = Geometry(azimuth=azimuth, tilt=0).scene()
        assert len([label for label in scene.labels if label.text == "ink"]) == 3 and not scene.overlaps()


def test_other_images_move_batch_norm_alone():
    few, many = (Geometry(images=n).read() for n in (1, 4))
    for method in SHOWN:
        same = np.array_equal(few[method].points[:16], many[method].points[:16])
        assert same == (method != "batch")


def test_a_blank_patch_stays_at_the_centre():
    reading = Geometry("pixels").read()
    blank = np.flatnonzero(~reading["rms"].steps[0].any(axis=1))
    assert len(blank)
    for method in ("layer_token", "rms"):
        np.testing.assert_array_equal(reading[method].points[blank], 0)
    assert np.abs(reading["batch"].points[blank]).min() > 0.5


def test_the_caption_says_what_is_measured():
    state = Geometry("pixels", 2, azimuth=45, tilt=35)
    assert state.scene().alt == (
        "64 tokens of three pixels (left, middle, right) from 4 images, scaled. Lengths: LayerNorm (per token) 0.00 to "
        "1.73; RMSNorm 0.00 to 1.73; BatchNorm 1.01 to 2.39. The followed token, 1 of the first image, was "
        "(0.56, 0.06, 0.00) and is: LayerNorm (per token) (1.41, −0.58, −0.83); RMSNorm (1.72, 0.19, 0.00); BatchNorm "
        "(0.44, −1.09, −0.97)."
    )
