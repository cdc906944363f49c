"""Blind averaging: five complexes recovered from 200 noisy boxes each, beside averages with the true poses.

Boxes of 32³ at 12 Å, ±60°, up to 4 voxels off along each axis, white noise inside the wedge at SNR 0.05 (over the box),
no CTF: the frozen setting of the alignment benchmark, with half of its SNR. ``tomotif.tasks.average.align`` gets the
boxes and nothing else. Each map, ours and the one with true poses (``oracle``), is fitted to the complex's density at
25 Å and compared with it inside one mask, that of the density.

- ``fsc05_A``, ``oracle_fsc05_A``: where that correlation falls below 0.5; ``ratio``: ours over the oracle's.
- ``half_fsc0143_A``: of the two half-sets, as users see it.
- ``within_ratio``: structures with a ratio of at most 1.25.
- ``noise_flagged``: groups of 200 boxes of noise alone that are called no structure, of ``noise_runs``;
  ``structures_flagged``: structures that are called noise or a mixture.
- ``mixtures_told``: of ``mixtures``, groups of 100 + 100 and of 160 + 40 boxes of two complexes.
"""

from __future__ import annotations

import inspect
import time
from functools import partial
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import harness
from benchmarks.align import BOX, SHAPE, VOXEL, WEDGE, Group, density, in_white_noise
from tomotif.core import Particles, Subtomograms
from tomotif.ops import align as search
from tomotif.ops import expectation
from tomotif.ops.align import Band, Reference, Search, SearchPlan, moved_back
from tomotif.ops.average import wedge_weighted_average
from tomotif.ops.fsc import fsc, resolution_at
from tomotif.ops.mask import automatic_mask
from tomotif.tasks.average import Aligned, AlignSettings, align, average, halves, starts
from tomotif.tasks.average import checks as guards
from tomotif.tasks.average.checks import Checks, check
from tomotif.tasks.average.classes import with_poses

NAME = "recover"
STRUCTURES = ("4v5d", "3j9i", "1oel", "1bxn", "4v8r")
MIXTURES = (("4v5d", "1oel", 0.5), ("1oel", "3j9i", 0.5), ("3j9i", "1bxn", 0.5), ("4v5d", "4v8r", 0.2))
"""Two complexes and the second's share."""
SNR = 0.05
COUNT, QUICK_COUNT = 200, 60
RATIO = 1.25
NOISE_RUNS = 8
SETTINGS = AlignSettings()


def silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""


def boxes_of(name: str, count: int, seed: int = 0) -> Group:
    """Boxes of one complex in white noise."""
    return in_white_noise(name, count, in_band=False, snr=SNR, seed=seed)


def subtomograms(boxes: NDArray[np.float32]) -> Subtomograms:
    """Boxes as an extraction gives them: mean 0, standard deviation 1, poses unknown."""
    axes = (1, 2, 3)
    scaled = (boxes - boxes.mean(axes, keepdims=True)) / boxes.std(axes, keepdims=True)
    table = Particles.create("boxes", np.zeros((len(boxes), 3)), columns={"class": ["group"] * len(boxes)})
    return Subtomograms(table, scaled.astype(np.float16), VOXEL, WEDGE)


def resolution(volume: NDArray[np.float32], name: str) -> float:
    """FSC 0.5 against the complex's density in Å, the map fitted to it."""
    known = density(name)
    fit = Search.prepare(Reference.of(known), Band.measured(BOX, None, 13.0), SearchPlan(coarse=8.0, fine=13.0))
    pose = fit(volume[None])
    fitted = moved_back(volume, pose.rotations[0], pose.shifts_px[0])
    return resolution_at(*fsc(fitted, known, VOXEL, automatic_mask(known)), 0.5)


def verdict(given: Subtomograms) -> Checks:
    """What the checks say about a group."""
    return check(given, np.arange(len(given)), SETTINGS, np.random.default_rng(1), silent)


def recovered(name: str, count: int) -> dict[str, Any]:
    """One complex."""
    group = boxes_of(name, count)
    given = subtomograms(group.boxes)
    oracle = wedge_weighted_average(given.boxes(slice(None)), group.rotations, group.shifts_px, WEDGE)[0]
    begun = time.perf_counter()
    found: Aligned = align(given, np.arange(count), SETTINGS, np.random.default_rng(0))
    seconds = time.perf_counter() - begun
    [made] = average(with_poses(given, [found])).averages
    ours, best = resolution(made.volume, name), resolution(oracle, name)
    checks = verdict(given)
    return {
        "name": name,
        "fsc05_A": round(ours, 2),
        "oracle_fsc05_A": round(best, 2),
        "ratio": round(ours / best, 3),
        "half_fsc0143_A": round(made.resolution, 2),
        "start_agreement": round(found.agreement, 3),
        "flagged": checks.is_noise or checks.is_mixture,
        "checks": checks.as_dict(),
        "align_s": round(seconds, 1),
    }


def noise_alone(seed: int, count: int) -> dict[str, Any]:
    """A group of boxes that show nothing."""
    white = np.random.default_rng((4, seed)).standard_normal((count, *SHAPE), dtype=np.float32)
    shown = np.fft.irfftn(np.fft.rfftn(white, axes=(1, 2, 3)) * WEDGE.mask(SHAPE), s=SHAPE, axes=(1, 2, 3))
    return {"seed": seed, **verdict(subtomograms(shown.astype(np.float32))).as_dict()}


def mixture(first: str, second: str, share: float, count: int) -> dict[str, Any]:
    """A group of two complexes."""
    few = round(share * count)
    parts = [boxes_of(first, count - few), boxes_of(second, few, seed=10)]
    checks = verdict(subtomograms(np.concatenate([part.boxes for part in parts])))
    return {"names": [first, second], "share": share, **checks.as_dict()}


def digest(count: int) -> str:
    """What decides a cell besides its name, in eight letters."""
    code = "".join(inspect.getsource(module) for module in (search, expectation, starts, halves, guards))
    return blake2b((repr((count, SNR, SETTINGS)) + code).encode(), digest_size=4).hexdigest()


def main(quick: bool) -> dict[str, Any]:
    """All structures, noise and mixtures; quick takes two structures, one of each, and fewer boxes."""
    count, prefix = (QUICK_COUNT, "quick_") if quick else (COUNT, "")

    def cell(key: str, compute: Any) -> dict[str, Any]:
        return harness.measured(harness.cell(NAME, f"{prefix}{key}_{digest(count)}", compute))

    names = STRUCTURES[:2] if quick else STRUCTURES
    structures = [cell(name, partial(recovered, name, count)) for name in names]
    noise = [cell(f"noise{i}", partial(noise_alone, i, count)) for i in range(1 if quick else NOISE_RUNS)]
    mixed = [
        cell(f"{a}_{b}_{share:g}", partial(mixture, a, b, share, count))
        for a, b, share in MIXTURES[: 1 if quick else None]
    ]
    return {
        "structures": structures,
        "within_ratio": sum(one["ratio"] <= RATIO for one in structures),
        "structures_flagged": sum(one["flagged"] for one in structures),
        "noise_flagged": sum(one["is_noise"] for one in noise),
        "noise_runs": len(noise),
        "mixtures_told": sum(one["is_mixture"] for one in mixed),
        "mixtures": mixed,
        "particles": count,
        "snr": SNR,
    }


if __name__ == "__main__":
    harness.run(NAME, main)
