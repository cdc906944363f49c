"""Normal poses from moments: where the object in the middle of a box lies, and how its principal axes are turned.

Pose normalisation of Zeng et al. 2018, J Struct Biol 202:150: the object is cut from its surroundings, its centre of
mass goes to the middle and its principal axes to z, y and x. It needs no reference, and it is as good as the object is
lopsided: axes of equal moment have no order, a symmetric body has no third moments, and the missing wedge lengthens
everything along the beam.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from tomotif.core.geometry import centre_index, radius_grid
from tomotif.ops.mask import otsu_threshold

_MIDDLE = 0.4
"""Standard deviation of the Gaussian that says what lies in the middle, as a fraction of the largest radius."""


@dataclass(frozen=True, eq=False)
class NormalPoses:
    """Poses of n objects.

    Attributes
    ----------
    shift_px
        Centre of mass relative to the box's centre d // 2, zyx in voxels, shape (n, 3).
    rotation
        n rotations from the reference frame to the tomogram, acting on zyx vectors. In the reference frame the largest
        second moment lies along z, the smallest along x.
    extent_px
        Root second moments along the reference frame's z, y and x in voxels, falling, shape (n, 3).
    voxels
        Size of each object in voxels, shape (n,); 0: there was none, and its pose is that of the box.
    """

    shift_px: Float[np.ndarray, "n 3"]
    rotation: Rotation
    extent_px: Float[np.ndarray, "n 3"]
    voxels: Int[np.ndarray, " n"]


def normal_poses(boxes: Float[np.ndarray, "n d d d"], *, smoothing_px: float, radius_px: float) -> NormalPoses:
    """Pose of the object in the middle of every box.

    Parameters
    ----------
    boxes
        Bright boxes of finite values zyx, shape (n, d, d, d).
    smoothing_px
        Standard deviation in voxels of the Gaussian that takes the noise down first.
    radius_px
        What lies farther than this from the middle, in voxels, is not of the object.

    Examples
    --------
    >>> box = np.zeros((1, 16, 16, 16), np.float32)
    >>> box[0, 8, 8, 4:12] = 1  # a rod along x, whose centre lies half a voxel below the middle
    >>> pose = normal_poses(box, smoothing_px=0.5, radius_px=8)
    >>> pose.shift_px.round(2).tolist(), np.abs(pose.rotation.apply([1, 0, 0])).round(2).tolist()
    ([[0.0, 0.0, -0.5]], [[0.0, 0.0, 1.0]])
    """
    weights = np.stack([central_weight(box, smoothing_px, radius_px) for box in boxes])
    centre, axes, variance = principal_frame(weights)
    voxels = np.count_nonzero(weights.reshape(len(boxes), -1), axis=1)
    return NormalPoses(centre, Rotation.from_matrix(axes), np.sqrt(variance), voxels)


def central_weight(
    box: Float[np.ndarray, "d d d"], smoothing_px: float, radius_px: float
) -> Float[np.ndarray, "d d d"]:
    """Density of the object in the middle above its surroundings; 0 elsewhere.

    The smoothed box is split by Otsu's threshold (Otsu 1979, IEEE Trans Syst Man Cybern 9:62) inside the sphere that it
    holds. That lies between matter and surroundings whatever the noise, so that an object has the same outline in every
    box; a level in units of the noise draws it the tighter the noisier or the more crowded the box. In a crowded cell
    all matter touches at this level, so the object ends at a radius; of what is in connected pieces inside it, that one
    is kept of which most lies in the middle.

    Parameters
    ----------
    box
        Bright box zyx.
    smoothing_px, radius_px
        As of :func:`normal_poses`.
    """
    if not np.ptp(box) > 0:
        return np.zeros(box.shape)
    radius = radius_grid(box.shape)
    smooth = ndimage.gaussian_filter(box.astype(np.float64), smoothing_px)
    above = smooth - otsu_threshold(smooth[radius <= len(box) / 2])
    above[radius > min(radius_px, len(box) / 2)] = 0
    pieces, count = ndimage.label(above > 0)
    if not count:
        return np.zeros_like(above)
    middle = above * np.exp(-0.5 * (radius / (_MIDDLE * radius_px)) ** 2)
    mass = ndimage.sum_labels(middle, pieces, np.arange(1, count + 1))
    return np.where(pieces == 1 + int(np.argmax(mass)), above, 0)


def principal_frame(
    weights: Float[np.ndarray, "n d d d"],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Centre of mass, principal axes and second moments of densities.

    Parameters
    ----------
    weights
        Densities that are nowhere negative, zyx, shape (n, d, d, d).

    Returns
    -------
    centre : NDArray[float64], shape (n, 3)
        Relative to the box's centre d // 2, zyx in voxels; 0 for an empty box.
    axes : NDArray[float64], shape (n, 3, 3)
        Rotation matrices whose columns are the principal axes, by falling second moment; the unit matrix for an empty
        box.
    variance : NDArray[float64], shape (n, 3)
        Second moments along them about the centre, in voxels².
    """
    axis = np.arange(weights.shape[1], dtype=np.float64) - centre_index(weights.shape[1])
    place = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    pairs = place[:, :, None] * place[:, None, :]
    triples = pairs[:, :, :, None] * place[:, None, None, :]
    flat = weights.reshape(len(weights), -1)
    total = flat.sum(axis=1, keepdims=True)
    share = np.divide(flat, total, out=np.zeros_like(flat), where=total > 0)
    centre = share @ place
    second = (share @ pairs.reshape(-1, 9)).reshape(-1, 3, 3)
    third = (share @ triples.reshape(-1, 27)).reshape(-1, 3, 3, 3)
    variance, axes = np.linalg.eigh(second - centre[:, :, None] * centre[:, None, :])
    variance, axes = np.maximum(variance[:, ::-1], 0), axes[:, :, ::-1]
    axes = signed(axes, skewness(axes, variance, centre, second, third))
    return centre, np.where(total[:, :, None] > 0, axes, np.eye(3)), variance


def skewness(
    axes: Float[np.ndarray, "n 3 3"],
    variance: Float[np.ndarray, "n 3"],
    centre: Float[np.ndarray, "n 3"],
    second: Float[np.ndarray, "n 3 3"],
    third: Float[np.ndarray, "n 3 3 3"],
) -> Float[np.ndarray, "n 3"]:
    """Third moment along each axis about the centre of mass, over its standard deviation cubed.

    Parameters
    ----------
    axes, variance
        Axes as columns, and the second central moments along them.
    centre, second, third
        Moments about the box's centre.
    """
    mean = np.einsum("nia,ni->na", axes, centre)
    square = np.einsum("nia,nja,nij->na", axes, axes, second)
    cube = np.einsum("nia,nja,nka,nijk->na", axes, axes, axes, third, optimize=True)
    return (cube - 3 * mean * square + 2 * mean**3) / np.maximum(variance, 1e-12) ** 1.5


def signed(axes: Float[np.ndarray, "n 3 3"], skew: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3 3"]:
    """The axes with their signs chosen: right-handed, and else towards the longer tail of the object.

    Three tails cannot all be obeyed by a rotation; the one that says least gives way.

    Parameters
    ----------
    axes
        Orthonormal axes as columns.
    skew
        Third moment along each.

    Examples
    --------
    >>> signed(np.eye(3)[None], np.array([[-3.0, 2.0, 0.1]]))[0].diagonal().tolist()
    [-1.0, 1.0, -1.0]
    """
    sign = np.where(skew < 0, -1.0, 1.0)
    left_handed = sign.prod(axis=1) * np.linalg.det(axes) < 0
    rows = np.flatnonzero(left_handed)
    sign[rows, np.abs(skew[rows]).argmin(axis=1)] *= -1
    return axes * sign[:, None, :]
