"""Averages of subtomograms with known poses: every box is turned back and weighs only where its tilt series measured.

Done in Fourier space: the average's coefficient at k is the mean of the boxes' coefficients at R k over those boxes
whose tilt range measured R k. The boxes are padded to twice their size before, so that straight lines between
coefficients are accurate, and the fall-off that this interpolation causes in real space is divided out beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from tomotif.core import InputError, MissingWedge
from tomotif.ops.fsc import soft_sphere

PADDING = 2
EDGE_PX = 3.0


@dataclass(frozen=True, eq=False)
class FourierSum:
    """Sums over turned-back boxes, from which an average follows; sums of parts add up to the sum of all.

    Attributes
    ----------
    total
        Sum of the measured coefficients in the reference frame, layout of ``numpy.fft.rfftn`` of a box whose centre
        is voxel 0, shape (D, D, D // 2 + 1).
    weight
        How many boxes measured each coefficient, the same shape; 0 beyond the Nyquist sphere.
    count
        Number of boxes.
    """

    total: NDArray[np.complex128]
    weight: NDArray[np.float64]
    count: int

    @classmethod
    def zero(cls, box_px: int) -> FourierSum:
        """The sum of no boxes of this edge in voxels."""
        shape = (box_px, box_px, box_px // 2 + 1)
        return cls(np.zeros(shape, dtype=np.complex128), np.zeros(shape), 0)

    def __add__(self, other: FourierSum) -> FourierSum:
        return FourierSum(self.total + other.total, self.weight + other.weight, self.count + other.count)

    def volume(self, floor: float = 0.05) -> NDArray[np.float32]:
        """The average: sum of coefficients over sum of weights.

        Parameters
        ----------
        floor
            Coefficients measured by a smaller fraction of the boxes than this are divided by this fraction of them,
            which damps what few boxes measured; what none measured is 0.

        Returns
        -------
        NDArray[float32], shape (D, D, D)
            zyx, its centre at voxel D // 2.
        """
        size = len(self.total)
        mean = self.total / np.maximum(self.weight, max(1.0, floor * self.count))
        volume = np.fft.irfftn(mean, s=(size,) * 3, axes=(0, 1, 2))
        return np.roll(volume, (size // 2,) * 3, (0, 1, 2)).astype(np.float32)


def wedge_weighted_average(
    boxes: Float[np.ndarray, "n d d d"],
    rotations: Rotation,
    shifts_px: Float[np.ndarray, "n 3"],
    missing_wedge: MissingWedge,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Average boxes with given poses, each weighing only what its tilt range measured.

    Averages of this kind divide by the summed, turned missing-wedge masks (Förster et al. 2005, PNAS 102:4729;
    Schmid & Booth 2008, J Struct Biol 161:243).

    Parameters
    ----------
    boxes
        Bright boxes zyx, shape (n, D, D, D).
    rotations
        Orientation of each particle from the reference frame to the tomogram, n rotations that act on zyx vectors.
    shifts_px
        Where each particle's centre lies relative to the box's centre D // 2, zyx in voxels, shape (n, 3).
    missing_wedge
        Tilt range of the tomograms the boxes were cut from.

    Returns
    -------
    average : NDArray[float32], shape (D, D, D)
        In the reference frame, inside the sphere that the box holds.
    weight : NDArray[float64], shape (D, D, D // 2 + 1)
        How many boxes measured each coefficient, layout of ``numpy.fft.rfftn``.

    Raises
    ------
    InputError
        When there is no box, or not one pose a box.
    """
    if not len(boxes):
        raise InputError("expected boxes to average, got none")
    sums = fourier_sum(boxes, rotations, shifts_px, missing_wedge)
    return sums.volume(), sums.weight


def fourier_sum(
    boxes: Float[np.ndarray, "n d d d"],
    rotations: Rotation,
    shifts_px: Float[np.ndarray, "n 3"],
    missing_wedge: MissingWedge,
) -> FourierSum:
    """Sum of turned-back boxes, parameters as of :func:`wedge_weighted_average`.

    All boxes are held padded in memory at once: sum stacks in batches of :func:`batch_size`.
    """
    count, size = len(boxes), boxes.shape[-1]
    if len(rotations) != count:
        raise InputError(f"expected one pose a box, got {len(rotations)} rotations for {count} boxes")
    sums = FourierSum.zero(size)
    if not count:
        return sums
    wave, at = nyquist_sphere(size)
    turned = wave @ np.swapaxes(rotations.as_matrix(), 1, 2)  # R k: where the reference's k lies in the tomogram
    measured = missing_wedge.contains(*np.moveaxis(turned, -1, 0))
    box, point = np.nonzero(measured)
    seen = turned[box, point]
    values = sample_spectra(padded_spectra(torch.from_numpy(np.array(boxes, dtype=np.float32))), box, PADDING * seen)
    # a particle s voxels off the centre has the phase exp(-2 pi i k s / D) there
    phase = 2 * np.pi / size * np.einsum("qi,qi->q", seen, shifts_px[box])
    centred = values * np.exp(1j * phase)
    real, imaginary = (np.bincount(point, part, len(at)) for part in (centred.real, centred.imag))
    sums.total.flat[at] = real + 1j * imaginary
    sums.weight.flat[at] = measured.sum(axis=0)
    return FourierSum(sums.total, sums.weight, count)


def nyquist_sphere(size: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Wave vectors zyx up to the Nyquist frequency in cycles per box, shape (p, 3), and where rfftn has them, (p,)."""
    full, half = np.fft.fftfreq(size) * size, np.fft.rfftfreq(size) * size
    wave = np.stack(np.meshgrid(full, full, half, indexing="ij"), axis=-1).reshape(-1, 3)
    at = np.flatnonzero((wave**2).sum(axis=1) <= (size / 2) ** 2)
    return wave[at], at


def padded_spectra(boxes: Float[Tensor, "n d d d"]) -> Complex[Tensor, "n pd pd h"]:
    """Transforms (rfftn) of the boxes' inner spheres, padded to twice the size, the box's centre at voxel 0."""
    size = boxes.shape[-1]
    padded = PADDING * size
    # a turned cube would leave its corners outside the box, a turned sphere does not
    sphere = torch.from_numpy(soft_sphere((size,) * 3, size / 2 - EDGE_PX, EDGE_PX))
    edge = sphere * (1 - sphere)
    level = (boxes * edge).sum(dim=(1, 2, 3), keepdim=True) / edge.sum()
    fall_off = torch.sinc((torch.arange(size) - size // 2) / padded) ** 2  # what straight lines between samples cause
    window = sphere / (fall_off[:, None, None] * fall_off[:, None] * fall_off)
    placed = torch.zeros((len(boxes), padded, padded, padded), dtype=boxes.dtype)
    at = (torch.arange(size) - size // 2) % padded
    placed[:, at[:, None, None], at[:, None], at] = (boxes - level) * window
    return torch.fft.rfftn(placed, dim=(1, 2, 3))


def sample_spectra(
    spectra: Complex[Tensor, "n s s h"], box: NDArray[np.int64], points: Float[np.ndarray, "q 3"]
) -> NDArray[np.complex64]:
    """Coefficients of real volumes between those of rfftn, on straight lines, shape (q,).

    Parameters
    ----------
    spectra
        Transforms in the layout of rfftn, shape (n, s, s, s // 2 + 1).
    box
        Which of them each point belongs to, shape (q,).
    points
        Wave vectors zyx in samples of the spectra, shape (q, 3).
    """
    size, half = spectra.shape[-2:]
    mirrored = points[:, 2] < 0  # F(-k) is the conjugate of F(k), and rfftn keeps kx >= 0
    at = torch.from_numpy(np.where(mirrored[:, None], -points, points).astype(np.float32))
    low = at.floor()
    share = [(1 - part, part) for part in (at - low).unbind(-1)]
    z, y, x = low.to(torch.int32).unbind(-1)
    start = torch.from_numpy(box.astype(np.int32)) * size
    plane = [(start + (z + step) % size) * (size * half) for step in (0, 1)]
    row = [(y + step) % size * half for step in (0, 1)]
    column = [x, (x + 1).clamp(max=half - 1)]
    flat = spectra.flatten()
    found = torch.zeros(len(points), dtype=spectra.dtype)
    for i, j, k in product((0, 1), repeat=3):
        found += share[0][i] * share[1][j] * share[2][k] * flat.index_select(0, plane[i] + row[j] + column[k])
    values: NDArray[np.complex64] = found.numpy()
    return np.where(mirrored, values.conj(), values)


def batch_size(box_px: int, megabytes: float = 64.0) -> int:
    """Number of boxes that :func:`fourier_sum` handles within about this much memory, at least 1.

    >>> batch_size(32), batch_size(128)
    (14, 1)
    """
    padded = 4 * (PADDING * box_px) ** 3  # bytes; the volume, its rolled copy, its spectrum, and the sampled points
    return max(1, int(megabytes * 1e6 / (4.3 * padded)))
