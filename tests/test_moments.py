"""Normal poses: a lopsided body comes back to one pose however it lies in its box."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tomotif.core.geometry import angle_between, random_rotations
from tomotif.ops.moments import central_weight, normal_poses, principal_frame

BOX, RADIUS = 32, 16.0
BLOBS = np.array([[10, 0, 0], [5, 0, 0], [-3, -2, 0], [-4, -2, 1], [-3, -2, -2], [-2, 6, 1.5]])
"""Centres zyx in voxels of the balls that make the body: a rod with a hook, three different moments and two tails."""
COUNT = 40


def bodies(rotations: Rotation, shifts: np.ndarray, box_px: int = BOX, sigma: float = 2.0) -> np.ndarray:
    """The body turned and then shifted, drawn anew each time: no interpolation."""
    axis = np.arange(box_px) - box_px // 2
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    centres = np.stack([r.apply(BLOBS) for r in rotations]) + shifts[:, None]
    boxes = np.zeros((len(shifts), *(box_px,) * 3), dtype=np.float32)
    for box, places in zip(boxes, centres, strict=True):
        for place in places:
            box += np.exp(-np.sum((grid - place) ** 2, axis=-1) / (2 * sigma**2))
    return boxes


def noisy(boxes: np.ndarray, snr: float, seed: int = 0) -> np.ndarray:
    """White noise at a ratio of variances over the box."""
    noise = np.random.default_rng(seed).standard_normal(boxes.shape, dtype=np.float32)
    return boxes + noise * boxes.std(axis=(1, 2, 3), keepdims=True) / np.sqrt(snr)


@pytest.mark.parametrize(("snr", "degrees", "voxels"), [(np.inf, 0.5, 0.1), (0.3, 4.5, 0.4), (0.1, 7.0, 0.7)])
def test_a_body_comes_back_to_one_pose(snr: float, degrees: float, voxels: float) -> None:
    """The largest errors of 40 bodies, turned at random and up to 3 voxels off the middle."""
    rng = np.random.default_rng(1)
    rotations, shifts = random_rotations(COUNT, rng), rng.uniform(-3, 3, (COUNT, 3))
    one = normal_poses(bodies(Rotation.identity(1), np.zeros((1, 3))), smoothing_px=1.5, radius_px=RADIUS)
    found = normal_poses(noisy(bodies(rotations, shifts), snr), smoothing_px=1.5, radius_px=RADIUS)
    angle = angle_between(found.rotation, rotations * one.rotation[0])
    apart = np.linalg.norm(found.shift_px - shifts - rotations.apply(one.shift_px[0]), axis=1)
    assert angle.max() < degrees and apart.max() < voxels
    np.testing.assert_allclose(found.extent_px, np.tile(one.extent_px, (COUNT, 1)), rtol=0.2)


def test_the_largest_moment_goes_to_z_and_the_smallest_to_x() -> None:
    found = normal_poses(
        bodies(random_rotations(10, np.random.default_rng(2)), np.zeros((10, 3))), smoothing_px=1, radius_px=RADIUS
    )
    assert (np.diff(found.extent_px, axis=1) < -0.5).all()
    np.testing.assert_allclose(np.linalg.det(found.rotation.as_matrix()), 1)


def test_turned_into_its_normal_pose_a_body_has_the_pose_of_no_rotation() -> None:
    rotations = random_rotations(6, np.random.default_rng(3))
    found = normal_poses(bodies(rotations, np.zeros((6, 3))), smoothing_px=1.0, radius_px=RADIUS)
    turned = bodies(found.rotation.inv() * rotations, -found.rotation.inv().apply(found.shift_px))
    again = normal_poses(turned, smoothing_px=1.0, radius_px=RADIUS)
    assert np.degrees(again.rotation.magnitude()).max() < 0.2
    assert np.abs(again.shift_px).max() < 0.05
    axis = np.arange(BOX) - BOX // 2
    tails = [(turned[0] * axis.reshape(shape) ** 3).sum() for shape in ((-1, 1, 1), (1, -1, 1))]
    assert min(tails) > 0  # the longer tails point up


def test_moments_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(4)
    weights = rng.random((3, 9, 9, 9)) ** 8
    place = np.stack(np.meshgrid(*[np.arange(9.0) - 4] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    centre, axes, variance = principal_frame(weights)
    for row, flat in enumerate(weights.reshape(3, -1)):
        np.testing.assert_allclose(centre[row], np.average(place, axis=0, weights=flat))
        covariance = np.cov(place.T, aweights=flat, ddof=0)
        np.testing.assert_allclose(axes[row] @ np.diag(variance[row]) @ axes[row].T, covariance, atol=1e-12)
        third = np.average(((place - centre[row]) @ axes[row]) ** 3, axis=0, weights=flat) / variance[row] ** 1.5
        assert (third > 0).sum() >= 2 and (third > -np.sort(np.abs(third))[0] - 1e-12).all()


def test_a_neighbour_is_left_out() -> None:
    alone = bodies(Rotation.identity(1), np.zeros((1, 3)), box_px=40)
    crowded = alone + np.roll(alone, (0, 15, -14), axis=(1, 2, 3))
    pose, other = (
        normal_poses(alone, smoothing_px=1.0, radius_px=RADIUS),
        normal_poses(crowded, smoothing_px=1.0, radius_px=RADIUS),
    )
    assert np.linalg.norm(pose.shift_px - other.shift_px) < 0.5
    assert float(angle_between(pose.rotation, other.rotation)[0]) < 5


def test_corners_and_specks_in_the_middle_do_not_count() -> None:
    box = bodies(Rotation.identity(1), np.array([[0, 5.0, 0]]))[0]
    box[:4, :4, :4] = 5
    box[16, 12, 16] += 0.2
    weight = central_weight(box, 1.0, RADIUS)
    assert not weight[:6, :6, :6].any()
    assert weight[16, 21, 16] > 0


def test_a_constant_box_has_the_pose_of_the_box() -> None:
    found = normal_poses(np.full((2, 12, 12, 12), 3, np.float32), smoothing_px=1.0, radius_px=RADIUS)
    assert not found.voxels.any() and not found.shift_px.any()
    assert np.degrees(found.rotation.magnitude()).max() == 0


def test_in_a_crowd_the_object_ends_at_its_radius() -> None:
    """Three balls in a row that touch: the middle one alone is the object."""
    axis = np.arange(BOX) - BOX // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    row = np.max([z**2 + y**2 + (x - place) ** 2 < 36 for place in (-11, 1, 13)], axis=0)[None].astype(np.float32)
    wide, narrow = (normal_poses(row, smoothing_px=1.0, radius_px=radius) for radius in (16.0, 7.0))
    assert wide.extent_px[0, 0] > 6.5 and narrow.extent_px[0, 0] < 3
    assert np.linalg.norm(narrow.shift_px[0] - [0, 0, 1]) < 0.7
