"""A soft mask about what stands out of a map."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import ndimage

from tomotif.core.geometry import radius_grid


def automatic_mask(
    volume: Float[np.ndarray, "d d d"], *, smoothing_px: float = 1.5, dilation_px: float = 2.0, edge_px: float = 3.0
) -> NDArray[np.float32]:
    """A mask about the body in the middle of a map, with a cosine edge.

    The smoothed map's voxels inside the box's sphere are split in two by Otsu's threshold (Otsu 1979, IEEE Trans Syst
    Man Cybern 9:62); of the brighter ones those connected to the largest piece are kept, filled and widened.

    Parameters
    ----------
    volume
        Bright map zyx.
    smoothing_px
        Standard deviation in voxels of the Gaussian before the threshold.
    dilation_px, edge_px
        How far the body is widened, and how wide its edge is.

    Returns
    -------
    NDArray[float32], shape (d, d, d)
        0 to 1; at least a small ball in the middle.
    """
    smooth = ndimage.gaussian_filter(volume.astype(np.float64), smoothing_px)
    inside = radius_grid(volume.shape) <= len(volume) / 2 - 3
    body = (smooth > otsu_threshold(smooth[inside])) & inside
    pieces, count = ndimage.label(body)
    if count:
        sizes = np.bincount(pieces.ravel())[1:]
        body = ndimage.binary_fill_holes(pieces == 1 + int(sizes.argmax()))
    body = np.asarray(body) | (radius_grid(volume.shape) <= 2)
    distance = ndimage.distance_transform_edt(~body)
    outside = np.clip((distance - dilation_px) / edge_px, 0.0, 1.0)
    return (0.5 * (1 + np.cos(np.pi * outside))).astype(np.float32)


def otsu_threshold(values: NDArray[np.floating], bins: int = 256) -> float:
    """The value that splits others into two groups with the least spread inside them.

    >>> 1 < otsu_threshold(np.array([0.0, 0.1, 1.0, 9.0, 10.0])) < 9
    True
    """
    count, edges = np.histogram(values, bins)
    centre = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(count)
    above = below[-1] - below
    mean_below = np.cumsum(count * centre) / np.maximum(below, 1)
    mean_above = (np.sum(count * centre) - np.cumsum(count * centre)) / np.maximum(above, 1)
    return float(edges[1 + int(np.argmax(below * above * (mean_below - mean_above) ** 2))])
