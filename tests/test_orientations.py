"""Sets of orientations: even cover of SO(3), groups that close, angles modulo a symmetry."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tomotif.core import InputError
from tomotif.core.geometry import random_rotations
from tomotif.ops.orientations import (
    angle_modulo,
    body_centred_grid,
    nearest_rotations,
    point_group,
    rotations_around,
    uniform_rotations,
)

ORDERS = {"C1": 1, "C4": 4, "C7": 7, "D2": 4, "D4": 8, "D7": 14, "T": 12, "O": 24, "I": 60}


def between(first: Rotation, second: Rotation) -> NDArray[np.float64]:
    """Angles in degrees of every pair, shape (n, m)."""
    overlap = np.abs(first.as_quat() @ second.as_quat().T)
    return np.degrees(2 * np.arccos(np.clip(overlap, 0, 1)))


@pytest.mark.parametrize("count", [576, 4608])
def test_no_orientation_is_far_from_an_even_grid(count: int) -> None:
    anywhere = random_rotations(3000, np.random.default_rng(0))
    gap = between(anywhere, uniform_rotations(count)).min(axis=1)
    # a ball of radius r is (r - sin r) / pi of all rotations; this one's share is one over the count
    radius = np.degrees((6 * np.pi / count) ** (1 / 3))
    assert gap.max() < 1.6 * radius
    assert gap.mean() < 0.85 * radius
    by_chance = between(anywhere, random_rotations(count, np.random.default_rng(1))).min(axis=1)
    assert gap.max() < 0.75 * by_chance.max()


def test_an_even_grid_has_no_preferred_direction() -> None:
    turned = uniform_rotations(4608).apply([0.0, 0.0, 1.0])
    assert np.abs(turned.mean(axis=0)).max() < 0.01
    np.testing.assert_allclose(turned.T @ turned / len(turned), np.eye(3) / 3, atol=0.01)


def test_nearest_rotations_are_those_of_all_pairs() -> None:
    grid = random_rotations(300, np.random.default_rng(2))
    apart = between(grid, grid)
    np.fill_diagonal(apart, np.inf)
    found = nearest_rotations(grid, 5)
    assert found.shape == (300, 5)
    np.testing.assert_array_equal(found, np.argsort(apart, axis=1)[:, :5])
    assert nearest_rotations(grid[:3], 10).shape == (3, 2)


@pytest.mark.parametrize("reach", [3.0, 4.0])
def test_a_body_centred_grid_leaves_gaps_of_root_five_quarters(reach: float) -> None:
    grid = body_centred_grid(reach, 1.0)
    assert np.array_equal(grid[0], np.zeros(3)) and np.abs(grid).max() == reach
    anywhere = np.random.default_rng(0).uniform(-reach + 1, reach - 1, (3000, 3))
    gap = np.linalg.norm(anywhere[:, None] - grid[None], axis=2).min(axis=1)
    assert 0.95 * np.sqrt(5) / 4 < gap.max() <= np.sqrt(5) / 4
    assert np.linalg.norm(body_centred_grid(reach, 1.0, ball=True), axis=1).max() <= reach


def test_rotations_around_begin_with_the_identity_and_stay_near() -> None:
    around = rotations_around(9.0, 4.5)
    assert around[0].magnitude() == 0
    assert np.degrees(around.magnitude()).max() == pytest.approx(9.0)


@pytest.mark.parametrize("name", list(ORDERS))
def test_point_groups_close(name: str) -> None:
    group = point_group(name)
    assert len(group) == ORDERS[name]
    same = between(group, group) < 1e-3
    assert np.array_equal(same, np.eye(len(group), dtype=bool))
    for element in group:  # turning the group by one of its own permutes it
        assert np.all((between(element * group, group) < 1e-3).sum(axis=1) == 1)
    assert (between(group.inv(), group) < 1e-3).any(axis=1).all()


@pytest.mark.parametrize("name", ["C4", "D2", "D4", "D7"])
def test_the_main_axis_is_z_and_a_two_fold_one_is_y(name: str) -> None:
    group, n = point_group(name), int(name[1:])
    step = Rotation.from_rotvec([2 * np.pi / n, 0, 0])  # vectors are zyx
    assert between(step, group).min() < 1e-3
    flip = between(Rotation.from_rotvec([0, np.pi, 0]), group).min()
    assert (flip < 1e-3) == name.startswith("D")


@pytest.mark.parametrize("name", ["", "C0", "D", "X3", "c4", "I2", "O4"])
def test_unknown_groups_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="expected a point group such as C1"):
        point_group(name)


@pytest.mark.parametrize("name", list(ORDERS))
def test_symmetric_equivalents_are_no_error(name: str) -> None:
    rng = np.random.default_rng(3)
    frame, group = random_rotations(1, rng), point_group(name)
    symmetry = frame * group * frame.inv()
    true = random_rotations(200, rng)
    equivalent = true * symmetry[rng.integers(len(group), size=200)]
    assert angle_modulo(true, equivalent, symmetry).max() < 1e-3
    off = Rotation.from_rotvec(np.radians(5) * random_rotations(200, rng).apply([0, 0, 1]))
    np.testing.assert_allclose(angle_modulo(true, equivalent * off, symmetry), 5.0, atol=1e-3)


def test_angles_modulo_a_symmetry_are_symmetric_and_never_larger() -> None:
    rng = np.random.default_rng(4)
    first, second, symmetry = random_rotations(500, rng), random_rotations(500, rng), point_group("D4")
    angle = angle_modulo(first, second, symmetry)
    np.testing.assert_allclose(angle, angle_modulo(second, first, symmetry), atol=1e-6)
    plain = np.degrees((first.inv() * second).magnitude())
    assert np.all(angle <= plain + 1e-6) and angle.mean() < 0.5 * plain.mean()
    np.testing.assert_allclose(angle_modulo(first, second, point_group("C1")), plain, atol=1e-5)
