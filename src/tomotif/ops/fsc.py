"""Fourier shell correlation: how far two maps agree, and the resolution in Å that follows."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch_fourier_shell_correlation import fourier_shell_correlation

from tomotif.core import InputError
from tomotif.core.geometry import radius_grid

RANDOMISE_BELOW = 0.8
SHELLS_AFTER = 2

Curve = NDArray[np.float64]


def fsc(
    a: NDArray[np.floating],
    b: NDArray[np.floating],
    voxel_size: float,
    mask: NDArray[np.floating] | None = None,
) -> tuple[Curve, Curve]:
    """Fourier shell correlation of two maps (Harauz & van Heel 1986, Optik 73:146).

    Parameters
    ----------
    a, b
        Maps zyx of one cubic shape (D, D, D).
    voxel_size
        Edge of a voxel in Å.
    mask
        Weights 0 to 1 in real space, shape (D, D, D), that both maps are multiplied with after their mean outside the
        mask is taken off, so that the edge of the mask is no common feature.

    Returns
    -------
    frequencies : NDArray[float64], shape (D // 2 + 1,)
        Spatial frequency of each shell in 1/Å.
    curve : NDArray[float64], shape (D // 2 + 1,)
        Correlation -1 to 1; shell 0 is 1 by definition.

    Raises
    ------
    InputError
        When the shapes differ or are not cubic.
    """
    shapes = {np.shape(x) for x in (a, b, a if mask is None else mask)}
    if len(shapes) > 1 or len(np.shape(a)) != 3 or len(set(np.shape(a))) > 1:
        raise InputError(f"expected maps and mask of one cubic shape, got {' and '.join(map(str, sorted(shapes)))}")
    maps = (torch.from_numpy(masked(x, mask)) for x in (a, b))
    curve: Curve = fourier_shell_correlation(*maps).numpy().astype(np.float64)
    frequencies: Curve = np.fft.rfftfreq(len(a), voxel_size).astype(np.float64)
    return frequencies, curve


def masked(volume: NDArray[np.floating], mask: NDArray[np.floating] | None) -> NDArray[np.float64]:
    """The map times the mask, its mean outside the mask taken off before."""
    values = np.asarray(volume, dtype=np.float64)
    if mask is None:
        return values
    outside = 1.0 - np.asarray(mask, dtype=np.float64)
    level = (values * outside).sum() / outside.sum() if outside.sum() > 0 else 0.0
    return (values - level) * mask


def corrected_fsc(
    a: NDArray[np.floating],
    b: NDArray[np.floating],
    voxel_size: float,
    mask: NDArray[np.floating],
    rng: np.random.Generator,
) -> tuple[Curve, Curve]:
    """FSC inside a mask, freed of the correlation that the mask itself makes.

    The phases beyond the shell where the unmasked FSC falls below 0.8 are randomised in both maps; what correlation
    the mask gives those is taken off: (FSC - FSC_random) / (1 - FSC_random), from two shells further on (Chen et al.
    2013, Ultramicroscopy 135:24).

    Parameters
    ----------
    a, b
        Half-maps zyx, shape (D, D, D).
    voxel_size
        Edge of a voxel in Å.
    mask
        Soft mask 0 to 1, shape (D, D, D).
    rng
        Decides the random phases.

    Returns
    -------
    frequencies, curve
        As of :func:`fsc`.
    """
    frequencies, plain = fsc(a, b, voxel_size)
    curve = fsc(a, b, voxel_size, mask)[1]
    below = np.flatnonzero(plain < RANDOMISE_BELOW)
    if not len(below):
        return frequencies, curve
    first = int(below[0])
    noise = fsc(randomise_phases(a, first, rng), randomise_phases(b, first, rng), voxel_size, mask)[1]
    beyond = np.arange(len(curve)) >= first + SHELLS_AFTER
    # where the mask alone explains (nearly) everything nothing is left to trust
    excess = np.divide(curve - noise, 1.0 - noise, out=np.zeros_like(curve), where=noise < 1.0 - 1e-6)
    return frequencies, np.where(beyond, excess, curve)


def randomise_phases(volume: NDArray[np.floating], first_shell: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """The same map with uniformly random phases from shell ``first_shell`` on; amplitudes stay.

    Parameters
    ----------
    volume
        Map zyx, shape (D, D, D).
    first_shell
        First shell, in multiples of 1/D, whose phases are drawn anew.
    rng
        Decides them; the phases are those of white noise, so that the result is real.
    """
    values = np.asarray(volume, dtype=np.float64)
    transform = np.fft.rfftn(values)
    noise = np.fft.rfftn(rng.standard_normal(values.shape))
    size = len(values)
    z, y, x = np.meshgrid(*[np.fft.fftfreq(size) * size] * 2, np.fft.rfftfreq(size) * size, indexing="ij", sparse=True)
    beyond = np.sqrt(z**2 + y**2 + x**2) >= first_shell
    turned = np.abs(transform) * noise / np.abs(noise)
    return np.fft.irfftn(np.where(beyond, turned, transform), s=values.shape, axes=(0, 1, 2))


def resolution_at(frequencies: Curve, curve: Curve, threshold: float = 0.143) -> float:
    """Resolution in Å where an FSC curve first falls below a threshold.

    Between shells the curve is a straight line. A curve that never falls below gives the finest shell, which is
    2 × voxel size in boxes of even size; one that is below from the first shell on gives the box length.

    Parameters
    ----------
    frequencies
        Spatial frequency of each shell in 1/Å, from 0, shape (n,).
    curve
        Correlation of each shell, shape (n,); shell 0 is not looked at.
    threshold
        0.143 between half-maps (Rosenthal & Henderson 2003, J Mol Biol 333:721), 0.5 against a known map.

    Examples
    --------
    >>> shells = np.array([0.0, 0.01, 0.02, 0.03])
    >>> round(resolution_at(shells, np.array([1.0, 1.0, 0.6, 0.4]), 0.5), 6)
    40.0
    >>> round(resolution_at(shells, np.ones(4), 0.5), 3), resolution_at(shells, np.zeros(4), 0.5)
    (33.333, 100.0)
    """
    below = np.flatnonzero(curve[1:] < threshold) + 1
    if not len(below):
        return float(1 / frequencies[-1])
    at = int(below[0])
    if at == 1:
        return float(1 / frequencies[1])
    high, low = curve[at - 1], curve[at]
    share = (high - threshold) / (high - low)
    return float(1 / (frequencies[at - 1] + share * (frequencies[at] - frequencies[at - 1])))


def soft_sphere(shape: tuple[int, int, int], radius_px: float, edge_px: float = 3.0) -> NDArray[np.float32]:
    """A sphere of ones about the centre n // 2 with a cosine edge.

    Parameters
    ----------
    shape
        zyx in voxels.
    radius_px
        Radius in voxels at which the edge begins to fall.
    edge_px
        Width of the edge in voxels.

    Returns
    -------
    NDArray[float32], shape ``shape``
        1 inside, 0 from ``radius_px + edge_px`` on.

    >>> soft_sphere((9, 9, 9), 2.0, 2.0)[4, 4, 4:].round(2).tolist()
    [1.0, 1.0, 1.0, 0.5, 0.0]
    """
    outside = np.clip((radius_grid(shape) - radius_px) / max(edge_px, 1e-6), 0.0, 1.0)
    return (0.5 * (1.0 + np.cos(np.pi * outside))).astype(np.float32)
