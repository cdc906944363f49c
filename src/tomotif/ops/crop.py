"""Boxes out of a volume: at the nearest voxel, or resampled between the voxels; padding; normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LANCZOS = 5
"""Half width of the interpolation kernel, in voxels of the coarser grid."""


def cut_boxes(volume: NDArray[Any], first: NDArray[np.int64], size: int, *, out: Floats | None = None) -> Floats:
    """Cut cubes out of a volume; what lies outside gets the mean of the cube's inside, which adds no edge.

    Parameters
    ----------
    volume
        Values zyx of any number type; may be memory-mapped.
    first
        First voxel zyx of each cube, shape (n, 3); may lie outside.
    size
        Edge of the cubes in voxels.
    out
        Where to put them, shape (m, size, size, size) with m >= n; new memory costs as much as the cutting.

    Returns
    -------
    NDArray[float32], shape (n, size, size, size)
        A cube that lies wholly outside is zero.
    """
    boxes = np.empty((len(first), size, size, size), dtype=np.float32) if out is None else out[: len(first)]
    for box, corner in zip(boxes, first.tolist(), strict=True):
        inside = volume[tuple(slice(max(c, 0), max(c + size, 0)) for c in corner)]
        if inside.shape == box.shape:
            box[...] = inside
        else:
            box[...] = np.mean(inside, dtype=np.float64) if inside.size else 0
            within = tuple(slice(max(-c, 0), max(-c, 0) + n) for c, n in zip(corner, inside.shape, strict=True))
            box[within] = inside if inside.size else 0
    return boxes


def inside_fraction(first: NDArray[np.floating], step: float, size: int, shape: Sequence[int]) -> NDArray[np.float64]:
    """Fraction of the samples of each cube that lie in a volume.

    Parameters
    ----------
    first
        Place zyx of each cube's first sample, in voxels of the volume, shape (n, 3).
    step
        Distance between samples in voxels.
    size
        Samples along an edge.
    shape
        Shape zyx of the volume, whose voxels reach half a voxel beyond their centres.

    Examples
    --------
    >>> inside_fraction(np.array([[-2.0, 0, 0]]), 1.0, 4, (8, 8, 8)).tolist()
    [0.5]
    """
    below = np.clip(np.ceil((-0.5 - first) / step), 0, size)
    not_above = np.clip(np.ceil((np.asarray(shape) - 0.5 - first) / step), 0, size)
    return np.prod((not_above - below) / size, axis=1)


def lanczos_matrices(places: NDArray[np.floating], size: int) -> Floats:
    """Matrices that interpolate samples 0 … size − 1 at places between them, low-passed where the places are coarser.

    The kernel is the windowed sinc of Lanczos at the coarser of the two spacings, so that nothing beyond the coarser
    Nyquist frequency is folded back; rows sum to one.

    Parameters
    ----------
    places
        Evenly spaced places in samples, shape (..., m).
    size
        Number of samples.

    Returns
    -------
    NDArray[float32], shape (..., m, size)

    Examples
    --------
    >>> np.abs(lanczos_matrices(np.array([1.0, 2.0]), 4)).round(6).tolist()
    [[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
    """
    spacing = float(places.reshape(-1, places.shape[-1])[0, 1] - places.reshape(-1, places.shape[-1])[0, 0])
    distance = (places[..., None] - np.arange(size)) / max(1.0, spacing)
    weights = np.sinc(distance) * np.sinc(distance / LANCZOS) * (np.abs(distance) < LANCZOS)
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)


def source_size(size: int, step: float) -> int:
    """Edge in voxels of the cube that :func:`resample_boxes` needs for ``size`` samples at this spacing."""
    return math.ceil((size - 1) * step) + 2 * math.ceil(LANCZOS * max(1.0, step)) + 1


def resample_boxes(boxes: Floats, first: NDArray[np.floating], step: float, size: int) -> Floats:
    """Sample cubes on a finer, coarser or shifted grid.

    Parameters
    ----------
    boxes
        Cubes of :func:`source_size` voxels, shape (n, M, M, M).
    first
        Place zyx of the first sample in each cube, in its voxels, shape (n, 3).
    step
        Distance between samples in voxels.
    size
        Samples along an edge.

    Returns
    -------
    NDArray[float32], shape (n, size, size, size)
    """
    places = first[:, :, None] + step * np.arange(size)
    along = lanczos_matrices(places, boxes.shape[-1])
    along_z, along_y, along_x = along[:, 0], along[:, 1], along[:, 2]
    rows = np.matmul(along_y[:, None], np.matmul(boxes, along_x.transpose(0, 2, 1)[:, None]))
    flat = rows.reshape(len(boxes), boxes.shape[1], size * size)
    return np.matmul(along_z, flat).reshape(len(boxes), size, size, size)


def standardise(
    boxes: Floats, inside: NDArray[np.floating], *, sign: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Take mean and standard deviation off every box, in place; padding that holds the mean does not count.

    Parameters
    ----------
    boxes
        Shape (n, D, D, D); changed. A constant box becomes zero.
    inside
        Fraction of each box that is no padding, shape (n,).
    sign
        -1 turns dark boxes bright on the way.

    Returns
    -------
    tuple of NDArray, each of shape (n,)
        Mean (of the bright box), and standard deviation of what is no padding.
    """
    flat = boxes.reshape(len(boxes), -1)
    with np.errstate(invalid="ignore", over="ignore"):  # the caller sees NaN and infinity in the deviation
        mean = flat.mean(axis=1, keepdims=True)
        flat -= mean
        deviation = np.sqrt(np.einsum("ij,ij->i", flat, flat) / (flat.shape[1] * np.maximum(inside, 1e-9)))
        factor = np.divide(sign, deviation, out=np.zeros_like(deviation), where=deviation != 0)
        flat *= factor.astype(np.float32)[:, None]
    return sign * mean[:, 0].astype(np.float64), deviation.astype(np.float64)


def to_half(boxes: Floats) -> NDArray[np.float16]:
    """The boxes as float16, rounded to nearest even."""
    import torch  # converts eleven times faster than numpy; box by box it starts no threads of its own

    halves = np.empty(boxes.shape, np.float16)
    for half, box in zip(halves, boxes, strict=True):
        torch.from_numpy(half).copy_(torch.from_numpy(box))
    return halves
