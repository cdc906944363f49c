"""Shape of what is in a box: simple measures that do not depend on how it is turned."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import ndimage

from tomotif.core.geometry import centre_index, radius_grid


def shell_index(box_px: int, shells: int, radius_px: float) -> NDArray[np.int64]:
    """Shell number of every voxel: ``shells`` shells of equal thickness up to a radius, ``shells`` outside."""
    index = np.floor(radius_grid((box_px,) * 3) * shells / radius_px).astype(np.int64)
    return np.minimum(index, shells)


def radial_profiles(
    boxes: Float[np.ndarray, "n d d d"], *, shells: int, radius_px: float
) -> tuple[Float[np.ndarray, "n shells"], Float[np.ndarray, "n shells"]]:
    """Mean and standard deviation of the density over concentric shells.

    The deviation over a shell is 0 for a ball and large for a sheet: it tells globules from membranes.

    Parameters
    ----------
    boxes
        Densities about the centre d // 2, shape (n, d, d, d).
    shells
        Number of shells.
    radius_px
        Outer radius of the last shell in voxels.

    Returns
    -------
    mean, deviation
        Shape (n, shells) each.

    Examples
    --------
    >>> ball = (radius_grid((16, 16, 16)) < 4).astype(np.float32)[None]
    >>> mean, deviation = radial_profiles(ball, shells=2, radius_px=8)
    >>> mean.round(2).tolist(), deviation.round(2).tolist()
    ([[1.0, 0.0]], [[0.0, 0.0]])
    """
    index = shell_index(boxes.shape[1], shells, radius_px).ravel()
    membership = (index[:, None] == np.arange(shells)).astype(np.float32)
    membership /= membership.sum(axis=0)
    flat = boxes.reshape(len(boxes), -1)
    mean = flat @ membership
    return mean, np.sqrt(np.maximum(flat**2 @ membership - mean**2, 0))


def principal_moments(boxes: Float[np.ndarray, "n d d d"], *, radius_px: float) -> Float[np.ndarray, "n 3"]:
    """Root second moments of the positive density inside a sphere, along its principal axes, largest first, in voxels.

    Equal for a globule; two large and one small for a sheet; one large for a rod.
    """
    d = boxes.shape[1]
    axis = np.arange(d, dtype=np.float32) - centre_index(d)
    positions = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    inside = (np.linalg.norm(positions, axis=1) <= radius_px).astype(np.float32)
    weight = np.maximum(boxes.reshape(len(boxes), -1), 0) * inside
    weight /= np.maximum(weight.sum(axis=1, keepdims=True), 1e-6)
    centre = weight @ positions
    products = (positions[:, :, None] * positions[:, None, :]).reshape(-1, 9)
    second = (weight @ products).reshape(-1, 3, 3) - centre[:, :, None] * centre[:, None, :]
    return np.sqrt(np.maximum(np.linalg.eigvalsh(second)[:, ::-1], 0))


def shape_features(
    boxes: Float[np.ndarray, "n d d d"], *, shells: int = 12, smoothing_px: float = 1.3
) -> Float[np.ndarray, "n f"]:
    """Rotation-invariant features of boxes: radial mean, radial deviation, principal moments.

    Parameters
    ----------
    boxes
        Bright boxes, shape (n, d, d, d).
    shells
        Number of radial shells.
    smoothing_px
        Standard deviation in voxels of the Gaussian that takes the noise down first.

    Returns
    -------
    NDArray[float32], shape (n, 2 × shells + 3)
    """
    radius = boxes.shape[1] / 2
    smooth = ndimage.gaussian_filter(boxes, smoothing_px, axes=(1, 2, 3))
    mean, deviation = radial_profiles(smooth, shells=shells, radius_px=radius)
    return np.concatenate([mean, deviation, principal_moments(smooth, radius_px=0.7 * radius)], axis=1)


def compactness(features: Float[np.ndarray, "n f"], *, shells: int = 12) -> Float[np.ndarray, " n"]:
    """How much a box looks like one strong globule: centre minus surroundings minus unevenness of the surroundings.

    Parameters
    ----------
    features
        What :func:`shape_features` gives.
    shells
        The number of shells it was given.
    """
    mean, deviation = features[:, :shells], features[:, shells : 2 * shells]
    core, around = slice(0, shells // 3), slice(shells // 2, (5 * shells) // 6)
    return mean[:, core].mean(1) - mean[:, around].mean(1) - deviation[:, around].mean(1)
