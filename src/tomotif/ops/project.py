"""Projection along the beam of a tilted volume, and its adjoint, back-projection, for a single tilt axis.

Every plane across the tilt axis is projected in the same way, so one sparse matrix serves them all: it spreads each
voxel of a plane over two pixels of a detector sampled twice as finely as the volume. The fine detector is then
low-passed in Fourier space to the volume's sampling, where the spreading's sinc² is divided out. That is as exact as a
wide interpolation kernel at the cost of a linear one. The matrix depends on the geometry alone and is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.sparse import csr_matrix

from tomotif.core import InputError
from tomotif.core.missing_wedge import TiltAxis
from tomotif.ops.fourier import Shape

_FINER = 2
_COLUMNS = 32
"""Planes multiplied at a time: as many as keep the matrix's operands in the processor's cache."""


@dataclass(frozen=True, eq=False)
class Projector:
    """Projections of volumes of one shape at given tilts.

    Parameters
    ----------
    shape
        Shape zyx of the volumes.
    tilt_angles
        In degrees. A positive tilt turns the specimen right-handed about the positive tilt axis: with the axis y, image
        t sees the voxel (z, x), counted from the centre n // 2, at x cos t + z sin t.
    tilt_axis
        ``"y"`` or ``"x"``.
    width
        Pixels of an image across the tilt axis; along it an image is as long as the volume.
    threads
        Threads to work with; they do not change the result.
    """

    shape: Shape
    tilt_angles: tuple[float, ...]
    tilt_axis: TiltAxis
    width: int
    threads: int
    _spread: csr_matrix  # (tilts · fine width, voxels of a plane)
    _gather: csr_matrix  # its transpose

    @property
    def image_shape(self) -> tuple[int, int]:
        """Shape (y, x) of an image."""
        along = self.shape[1 if self.tilt_axis == "y" else 2]
        return (along, self.width) if self.tilt_axis == "y" else (self.width, along)

    def project(self, volume: NDArray[np.floating]) -> NDArray[np.float32]:
        """Sum along the beam at every tilt.

        Parameters
        ----------
        volume
            Shape zyx; the projector's.

        Returns
        -------
        NDArray[float32], shape (tilts, y, x)
            In the volume's unit times voxels.

        Raises
        ------
        InputError
            When the shape is another.
        """
        if volume.shape != self.shape:
            raise InputError(f"expected a volume of shape {self.shape}, got {volume.shape}; make a projector for it")
        planes = self._planes_last(volume)  # (z, across, along)
        across = planes.reshape(-1, planes.shape[2])
        fine = np.empty((self._spread.shape[0], across.shape[1]), dtype=np.float32)
        self._multiply(self._spread, across, fine)
        images = self._sharpen(fine.reshape(len(self.tilt_angles), -1, across.shape[1]), finer=False)
        return np.ascontiguousarray(images.swapaxes(1, 2) if self.tilt_axis == "y" else images)

    def back_project(self, images: NDArray[np.floating]) -> NDArray[np.float32]:
        """Smear every image back along its beam and add them up: the adjoint of :meth:`project`.

        Parameters
        ----------
        images
            Shape (tilts, y, x).

        Returns
        -------
        NDArray[float32], shape zyx

        Raises
        ------
        InputError
            When the shape is not that of the projections.
        """
        expected = (len(self.tilt_angles), *self.image_shape)
        if images.shape != expected:
            raise InputError(f"expected images of shape {expected} (tilts, y, x), got {images.shape}")
        coarse = images.swapaxes(1, 2) if self.tilt_axis == "y" else images
        fine = self._sharpen(np.ascontiguousarray(coarse, dtype=np.float32), finer=True)
        fine = fine.reshape(-1, fine.shape[2])
        planes = np.empty((self._gather.shape[0], fine.shape[1]), dtype=np.float32)
        self._multiply(self._gather, fine, planes)
        return self._planes_back(planes)

    def _planes_last(self, volume: NDArray[np.floating]) -> NDArray[np.float32]:
        """The volume as (z, across, along) the tilt axis."""
        moved = volume.swapaxes(1, 2) if self.tilt_axis == "y" else volume
        return np.ascontiguousarray(moved, dtype=np.float32)

    def _planes_back(self, planes: NDArray[np.float32]) -> NDArray[np.float32]:
        nz, ny, nx = self.shape
        if self.tilt_axis == "x":
            return planes.reshape(self.shape)
        return np.ascontiguousarray(planes.reshape(nz, nx, ny).swapaxes(1, 2))

    def _multiply(self, matrix: csr_matrix, columns: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Sparse times dense, a few columns at a time on every processor."""

        def some(first: int) -> None:
            kept = slice(first, first + _COLUMNS)
            out[:, kept] = matrix @ np.ascontiguousarray(columns[:, kept])

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(some, range(0, columns.shape[1], _COLUMNS)))

    def _sharpen(self, images: NDArray[np.float32], *, finer: bool) -> NDArray[np.float32]:
        """Between the fine and the volume's sampling (axis 1), undoing the linear spreading."""
        low = (self.width - 1) // 2 + 1  # without the frequency at the very limit, which has no sign
        given, wanted = images.shape[1], self.width * (_FINER if finer else 1)
        scale = np.sinc(np.arange(low) / (self.width * _FINER)) ** -2.0
        spectrum = np.zeros((len(images), wanted // 2 + 1, images.shape[2]), dtype=np.complex64)
        np.multiply(
            fft.rfft(images, axis=1, workers=self.threads)[:, :low],
            (scale * (wanted / given if finer else 1.0))[:, None].astype(np.float32),
            out=spectrum[:, :low],
        )
        return fft.irfft(spectrum, n=wanted, axis=1, workers=self.threads, overwrite_x=True).astype(np.float32)


@lru_cache(maxsize=4)
def projector(
    shape: Shape, tilt_angles: tuple[float, ...], tilt_axis: TiltAxis = "y", *, threads: int = 1
) -> Projector:
    """The projector of a geometry, wide enough that every image sees the whole volume; kept for the next call.

    Parameters
    ----------
    shape
        Shape zyx of the volumes in voxels.
    tilt_angles
        In degrees.
    tilt_axis
        ``"y"`` or ``"x"``.
    threads
        Threads to work with.

    Raises
    ------
    InputError
        When there is no tilt.
    """
    if len(tilt_angles) == 0:
        raise InputError("expected at least one tilt angle, got none")
    across = shape[2] if tilt_axis == "y" else shape[1]
    width = fft.next_fast_len(int(np.ceil(np.hypot(across, shape[0]))) + 4, real=True)
    width += width % 2
    gather = _gather(across, shape[0], np.radians(tilt_angles) * (1 if tilt_axis == "y" else -1), width)
    return Projector(shape, tuple(tilt_angles), tilt_axis, width, threads, gather.T.tocsr(), gather)


def _gather(across: int, depth: int, tilts: NDArray[np.floating], width: int) -> csr_matrix:
    """The matrix that interpolates every voxel (z, across) linearly in the fine images, one row a voxel."""
    x, z = np.arange(across) - across // 2, np.arange(depth) - depth // 2
    seen = x[:, None] * np.cos(tilts) + (z[:, None] * np.sin(tilts))[:, None]  # (z, across, tilts)
    place = ((seen + width // 2) * _FINER).reshape(-1, len(tilts))
    below = np.floor(place)
    share = (place - below).astype(np.float32)
    index = below.astype(np.int32) + np.arange(len(tilts), dtype=np.int32) * (width * _FINER)
    columns = np.stack([index, index + 1], axis=-1)
    weights = np.stack([1 - share, share], axis=-1)
    rows = np.arange(len(place) + 1, dtype=np.int32) * (2 * len(tilts))
    return csr_matrix((weights.ravel(), columns.ravel(), rows), shape=(len(place), len(tilts) * width * _FINER))


def back_projection_weights(tilt_angles: Sequence[float]) -> NDArray[np.float64]:
    """The angle in radians that every tilt stands for: half the way to its neighbours on both sides.

    >>> back_projection_weights([-60, 0, 60]).round(3).tolist()
    [1.047, 1.047, 1.047]
    """
    angles = np.radians(np.asarray(tilt_angles, dtype=np.float64))
    if len(angles) == 1:
        return np.array([np.pi])
    order = np.argsort(angles)
    gaps = np.diff(angles[order])
    weights = np.empty(len(angles))
    weights[order] = (np.concatenate([gaps[:1], gaps]) + np.concatenate([gaps, gaps[-1:]])) / 2
    return weights


def ramp(width: int) -> NDArray[np.float32]:
    """The ramp filter of weighted back-projection for images ``width`` pixels wide, at the frequencies of ``rfft``.

    The transform of the band-limited ramp's samples (Kak and Slaney 1988, Principles of Computerized Tomographic
    Imaging, chapter 3): unlike |k| itself it does not shift the mean.

    Parameters
    ----------
    width
        Pixels, even.
    """
    n = np.minimum(np.arange(width), width - np.arange(width))
    kernel = np.where(n % 2 == 1, -1.0 / (np.pi * np.maximum(n, 1)) ** 2, 0.0)
    kernel[0] = 0.25
    return fft.rfft(kernel).real.astype(np.float32)
