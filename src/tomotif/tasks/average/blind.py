"""Blind averaging: the boxes of one class → orientations, shifts and half-sets, with no reference but the boxes.

1. Starts: expectation maximisation from random orientations at a band that widens step by step, each third of the
   boxes compared with the map of the others (:mod:`tomotif.ops.expectation`). The likeliest of several starts goes on.
2. Common start: its map, low-passed, is searched in every box.
3. Halves: two half-sets are refined apart. Inside a half, each third is compared with the map of the others, whose
   frequencies count as far as the half-maps agree; the band widens as their agreement allows. Only the half-maps'
   common frame is kept, by fitting one to the other in the band that both started from.

Beyond the band of the common start the half-maps share nothing, so their agreement there is no bias (Scheres & Chen
2012, Nat Methods 9:853).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation
from torch import Tensor

from tomotif.core import InputError, MissingWedge, Subtomograms
from tomotif.core.geometry import random_rotations
from tomotif.io.environment import cpu_count
from tomotif.io.files import replacing
from tomotif.ops.align import Band, Poses, Reference, Search, SearchPlan, moved_back, noise_power, refine
from tomotif.ops.average import FourierSum, fourier_sum
from tomotif.ops.expectation import FourierBlend, expect, random_blend
from tomotif.ops.fourier import frequency_grid
from tomotif.ops.fsc import fsc
from tomotif.ops.mask import automatic_mask
from tomotif.ops.orientations import body_centred_grid, uniform_rotations
from tomotif.ops.symmetry import best_symmetry, find_axes, symmetrise
from tomotif.ops.threads import side_by_side
from tomotif.tasks.average.settings import AlignSettings

FOLDS = 3
"""Parts of the boxes, each compared with the map of the others."""
LOWEST = 4.0
"""Frequency in cycles a box at which a start begins."""
CHUNK = 8
"""Boxes searched at a time on one thread."""
_NOISE_BOXES = 1000
"""Largest number of boxes that the noise's power is measured in."""
_ENOUGH = 0.143

Report = Callable[[str, int, int], None]
"""Told what is being done, and how many of how many parts of it are done."""


@dataclass(frozen=True, eq=False)
class Start:
    """A map grown from random orientations.

    Attributes
    ----------
    volume
        zyx, bright, in the boxes' units.
    likelihood
        Log of the likelihood ratio of the map against no map, of every box, measured against the map of the others.
    highest
        Highest frequency in it, in cycles a box.
    """

    volume: NDArray[np.float32]
    likelihood: NDArray[np.float64]
    highest: float


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
    starts
        Mean likelihood of every start, and the mean correlation of the chosen map with those of the others.
    """

    rows: NDArray[np.int64]
    poses: Poses
    half: NDArray[np.int64]
    round: int
    symmetry: str
    start_resolution: float
    start: NDArray[np.float32]
    starts: dict[str, Any] = field(default_factory=dict)

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
                likelihoods=np.array(self.starts.get("likelihoods", [])),
                agreement=np.array(self.starts.get("agreement", np.nan)),
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
                {"likelihoods": kept["likelihoods"].tolist(), "agreement": float(kept["agreement"])},
            )


@dataclass(frozen=True, eq=False)
class Group:
    """The boxes of one class, how noisy they are, and where to work."""

    subtomograms: Subtomograms
    rows: NDArray[np.int64]
    noise: NDArray[np.float64]
    settings: AlignSettings
    device: str

    @classmethod
    def of(cls, subtomograms: Subtomograms, rows: NDArray[np.int64], settings: AlignSettings) -> Group:
        """The boxes of these rows.

        Raises
        ------
        InputError
            When there are fewer than 8.
        """
        if len(rows) < 8:
            raise InputError(f"expected at least 8 particles to align to each other, got {len(rows)}; extract more")
        some = rows[np.linspace(0, len(rows) - 1, min(len(rows), _NOISE_BOXES)).astype(np.int64)]
        noise = noise_power(subtomograms.boxes(some), subtomograms.missing_wedge)
        return cls(subtomograms, rows, noise, settings, device_of(settings))

    @property
    def size(self) -> int:
        """Edge of a box in voxels."""
        return self.subtomograms.box_px

    @property
    def length(self) -> float:
        """Edge of a box in Å."""
        return self.size * self.subtomograms.voxel_size

    @property
    def highest_start(self) -> float:
        """Highest frequency of the starts in cycles a box."""
        return float(np.clip(self.length / self.settings.start_resolution, LOWEST + 1, 0.3 * self.size))

    def band(self, highest: float) -> Band:
        """Measured coefficients up to a frequency, weighted by one over the noise."""
        return Band.measured(self.size, self.subtomograms.missing_wedge, highest, self.noise).to(self.device)

    def boxes(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Boxes by their place in the group."""
        return self.subtomograms.boxes(self.rows[index])


def device_of(settings: AlignSettings) -> str:
    """Where tensors go."""
    wanted = settings.device != "cpu" and torch.cuda.is_available()
    if settings.device == "gpu" and not wanted:
        raise InputError("expected a GPU for --device gpu, found none; use --device cpu")
    return "cuda" if wanted else "cpu"


def align(
    subtomograms: Subtomograms,
    rows: NDArray[np.int64],
    settings: AlignSettings,
    rng: np.random.Generator,
    *,
    symmetry: str = "C1",
    state: Path | None = None,
    report: Report | None = None,
) -> Aligned:
    """Find the poses of particles of one kind from the particles alone.

    Parameters
    ----------
    subtomograms
        Bright boxes.
    rows
        Those of one class, at least 8.
    settings
        How to align.
    rng
        Decides the starts and the half-sets.
    symmetry
        Point group of the structure, or "auto" for the one that independent halves bear out.
    state
        File that keeps what is done after each round; a killed run continues from it.
    report
        Progress.

    Raises
    ------
    InputError
        When there are fewer than 8 particles, or a GPU is asked for and there is none.
    """
    tell = report or (lambda what, done, total: None)
    group = Group.of(subtomograms, rows, settings)
    if state is not None and state.exists():
        aligned = Aligned.load(state)
    else:
        aligned = common_start(group, rng, symmetry, tell)
        if state is not None:
            aligned.save(state)
    while aligned.round < settings.rounds:
        aligned = refine_halves(group, aligned, np.random.default_rng((aligned.round, len(rows))), tell)
        if state is not None:
            aligned.save(state)
    return aligned


# ---------------------------------------------------------------------------------------------- starts


def schedule(highest: float) -> list[tuple[float, int, int]]:
    """Frequency (cycles a box), orientations and iterations of every step of a start."""
    steps = np.arange(LOWEST, highest + 0.5)
    return [(float(min(k, highest)), 576 if k <= 4 else 1152 if k <= 6 else 2304 if k <= 8 else 4608, 2) for k in steps]


def grow(
    group: Group, index: NDArray[np.int64], rng: np.random.Generator, highest: float, start: Start | None
) -> Start:
    """Expectation maximisation from random orientations, or on from a start, up to a frequency.

    Parameters
    ----------
    group
        Boxes.
    index
        Which of them, by their place in the group.
    rng
        Decides the orientations, the parts and how the grids are turned.
    highest
        In cycles a box.
    start
        Where to go on; None to begin.
    """
    shifts = tensor(shift_grid(group.settings), group.device)
    parts = np.array_split(rng.permutation(len(index)), FOLDS)
    full = group.band(highest)
    data = all_coefficients(group, index, full)
    begin = LOWEST if start is None else start.highest + 0.5
    blends: list[FourierBlend] = []
    if start is None:
        band = full.within(LOWEST)
        some = data[:, within(full, LOWEST)]
        turns = random_rotations(len(index), rng)
        blends = [random_blend(some[part], band, turns[part]) for part in parts]
    maps = [others(blends, part) for part in range(FOLDS)] if start is None else [start.volume] * FOLDS
    likelihood = np.zeros(len(index))
    for frequency, count, iterations in schedule(highest):
        if frequency < begin:
            continue
        band, kept = full.within(frequency), within(full, frequency)
        for _ in range(iterations):
            grid = uniform_rotations(count) * random_rotations(1, rng)[0]
            turn = tensor(grid.as_matrix(), group.device)
            mine = [data[part][:, kept] for part in parts]
            blends, found = expect_parts(group, mine, maps, band, turn, shifts)
            maps = [others(blends, part) for part in range(FOLDS)]
            for part, values in zip(parts, found, strict=True):
                likelihood[part] = values.cpu().numpy()
    volume = others(blends, None) if blends else maps[0]
    return Start(centred(volume), likelihood, highest)


def expect_parts(
    group: Group, data: list[Tensor], maps: list[NDArray[np.float32]], band: Band, turn: Tensor, shifts: Tensor
) -> tuple[list[FourierBlend], list[Tensor]]:
    """What each part of the boxes says about its own map: sums for the next map, and the boxes' likelihoods."""
    blends = [FourierBlend.zero(group.size, group.device) for _ in data]

    def one(part: int) -> Tensor:
        reference = Reference.of(centred(maps[part]), device=group.device)
        return expect(data[part], reference, band, turn, shifts, blends[part]).likelihood

    return blends, list(side_by_side(one, range(len(data)), cpu_count()))


def common_start(group: Group, rng: np.random.Generator, symmetry: str, report: Report) -> Aligned:
    """Several starts at low resolution, the likeliest grown on, and its map searched in every box."""
    settings, n = group.settings, len(group.rows)
    index = np.sort(rng.permutation(n)[: settings.start_particles])
    early = min(6.0, group.highest_start)
    starts = []
    for number, child in enumerate(rng.spawn(settings.starts)):
        starts.append(grow(group, index, child, early, None))
        report("starting from random orientations", number + 1, settings.starts + 1)
    means = [float(start.likelihood.mean()) for start in starts]
    chosen = int(np.argmax(means))
    best = starts[chosen]
    agreement = [map_agreement(best.volume, s.volume, early) for i, s in enumerate(starts) if i != chosen]
    if group.highest_start > early:
        best = grow(group, index, rng, group.highest_start, best)
    report("starting from random orientations", settings.starts + 1, settings.starts + 1)
    name, volume = symmetry, best.volume
    if name == "auto":
        name = best_symmetry(*split_maps(group, best, rng), highest=group.highest_start).name
    if name != "C1":
        volume = symmetrise(volume, find_axes(volume, name, highest=best.highest).operations)
    poses = search_all(group, volume, best.highest, lambda d, t: report("searching every box", d, t))
    half = np.ones(n, dtype=np.int64)
    half[rng.permutation(n)[n // 2 :]] = 2
    record = {"likelihoods": means, "agreement": float(np.mean(agreement)) if agreement else float("nan")}
    resolution = group.length / best.highest
    return Aligned(group.rows, poses, half, 0, name, resolution, best.volume, record)


def split_maps(group: Group, start: Start, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two maps, each of half of the boxes in the poses of a start."""
    index = rng.permutation(len(group.rows))[: group.settings.start_particles]
    band, shifts = group.band(start.highest), tensor(shift_grid(group.settings), group.device)
    turn = tensor(uniform_rotations(group.settings.rotations).as_matrix(), group.device)
    reference, data = Reference.of(start.volume, device=group.device), all_coefficients(group, index, band)
    blends = [FourierBlend.zero(group.size, group.device) for _ in (0, 1)]
    for number, blend in enumerate(blends):
        expect(data[number::2], reference, band, turn, shifts, blend)
    return blends[0].volume(), blends[1].volume()


def map_agreement(first: NDArray[np.float32], second: NDArray[np.float32], highest: float) -> float:
    """Correlation of two maps of unknown orientation to each other, at their best fit, below a frequency.

    All frequencies count alike, or the envelope that all globules share would decide.
    """
    band = Band.measured(len(first), None, highest, noise_power(first[None], MissingWedge(-90, 90)))
    plan = SearchPlan(coarse=highest, fine=highest, rotations=2304)
    return float(Search.prepare(Reference.of(first), band, plan)(second[None]).score[0])


def others(blends: list[FourierBlend], part: int | None) -> NDArray[np.float32]:
    """The map of all parts but one."""
    kept = [blend for number, blend in enumerate(blends) if number != part]
    return sum(kept[1:], kept[0]).volume()


def centred(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """The map moved by whole voxels so that the mass of its bright part lies in the middle."""
    bright = np.maximum(volume - 0.2 * volume.max(), 0)
    if not bright.any():
        return volume
    off = np.round(ndimage.center_of_mass(bright)).astype(int) - len(volume) // 2
    return np.roll(volume, tuple(-off), (0, 1, 2))


def shift_grid(settings: AlignSettings) -> NDArray[np.float64]:
    """Shifts in voxels that are tried."""
    return body_centred_grid(settings.max_shift_px, 2.0) if settings.max_shift_px > 0 else np.zeros((1, 3))


def all_coefficients(group: Group, index: NDArray[np.int64], band: Band) -> Tensor:
    """Coefficients of boxes in a band, read a few at a time."""
    parts = np.array_split(index, -(-len(index) // 64))
    return torch.cat([band.coefficients(torch.from_numpy(group.boxes(part)).to(group.device)) for part in parts])


def within(band: Band, highest: float) -> Tensor:
    """Which of a band's coefficients ``band.within(highest)`` keeps."""
    return band.wave.norm(dim=1) <= highest


def tensor(values: NDArray[np.floating], device: str) -> Tensor:
    """Values as a float32 tensor."""
    return torch.from_numpy(np.asarray(values, dtype=np.float32)).to(device)


# ---------------------------------------------------------------------------------------------- halves


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
    """One round: average thirds of each half, see how far the halves agree, refine each third against the others."""
    parts = {half: np.array_split(rng.permutation(np.flatnonzero(aligned.half == half)), FOLDS) for half in (1, 2)}
    sums = {half: [average_of(group, aligned.poses, part) for part in thirds] for half, thirds in parts.items()}
    maps = {half: total(thirds).volume() for half, thirds in sums.items()}
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
