"""Structures made ready to be rotated and put into a volume or box, many at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tomotif.core import BACKGROUND, InputError, Structure
from tomotif.ops.density import envelope_threshold, envelope_volume, structure_density
from tomotif.ops.fourier import undo_trilinear
from tomotif.ops.packing import outermost_points, overlap
from tomotif.tasks.simulate.settings import ImagingSettings

if TYPE_CHECKING:  # torch takes 1.5 s to import, which whoever reads the settings alone should not wait for
    from torch import Tensor

_SUPERSAMPLING = 2
_CHUNK_VOXELS = 1 << 20
"""Voxels worked on at a time: few enough to stay in the processor's cache."""


class Template(NamedTuple):
    """A structure made ready to be rotated: a finely sampled map, sharpened against the interpolation to come."""

    structure: Structure
    fine: Tensor  # (1, s, s, s)
    size: int  # edge in output voxels of the stamp that holds the structure in any orientation
    threshold: float  # the density at the molecular envelope

    def stamps(self, rotations: Rotation, shifts: NDArray[np.floating]) -> NDArray[np.float32]:
        """Rotated copies (n, size, size, size), shifted by fractions of an output voxel."""
        from tomotif.ops.rotate import sample_rotated

        turned = sample_rotated(self.fine, rotations, shifts, size=self.size, supersampling=_SUPERSAMPLING)
        return turned.numpy()

    def envelope(self, stamp: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Where a stamp is inside its molecular envelope."""
        return stamp > min(self.threshold, float(stamp.max()) * 0.999)


@lru_cache(maxsize=64)
def template(structure: Structure, voxel: float, resolution: float) -> Template:
    """The template of a structure; kept for the next call."""
    import torch

    size = 2 * math.ceil((structure.radius + resolution / 2) / voxel + 0.5) + 1
    edge = size * _SUPERSAMPLING
    density = structure_density(
        structure,
        voxel_size=voxel / _SUPERSAMPLING,
        resolution=resolution,
        shape=(edge, edge, edge),
        band_limit=0.5 / voxel,
    )
    threshold = envelope_threshold(density, envelope_volume(structure) / (voxel / _SUPERSAMPLING) ** 3)
    return Template(structure, torch.from_numpy(undo_trilinear(density))[None], size, threshold)


def chunks(rows: int | NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Split rows into parts whose boxes of this size fit the processor's cache."""
    index = np.arange(rows) if isinstance(rows, int) else rows
    return np.array_split(index, math.ceil(len(index) / max(1, _CHUNK_VOXELS // size**3))) if len(index) else []


def templates(structures: Sequence[Structure], settings: ImagingSettings) -> list[Template]:
    """The templates of structures."""
    return [template(s, settings.voxel_size, settings.resolution) for s in structures]


def render(
    templates: Sequence[Template],
    which: NDArray[np.int64],
    rotations: Rotation,
    offsets_px: NDArray[np.float64],
    owner: NDArray[np.int64],
    boxes: Tensor,
) -> None:
    """Add turned copies to boxes (n, w, w, w), each to its owner's, at an offset in voxels from the centre."""
    volume = boxes.numpy()
    size = volume.shape[-1]
    whole = np.round(offsets_px).astype(int)
    for kind in np.unique(which[which >= 0]):
        template = templates[kind]
        near = np.all(np.abs(whole) < (size + template.size) // 2, axis=1)
        rows = np.flatnonzero((which == kind) & near)
        for part in chunks(rows, template.size):
            stamps = template.stamps(rotations[part], (offsets_px - whole)[part])
            for row, stamp in zip(part, stamps, strict=True):
                inside, kept = overlap((size, size, size), template.size, whole[row] + size // 2)
                volume[(owner[row], *inside)] += stamp[kept]


# ---------------------------------------------------------------------------------------------- signal and noise


def check_names(structures: Sequence[Structure]) -> None:
    """Refuse structures that cannot be told apart by name."""
    names = [s.name for s in structures]
    if not names:
        raise InputError("expected at least one structure to simulate, got none")
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice or BACKGROUND in names:
        wrong = f"{twice[0]!r} twice" if twice else f"{BACKGROUND!r}, which means no particle"
        raise InputError(f"expected every structure to have its own name, got {wrong}; name its file differently")


@lru_cache(maxsize=64)
def outermost_points_of(structure: Structure) -> NDArray[np.float64]:
    """The outermost points of a structure about its centre of mass; kept for the next call."""
    return outermost_points(structure.centred().positions)
