"""A ribosome out of a real cell, with no template: picked, grouped, blind averaged, then compared with known complexes.

The cell is the part of a *Mycoplasma pneumoniae* tomogram that comes with the package (EMPIAR-10499). The commands are
``pick``, ``extract --box-px 24``, ``cluster`` and ``average --by group``: nothing tells them what a ribosome is. Only
then is the map fitted with all structures of the package in both hands, at 50 Å, every template under the map's own
radial spectrum (the tomogram has no CTF correction), inside one mask about the best. Seeds decide k-means, the starts,
the half-sets and the checks.

- ``rank``: of the bacterial 70S ribosome (4v5d) among all other complexes and three controls made from it: a ball of
  its size, its radial average, random density of its size and spectrum. Its parts (50S, 30S) are reported apart.
- ``margin``: its correlation minus that of the next complex; ``control_margin``: minus that of the next control.
- ``hand_margin``: its correlation minus that of its mirror image; positive is the right hand.
- ``spherical_best``: what fits the radial average of the same map best; it must not be 4v5d.
- ``warnings``: what the run itself says is wrong.

Each value at the top is the median over the seeds; ``seeds_first`` counts seeds with rank 1, ``hands_right`` those with
a positive hand margin.
"""

from __future__ import annotations

import inspect
import tempfile
import time
from functools import partial
from hashlib import blake2b
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import harness
from tomotif.core import MissingWedge, Volume
from tomotif.io.files import read_json
from tomotif.io.mrc import open_tomogram, open_volume
from tomotif.io.structure import load_structure, structure_names
from tomotif.ops import align, expectation
from tomotif.ops.fit import radially_averaged
from tomotif.pipelines.demo import REAL_TOMOGRAM
from tomotif.pipelines.stages import Run, average_stage, cluster_stage, extract_stage, pick_stage
from tomotif.tasks.average import AlignSettings, AverageSettings, blind, checks, halves, starts
from tomotif.tasks.cluster import RIBOSOME_LIKE, ClusterSettings
from tomotif.tasks.extract import ExtractSettings
from tomotif.tasks.fit import Fits, FitSettings, fit
from tomotif.tasks.pick import PickSettings

NAME = "real_ribosome"
RIBOSOME = "4v5d"
PARTS = ("4v5d_50s", "4v4r")
SEEDS = (0, 1, 2, 3, 4)
BOX = 24
FITS = ("rank", "margin", "control_margin", "hand_margin", "cc", "fsc05_A")
MEASURES = ("n_particles", *FITS, "half_fsc0143_A", "minutes")


def averaged(folder: Path, seed: int) -> tuple[dict[str, Any], Volume]:
    """Pick, extract, cluster and average as the commands do; the entry of averages.json and the map."""
    run = Run(folder / "picks")
    with as_file(files("tomotif.resources") / REAL_TOMOGRAM) as path:
        cell = open_tomogram(path, missing_wedge=MissingWedge(-60, 60), contrast="dark")
        picks = pick_stage([cell], PickSettings(), run)
        cut = extract_stage(picks.path, ExtractSettings(box_px=BOX), run.beside("boxes"))
    clusters = cluster_stage(cut.path, ClusterSettings(seed=seed), run.beside("clusters"))
    made = average_stage(
        clusters.path, AverageSettings(), run.beside("averages"), by="group", seed=seed, search=AlignSettings()
    )
    [entry] = read_json(made.path / "averages.json")
    volume = open_volume(made.path / f"{RIBOSOME_LIKE}.mrc")
    return entry, Volume(np.array(volume.data), volume.voxel_size)


def compared(fits: Fits) -> dict[str, Any]:
    """Rank and margins of the ribosome among complexes and controls."""
    ribosome = next(one for one in fits.fits if one.name == RIBOSOME)
    complexes = [one for one in fits.fits if one.name not in (RIBOSOME, *PARTS)]
    rivals = sorted([*complexes, *fits.controls], key=lambda one: -one.score)
    parts = [one for one in fits.fits if one.name in PARTS]
    return {
        "rank": 1 + sum(one.score > ribosome.score for one in rivals),
        "margin": round(ribosome.score - max(one.score for one in complexes), 4),
        "control_margin": round(ribosome.score - max(one.score for one in fits.controls), 4),
        "hand_margin": round(ribosome.hand_margin, 4),
        "cc": round(ribosome.score, 4),
        "fsc05_A": round(ribosome.fsc05, 2),
        "decoys": [{"name": one.name, "cc": round(one.score, 4)} for one in rivals],
        "parts": [{"name": one.name, "cc": round(one.score, 4)} for one in parts],
    }


def one(seed: int, names: list[str]) -> dict[str, Any]:
    """One run from the tomogram to the fits."""
    structures = [load_structure(name) for name in names]
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        entry, volume = averaged(Path(folder), seed)
    found = time.perf_counter()
    fits = fit(volume, structures, FitSettings(seed=seed))
    ended = time.perf_counter()
    sphere: NDArray[np.float32] = radially_averaged(np.asarray(volume.data))
    spherical = fit(Volume(sphere, volume.voxel_size), structures, FitSettings(seed=seed))
    return {
        "seed": seed,
        "n_particles": entry["particles"],
        **compared(fits),
        "half_fsc0143_A": entry["resolution_A"],
        "start_agreement": entry["start_agreement"],
        "start_hand_margin": entry["hand_margin"],
        "checks": entry["checks"],
        "warnings": entry["warnings"],
        "spherical_best": max([*spherical.fits, *spherical.controls], key=lambda fitted: fitted.score).name,
        "minutes_to_map": round((found - begun) / 60, 2),
        "minutes": round((ended - begun) / 60, 2),
    }


def digest(names: list[str]) -> str:
    """What decides a cell besides its seed, in eight letters."""
    code = "".join(inspect.getsource(module) for module in (align, expectation, starts, halves, blind, checks))
    study = (names, PickSettings(), ClusterSettings(), AlignSettings(), AverageSettings(), FitSettings())
    return blake2b((repr(study) + code).encode(), digest_size=4).hexdigest()


def main(quick: bool) -> dict[str, Any]:
    """All seeds; quick is one seed and nine structures."""
    names = [RIBOSOME, *PARTS, "4v8r", "1oel", "1aon", "3j9i", "3l5q", "5t4o"] if quick else structure_names()
    prefix = "quick_" if quick else ""
    runs = [
        harness.measured(harness.cell(NAME, f"{prefix}seed{seed}_{digest(names)}", partial(one, seed, names)))
        for seed in (SEEDS[:1] if quick else SEEDS)
    ]
    decoys = [decoy["name"] for decoy in runs[0]["decoys"]]
    by_name = [{row["name"]: row["cc"] for row in run["decoys"]} for run in runs]
    return {
        **{measure: round(float(np.median([run[measure] for run in runs])), 4) for measure in MEASURES},
        "seeds_first": sum(run["rank"] == 1 for run in runs),
        "hands_right": sum(run["hand_margin"] > 0 for run in runs),
        "runs_with_warnings": sum(bool(run["warnings"]) for run in runs),
        "decoys": [
            {"name": name, "cc": round(float(np.mean([cc.get(name, np.nan) for cc in by_name])), 4)} for name in decoys
        ],
        "runs": runs,
    }


if __name__ == "__main__":
    harness.run(NAME, main, seeds=SEEDS)
