"""Rotations of volumes follow the conventions of the nouns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tomotif.core.geometry import random_rotations
from tomotif.io.structure import load_structure
from tomotif.ops.density import structure_density
from tomotif.ops.fourier import undo_trilinear
from tomotif.ops.rotate import rotate_volumes, sample_rotated


def blob(edge: int, offset: tuple[float, float, float]) -> torch.Tensor:
    axes = np.meshgrid(*[np.arange(edge) - edge // 2 - o for o in offset], indexing="ij")
    return torch.from_numpy(np.exp(-sum(a**2 for a in axes) / 8).astype(np.float32))


def centroid(volume: torch.Tensor) -> np.ndarray:
    data = volume.numpy()
    return np.indices(data.shape).reshape(3, -1) @ data.ravel() / data.sum() - np.array(data.shape) // 2


@pytest.mark.parametrize("edge", [16, 17])
def test_identity_changes_nothing(edge: int) -> None:
    volumes = torch.randn(2, edge, edge, edge)
    torch.testing.assert_close(rotate_volumes(volumes, Rotation.identity(2)), volumes, atol=1e-4, rtol=0)


@pytest.mark.parametrize("edge", [16, 17])
def test_whole_shifts_are_exact(edge: int) -> None:
    volume = torch.randn(1, edge, edge, edge)
    moved = rotate_volumes(volume, Rotation.identity(1), [[2, -1, 3]])
    torch.testing.assert_close(moved[0, 2:, :-1, 3:], volume[0, :-2, 1:, :-3], atol=1e-4, rtol=0)
    assert float(moved[0, :2].abs().max()) < 1e-4


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    edge=st.sampled_from([24, 25]),
    shift=st.tuples(*[st.floats(-2, 2)] * 3),
)
def test_a_blob_goes_where_the_rotation_takes_its_vector(
    seed: int, edge: int, shift: tuple[float, float, float]
) -> None:
    rotation, offset = random_rotations(1, np.random.default_rng(seed)), (2.0, -3.0, 1.0)
    moved = rotate_volumes(blob(edge, offset)[None], rotation, [shift])
    np.testing.assert_allclose(centroid(moved[0]), rotation.apply([offset])[0] + shift, atol=0.05)


def test_each_volume_gets_its_own_rotation() -> None:
    rotations = random_rotations(3, np.random.default_rng(0))
    volumes = torch.stack([blob(20, (3, 0, 0)), blob(20, (0, 3, 0)), blob(20, (0, 0, 3))])
    together = rotate_volumes(volumes, rotations)
    for i in range(3):
        torch.testing.assert_close(together[i], rotate_volumes(volumes[i : i + 1], rotations[i : i + 1])[0])


def test_rotations_compose() -> None:
    first, second = random_rotations(2, np.random.default_rng(1))[:1], random_rotations(1, np.random.default_rng(2))
    volume = (blob(32, (4, 2, -3)) + 0.5 * blob(32, (-2, 5, 1)))[None]
    twice = rotate_volumes(rotate_volumes(volume, first), second)
    once = rotate_volumes(volume, second * first)
    assert float(torch.corrcoef(torch.stack([twice.ravel(), once.ravel()]))[0, 1]) > 0.99


@pytest.mark.parametrize("name", ["1s3x", "1bxn", "5t4o", "4v5d"])
def test_rotating_a_supersampled_map_equals_rendering_the_rotated_structure(name: str) -> None:
    structure, voxel, edge = load_structure(name), 12.0, 32
    fine = structure_density(
        structure, voxel_size=voxel / 2, resolution=25.0, shape=(2 * edge,) * 3, band_limit=0.5 / voxel
    )
    rng = np.random.default_rng(0)
    rotations, shifts = random_rotations(4, rng), rng.uniform(-2, 2, (4, 3))
    source = torch.from_numpy(undo_trilinear(fine))[None]
    fast = sample_rotated(source, rotations, shifts, size=edge, supersampling=2).numpy()
    for i in range(4):
        direct = structure_density(
            structure,
            voxel_size=voxel,
            resolution=25.0,
            shape=(edge, edge, edge),
            rotation=rotations[i],
            shift=shifts[i] * voxel,
        )
        assert np.corrcoef(fast[i].ravel(), direct.ravel())[0, 1] >= 0.99
        assert fast[i].std() == pytest.approx(direct.std(), rel=0.02)
