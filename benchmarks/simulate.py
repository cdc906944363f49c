"""The full simulation of tomograms: speed, memory, and whether the numbers it promises are those that come out.

Seconds are those of placing, projecting, CTF, noise and reconstruction at 12 Å, 41 tilts, with six complexes equally
many; operators, templates and signal levels are there from an earlier tomogram of this kind (``cold``: they are not;
``with_noise_free``: with the second reconstruction that the truth needs). Training subtomograms are boxes of 32³ cut
at the true places of the crowded tomogram, its simulation included. The SNR is measured on the output: one complex
alone in the middle, its density not made from the simulator's stamps, is imaged without noise, and its variance over
the box divided by that of reconstructed noise. The fast and the full path see the same pose at the same defocus.
"""

from __future__ import annotations

import math
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from benchmarks import harness
from tomotif.core import InputError, Structure
from tomotif.io.environment import peak_memory
from tomotif.io.structure import load_structure, structure_names
from tomotif.ops.density import structure_density
from tomotif.ops.packing import Neighbours
from tomotif.ops.project import projector
from tomotif.tasks.extract import ExtractSettings, extract, place_boxes
from tomotif.tasks.simulate import SubtomogramSettings, TomogramSettings, simulate_tomogram
from tomotif.tasks.simulate.noise import noise_levels
from tomotif.tasks.simulate.subtomograms import _imager, _Scene
from tomotif.tasks.simulate.templates import templates
from tomotif.tasks.simulate.tomogram import Camera

MIXTURE = ("4v5d", "4v8r", "3j9i", "1oel", "1bxn", "2fha")
SNR = 0.1
BOX = 32
ALONE = (64, 80, 80)
SHELLS = slice(1, 11)
"""Shells of a box of 32³ up to two thirds of Nyquist, without the mean."""


def seconds(settings: TomogramSettings, seed: int, *, noise_free: bool = False) -> tuple[float, int]:
    """Seconds of one tomogram, and the complexes in it."""
    structures = [load_structure(name) for name in MIXTURE]
    begun = time.perf_counter()
    made = simulate_tomogram(structures, settings, np.random.default_rng(seed), noise_free=noise_free)
    return time.perf_counter() - begun, len(made.particles)


def timings(settings: TomogramSettings, runs: int) -> dict[str, float]:
    """Cold and warm seconds of one kind of tomogram."""
    cold, _ = seconds(settings, 100)
    warm = [seconds(settings.model_copy(), seed) for seed in range(runs)]
    complete, _ = seconds(settings, 101, noise_free=True)
    return {
        "seconds": round(float(np.median([s for s, _ in warm])), 2),
        "cold": round(cold, 2),
        "with_noise_free": round(complete, 2),
        "complexes": warm[0][1],
    }


def in_its_own_process(settings: TomogramSettings) -> dict[str, float]:
    """Seconds and peak memory in GB of one tomogram with everything, the start of Python not counted."""
    with peak_memory() as peak:
        took, complexes = seconds(settings, 0, noise_free=True)
    return {"seconds": round(took, 1), "peak_gb": round(peak.megabytes / 1000, 2), "complexes": complexes}


def isolated(settings: TomogramSettings) -> dict[str, float]:
    """The same in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(in_its_own_process, settings).result()


def training_per_s(settings: TomogramSettings) -> float:
    """Finished training subtomograms a second from a full tomogram."""
    structures = [load_structure(name) for name in MIXTURE]
    begun = time.perf_counter()
    made = simulate_tomogram(structures, settings, np.random.default_rng(5), noise_free=False)
    boxes = ExtractSettings(box_px=BOX)
    placed = place_boxes(made.particles, [made.tomogram], boxes)
    stack = np.empty((len(placed), BOX, BOX, BOX), dtype=np.float16)
    extract(placed, [made.tomogram], boxes, stack)
    return len(stack) / (time.perf_counter() - begun)


def occupancy_reached(names: tuple[str, ...], shape: tuple[int, int, int], first: float) -> float:
    """The highest occupancy that placement ends at, in steps of 0.02."""
    from tomotif.tasks.simulate import build_specimen

    structures = [load_structure(name) for name in names]
    reached = 0.0
    for occupancy in np.arange(first, 0.5, 0.02):
        try:
            settings = TomogramSettings(shape=shape, occupancy=float(occupancy))
            reached = build_specimen(structures, settings, np.random.default_rng(0)).occupancy
        except InputError:
            break
    return round(reached, 3)


def middle(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """The box in the middle of a volume."""
    return volume[tuple(slice(n // 2 - BOX // 2, n // 2 + BOX // 2) for n in volume.shape)]


def alone(structure: Structure, poses: int, seed: int = 0) -> dict[str, float]:
    """SNR, and agreement of the fast with the full path, of one structure in the middle of an empty volume."""
    rng = np.random.default_rng(seed)
    settings = TomogramSettings(shape=ALONE, snr=SNR, snr_reference=structure.name, contrast="bright")
    boxes = SubtomogramSettings(count=poses, snr=None)
    turns, defoci = Rotation.random(poses, rng), rng.uniform(*settings.defocus_um, poses)
    fast = fast_boxes(structure, turns, defoci, boxes)
    signal, noise, correlation = [], [], []
    power = np.zeros((2, 28))
    for turn, defocus, quick in zip(turns, defoci, fast, strict=True):
        level = noise_levels([structure], settings, float(defocus))[0].noise_deviation
        camera = Camera.draw(settings, float(defocus), level, rng)
        density = structure_density(
            structure, voxel_size=settings.voxel_size, resolution=settings.resolution, shape=ALONE, rotation=turn
        )
        seen = middle(camera.reconstruct(camera.expose(density)))
        signal.append(float(seen.var()))
        noise.append(float(middle(camera.reconstruct(camera.noise(rng))).var()))
        correlation.append(float(np.corrcoef(seen.ravel(), quick.ravel())[0, 1]))
        power += [shell_power(seen), shell_power(quick)]
    ratio = power[1, SHELLS] / power[0, SHELLS]
    return {
        "snr": float(np.mean(signal) / np.mean(noise)),
        "cc": float(np.mean(correlation)),
        "cc_min": min(correlation),
        "power": float(np.median(np.abs(ratio - 1))),
        "power_worst": float(np.abs(ratio - 1).max()),
    }


def fast_boxes(
    structure: Structure, turns: Rotation, defoci: NDArray[np.float64], settings: SubtomogramSettings
) -> NDArray[np.float32]:
    """The fast path's noise-free boxes of given poses."""
    n = len(turns)
    nothing = Neighbours(np.zeros(0, np.int64), np.zeros(0, np.int64), Rotation.identity(0), np.zeros((0, 3)))
    scene = _Scene(np.zeros(n, dtype=np.int64), turns, np.zeros((n, 3)), defoci, nothing)
    image = _imager(scene, templates([structure], settings), settings, np.zeros(n))
    return image(np.arange(n), np.random.default_rng(0))[0].numpy()


def shell_power(box: NDArray[np.float32]) -> NDArray[np.float64]:
    """Radial power of a box, in shells one coefficient wide."""
    k = np.fft.fftfreq(BOX, 1 / BOX)
    radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2).round().astype(int).ravel()
    return np.bincount(radius, (np.abs(np.fft.fftn(box)) ** 2).ravel(), minlength=28)[:28]


def adjoint_error() -> float:
    """Relative difference of <P v, g> and <v, Pᵀ g> for random v and g, the larger of both tilt axes."""
    rng, worst = np.random.default_rng(0), 0.0
    for axis in ("x", "y"):
        optics = projector((48, 80, 96), TomogramSettings().angles, axis)
        volume = rng.standard_normal(optics.shape).astype(np.float32)
        images = optics.project(rng.standard_normal(optics.shape).astype(np.float32))
        forward = float(np.vdot(optics.project(volume).astype(np.float64), images))
        backward = float(np.vdot(volume.astype(np.float64), optics.back_project(images)))
        worst = max(worst, abs(forward / backward - 1))
    return worst


def main(quick: bool) -> dict[str, Any]:
    """Speed, memory, SNR, adjointness, and fast against full path."""
    usual = TomogramSettings(counts=(33,), defocus_um=(3.0, 4.0))
    crowded = TomogramSettings(occupancy=0.2, defocus_um=(3.0, 4.0))
    large = TomogramSettings(shape=(200, 512, 512), occupancy=0.05 if quick else 0.2)
    fine = TomogramSettings(occupancy=0.2, voxel_size=10.0)
    small, busy = timings(usual, 5), timings(crowded, 1 if quick else 3)
    names = MIXTURE if quick else tuple(structure_names())
    found = {name: alone(load_structure(name), 8 if quick else 16) for name in names}
    snr = {name: round(one["snr"], 4) for name, one in found.items()}
    big = isolated(large)
    per_megavoxel = [small["seconds"] / 8.4, busy["seconds"] / 8.4, big["seconds"] / 52.4]
    return {
        "seconds_256": small["seconds"],
        "seconds_256_crowded": busy["seconds"],
        "seconds_256_crowded_10A": round(seconds(fine, 0)[0], 2),
        "complexes_256": small["complexes"],
        "complexes_256_crowded": busy["complexes"],
        "cold_256": small["cold"],
        "with_noise_free_256": small["with_noise_free"],
        "seconds_512": big["seconds"],
        "complexes_512": big["complexes"],
        "occupancy_512": large.occupancy,
        "peak_gb": big["peak_gb"],
        "seconds_per_megavoxel": [round(s, 3) for s in per_megavoxel],
        "training_subtomograms_per_s": round(training_per_s(crowded)),
        "occupancy_reached": {
            "mixture": occupancy_reached(MIXTURE, (64, 128, 128) if quick else (128, 256, 256), 0.28),
            "1bxn": occupancy_reached(("1bxn",), (64, 128, 128), 0.28),
            "4v5d": occupancy_reached(("4v5d",), (128, 128, 128), 0.14),
        },
        "snr_requested": SNR,
        "snr_measured": snr,
        "snr_worst_error": round(max(abs(value / SNR - 1) for value in snr.values()), 4),
        "adjoint_error": adjoint_error(),
        "fast_full_cc": round(float(np.mean([one["cc"] for one in found.values()])), 4),
        "fast_full_cc_min": round(min(one["cc_min"] for one in found.values()), 4),
        "fast_full_power_error": round(float(np.median([one["power"] for one in found.values()])), 4),
        "fast_full_power_error_worst_shell": round(max(one["power_worst"] for one in found.values()), 4),
        "tilts": len(usual.angles),
        "megavoxels_256": round(math.prod(usual.shape) / 1e6, 1),
    }


if __name__ == "__main__":
    harness.run("simulate", main, seeds=(0,))
