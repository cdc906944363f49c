"""Two half-sets refined apart: each part of a half against the map of the others.

Frequencies count as far as the half-maps agree, and the band widens as their agreement allows. Only the half-maps'
common frame is kept, by fitting one to the other in the band that both started from. Beyond that band the half-maps
share nothing, so their agreement there is no bias (Scheres & Chen 2012, Nat Methods 9:853).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tomotif.io.environment import cpu_count
from tomotif.io.files import replacing
from tomotif.ops.align import Band, Poses, Reference, Search, SearchPlan, moved_back, refine
from tomotif.ops.average import FourierSum, fourier_sum
from tomotif.ops.fourier import frequency_grid
from tomotif.ops.fsc import fsc
from tomotif.ops.mask import automatic_mask
from tomotif.ops.symmetry import find_axes, symmetrise
from tomotif.ops.threads import side_by_side
from tomotif.tasks.average.group import Group, tensor
from tomotif.tasks.average.starts import FOLDS

CHUNK = 8
"""Boxes searched at a time on one thread."""
_ENOUGH = 0.143

Report = Callable[[str, int, int], None]
"""Told what is being done, and how many of how many parts of it are done."""


@dataclass(frozen=True, eq=False)
class Aligned:
    """Poses of one class, found blindly.

    Attributes
    ----------
    rows
        Rows of the particle table.
    poses
        Orientation, shift from the box's centre and score of each.
    half
        Half-set of each, 1 or 2.
    round
        Rounds done.
    symmetry
        Point group used.
    start_resolution
        Å; up to there the half-sets share their start.
    start
        The map of the common start.
    likelihoods
        Mean log likelihood ratio of every start.
    agreement
        Mean correlation of the chosen start with the others at their best fit, all frequencies alike; NaN for one.
    hand_margin
        By how many standard errors the chosen hand is likelier than the other.
    hands_alike
        Correlation of the start with its mirror image at their best fit, all frequencies alike.
    """

    rows: NDArray[np.int64]
    poses: Poses
    half: NDArray[np.int64]
    round: int
    symmetry: str
    start_resolution: float
    start: NDArray[np.float32]
    likelihoods: tuple[float, ...]
    agreement: float
    hand_margin: float
    hands_alike: float

    def start_record(self) -> dict[str, Any]:
        """How sure the start is, as plain JSON values."""
        return {
            "start_likelihoods": [round(value, 3) for value in self.likelihoods],
            "start_agreement": None if np.isnan(self.agreement) else round(self.agreement, 4),
            "hand_margin": round(self.hand_margin, 2),
            "hands_alike": round(self.hands_alike, 4),
        }

    def save(self, path: Path) -> None:
        """Keep the state for a killed run."""
        with replacing(path) as part, part.open("wb") as file:
            np.savez(
                file,
                rows=self.rows,
                quaternions=self.poses.rotations.as_quat(),
                shifts=self.poses.shifts_px,
                score=self.poses.score,
                half=self.half,
                round=self.round,
                symmetry=np.array(self.symmetry),
                start_resolution=self.start_resolution,
                start=self.start,
                likelihoods=np.array(self.likelihoods),
                agreement=self.agreement,
                hand_margin=self.hand_margin,
                hands_alike=self.hands_alike,
            )

    @classmethod
    def load(cls, path: Path) -> Aligned:
        """The state of a killed run."""
        with np.load(path, allow_pickle=False) as kept:
            return cls(
                kept["rows"],
                Poses(Rotation.from_quat(kept["quaternions"]), kept["shifts"], kept["score"]),
                kept["half"],
                int(kept["round"]),
                str(kept["symmetry"]),
                float(kept["start_resolution"]),
                kept["start"],
                tuple(kept["likelihoods"].tolist()),
                float(kept["agreement"]),
                float(kept["hand_margin"]),
                float(kept["hands_alike"]),
            )


def search_all(group: Group, volume: NDArray[np.float32], highest: float, report: Callable[[int, int], None]) -> Poses:
    """The best pose of a map in every box."""
    settings = group.settings
    plan = SearchPlan(
        rotations=settings.rotations, shift_px=settings.max_shift_px, coarse=min(10.0, highest), fine=highest
    )
    reference = Reference.of(volume * automatic_mask(volume), device=group.device)
    search = Search.prepare(reference, group.band(highest), plan)
    chunks = np.array_split(np.arange(len(group.rows)), -(-len(group.rows) // CHUNK))
    found = []
    for chunk, poses in zip(chunks, side_by_side(lambda c: search(group.boxes(c)), chunks, cpu_count()), strict=True):
        found.append(poses)
        report(int(chunk[-1]) + 1, len(group.rows))
    return join(found)


def join(parts: list[Poses]) -> Poses:
    """Poses of consecutive boxes as one."""
    return Poses(
        Rotation.concatenate([p.rotations for p in parts]),
        np.concatenate([p.shifts_px for p in parts]),
        np.concatenate([p.score for p in parts]),
    )


def refine_halves(group: Group, aligned: Aligned, rng: np.random.Generator, report: Report) -> Aligned:
    """One round: average the parts of each half, see how far the halves agree, refine each part against the others."""
    parts = {half: np.array_split(rng.permutation(np.flatnonzero(aligned.half == half)), FOLDS) for half in (1, 2)}
    sums = {half: [average_of(group, aligned.poses, part) for part in pieces] for half, pieces in parts.items()}
    maps = {half: total(pieces).volume() for half, pieces in sums.items()}
    fitted = fit_second(aligned, maps, group)
    weights, highest = agreement_weights(group, maps[1], fitted.moved, fitted.mask, aligned)
    jobs = [(half, number) for half in (1, 2) for number in range(FOLDS)]
    quaternions, shifts = fitted.poses.rotations.as_quat(), fitted.poses.shifts_px.copy()
    score, band = fitted.poses.score.copy(), group.band(highest)

    def one(job: tuple[int, int]) -> tuple[NDArray[np.int64], Poses]:
        half, number = job
        mine = parts[half][number]
        volume = total([s for i, s in enumerate(sums[half]) if i != number]).volume()
        if half == 2:
            volume = moved_back(volume, fitted.turn, fitted.shift)
        if aligned.symmetry != "C1":
            volume = symmetrise(volume, find_axes(volume, aligned.symmetry).operations)
        volume = filtered(volume, weights) * fitted.mask
        return mine, refine_poses(group, mine, fitted.poses, Reference.of(volume, device=group.device), band)

    for done, (mine, poses) in enumerate(side_by_side(one, jobs, cpu_count())):
        quaternions[mine], shifts[mine], score[mine] = poses.rotations.as_quat(), poses.shifts_px, poses.score
        report("refining the halves", aligned.round * len(jobs) + done + 1, group.settings.rounds * len(jobs))
    refined = Poses(Rotation.from_quat(quaternions), shifts, score)
    return replace(aligned, poses=refined, round=aligned.round + 1)


def total(sums: list[FourierSum]) -> FourierSum:
    """The sum of sums."""
    return sum(sums[1:], sums[0])


def average_of(group: Group, poses: Poses, index: NDArray[np.int64]) -> FourierSum:
    """Sum of boxes in their poses."""
    chunks = np.array_split(index, -(-len(index) // CHUNK))

    def one(chunk: NDArray[np.int64]) -> FourierSum:
        wedge = group.subtomograms.missing_wedge
        return fourier_sum(group.boxes(chunk), poses.rotations[chunk], poses.shifts_px[chunk], wedge)

    return total(list(side_by_side(one, chunks, cpu_count())))


@dataclass(frozen=True, eq=False)
class Fitted:
    """Poses with the second half in the first half's frame, its map there, and the mask about both."""

    poses: Poses
    turn: Rotation
    shift: NDArray[np.float64]
    moved: NDArray[np.float32]
    mask: NDArray[np.float32]


def fit_second(aligned: Aligned, maps: dict[int, NDArray[np.float32]], group: Group) -> Fitted:
    """Take the drift between the half-maps out, looking only at the band of the common start."""
    low = group.length / aligned.start_resolution
    band = Band.measured(group.size, None, low)
    data = band.coefficients(torch.from_numpy(maps[2])[None])
    still = torch.eye(3)[None, None], torch.zeros(1, 1, 3)
    matrix, moved_by, _ = refine(Reference.of(maps[1]), band, data, *still, 6)
    # the second map is the first turned by `turn` and then moved by `shift`
    turn = Rotation.from_matrix(matrix[0, 0].double().numpy())
    shift = moved_by[0, 0].double().numpy()
    second = aligned.half == 2
    rotations = aligned.poses.rotations.as_matrix().copy()
    shifts = aligned.poses.shifts_px.copy()
    # a box shows its reference y at R y + s, and y = turn x + shift
    shifts[second] += np.einsum("nij,j->ni", rotations[second], shift)
    rotations[second] = rotations[second] @ turn.as_matrix()
    poses = Poses(Rotation.from_matrix(rotations), shifts, aligned.poses.score)
    moved = moved_back(maps[2], turn, shift)
    return Fitted(poses, turn, shift, moved, automatic_mask(maps[1] + moved))


def agreement_weights(
    group: Group,
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    mask: NDArray[np.float32],
    aligned: Aligned,
) -> tuple[NDArray[np.float64], float]:
    """How far each shell of a half-map can be trusted, and up to which frequency (cycles a box) to refine.

    A half-map's shell times the Fourier shell correlation of the halves is the best guess of the signal in it (Wiener).
    """
    _, curve = fsc(first, second, group.subtomograms.voxel_size, mask)
    below = np.flatnonzero(curve[1:] < _ENOUGH)
    reach = int(below[0]) + 1 if len(below) else len(curve) - 1
    start = group.length / aligned.start_resolution
    highest = float(np.clip(reach + 1, start, group.size / 2 - 1))
    weights = np.clip(curve, 0.0, 1.0)
    weights[reach + 1 :] = 0
    weights[: int(start / 2)] = np.maximum(weights[: int(start / 2)], 0.5)  # what the start saw for certain
    return weights, highest


def filtered(volume: NDArray[np.float32], weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """The map with every shell scaled."""
    size = len(volume)
    shell = frequency_grid((size,) * 3) * size
    gain = np.interp(shell, np.arange(len(weights)), weights, right=0.0)
    spectrum = np.fft.rfftn(volume) * gain
    return np.fft.irfftn(spectrum, s=volume.shape, axes=(0, 1, 2)).astype(np.float32)


def refine_poses(
    group: Group, index: NDArray[np.int64], poses: Poses, reference: Reference, band: Band, steps: int = 6
) -> Poses:
    """Better poses close to those that boxes have."""
    found = []
    for chunk in np.array_split(index, -(-len(index) // (2 * CHUNK))):
        data = band.coefficients(torch.from_numpy(group.boxes(chunk)).to(group.device))
        turn = tensor(poses.rotations[chunk].as_matrix(), group.device)[:, None]
        shift = tensor(poses.shifts_px[chunk], group.device)[:, None]
        turn, shift, score = refine(reference, band, data, turn, shift, steps)
        rotations = Rotation.from_matrix(turn[:, 0].cpu().double().numpy())
        found.append(Poses(rotations, shift[:, 0].cpu().double().numpy(), score[:, 0].cpu().double().numpy()))
    return join(found)
