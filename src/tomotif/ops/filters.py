"""Gaussian filters as matrices along the three axes, mean binning, and masks of what is no specimen.

A separable filter on a chunk is three matrix products. Each matrix takes the positions that are at hand to the
positions that are wanted, so one product filters, crops and, at the border of the tomogram, normalises; what a voxel
gets does not depend on the chunk it was computed in, and a matrix product is the fastest thing a processor does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

TRUNCATE = 3.0
"""Gaussians end at this many standard deviations."""


def reach(sigma: float, truncate: float = TRUNCATE) -> int:
    """Voxels to each side that a Gaussian of this standard deviation (in voxels) looks at.

    >>> reach(2.0)
    6
    """
    return math.ceil(truncate * sigma)


def gaussian_matrix(wanted: range, given: range, sigma: float, truncate: float = TRUNCATE) -> Floats:
    """Matrix of a one-dimensional Gaussian filter whose rows sum to one.

    Where ``given`` ends at the border of the tomogram the weights inside are scaled up: the mean of what is there,
    without ringing and without inventing values outside.

    Parameters
    ----------
    wanted
        Positions to compute, in voxels.
    given
        Positions that are at hand; within :func:`reach` of the wanted ones as far as the tomogram has them.
    sigma
        Standard deviation in voxels.
    truncate
        Where the Gaussian ends, in standard deviations.

    Returns
    -------
    NDArray[float32], shape (len(wanted), len(given))

    Examples
    --------
    >>> gaussian_matrix(range(2), range(3), 0.5).sum(axis=1).round(5).tolist()
    [1.0, 1.0]
    """
    distance = np.subtract.outer(np.asarray(wanted, dtype=np.float64), np.asarray(given, dtype=np.float64))
    weights = np.exp(-0.5 * (distance / sigma) ** 2) * (np.abs(distance) <= reach(sigma, truncate))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def along_axes(volume: Floats, matrices: Sequence[Floats]) -> Floats:
    """Multiply a volume (nz, ny, nx) by one matrix along each axis; shape (mz, my, mx).

    Parameters
    ----------
    volume
        Values zyx.
    matrices
        Shapes (mz, nz), (my, ny) and (mx, nx).
    """
    along_z, along_y, along_x = matrices
    rows = np.matmul(along_y, np.matmul(volume, along_x.T))
    return np.tensordot(along_z, rows, axes=1)


def smooth(
    volume: Floats, given: Sequence[range], wanted: Sequence[range], sigma: float, truncate: float = TRUNCATE
) -> Floats:
    """Gaussian filter of a chunk, computed only where it is wanted.

    Parameters
    ----------
    volume
        The chunk zyx.
    given
        Positions of its voxels along z, y and x.
    wanted
        Positions of the result along z, y and x.
    sigma
        Standard deviation in voxels.
    truncate
        Where the Gaussian ends, in standard deviations.

    Examples
    --------
    >>> whole = [range(5)] * 3
    >>> smooth(np.ones((5, 5, 5), np.float32), whole, [range(2, 3)] * 3, 1.0).round(5).tolist()
    [[[1.0]]]
    """
    return along_axes(volume, [gaussian_matrix(w, g, sigma, truncate) for w, g in zip(wanted, given, strict=True)])


def difference_of_gaussians(
    volume: Floats,
    given: Sequence[range],
    wanted: Sequence[range],
    sigmas: tuple[float, float],
    truncate: float = TRUNCATE,
) -> Floats:
    """G(narrow) − G(wide) of a chunk where it is wanted: bright blobs give maxima.

    Parameters
    ----------
    volume, given, wanted, truncate
        As in :func:`smooth`.
    sigmas
        Standard deviations in voxels, the narrow one first.
    """
    narrow, wide = sigmas
    response = smooth(volume, given, wanted, narrow, truncate)
    response -= smooth(volume, given, wanted, wide, truncate)
    return response


def ball_response(ratio: float, radius_over_sigma: float = math.sqrt(3)) -> float:
    """What :func:`difference_of_gaussians` gives at the centre of a solid ball of density 1.

    A Gaussian of standard deviation σ has the fraction erf(t/√2) − √(2/π) t exp(−t²/2), t = r/σ, of its mass inside
    the radius r. The ball answers best at r/σ = √3; weighted by σ, at r/σ = √2.

    Parameters
    ----------
    ratio
        Wide over narrow standard deviation, above 1.
    radius_over_sigma
        Radius of the ball over the geometric mean of the two standard deviations.

    Examples
    --------
    >>> round(ball_response(1.2), 3)
    0.167
    """

    def inside(t: float) -> float:
        return math.erf(t / math.sqrt(2)) - math.sqrt(2 / math.pi) * t * math.exp(-(t**2) / 2)

    return inside(radius_over_sigma * math.sqrt(ratio)) - inside(radius_over_sigma / math.sqrt(ratio))


def bin_mean(data: NDArray[Any], factor: int) -> Floats:
    """Mean of every ``factor``³ voxels; what does not fill a whole bin at the far ends is left out.

    Parameters
    ----------
    data
        Values zyx of any number type.
    factor
        Edge of a bin in voxels.

    Examples
    --------
    >>> bin_mean(np.arange(8).reshape(2, 2, 2), 2).tolist()
    [[[3.5]]]
    """
    if factor == 1:
        return data.astype(np.float32)
    shape = [n // factor for n in data.shape]
    total = np.zeros(shape, dtype=np.float32)
    ends = [n * factor for n in shape]
    for offset in np.ndindex(factor, factor, factor):
        total += data[tuple(slice(o, e, factor) for o, e in zip(offset, ends, strict=True))]
    total /= np.float32(factor**3)
    return total


def constant_regions(volume: Floats) -> Mask:
    """Where a volume is filled with one value, such as the corners of a turned tomogram: shape of the volume.

    A region counts when it holds a cube of 3³ equal voxels; the voxels beside it, which may be part fill, count too.

    Parameters
    ----------
    volume
        Values zyx.
    """
    equal = np.ones(volume.shape, dtype=bool)
    for axis in range(3):
        step = np.diff(volume, axis=axis) == 0
        ahead = [(0, 1) if a == axis else (0, 0) for a in range(3)]
        equal &= np.pad(step, ahead, constant_values=True)  # beyond the end nothing speaks against it
    if not _has_cube(equal):  # a quick look, which nearly always is enough
        return np.zeros(volume.shape, dtype=bool)
    cores = minimum_filter(equal, size=3, mode="constant", cval=1)
    return maximum_filter(cores, size=5, mode="constant", cval=0)


def _has_cube(mask: Mask) -> bool:
    """Whether some aligned cube of 2³ voxels is all true, as in every mask that holds a cube of 3³."""
    even = mask[tuple(slice(0, n // 2 * 2) for n in mask.shape)]
    halves = even[0::2] & even[1::2]
    halves = halves[:, 0::2] & halves[:, 1::2]
    return bool((halves[:, :, 0::2] & halves[:, :, 1::2]).any())


def grow(mask: Mask, voxels: int) -> Mask:
    """The mask and everything within so many voxels of it along each axis."""
    return maximum_filter(mask, size=2 * voxels + 1, mode="constant", cval=0) if mask.any() else mask


def robust_level(values: NDArray[np.floating]) -> tuple[float, float]:
    """Median, and the standard deviation of a normal distribution with the same median absolute deviation.

    Parameters
    ----------
    values
        Any shape.

    Examples
    --------
    >>> median, deviation = robust_level(np.array([1.0, 2.0, 3.0, 4.0, 500.0]))
    >>> median, round(deviation, 3)
    (3.0, 1.483)
    """
    median = float(np.median(values))
    return median, 1.482602 * float(np.median(np.abs(values - median)))
