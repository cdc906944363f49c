"""The fast simulation of single subtomograms: speed, signal-to-noise ratio, and the densities it starts from.

Speed is boxes of 32³ at 12 Å a second, templates and noise levels included, over complexes of all sizes. The SNR is
measured on the output: the same seed without noise gives the signal, the difference the noise. The densities are
compared with maps that another program made of the same PDB entries, both low-passed to 30 Å.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from numpy.typing import NDArray

from benchmarks import harness
from tomotif.core import Structure, Subtomograms
from tomotif.io.structure import load_structure, structure_names
from tomotif.ops.density import structure_density
from tomotif.ops.fourier import low_pass
from tomotif.tasks.simulate import SubtomogramSettings, signal_to_noise, simulate_subtomograms

MAPS = Path(__file__).parents[1] / "tests/data/maps"
MIXTURE = ("1s3x", "2cg9", "1bxn", "3j9i", "1oel", "4v5d")
SNR = 0.1


def speed(structures: list[Structure], count: int, neighbours: int, seed: int = 0) -> float:
    """Boxes a second, the best of three."""
    settings = SubtomogramSettings(count=count, neighbours=neighbours)
    took = []
    for _ in range(3):
        begun = time.perf_counter()
        simulate_subtomograms(structures, settings, np.random.default_rng(seed))
        took.append(time.perf_counter() - begun)
    return count * len(structures) / min(took)


def values(made: Subtomograms) -> NDArray[np.float32]:
    """The boxes before the z-score."""
    scale, mean = (made.particles[c].to_numpy(np.float32)[:, None, None, None] for c in ("deviation", "mean"))
    return made.stack.astype(np.float32) * scale + mean


def measured_snr(structure: Structure, count: int, seed: int = 0) -> float:
    """Var(signal) / Var(noise) over the box, on the output."""
    settings = SubtomogramSettings(count=count, snr=SNR)
    noisy = values(simulate_subtomograms([structure], settings, np.random.default_rng(seed)))
    silent = settings.model_copy(update={"snr": None})
    signal = values(simulate_subtomograms([structure], silent, np.random.default_rng(seed)))
    noise = noisy - signal
    return float(signal.var(axis=(1, 2, 3)).mean() / noise.var(axis=(1, 2, 3)).mean())


def map_correlation(path: Path) -> float:
    """Correlation of our density with a map of the same orientation, moved to its centre of mass, at 30 Å."""
    with mrcfile.open(path) as file:
        given, voxel = np.pad(file.data.astype(np.float32), 8), float(file.voxel_size.x)
    centre = np.indices(given.shape).reshape(3, -1) @ given.ravel() / given.sum()
    nz, ny, nx = given.shape
    shift = (centre - np.array(given.shape) // 2) * voxel
    ours = structure_density(
        load_structure(path.stem), voxel_size=voxel, resolution=voxel, shape=(nz, ny, nx), shift=shift
    )
    return float(np.corrcoef(low_pass(ours, voxel, 30.0).ravel(), low_pass(given, voxel, 30.0).ravel())[0, 1])


def main(quick: bool) -> dict[str, Any]:
    """Speed, SNR asked and measured, and the worst correlation of the densities."""
    mixture = [load_structure(name) for name in MIXTURE]
    names = MIXTURE if quick else structure_names()
    measured = {name: round(measured_snr(load_structure(name), 128 if quick else 512), 4) for name in names}
    band = signal_to_noise([load_structure(n) for n in names], SubtomogramSettings(snr=SNR)).set_index("class")
    density = {path.stem: round(map_correlation(path), 4) for path in sorted(MAPS.glob("*.mrc"))}
    return {
        "per_s_32": round(speed(mixture, 100 if quick else 500, 0)),
        "per_s_32_neighbours": round(speed(mixture, 50 if quick else 200, 4)),
        "neighbours": 4,
        "snr_requested": SNR,
        "snr_measured": measured,
        "snr_worst_error": round(max(abs(value / SNR - 1) for value in measured.values()), 4),
        "snr_below_30_A": {name: round(float(value), 3) for name, value in band["snr_band"].items()},
        "density_cc": density,
        "density_cc_min": min(density.values()),
    }


if __name__ == "__main__":
    harness.run("fast_path", main)
