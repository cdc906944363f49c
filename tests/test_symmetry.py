"""Symmetry axes of maps: those of known complexes, and of an object whose axis is known."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tomotif.core.geometry import random_rotations
from tomotif.io.structure import load_structure
from tomotif.ops.density import structure_density
from tomotif.ops.orientations import angle_modulo, point_group
from tomotif.ops.rotate import rotate_volumes
from tomotif.ops.symmetry import Symmetry, best_symmetry, find_axes

BOX = 32


@lru_cache
def density(name: str) -> NDArray[np.float32]:
    return structure_density(load_structure(name), voxel_size=12.0, resolution=25.0, shape=(BOX, BOX, BOX))


@lru_cache
def axes(name: str, group: str) -> Symmetry:
    return find_axes(density(name), group, frames=3000)


def onto_itself(volume: NDArray[np.float32], operations: Rotation) -> NDArray[np.float64]:
    """Correlation of a map with its turned copies."""
    given = torch.from_numpy(volume)[None].expand(len(operations), -1, -1, -1)
    turned = rotate_volumes(given, operations).flatten(1).numpy()
    return np.array([np.corrcoef(volume.ravel(), copy)[0, 1] for copy in turned])


def blobs(places: NDArray[np.float64], width: float = 1.8) -> NDArray[np.float32]:
    axis = np.arange(BOX) - BOX // 2
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    squared = np.sum((grid[..., None, :] - places) ** 2, axis=-1)
    return np.exp(-squared / (2 * width**2)).sum(axis=-1).astype(np.float32)


@pytest.mark.parametrize(("name", "group", "least"), [("1bxn", "D4", 0.999), ("1oel", "D7", 0.999)])
def test_the_axes_of_complexes_are_found(name: str, group: str, least: float) -> None:
    found = axes(name, group)
    assert found.name == group and len(found.operations) == len(point_group(group))
    assert found.correlation > least
    assert onto_itself(density(name), found.operations).min() > 0.98  # straight lines between voxels blur
    for element in found.operations:
        assert angle_modulo(found.operations[:1], found.operations[:1] * element, found.operations).max() < 1e-3


def test_a_map_without_symmetry_does_not_match_itself() -> None:
    found = axes("4v5d", "C2")
    assert found.correlation < 0.97
    assert onto_itself(density("4v5d"), found.operations[1:]).max() < 0.9
    assert axes("4v5d", "C1").correlation == 1 and len(axes("4v5d", "C1").operations) == 1


def four_fold(frame: Rotation) -> NDArray[np.float32]:
    """An object with a four-fold axis along z of a frame, and no two-fold ones across it."""
    one = np.array([[2.0, 6.0, 0.0], [-3.0, 5.0, 3.0]])  # zyx
    return blobs(frame.apply(np.concatenate([turn.apply(one) for turn in point_group("C4")])))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_axis_of_an_object_with_a_known_one(seed: int) -> None:
    frame = random_rotations(1, np.random.default_rng(seed))[0]
    volume = four_fold(frame)
    found = find_axes(volume, "C4", frames=2000)
    assert found.correlation > 0.999
    quarter = found.operations[np.abs(found.operations.magnitude() - np.pi / 2) < 0.01].as_rotvec() / (np.pi / 2)
    assert len(quarter) == 2
    apart = np.degrees(np.arccos(np.clip(np.abs(quarter @ frame.apply([1.0, 0.0, 0.0])), 0, 1)))
    assert apart.max() < 0.5
    assert onto_itself(volume, found.operations).min() > 0.98


def test_a_larger_group_than_the_true_one_holds_less_well() -> None:
    found = find_axes(four_fold(Rotation.identity()), "D4", frames=2000)
    assert found.correlation < 0.98
    assert onto_itself(four_fold(Rotation.identity()), found.operations).min() < 0.95


def test_the_axes_turn_with_the_map() -> None:
    turn = random_rotations(1, np.random.default_rng(7))[0]
    turned = structure_density(
        load_structure("1bxn"), voxel_size=12.0, resolution=25.0, shape=(BOX, BOX, BOX), rotation=turn
    )
    still, moved = axes("1bxn", "D4").operations, find_axes(turned, "D4", frames=2000).operations
    expected = turn * still * turn.inv()
    apart = [np.degrees((expected.inv() * element).magnitude()).min() for element in moved]
    assert max(apart) < 1.0


@pytest.mark.parametrize(
    ("name", "noise", "group"), [("4v5d", 2.0, "C1"), ("4v5d", 0.5, "C1"), ("1oel", 1.0, "D7"), ("1bxn", 1.0, "D4")]
)
def test_the_point_group_of_noisy_halves(name: str, noise: float, group: str) -> None:
    """Averaging over any group takes noise away, which must not make a structure symmetric."""
    structure, rng = density(name) / density(name).std(), np.random.default_rng(0)
    first, second = ((structure + noise * rng.standard_normal(structure.shape)).astype(np.float32) for _ in range(2))
    assert best_symmetry(first, second, groups=("C2", "C7", "D4", "D5", "D7", "O")).name == group
