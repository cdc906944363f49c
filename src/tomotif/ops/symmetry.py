"""Point-group symmetry of a map: where its axes lie, how well it holds, and the map averaged over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tomotif.ops.align import Band, Reference
from tomotif.ops.orientations import point_group, rotations_around, uniform_rotations

_GENERATORS = {"T": 12, "O": 24, "I": 60}
"""Groups for which every element is looked at: few elements may be shared with a smaller group."""


_TOLERATED, _LOST, _DOUBLING = 0.03, 0.1, 0.01
"""Share of a structure that averaging over its own symmetry may lose, by axes that are a little off; the largest that
it may lose for all that is known; and how much more of it a group of twice the order may lose."""

GROUPS = (*(f"C{n}" for n in range(2, 9)), *(f"D{n}" for n in range(2, 9)), "T", "O", "I")
"""Groups that are tried when none is given."""


@dataclass(frozen=True, eq=False)
class Symmetry:
    """A point group in a map's own frame.

    Attributes
    ----------
    name
        ``C1``, ``C4``, ``D7``, ``T``, ``O``, ``I``.
    operations
        Rotations that map the map onto itself, acting on zyx vectors about the centre; the identity is one.
    correlation
        Mean correlation of the map with its turned copies inside the band, 1 for ``C1``.
    """

    name: str
    operations: Rotation
    correlation: float


def find_axes(volume: Float[np.ndarray, "d d d"], group: str, *, highest: float = 8.0, frames: int = 6000) -> Symmetry:
    """Where the axes of a point group lie in a map, by comparing the map with its own turned copies.

    The frame is searched on an even grid at low frequency, then on finer and finer grids about the best.

    Parameters
    ----------
    volume
        Map zyx, its centre of symmetry at voxel D // 2.
    group
        Name of the group, as of :func:`~tomotif.ops.orientations.point_group`.
    highest
        Highest frequency compared, in cycles a box.
    frames
        Size of the first grid.
    """
    elements = point_group(group)
    if len(elements) == 1:
        return Symmetry(group, elements, 1.0)
    reference, band = Reference.of(volume), Band.measured(len(volume), None, highest)
    looked_at = _generators(elements, group)
    low = band.within(0.75 * highest)
    grid = uniform_rotations(frames)
    best = grid[np.argsort(-_self_correlation(reference, low, grid, looked_at))[:12]]
    for radius, used in ((9.0, low), (4.0, band), (1.8, band), (0.8, band), (0.3, band)):
        tried = Rotation.concatenate([frame * rotations_around(radius, radius / 2) for frame in best])
        order = np.argsort(-_self_correlation(reference, used, tried, looked_at))
        best = tried[order[: max(1, len(best) // 3)]]
    frame = best[0]
    correlation = float(_self_correlation(reference, band, best[:1], elements[1:])[0])
    return Symmetry(group, frame * elements * frame.inv(), correlation)


def symmetrise(volume: Float[np.ndarray, "d d d"], operations: Rotation) -> NDArray[np.float32]:
    """Mean of a map over the rotations of a group that lie in its frame, without what lies beyond Nyquist's sphere."""
    reference, band = Reference.of(volume), Band.measured(len(volume), None, len(volume) / 2)
    values = torch.zeros(len(band), dtype=torch.complex64)
    for matrix in torch.from_numpy(operations.as_matrix().astype(np.float32)):
        values += reference.sample(band.wave @ matrix, gradient=False)[:, 0]
    return band.volume(values / len(operations))


def best_symmetry(
    first: Float[np.ndarray, "d d d"],
    second: Float[np.ndarray, "d d d"],
    *,
    highest: float = 8.0,
    groups: Sequence[str] = GROUPS,
) -> Symmetry:
    """The point group that two independent maps of one structure, in one frame, bear out.

    The first map is averaged over each group and compared with the second, which is left as it is. Averaging takes away
    noise whatever the group, so correlations would favour any large one; the product of the two maps would not, for
    their noise is independent. It falls by the share of the structure that the group does not have. A group is borne
    out when that share is next to nothing, and known well enough; larger ones are preferred. ``C1`` is the answer of
    maps that are too noisy to tell. All frequencies count alike, or the round envelope would decide.

    Groups that look the same up to ``highest`` are not told apart: the shell of ferritin is as good as icosahedral.
    """
    band = Band.measured(len(first), None, highest)
    best, price = Symmetry("C1", point_group("C1"), 1.0), 0.0
    for group in groups:
        found = find_axes(first, group, highest=highest, frames=2000)
        lost, error = lost_share(first, second, found.operations, band)
        borne_out = lost < _TOLERATED + 2 * error and lost + 2 * error < _LOST
        if borne_out and lost - _DOUBLING * np.log2(len(found.operations)) < price:
            best, price = found, lost - _DOUBLING * np.log2(len(found.operations))
    return best


def lost_share(
    first: NDArray[np.floating], second: NDArray[np.floating], operations: Rotation, band: Band
) -> tuple[float, float]:
    """Share of what two maps have in common that is gone when a group averages one of them, and its standard error."""
    a, b, turned = (
        band.coefficients(torch.from_numpy(np.asarray(m, dtype=np.float32))[None])[0]
        for m in (first, second, symmetrise(first, operations))
    )
    shell = band.wave.norm(dim=1).round().long()
    power = torch.bincount(shell, a.abs() ** 2) * torch.bincount(shell, b.abs() ** 2)
    weight = torch.bincount(shell)[shell] / power.sqrt()[shell].clamp(min=1e-20)
    common = max(float((weight * (a.conj() * b).real).sum()), 1e-20)
    gone = weight * ((a - turned).conj() * b).real
    return float(gone.sum()) / common, float(gone.square().sum().sqrt()) / common


def _generators(elements: Rotation, group: str) -> Rotation:
    """Few rotations that make up the whole group."""
    if group in _GENERATORS:
        return elements[1 :: max(1, _GENERATORS[group] // 8)]
    if group.startswith("D"):
        return elements[[1, len(elements) // 2]] if len(elements) > 4 else elements[1:]
    return elements[[1]]


def _self_correlation(reference: Reference, band: Band, frames: Rotation, elements: Rotation) -> NDArray[np.float64]:
    """Mean correlation of the map with its copies turned by elements of a group whose axes lie in each frame."""
    still = reference.sample(band.wave, gradient=False)[:, 0]
    still = still / still.norm()
    total = np.zeros(len(frames))
    for element in elements:
        matrices = torch.from_numpy((frames * element * frames.inv()).as_matrix().astype(np.float32))
        found = []
        for some in matrices.split(max(1, (1 << 20) // len(band))):
            turned = reference.sample(band.wave @ some, gradient=False)[..., 0]
            found.append((turned.conj() * still).sum(1).real / turned.norm(dim=1).clamp(min=1e-20))
        total += torch.cat(found).numpy()
    mean: NDArray[np.float64] = total / len(elements)
    return mean
