"""The pose search: accuracy on simulated boxes, beside an exhaustive search, and speed, beside acryo's aligners.

Boxes of 32³ at 12 Å, ±60°, five complexes up to 4 voxels off along each axis; the reference is the complex's density
at 25 Å. Angles are counted modulo the complex's apparent symmetry (``SYMMETRY``), its axes found in the noise-free map;
``success15`` is the fraction within 15°, ``shift_vox`` the mean distance. The numbers of a condition are means over
the structures (``median_deg``: the mean of their medians); ``per_structure`` has each.

- ``white``: white noise inside the wedge, no CTF; Var(noise-free box) / Var(noise) over the box is 0.1. Most of it
  lies beyond the signal's band: ``snr.white_band`` is the SNR below 1/30 Å⁻¹.
- ``hard``: white noise inside the wedge so strong that its part below 1/30 Å⁻¹ has SNR 0.1. It goes on beyond that
  band, so no frequency is free of noise; ``snr.hard_box`` is the SNR over the box.
- ``full``: boxes cut from tomograms of the full simulator, all five complexes equally many at 15 % occupancy; CTF at
  3 µm, phase-flipped, radiation damage, the camera's transfer, noise in the projections. SNR is that of the structure
  alone over the box, after CTF and wedge. The reference has the CTF's amplitude, and each coefficient counts with one
  over the mean power of the boxes.

The exhaustive search tries 36,864 rotations × 729 shifts (1 voxel apart) in the band of the grid search and refines
the best; ``same_success15`` is our search's success on the same particles. Speed is that of two threads with one core
each; ``prepare_s`` is what turning the reference takes, once for all boxes. Ratios are seconds a particle of acryo's
aligners over ours, both on one thread with the same 1,152 rotations, shifts up to 4 voxels, the wedge, and references
made ready.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft
from scipy.spatial.transform import Rotation

from benchmarks import harness
from tomotif.core import RESIDUALS, Particles
from tomotif.io.structure import load_structure
from tomotif.ops import align
from tomotif.ops.align import Band, Poses, Reference, Search, SearchPlan, noise_power
from tomotif.ops.ctf import ctf
from tomotif.ops.density import structure_density
from tomotif.ops.fourier import frequency_grid, half_space_weights
from tomotif.ops.orientations import angle_modulo, uniform_rotations
from tomotif.ops.symmetry import Symmetry, find_axes
from tomotif.ops.threads import one_thread_each
from tomotif.tasks.extract import ExtractSettings, extract
from tomotif.tasks.simulate import (
    SIGNAL_BAND,
    SubtomogramSettings,
    TomogramSettings,
    signal_to_noise,
    simulate_subtomograms,
    simulate_tomogram,
)

NAME = "align"
SYMMETRY = {"4v5d": "C1", "3j9i": "D7", "1oel": "D7", "1bxn": "D4", "4v8r": "D8"}
"""Apparent symmetry at this resolution. The subunits of TRiC (4v8r) differ and its true symmetry is C1 or C2, but at
25 Å its maps turned by D8 agree to 0.997; the 20S proteasome (3j9i) and GroEL (1oel) are D7, RuBisCO (1bxn) is D4."""

BOX, VOXEL, RESOLUTION = 32, 12.0, 25.0
SHAPE = (BOX, BOX, BOX)
SHIFT_PX = 4.0
SNR = 0.1
FULL_SNRS = (0.1, 0.05)
SUCCESS_DEG = 15.0
TOMOGRAM = TomogramSettings(shape=(96, 224, 224), occupancy=0.15, defocus_um=(3.0, 3.0), exposure=3.0, mtf=0.6)
"""Of the full simulation; the SNR and whose it is differ."""
WEDGE = TOMOGRAM.missing_wedge
BATCH = 8
EXHAUSTIVE = SearchPlan(rotations=36864, shift_px=SHIFT_PX, shifts_kept=729, candidates=1, kept=1)
ACRYO_ROTATIONS = 1152


@dataclass(frozen=True)
class Size:
    """How large a run is."""

    particles: int
    """Of each structure."""
    exhaustive: int
    """Particles of each structure that the exhaustive search gets."""
    exhaustive_structures: tuple[str, ...]
    timed: int
    """Boxes whose search is timed."""
    pcc: int
    """Particles that acryo aligns by phase correlation."""
    zncc: int
    """The same by normalised correlation."""
    prefix: str
    """Of the cells' names."""


COMPLETE = Size(40, 12, tuple(SYMMETRY), 128, 3, 2, "")
QUICK = Size(6, 3, ("4v5d", "1bxn"), 32, 1, 1, "quick_")


@dataclass(frozen=True, eq=False)
class Group:
    """Noisy boxes of one structure, where it truly lies in them, and their SNR over the box and in its band."""

    boxes: NDArray[np.float32]
    rotations: Rotation
    shifts_px: NDArray[np.float64]
    snr: dict[str, float]


@lru_cache(maxsize=8)
def density(name: str) -> NDArray[np.float32]:
    """The reference's density."""
    return structure_density(load_structure(name), voxel_size=VOXEL, resolution=RESOLUTION, shape=SHAPE)


@lru_cache(maxsize=8)
def axes(name: str) -> Symmetry:
    """The apparent symmetry and where its axes lie in the noise-free map."""
    return find_axes(density(name), SYMMETRY[name])


# ---------------------------------------------------------------------------------------------- boxes


def variances(boxes: NDArray[np.floating]) -> tuple[float, float]:
    """Mean variance of the boxes, and the part of it below 1/30 Å⁻¹."""
    power = np.mean(np.abs(fft.rfftn(boxes, axes=(1, 2, 3))) ** 2, axis=0) * half_space_weights(SHAPE) / BOX**6
    frequency = frequency_grid(SHAPE, VOXEL)
    return float(power[frequency > 0].sum()), float(power[(frequency > 0) & (frequency < SIGNAL_BAND)].sum())


def in_white_noise(name: str, count: int, *, in_band: bool, snr: float = SNR, seed: int = 0) -> Group:
    """Boxes in white noise inside the wedge, no CTF; the SNR is that over the box or in the signal's band."""
    settings = SubtomogramSettings(count=count, snr=None, ctf=False, exposure=0.0, mtf=1.0, max_shift_px=SHIFT_PX)
    made = simulate_subtomograms([load_structure(name)], settings, np.random.default_rng(seed))
    table = made.particles
    mean, deviation = (table[c].to_numpy(np.float32)[:, None, None, None] for c in ("mean", "deviation"))
    signal = made.boxes(slice(None)) * deviation + mean
    white = np.random.default_rng(seed + 1).standard_normal(signal.shape, dtype=np.float32)
    noise = fft.irfftn(fft.rfftn(white, axes=(1, 2, 3)) * WEDGE.mask(SHAPE), s=SHAPE, axes=(1, 2, 3))
    ratio = [s / n for s, n in zip(variances(signal), variances(noise), strict=True)]
    level = ratio[in_band] / snr
    shifts = np.stack([table[c].to_numpy(np.float64) for c in ("shift_z", "shift_y", "shift_x")], axis=1) / VOXEL
    levels = {"box": ratio[0] / level, "band": ratio[1] / level}
    return Group(signal + np.float32(np.sqrt(level)) * noise, table.orientation, shifts, levels)


def cut_from_tomogram(name: str, count: int, snr: float) -> Group:
    """Boxes cut off their particles by up to 4 voxels from a crowded tomogram of all structures.

    Raises
    ------
    RuntimeError
        When too few particles lie far enough from the border.
    """
    number = list(SYMMETRY).index(name)
    rng = np.random.default_rng((2, number))  # the same specimen at every SNR
    settings = TOMOGRAM.model_copy(update={"snr": snr, "snr_reference": name})
    made = simulate_tomogram([load_structure(n) for n in SYMMETRY], settings, rng, noise_free=False)
    margin = (BOX // 2 + SHIFT_PX + 1) * VOXEL
    place = made.particles.position
    inside = np.all((place >= margin) & (place <= np.array(settings.shape) * VOXEL - margin), axis=1)
    rows = np.flatnonzero(inside & (made.particles["class"] == name).to_numpy())[:count]
    if len(rows) < count:
        raise RuntimeError(f"expected {count} particles of {name} away from the border, found {len(rows)}")
    reach = SHIFT_PX - 0.5  # a box is cut at the nearest voxel
    off = np.random.default_rng((3, number)).uniform(-reach, reach, (count, 3)) * VOXEL
    stack = np.empty((count, *SHAPE), dtype=np.float16)
    cut = Particles.create(made.tomogram.name, place[rows] + off)
    cut = extract(cut, [made.tomogram], ExtractSettings(box_px=BOX), stack)
    residual = np.stack([cut[c].to_numpy(np.float64) for c in RESIDUALS], axis=1)
    level = signal_to_noise([load_structure(name)], settings, defocus_um=made.defocus_um).iloc[0]
    return Group(
        stack.astype(np.float32),
        made.particles.orientation[rows],
        (residual - off) / VOXEL,
        {"box": float(level["snr"]), "band": float(level["snr_band"])},
    )


# ---------------------------------------------------------------------------------------------- searches


def measured_band(group: Group | None) -> Band:
    """What the tilt series measured; with a group, weighted by one over the mean power of its boxes."""
    power = None if group is None else noise_power(group.boxes, WEDGE)
    return Band.measured(BOX, WEDGE, SearchPlan().fine, power)


def seen_through_ctf(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """A map with the amplitude of the tomogram's CTF."""
    amplitude = np.abs(ctf(frequency_grid(SHAPE, VOXEL), TOMOGRAM.defocus_um[0]))
    return fft.irfftn(fft.rfftn(volume) * amplitude, s=SHAPE).astype(np.float32)


def exhaustive(reference: Reference, band: Band) -> Search:
    """A search that tries every rotation with every shift of a cubic grid."""
    steps = np.arange(-SHIFT_PX, SHIFT_PX + 1, dtype=np.float32)
    shifts = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    return replace(Search.prepare(reference, band, EXHAUSTIVE), shifts=torch.from_numpy(shifts))


def found(search: Search, boxes: NDArray[np.float32], batch: int = BATCH) -> Poses:
    """The poses in many boxes, a few at a time."""
    parts = [search(boxes[i : i + batch]) for i in range(0, len(boxes), batch)]
    return Poses(
        Rotation.concatenate([p.rotations for p in parts]),
        np.concatenate([p.shifts_px for p in parts]),
        np.concatenate([p.score for p in parts]),
    )


def errors(poses: Poses, group: Group, symmetry: Rotation) -> dict[str, float]:
    """How far poses lie from the truth; they may be fewer than the boxes."""
    n = len(poses.score)
    angle = angle_modulo(poses.rotations, group.rotations[:n], symmetry)
    return {
        "mean_deg": float(angle.mean()),
        "median_deg": float(np.median(angle)),
        "shift_vox": float(np.linalg.norm(poses.shifts_px - group.shifts_px[:n], axis=1).mean()),
        "success15": float(np.mean(angle < SUCCESS_DEG)),
    }


def in_noise(name: str, size: Size, *, in_band: bool) -> dict[str, Any]:
    """Accuracy in white noise."""
    group = in_white_noise(name, size.particles, in_band=in_band)
    search = Search.prepare(Reference.of(density(name)), measured_band(None), SearchPlan())
    return {**errors(found(search, group.boxes), group, axes(name).operations), "snr": group.snr}


def in_tomogram(name: str, size: Size, snr: float) -> dict[str, Any]:
    """Accuracy in the full simulation, and on the first particles that of the exhaustive search too."""
    group = cut_from_tomogram(name, size.particles, snr)
    reference, band = Reference.of(seen_through_ctf(density(name))), measured_band(group)
    symmetry = axes(name).operations
    search = Search.prepare(reference, band, SearchPlan())
    result = errors(found(search, group.boxes), group, symmetry)
    if name in size.exhaustive_structures:
        some = group.boxes[: size.exhaustive]
        slow = errors(found(exhaustive(reference, band), some, 1), group, symmetry)
        same = errors(found(search, some), group, symmetry)
        result |= {"exhaustive_success15": slow["success15"], "same_success15": same["success15"]}
    return {**result, "snr": group.snr}


def jobs(size: Size) -> dict[str, Callable[[str], dict[str, Any]]]:
    """The conditions: each gives the numbers of one structure."""
    return {
        "white": partial(in_noise, size=size, in_band=False),
        "hard": partial(in_noise, size=size, in_band=True),
        **{f"full_snr_{snr:g}": partial(in_tomogram, size=size, snr=snr) for snr in FULL_SNRS},
    }


def digest(size: Size) -> str:
    """What decides a cell besides its name, in eight letters: a change of the search or the study makes new cells."""
    study = (size.particles, size.exhaustive, size.exhaustive_structures, SearchPlan(), EXHAUSTIVE, TOMOGRAM, SYMMETRY)
    return blake2b((repr(study) + inspect.getsource(align)).encode(), digest_size=4).hexdigest()


# ---------------------------------------------------------------------------------------------- speed


def seconds(compute: Callable[[], Any]) -> float:
    """Wall time of a call."""
    begun = time.perf_counter()
    compute()
    return time.perf_counter() - begun


def on_two_threads(search: Search, boxes: NDArray[np.float32]) -> None:
    """Search many boxes with two threads of one core each."""
    with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        list(threads.map(search, [boxes[i : i + BATCH] for i in range(0, len(boxes), BATCH)]))


def acryo_seconds(method: Any, group: Group, volume: NDArray[np.float32], count: int) -> float:
    """Seconds a particle of one of acryo's aligners, the turned references made ready."""
    grid = uniform_rotations(ACRYO_ROTATIONS)
    model = method(volume, rotations=grid, tilt=(WEDGE.tilt_min, WEDGE.tilt_max))
    return seconds(lambda: [model.align(box, (SHIFT_PX,) * 3) for box in group.boxes[:count]]) / count


def speed(size: Size) -> dict[str, Any]:
    """Particles a second on two cores, and acryo's aligners against ours at equal numbers of rotations."""
    from acryo.alignment import PCCAlignment, ZNCCAlignment

    plan, volume = SearchPlan(), density("4v5d")
    group = in_white_noise("4v5d", size.particles, in_band=False)
    boxes, band = np.resize(group.boxes, (size.timed, *SHAPE)), measured_band(None)
    with one_thread_each():
        prepare = seconds(lambda: Search.prepare(Reference.of(volume), band, plan))
        reference = Reference.of(volume)
        search = Search.prepare(reference, band, plan)
        two = min(seconds(lambda: on_two_threads(search, boxes)) for _ in range(3))
        fewer = Search.prepare(reference, band, replace(plan, rotations=ACRYO_ROTATIONS))
        ours = min(seconds(lambda: found(fewer, boxes[: size.timed // 2])) for _ in range(3)) / (size.timed // 2)
        pcc = acryo_seconds(PCCAlignment, group, volume, size.pcc)
        zncc = acryo_seconds(ZNCCAlignment, group, volume, size.zncc)
    return {
        "particles_per_s": round(len(boxes) / two, 1),
        "rotations": plan.rotations,
        "prepare_s": round(prepare, 2),
        "ratio_pcc": round(pcc / ours, 1),
        "ratio_zncc": round(zncc / ours, 1),
        "seconds_a_particle_1152": {"ours": round(ours, 4), "pcc": round(pcc, 2), "zncc": round(zncc, 2)},
    }


# ---------------------------------------------------------------------------------------------- the study

MEASURES = ("mean_deg", "median_deg", "shift_vox", "success15")
EXHAUSTIVE_MEASURES = ("exhaustive_success15", "same_success15")


def mean(rows: Sequence[dict[str, Any]], measures: Sequence[str]) -> dict[str, float]:
    """Means over the structures that have a measure.

    >>> mean([{"a": 1.0, "b": 2.0}, {"a": 2.0}], ("a", "b"))
    {'a': 1.5, 'b': 2.0}
    """
    return {m: round(float(np.mean([row[m] for row in rows if m in row])), 4) for m in measures}


def row_of(name: str, condition: str, cell: dict[str, Any]) -> dict[str, Any]:
    """One structure under one condition."""
    numbers = {m: round(cell[m], 4) for m in (*MEASURES, *EXHAUSTIVE_MEASURES) if m in cell}
    return {"name": name, "symmetry": SYMMETRY[name], "condition": condition, **numbers}


def summary(cells: dict[str, dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """The numbers of all conditions from the cells, by condition and structure."""

    def levels(condition: str, where: str) -> dict[str, float]:
        return {name: round(cell["snr"][where], 4) for name, cell in cells[condition].items()}

    levels_of = {key: key.removeprefix("full_") for key in cells if key.startswith("full_")}
    everything = {key: list(by_name.values()) for key, by_name in cells.items()}
    return {
        "white": mean(everything["white"], MEASURES),
        "hard": mean(everything["hard"], MEASURES),
        "full": {s: mean(everything[key], (*MEASURES, *EXHAUSTIVE_MEASURES)) for key, s in levels_of.items()},
        "per_structure": [row_of(name, key, cell) for key, by_name in cells.items() for name, cell in by_name.items()],
        "snr": {
            "white_box": SNR,
            "white_band": levels("white", "band"),
            "hard_box": levels("hard", "box"),
            "hard_band": SNR,
            **{f"{key}_band": levels(key, "band") for key in levels_of},
        },
    }


def main(quick: bool) -> dict[str, Any]:
    """Accuracy under all conditions and speed."""
    size = QUICK if quick else COMPLETE
    version = digest(size)
    cells = {
        condition: {
            name: harness.cell(NAME, f"{size.prefix}{condition}_{name}_{version}", partial(job, name))
            for name in SYMMETRY
        }
        for condition, job in jobs(size).items()
    }
    return {**summary(cells), **speed(size), "particles": size.particles, "exhaustive_particles": size.exhaustive}


if __name__ == "__main__":
    harness.run(NAME, main)
