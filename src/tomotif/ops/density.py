"""Structure → density: weighted points are splatted onto a fine grid and blurred in Fourier space."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.spatial.transform import Rotation

from tomotif.core import InputError, Structure
from tomotif.core.geometry import centre_index
from tomotif.ops.fourier import Shape, axis_frequencies

ELECTRON_VOLUME = 1.21e3 / 536
"""Molecular volume in Å³ per electron: 1.21 Å³/Da (partial specific volume 0.73 cm³/g) and 536 electrons/kDa."""


def structure_density(
    structure: Structure,
    *,
    voxel_size: float,
    resolution: float,
    shape: Shape,
    rotation: Rotation | None = None,
    shift: Sequence[float | int] | NDArray[np.floating] = (0.0, 0.0, 0.0),
    band_limit: float | None = None,
) -> NDArray[np.float32]:
    """Density of a structure on a grid, dense matter bright; its centre of mass lies at voxel n // 2.

    Points are splatted with cubic B-splines onto a grid much finer than the resolution; in Fourier space the splat's
    sinc⁴ is divided out, each point's own Gaussian and that of the resolution are applied and frequencies beyond the
    band limit are cut, so that the coarse grid samples without aliasing. What lies outside the grid is left out.

    Parameters
    ----------
    structure
        What to render.
    voxel_size
        Edge of a voxel in Å.
    resolution
        Å: the Gaussian exp(−(k · resolution)²), whose Fourier amplitude falls to 1/e at 1 / resolution. In real space
        its standard deviation is resolution / (π √2) = 0.225 · resolution.
    shape
        Shape zyx in voxels.
    rotation
        Turns the structure about its centre of mass; acts on zyx vectors.
    shift
        Shift zyx in Å, after the rotation.
    band_limit
        Highest frequency kept, in 1/Å; by default that of the grid, 1 / (2 · voxel_size).

    Returns
    -------
    NDArray[float32], shape ``shape``
        Electrons/Å³; the sum times the voxel's volume is the number of electrons.

    Raises
    ------
    InputError
        When voxel size or resolution are not above zero.
    """
    if not (voxel_size > 0 and resolution > 0):
        raise InputError(f"expected voxel size and resolution above 0 Å, got {voxel_size} and {resolution}")
    blur = resolution / (math.pi * math.sqrt(2))
    margin = math.ceil((4 * blur + 3 * float(structure.spreads.max())) / voxel_size)
    nz, ny, nx = (fft.next_fast_len(n + 2 * margin, real=True) for n in shape)
    padded = nz, ny, nx
    # at 1 / resolution or at the grid's limit, whichever is lower, the splat's aliases are below 1.3 %
    finer = 1 if resolution >= 4 * voxel_size else 2

    offset = structure.positions - structure.centre_of_mass
    if rotation is not None:
        offset = rotation.apply(offset)
    corner = np.array([centre_index(n) + margin for n in shape])
    where = ((offset + np.asarray(shift)) / voxel_size + corner) * finer
    spectrum = _spectrum(structure, where, padded, voxel_size, resolution, finer)

    squared = sum(k**2 for k in axis_frequencies(padded, voxel_size))
    spectrum[squared > (band_limit or 0.5 / voxel_size) ** 2 * (1 - 1e-6)] = 0
    density = fft.irfftn(spectrum, s=padded)
    inside = tuple(slice(margin, margin + n) for n in shape)
    return np.ascontiguousarray(density[inside], dtype=np.float32) / np.float32(voxel_size**3)


def _spectrum(
    structure: Structure, where: NDArray[np.floating], shape: Shape, voxel_size: float, resolution: float, finer: int
) -> NDArray[np.complex64]:
    """Coefficients of ``rfftn`` on the coarse grid of points that lie at ``where`` on the fine one."""
    kz, ky, kx = axis_frequencies(shape, voxel_size)
    squared = kz**2 + ky**2 + kx**2
    levels, shares = _variance_levels(structure.spreads.astype(np.float64) ** 2, resolution)
    total = np.zeros(squared.shape, dtype=np.complex64)
    fine_shape = shape[0] * finer, shape[1] * finer, shape[2] * finer
    for variance, share in zip(levels, shares, strict=True):
        fine = fft.rfftn(splat(where, structure.weights * share, fine_shape))
        # the coarse grid's frequencies are the lowest of the fine one's
        rows = [fft.fftfreq(n, 1 / n).astype(int) % (n * finer) for n in shape[:2]]
        low = fine[np.ix_(*rows, np.arange(shape[2] // 2 + 1))]
        total += low * np.exp(-squared * np.float32(resolution**2 + 2 * math.pi**2 * variance))
    splat_blur = [np.sinc(k * voxel_size / finer) ** 4 for k in (kz, ky, kx)]
    return total / (splat_blur[0] * splat_blur[1] * splat_blur[2])


def _variance_levels(
    variance: NDArray[np.float64], resolution: float
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """A few variances, and for each the share of every point in it, so that the mean variances stay what they were.

    Points differ in their own blur; one Fourier transform a level is enough, because a point's Gaussian is nearly
    linear in the variance between neighbouring levels.
    """
    low, high = float(variance.min()), float(variance.max())
    spacing = (resolution / math.pi) ** 2 / 4  # over which the Gaussian at 1 / resolution falls by exp(-1/2)
    count = 1 + math.ceil((high - low) / spacing) if high - low > 0.2 * spacing else 1
    if count == 1:
        return np.array([variance.mean()]), [np.ones_like(variance)]
    levels = np.linspace(low, high, count)
    place = (variance - low) / (levels[1] - levels[0])
    return levels, [np.clip(1 - np.abs(place - i), 0, None) for i in range(count)]


def splat(where: NDArray[np.floating], weights: NDArray[np.floating], shape: Shape) -> NDArray[np.float32]:
    """Spread point weights over the 64 voxels around each with cubic B-splines; what falls outside is left out.

    Parameters
    ----------
    where
        Positions zyx in voxels, shape (n, 3).
    weights
        Shape (n,).
    shape
        Shape zyx of the grid.

    Examples
    --------
    >>> splat(np.array([[2.0, 2.0, 2.0]]), np.array([27.0]), (5, 5, 5))[2, 2].round(3).tolist()
    [0.0, 2.0, 8.0, 2.0, 0.0]
    """
    kept = np.flatnonzero((weights != 0) & np.all((where > -2) & (where < np.array(shape) + 1), axis=1))
    below = np.floor(where[kept]).astype(np.int64)
    z, y, x = np.moveaxis(_cubic_weights(where[kept] - below), 1, 0)
    # three more voxels on each side take what falls outside
    nz, ny, nx = (n + 6 for n in shape)
    tap = np.arange(-1, 3)
    taps = (tap[:, None, None] * ny + tap[:, None]) * nx + tap
    first = ((below[:, 0] + 3) * ny + below[:, 1] + 3) * nx + below[:, 2] + 3
    share = (weights[kept, None] * z)[:, :, None, None] * y[:, None, :, None] * x[:, None, None, :]
    total = np.bincount((first[:, None] + taps.ravel()).ravel(), share.ravel(), minlength=nz * ny * nx)
    return total.reshape(nz, ny, nx)[3:-3, 3:-3, 3:-3].astype(np.float32)


def _cubic_weights(fraction: NDArray[np.floating]) -> NDArray[np.floating]:
    """Cubic B-spline at the voxels -1, 0, 1 and 2 around each fraction of a voxel; one more axis of four."""
    t, u = fraction, 1 - fraction
    return np.stack([u**3, 3 * t**3 - 6 * t**2 + 4, 3 * u**3 - 6 * u**2 + 4, t**3], axis=-1) / 6


def envelope_threshold(density: NDArray[np.floating], volume_voxels: float) -> float:
    """The density above which exactly this many voxels lie (fractions are rounded): the molecular envelope.

    Parameters
    ----------
    density
        Bright density.
    volume_voxels
        Volume inside the envelope, in voxels of the density.
    """
    count = min(max(1, round(volume_voxels)), density.size - 1)
    return float(np.partition(density, density.size - count - 1, axis=None)[density.size - count - 1])


def envelope_volume(structure: Structure) -> float:
    """Molecular volume in Å³, from the electrons (1.21 Å³/Da for protein)."""
    return float(structure.weights.sum()) * ELECTRON_VOLUME
