"""Picking: recall and false picks on simulated tomograms, and time and memory on a tomogram of 500 million voxels.

The tomograms are simulated: eight complexes of 454 kDa to 2.1 MDa, equally many, wedge of ±60°, |CTF| at 2 to 6 µm
defocus, white noise; SNR 0.1 is that of RuBisCO (1bxn) over a box of 384 Å. A pick is right when it lies within half a
radius of a particle that no other pick was matched to; the radius is that of the ball of equal radius of gyration.
Numbers are pooled over the tomograms. ``dog`` is the published single difference of Gaussians.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import harness
from tomotif.io.environment import peak_memory
from tomotif.io.mrc import new_header, open_tomogram
from tomotif.io.structure import load_structure
from tomotif.ops.metrics import match
from tomotif.tasks.pick import PickSettings, pick
from tomotif.tasks.simulate import SimulatedTomogram, TomogramSettings, simulate_tomogram

SEEDS = (0, 1, 2)
COMPLEXES = ("1bxn", "3cf3", "1qvr", "3j9i", "1oel", "4v8r", "3l5q", "4v5d")
SHAPE = (128, 256, 256)
SNR_BOX = 384.0
METHODS = ("multiscale", "dog")
LARGE = (500, 1000, 1000)


def simulated(voxel_size: float, occupancy: float, seed: int) -> SimulatedTomogram:
    """One tomogram of eight complexes."""
    settings = TomogramSettings(
        shape=SHAPE, voxel_size=voxel_size, occupancy=occupancy, snr=0.1, box_px=round(SNR_BOX / voxel_size)
    )
    structures = [load_structure(name) for name in COMPLEXES]
    return simulate_tomogram(structures, settings, np.random.default_rng((seed, round(100 * occupancy))), "simulated")


def counts(truth: SimulatedTomogram, method: str) -> dict[str, Any]:
    """Picks, hits and true particles, the latter two also by class."""
    picks = pick(truth.tomogram, PickSettings.model_validate({"method": method}))
    pairs = match(picks.position, truth.particles.position, truth.particles["radius"].to_numpy())
    names = truth.particles["class"].to_numpy(dtype=str)
    return {
        "picks": len(picks),
        "hits": [int(np.sum(names[pairs[:, 1]] == name)) for name in COMPLEXES],
        "true": [int(np.sum(names == name)) for name in COMPLEXES],
    }


def pooled(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Recall and false picks per true pick over several tomograms."""
    picks = sum(part["picks"] for part in parts)
    hits, true = (np.sum([part[key] for part in parts], axis=0) for key in ("hits", "true"))
    found = max(int(hits.sum()), 1)
    return {
        "recall": round(float(hits.sum() / true.sum()), 4),
        "false_per_true": round((picks - int(hits.sum())) / found, 4),
        "particles": int(true.sum()),
        "recall_by_class": dict(zip(COMPLEXES, np.round(hits / np.maximum(true, 1), 3).tolist(), strict=True)),
    }


def write_large(path: Path, tile: NDArray[np.float32], depth: int) -> None:
    """A tomogram of 8 bits made of copies of a simulated one, plane by plane."""
    small = np.clip(np.rint(16 * tile / tile.std()), -127, 127).astype(np.int8)
    with path.open("wb") as file:
        file.write(new_header((depth, *LARGE[1:]), np.int8, 10.0).tobytes())
        for z in range(depth):
            plane = np.tile(small[z % len(small)], (4, 4))
            file.write(plane[: LARGE[1], : LARGE[2]].tobytes())


def measure(path: Path, method: str) -> dict[str, float]:
    """Seconds and peak memory in MB of one run, in a process of its own."""
    tomogram = open_tomogram(path, check=False)
    with peak_memory() as peak:
        begun = time.perf_counter()
        picks = pick(tomogram, PickSettings.model_validate({"method": method}))
        seconds = time.perf_counter() - begun
    return {"minutes": seconds / 60, "peak_mb": peak.megabytes, "picks": len(picks)}


def measure_large(depth: int) -> dict[str, dict[str, float]]:
    """Time and memory of both methods on ``depth`` planes of a large tomogram."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.mrc"
        write_large(path, np.asarray(simulated(10.0, 0.05, SEEDS[0]).tomogram.volume.data, np.float32), depth)
        found = {}
        for method in METHODS:
            with ProcessPoolExecutor(1, mp_context=spawn) as process:
                found[method] = process.submit(measure, path, method).result()
    return found


def main(quick: bool) -> dict[str, Any]:
    """Score both methods at 5 % and 20 % occupancy; then time them."""
    seeds, voxel_sizes = (SEEDS[:1], (12.0,)) if quick else (SEEDS, (10.0, 12.0))
    scores: dict[str, dict[str, Any]] = {method: {} for method in METHODS}
    for occupancy in (0.05, 0.2):
        parts: dict[str, list[dict[str, Any]]] = {method: [] for method in METHODS}
        for voxel_size in voxel_sizes:
            for seed in seeds:
                truth = simulated(voxel_size, occupancy, seed)
                for method in METHODS:
                    parts[method].append(counts(truth, method))
        for method in METHODS:
            scores[method][f"occupancy_{occupancy:g}"] = pooled(parts[method])
    depth = LARGE[0] // 4 if quick else LARGE[0]
    large, scale = measure_large(depth), LARGE[0] / depth
    ours, published = scores["multiscale"], scores["dog"]
    return {
        "recall": ours["occupancy_0.05"]["recall"],
        "false_per_true": ours["occupancy_0.05"]["false_per_true"],
        "recall_occupancy_0.2": ours["occupancy_0.2"]["recall"],
        "false_per_true_occupancy_0.2": ours["occupancy_0.2"]["false_per_true"],
        "dog_recall": published["occupancy_0.05"]["recall"],
        "dog_false_per_true": published["occupancy_0.05"]["false_per_true"],
        "dog_recall_occupancy_0.2": published["occupancy_0.2"]["recall"],
        "dog_false_per_true_occupancy_0.2": published["occupancy_0.2"]["false_per_true"],
        "minutes_500M": round(scale * large["multiscale"]["minutes"], 3),
        "dog_minutes_500M": round(scale * large["dog"]["minutes"], 3),
        "minutes_500M_measured_on_zyx": [depth, *LARGE[1:]],
        "peak_mb": round(max(m["peak_mb"] for m in large.values()), 1),
        "snr": 0.1,
        "snr_is_of": "1bxn over a box of 384 Å, simulated",
        "voxel_sizes": list(voxel_sizes),
        "tomograms_per_occupancy": len(seeds) * len(voxel_sizes),
        "details": scores,
    }


if __name__ == "__main__":
    harness.run("pick", main, seeds=SEEDS)
