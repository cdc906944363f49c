"""Pictures of patterns whose shape is known, in any pose."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tomotif.core.geometry import centre_index
from tomotif.ops.membrane import bilayer

Points = NDArray[np.floating]
KINDS = {
    "large ball": "large globule",
    "small ball": "small globule",
    "membrane": "surface patch",
    "ball at membrane": "interaction",
    "two balls": "interaction",
    "rod": "filament",
    "edge": "carbon edge or border",
    "noise": "noise",
}
"""What is drawn, and the group it belongs to."""


def places(
    box_px: int, voxel_size: float, rotation: Rotation, centre: tuple[float, float, float] = (0, 0, 0)
) -> Points:
    """Where each voxel of a box lies in the frame of what is drawn, in Å from its centre, shape (d, d, d, 3)."""
    axis = (np.arange(box_px) - centre_index(box_px)) * voxel_size
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3) - np.asarray(centre)
    return rotation.inv().apply(grid).reshape(*(box_px,) * 3, 3)


def ball(where: Points, centre: tuple[float, float, float], radius: float, voxel_size: float) -> Points:
    """1 inside, an edge one voxel wide."""
    return np.clip(0.5 - (np.linalg.norm(where - np.asarray(centre), axis=-1) - radius) / voxel_size, 0, 1)


def drawn(
    kind: str,
    rotation: Rotation | None = None,
    *,
    box_px: int = 24,
    voxel_size: float = 20.0,
    noise: float = 0.0,
    seed: int = 0,
    shift: float = 0.0,
) -> NDArray[np.float32]:
    """One picture; an edge may be shifted by so many Å."""
    where = places(box_px, voxel_size, rotation or Rotation.identity())
    made: dict[str, Points] = {
        "large ball": ball(where, (0, 0, 0), 120, voxel_size),
        "small ball": ball(where, (0, 0, 0), 40, voxel_size),
        "membrane": bilayer(where[..., 0], resolution=1.5 * voxel_size) / 0.3,
        "ball at membrane": np.maximum(
            bilayer(where[..., 0] + 70, resolution=1.5 * voxel_size) / 0.3, ball(where, (60, 0, 0), 100, voxel_size)
        ),
        "two balls": np.maximum(ball(where, (85, 0, 0), 75, voxel_size), ball(where, (-85, 0, 0), 75, voxel_size)),
        "rod": np.clip(0.5 - (np.linalg.norm(where[..., 1:], axis=-1) - 60) / voxel_size, 0, 1),
        "edge": np.clip(0.5 - (where[..., 0] - shift) / voxel_size, 0, 1),
        "noise": np.zeros(where.shape[:3]),
    }
    rng = np.random.default_rng(seed)
    return (made[kind] + noise * rng.standard_normal(where.shape[:3])).astype(np.float32)
