"""Rotations and shifts of volumes about the centre n // 2, many at once, by trilinear interpolation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn.functional import grid_sample

Shifts: TypeAlias = Sequence[Sequence[float | int]] | NDArray[np.floating] | Tensor


def rotate_volumes(
    volumes: Float[Tensor, "n d d d"], rotations: Rotation, shifts: Shifts | None = None
) -> Float[Tensor, "n d d d"]:
    """Turn each volume about its centre and then shift it: out(x) = in(R⁻¹(x − c − shift) + c), zeros outside.

    Parameters
    ----------
    volumes
        Cubic volumes zyx, bright or dark, shape (n, d, d, d).
    rotations
        n rotations, acting on zyx vectors.
    shifts
        Shifts zyx in voxels, shape (n, 3).

    Returns
    -------
    Tensor, shape (n, d, d, d)
    """
    return sample_rotated(volumes, rotations, shifts, size=volumes.shape[-1])


def sample_rotated(
    volumes: Float[Tensor, "m s s s"],
    rotations: Rotation,
    shifts: Shifts | None = None,
    *,
    size: int,
    supersampling: int = 1,
) -> Float[Tensor, "n d d d"]:
    """Turned and shifted copies of a finely sampled volume on a coarser grid of another size.

    Parameters
    ----------
    volumes
        n volumes, or one that serves all n copies; edges of s voxels.
    rotations
        n rotations, acting on zyx vectors.
    shifts
        Shifts zyx in output voxels, shape (n, 3).
    size
        Edge d of a copy in output voxels.
    supersampling
        Edge of an output voxel in input voxels.

    Returns
    -------
    Tensor, shape (n, size, size, size)
    """
    n, edge = len(rotations), volumes.shape[-1]
    like: dict[str, Any] = {"dtype": volumes.dtype, "device": volumes.device}
    # Rᵀ takes an output offset to the reference frame; grid_sample wants x before y before z
    inverse = torch.as_tensor(rotations.inv().as_matrix().copy(), **like).reshape(n, 3, 3).flip(1) * supersampling
    offset = torch.arange(size, **like) - size // 2
    moved = offset - (torch.zeros(n, 3, **like) if shifts is None else torch.as_tensor(shifts, **like))[..., None]
    terms = inverse[:, :, :, None] * moved[:, None]
    z, y, x = (terms[:, :, axis].transpose(1, 2) for axis in range(3))
    grid = z[:, :, None, None] + y[:, None, :, None] + x[:, None, None, :]
    # index i of n lies at (2 i + 1) / n − 1 with align_corners=False
    grid.mul_(2 / edge).add_((2 * (edge // 2) + 1) / edge - 1)
    source = volumes[:, None].expand(n, 1, edge, edge, edge)
    return grid_sample(source, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[:, 0]


def turn_in_plane(images: Float[Tensor, "n h w"], degrees: NDArray[np.floating]) -> Float[Tensor, "n h w"]:
    """Turn each image about its centre by a small angle, from x towards y, without interpolation error.

    Three shears, each a phase in Fourier space (Unser et al. 1995, IEEE Trans Image Process 4:1371). Images are
    periodic, so what leaves on one side comes in on the other.

    Parameters
    ----------
    images
        Shape (n, ny, nx).
    degrees
        Angles, shape (n,).
    """
    angle = torch.as_tensor(np.radians(degrees), dtype=images.dtype)[:, None, None]
    ny, nx = images.shape[1:]
    y = (torch.arange(ny, dtype=images.dtype) - ny // 2)[None, :, None]
    x = (torch.arange(nx, dtype=images.dtype) - nx // 2)[None, None, :]
    kx, ky = torch.fft.rfftfreq(nx)[None, None, :], torch.fft.rfftfreq(ny)[None, :, None]

    def along_x(given: Tensor) -> Tensor:
        phase = torch.exp(2j * torch.pi * kx * y * torch.tan(angle / 2))
        return torch.fft.irfft(torch.fft.rfft(given, dim=2) * phase, n=nx, dim=2)

    def along_y(given: Tensor) -> Tensor:
        phase = torch.exp(-2j * torch.pi * ky * x * torch.sin(angle))
        return torch.fft.irfft(torch.fft.rfft(given, dim=1) * phase, n=ny, dim=1)

    return along_x(along_y(along_x(images)))
