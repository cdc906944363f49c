"""What is in a real cell, with no labels at all: mined, and only then compared with known complexes.

The cell is the part of a *Mycoplasma pneumoniae* tomogram that comes with the package (EMPIAR-10499); the command is
``tomotif mine`` with its default settings. Nothing tells it what a ribosome or a membrane is.

- ``patterns``: each with its proposed group, particles and what speaks for it.
- ``membrane_found``: a pattern is proposed to be a surface patch.
- ``n_particles``: of the ribosome pattern, the large globule whose picture stands out most from its background. Its
  members are aligned anew without a reference, as ``average`` does, and the map is fitted as in
  ``benchmarks/real_ribosome.py``: ``rank``, ``margin`` and ``control_margin`` of the bacterial ribosome (4v5d) among
  all other complexes of the package and three controls, its correlation ``cc``.
- ``shared``: share of its members that lie within 100 Å of one of the group that ``cluster`` finds by shape alone.
- ``minutes_mine``: from the tomogram to the embedding; ``minutes``: all.

``virions`` is the same of a tomogram of enveloped virions (``benchmarks/data``) as far as it goes (no ribosome).
"""

from __future__ import annotations

import inspect
import tempfile
import time
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from benchmarks import harness
from benchmarks.real_ribosome import RIBOSOME, compared
from tomotif.core import Volume
from tomotif.engine.model_folder import CARD
from tomotif.engine.pretrained import shipped_models
from tomotif.io.mrc import open_tomogram
from tomotif.io.structure import load_structure, structure_names
from tomotif.pipelines.demo import REAL_EDGE, WEDGE, real_tomogram, ribosome_like
from tomotif.pipelines.mine import Mined, MineSettings, mine_patterns
from tomotif.pipelines.stages import Run, cluster_stage, open_subtomograms
from tomotif.tasks.average import AlignSettings, AverageSettings, align_classes, average
from tomotif.tasks.cluster import RIBOSOME_LIKE, ClusterSettings
from tomotif.tasks.fit import FitSettings, fit

NAME = "real_cell"
SEED = 0
NEAR = 100.0
"""Å within which two picks are the same particle."""
PART = 170
"""Edge in voxels of the quick run's part of the tomogram."""
SETTINGS = MineSettings()
DECIDING = (
    *("ops.kinds", "ops.pattern_shape", "pipelines.mine", "pipelines.mine_encoder"),
    *(f"tasks.{name}" for name in ("pick", "extract", "pattern_clusters", "patterns", "embed", "cluster", "fit")),
    *(f"tasks.average.{name}" for name in ("starts", "group", "alike", "pictures", "blind", "halves", "classes")),
)
"""Modules of the package that decide what a cell says."""
VIRIONS = Path(__file__).parent / "data" / "emd1155_virions.mrc"


def one(quick: bool, names: list[str]) -> dict[str, Any]:
    """Mine, align the ribosome pattern anew, and fit."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = Run(folder / "mined")
        with real_tomogram(PART if quick else REAL_EDGE, folder) as tomogram:
            mined = mine_patterns([tomogram], SETTINGS, run)
        minutes_mine = (time.perf_counter() - begun) / 60
        chosen = ribosome_like(mined.patterns)
        boxes, _ = open_subtomograms(folder / "mined" / "patterns")
        rows = np.flatnonzero(boxes.particles["pattern"].to_numpy(np.int64) == chosen.number)
        named = np.where(np.isin(np.arange(len(boxes)), rows), chosen.number, 0)
        only = boxes.particles.with_columns(group=np.where(named > 0, "ribosome", "").astype(object))
        aligned = align_classes(
            replace(boxes, particles=only),
            AverageSettings(),
            AlignSettings(),
            by="group",
            seed=SEED,
            work=folder / "work",
        )
        [made] = average(aligned.subtomograms, AverageSettings(), by="group").averages
        clusters = cluster_stage(folder / "mined" / "boxes", ClusterSettings(seed=SEED), Run(folder / "clusters"))
        grouped, _ = open_subtomograms(clusters.path)
        other = grouped.particles.position[(grouped.particles["group"] == RIBOSOME_LIKE).to_numpy()]
        apart, _ = cKDTree(other).query(boxes.particles.position[rows])
    fits = fit(Volume(made.volume, made.voxel_size), [load_structure(n) for n in names], FitSettings(seed=SEED))
    return {
        **found_in(mined),
        "ribosome_pattern": chosen.number,
        "n_particles": len(rows),
        "shared": round(float(np.mean(apart <= NEAR)), 3),
        **compared(fits),
        "half_fsc0143_A": round(made.resolution, 2),
        **aligned.entry(made),
        "minutes_mine": round(minutes_mine, 2),
        "minutes": round((time.perf_counter() - begun) / 60, 2),
    }


def virions() -> dict[str, Any]:
    """Mine the tomogram of virions."""
    begun = time.perf_counter()
    tomogram = open_tomogram(VIRIONS, missing_wedge=WEDGE, contrast="dark")
    with tempfile.TemporaryDirectory() as name:
        mined = mine_patterns([tomogram], SETTINGS, Run(Path(name) / "mined"))
    return {**found_in(mined), "minutes_mine": round((time.perf_counter() - begun) / 60, 2)}


def found_in(mined: Mined) -> dict[str, Any]:
    """What mining says by itself."""
    return {
        "candidates": mined.candidates,
        "patterns": [entry.as_dict() for entry in mined.patterns],
        "membrane_found": any(entry.proposed == "surface patch" for entry in mined.patterns),
        "sure_pairs": [pair.as_dict() for pair in mined.interactions if pair.q_value <= 0.05],
    }


def digest(*study: Any) -> str:
    """What decides a cell, in eight letters."""
    code = "".join(inspect.getsource(import_module(f"tomotif.{name}")) for name in DECIDING)
    encoders = "".join((folder / CARD).read_text() for folder in shipped_models("encoders").values())
    return blake2b((repr((study, SETTINGS)) + code + encoders).encode(), digest_size=4).hexdigest()


def main(quick: bool) -> dict[str, Any]:
    """Quick is a part of the cell and five structures; the virions are the same."""
    names = [RIBOSOME, "4v8r", "1oel", "3j9i", "5t4o"] if quick else structure_names()
    prefix = "quick_" if quick else ""
    mined = harness.cell(NAME, f"{prefix}cell_{digest(quick, names)}", partial(one, quick, names))
    beside = harness.cell(NAME, f"{prefix}virions_{digest('virions')}", virions)
    return {**harness.measured(mined), "virions": harness.measured(beside)}


if __name__ == "__main__":
    harness.run(NAME, main, seeds=(SEED,))
