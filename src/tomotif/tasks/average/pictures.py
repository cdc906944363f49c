"""Pictures of patterns: the members of each are aligned to each other without a reference, and averaged.

Cheaper than an alignment for a map (blind), and only as good as a picture needs. Not here: which particles make a
pattern (tasks.pattern_clusters), and what a pattern is taken for (tasks.patterns).
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.spatial.transform import Rotation

from tomotif.core import RESIDUALS, Particles, Progress, Settings, Subtomograms
from tomotif.ops.fourier import low_pass
from tomotif.tasks.average.blind import kept
from tomotif.tasks.average.classes import with_poses
from tomotif.tasks.average.given import average, offsets
from tomotif.tasks.average.group import Group
from tomotif.tasks.average.halves import Aligned, search_all
from tomotif.tasks.average.settings import AlignSettings, AverageSettings
from tomotif.tasks.average.starts import Start, first_steps, further_steps, grow

BY = "pattern"
FEWEST = 8
"""Members that are too few to align."""


class PictureSettings(Settings):
    """How the members of a pattern are aligned: enough for a picture, and far cheaper than for a map."""

    particles: int = Field(default=100, ge=8)
    """Largest number of members that the picture grows from; the others are only searched with it."""
    resolution: float = Field(default=50.0, gt=0)
    """Resolution in Å up to which it grows."""
    rotations: int = Field(default=1152, ge=72)
    """Orientations of the grid it grows with; 1,152 are 24° apart."""
    max_shift_px: float = Field(default=3.0, ge=0)
    """Largest shift along each axis from the box's centre in voxels."""
    largest_loss: float = Field(default=0.1, ge=0, lt=1)
    """Patterns are joined that lose at most this share of their likelihood under each other's map; 0: never."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to search; 'auto' takes the GPU when there is one."""

    def search(self) -> AlignSettings:
        """As the alignment takes them."""
        return AlignSettings(
            start_particles=self.particles,
            start_resolution=self.resolution,
            max_shift_px=self.max_shift_px,
            device=self.device,
        )


def pattern_pictures(
    subtomograms: Subtomograms,
    settings: PictureSettings,
    work: Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Particles, NDArray[np.float32]]:
    """Align the members of every pattern, and average them.

    Parameters
    ----------
    subtomograms
        n boxes with the column ``pattern``, from 1.
    settings
        How they are aligned.
    work
        Folder for what a killed run continues from; settings, seed and boxes must be the same.
    seed
        Decides starts and half-sets.
    progress
        Called with (patterns done, patterns).

    Returns
    -------
    particles : Particles
        The same n rows where and how turned they were found.
    pictures : NDArray[float32], shape (k, D, D, D)
        Picture k - 1 is that of pattern k, seen up to the resolution that its halves share; a pattern with too few
        members is the mean of their boxes as they are.
    """
    averaging = AverageSettings(halves="alternate")
    number = subtomograms.particles[BY].to_numpy(np.int64)
    pictures = np.zeros((number.max(), *(subtomograms.box_px,) * 3), np.float32)
    aligned: list[Aligned] = []
    for pattern in range(1, len(pictures) + 1):
        rows = np.flatnonzero(number == pattern)
        if len(rows) >= FEWEST:
            aligned.append(aligned_members(subtomograms, rows, settings, work, seed=seed))
        elif len(rows):
            pictures[pattern - 1] = subtomograms.boxes(rows).mean(axis=0)
        if progress is not None:
            progress(pattern, len(pictures))
    if not aligned:
        return subtomograms.particles, pictures
    found = with_poses(subtomograms, aligned)
    for one in average(found, averaging, by=BY, rng=np.random.default_rng(seed)).averages:
        seen = low_pass(one.volume, one.voxel_size, one.resolution)
        pictures[int(one.name.removeprefix(f"{BY}_")) - 1] = seen
    return placed(subtomograms.particles, found.particles), pictures


def grown_from(
    subtomograms: Subtomograms, rows: NDArray[np.int64], settings: PictureSettings, work: Path, *, seed: int = 0
) -> tuple[NDArray[np.int64], Start]:
    """Grow a map from some of these rows, from random orientations; gives which of them, and the map.

    Its hand is left to chance: the picture of a mirror image has the same shape. What was grown of the same rows is
    found again in ``work``.
    """
    work.mkdir(parents=True, exist_ok=True)
    group = Group.of(subtomograms, rows, settings.search())
    rng = drawn_by(rows, seed)
    some = np.sort(rng.permutation(len(rows))[: settings.particles])

    def grow_map() -> Start:
        start = grow(group, some, rng, first_steps(group.highest_start, settings.rotations))
        further = further_steps(group.highest_start)
        return grow(group, some, rng, further, start) if further else start

    return rows[some], kept(work / f"start_{name_of(rows)}.npz", grow_map)


def aligned_members(
    subtomograms: Subtomograms, rows: NDArray[np.int64], settings: PictureSettings, work: Path, *, seed: int = 0
) -> Aligned:
    """Grow a map from some members, and search it in all of them."""
    state = work / f"aligned_{name_of(rows)}.npz"
    if state.exists():
        return Aligned.load(state)
    _, start = grown_from(subtomograms, rows, settings, work, seed=seed)
    group = Group.of(subtomograms, rows, settings.search())
    poses = search_all(group, start.volume, start.highest, lambda *_: None)
    half = np.ones(len(rows), dtype=np.int64)
    half[drawn_by(rows, seed + 1).permutation(len(rows))[len(rows) // 2 :]] = 2
    found = Aligned(
        rows=group.rows,
        poses=poses,
        half=half,
        round=0,
        symmetry="C1",
        start_resolution=group.length / start.highest,
        start=start.volume,
        likelihoods=(start.mean,),
        agreement=float("nan"),
        hand_margin=0.0,
        hands_alike=1.0,
    )
    found.save(state)
    return found


def name_of(rows: NDArray[np.int64]) -> str:
    """A name for a set of rows, the same every time."""
    return blake2b(np.ascontiguousarray(rows, dtype=np.int64).tobytes(), digest_size=8).hexdigest()


def drawn_by(rows: NDArray[np.int64], seed: int) -> np.random.Generator:
    """Random numbers for a set of rows, whatever its number among the patterns."""
    return np.random.default_rng((seed, int(name_of(rows), 16)))


def placed(particles: Particles, found: Particles) -> Particles:
    """All particles, with the poses of those that were aligned; the others are not turned."""
    row_of = {index: row for row, index in enumerate(particles["stack_index"].to_numpy(np.int64))}
    rows = np.array([row_of[index] for index in found["stack_index"].to_numpy(np.int64)], dtype=np.int64)
    position, residual = np.array(particles.position), np.array(offsets(particles))
    turns = np.array(Rotation.identity(len(particles)).as_quat())
    position[rows], residual[rows] = found.position, offsets(found)
    turns[rows] = found.orientation.as_quat()
    moved = replace(particles, position=position, orientation=Rotation.from_quat(turns))
    return moved.with_columns(**dict(zip(RESIDUALS, residual.T, strict=True)))
