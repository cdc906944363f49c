"""Fourier space of real volumes: frequencies in the layout of ``rfftn``, and isotropic filters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Shape = tuple[int, int, int]


def frequency_grid(shape: Shape, voxel_size: float = 1.0) -> NDArray[np.float32]:
    """Length of the spatial frequency of every coefficient of ``rfftn``.

    Parameters
    ----------
    shape
        Volume shape zyx in voxels.
    voxel_size
        Edge of a voxel in Å.

    Returns
    -------
    NDArray[float32], shape (nz, ny, nx // 2 + 1)
        In 1/Å (cycles a voxel with the default voxel size).

    Examples
    --------
    >>> frequency_grid((4, 4, 4), 10.0)[0, 0].tolist()
    [0.0, 0.02500000037252903, 0.05000000074505806]
    """
    kz, ky, kx = axis_frequencies(shape, voxel_size)
    return np.sqrt(kz**2 + ky**2 + kx**2)


def axis_frequencies(shape: Shape, voxel_size: float = 1.0) -> tuple[NDArray[np.float32], ...]:
    """Frequencies along z, y and x of ``rfftn``'s coefficients in 1/Å, shaped to broadcast together."""
    axes = (fft.fftfreq(shape[0], voxel_size), fft.fftfreq(shape[1], voxel_size), fft.rfftfreq(shape[2], voxel_size))
    kz, ky, kx = (a.astype(np.float32) for a in axes)
    return kz[:, None, None], ky[None, :, None], kx[None, None, :]


def half_space_weights(shape: Shape) -> NDArray[np.float32]:
    """How often each of ``rfftn``'s coefficients along x stands in the whole spectrum: twice, but once at its ends.

    Shape (nx // 2 + 1,); with them the sum of squares obeys Parseval's theorem.
    """
    weights = np.full(shape[2] // 2 + 1, 2, dtype=np.float32)
    weights[0] = 1
    if shape[2] % 2 == 0:
        weights[-1] = 1
    return weights


def low_pass(volume: NDArray[np.floating], voxel_size: float, resolution: float) -> NDArray[np.float32]:
    """The volume under the Gaussian filter exp(−(k · resolution)²), which falls to 1/e at 1 / resolution.

    Parameters
    ----------
    volume
        Densities zyx.
    voxel_size
        Edge of a voxel in Å.
    resolution
        Å.
    """
    nz, ny, nx = volume.shape
    spectrum = fft.rfftn(volume.astype(np.float32))
    spectrum *= np.exp(-((frequency_grid((nz, ny, nx), voxel_size) * resolution) ** 2))
    return fft.irfftn(spectrum, s=(nz, ny, nx)).astype(np.float32)


def undo_trilinear(volume: NDArray[np.floating]) -> NDArray[np.float32]:
    """Raise a volume's fine detail by what trilinear interpolation will take off it.

    Interpolating between voxels convolves with a triangle one voxel wide to each side, whose Fourier transform is
    sinc² along each axis; this divides it out.
    """
    nz, ny, nx = volume.shape
    spectrum = fft.rfftn(volume.astype(np.float32))
    for k in axis_frequencies((nz, ny, nx)):
        spectrum /= np.sinc(k) ** 2
    return fft.irfftn(spectrum, s=(nz, ny, nx)).astype(np.float32)
