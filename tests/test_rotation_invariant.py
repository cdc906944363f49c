"""Spherical harmonics on shells: invariant under rotation, and as orthonormal as they should be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tomotif.core.geometry import random_rotations
from tomotif.io.structure import load_structure
from tomotif.models import build_model
from tomotif.models.spherical_power import SphericalPower
from tomotif.ops.density import structure_density
from tomotif.ops.rotation_invariant import harmonics, real_harmonics, shell_power

BOX = 32


def density(name: str, seed: int) -> np.ndarray:
    turn = random_rotations(1, np.random.default_rng(seed))[0]
    return structure_density(load_structure(name), voxel_size=12, resolution=30, shape=(BOX,) * 3, rotation=turn)


def test_features_do_not_change_when_a_complex_turns() -> None:
    power = {name: shell_power(np.stack([density(name, s) for s in range(4)])) for name in ("1oel", "1bxn", "4v5d")}
    for turned in power.values():
        spread = np.linalg.norm(turned - turned.mean(0), axis=1).max() / np.linalg.norm(turned.mean(0))
        assert spread < 0.05
    apart = np.linalg.norm(power["1oel"].mean(0) - power["1bxn"].mean(0)) / np.linalg.norm(power["1oel"].mean(0))
    assert apart > 0.25


@pytest.mark.parametrize(("degree", "order_row"), [(0, 0), (1, 2), (2, 6), (3, 11)])
def test_a_harmonic_is_found_on_its_shell_and_degree(degree: int, order_row: int) -> None:
    axis = np.arange(BOX) - BOX // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    radius = np.sqrt(z**2 + y**2 + x**2)
    theta, phi = np.arccos(np.divide(z, radius, out=np.zeros(z.shape), where=radius > 0)), np.arctan2(y, x)
    box = real_harmonics(theta.ravel(), phi.ravel(), 4)[order_row].reshape(z.shape).astype(np.float32)
    power = shell_power(box[None], degrees=8).reshape(BOX // 2 - 1, 8)
    np.testing.assert_allclose(power[5:, degree], 1, atol=0.04)  # linear interpolation blurs
    assert np.delete(power[5:], degree, axis=1).max() < 0.08


def test_harmonics_are_made_once_and_small() -> None:
    matrix = harmonics(BOX, 12)
    assert matrix.shape == (15 * 144, BOX**3)
    assert harmonics(BOX, 12) is matrix
    assert shell_power(np.zeros((3, 16, 16, 16), np.float32), degrees=4).shape == (3, 28)


def test_the_layer_gives_the_same_features_and_saves_nothing() -> None:
    boxes = np.random.default_rng(0).normal(size=(3, 16, 16, 16)).astype(np.float32)
    layer = SphericalPower(16, 6)
    found = layer(torch.from_numpy(boxes)[:, None]).numpy()[:, 0]
    np.testing.assert_allclose(found, shell_power(boxes, degrees=6)[:, : 6 * 6], atol=2e-3)
    assert found.shape == (3, layer.features) == (3, 6 * 6)
    assert not layer.state_dict() and not list(layer.parameters())


def test_power_about_a_centre_is_that_of_the_box_moved_there() -> None:
    boxes = torch.randn(2, 1, 16, 16, 16)
    boxes[:, :, [0, 1, 15]] = boxes[:, :, :, [0, 1, 15]] = boxes[..., [0, 1, 15]] = 0  # moves come round the border
    about = SphericalPower(16, 4, centres=[(0, 0, 0), (1, 0, -1)])(boxes)
    moved = torch.roll(boxes, (-1, 1), dims=(2, 4))
    torch.testing.assert_close(about[:, 0], SphericalPower(16, 4)(boxes)[:, 0])
    torch.testing.assert_close(about[:, 1], SphericalPower(16, 4)(moved)[:, 0])


def test_a_turn_by_a_right_angle_only_changes_which_centre_is_which() -> None:
    torch.manual_seed(0)
    model = build_model("motif3d_rif", 16, 3).eval()
    box = torch.randn(1, 1, 16, 16, 16)
    box[:, :, [0, 1, 15]] = box[:, :, :, [0, 1, 15]] = box[..., [0, 1, 15]] = 0  # what a turn would carry out of it
    turned = torch.roll(torch.rot90(box, dims=(3, 4)), 1, 3)
    before, after = (model.invariants(model.power(one)[0]) for one in (box, turned))
    torch.testing.assert_close(after.mean(dim=0), before.mean(dim=0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(after[0], before[0], atol=1e-4, rtol=1e-4)
    assert (model.convolutions(turned) - model.convolutions(box)).abs().max() > 1e-3
