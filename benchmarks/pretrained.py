"""The classifiers that come with the package: their scores, speed and size, and what they say of a real cell.

``models``: mean recall on simulated test tomograms as the card says it (``tools/pretrain.py`` measured it), boxes a
second here in 32-bit floats and in 8-bit integers where they have it, and megabytes of the model folder.

``real``: the part of a *Mycoplasma pneumoniae* cell that comes with the package (EMPIAR-10499), picked and extracted as
``benchmarks/real_ribosome.py`` does. The blind group there, found by shape without any names, averages to a ribosome.
``named_in_group`` and ``named_outside`` are the shares of particles called 4v5d in it and outside of it, ``sure`` those
called so with a probability of 0.9 or more; ``f1`` takes the group for the truth, which it is only nearly. ``classes``
counts all names.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import f1_score

from benchmarks import harness
from tomotif.engine.model_folder import read_card
from tomotif.engine.predict import INT8, int8_predictor, openvino_predictor
from tomotif.engine.pretrained import shipped_models
from tomotif.engine.speed import predictor_speed
from tomotif.pipelines.demo import REAL_EDGE, RIBOSOME, real_tomogram
from tomotif.pipelines.stages import Run, classify_stage, cluster_stage, extract_stage, open_subtomograms, pick_stage
from tomotif.tasks.classify import ClassifySettings
from tomotif.tasks.cluster import RIBOSOME_LIKE, ClusterSettings
from tomotif.tasks.extract import ExtractSettings
from tomotif.tasks.pick import PickSettings

NAME = "pretrained"
SURE = 0.9
BOX_PX = 24
"""Edge in voxels of boxes in the real tomogram."""


def measured(folder: Path, seconds: float) -> dict[str, Any]:
    """One shipped model."""
    card = read_card(folder)
    speeds = {"f32_per_s": openvino_predictor(folder, 32)}
    if (folder / INT8).exists():
        speeds["int8_per_s"] = int8_predictor(folder, 32)
    return {
        "name": folder.name,
        "architecture": card.architecture,
        "scores": card.scores,
        "temperature": card.temperature,
        "int8_agreement": card.int8_agreement,
        "megabytes": round(sum(path.stat().st_size for path in folder.iterdir()) / 1e6, 2),
        **{name: round(predictor_speed(predict, card.box_px, 32, seconds), 1) for name, predict in speeds.items()},
    }


def real_cell(turns: bool) -> dict[str, Any]:
    """Names in the real cell, against the group that shape finds."""
    with tempfile.TemporaryDirectory() as folder, real_tomogram(REAL_EDGE, Path(folder)) as cell:
        run = Run(Path(folder) / "picks")
        picks = pick_stage([cell], PickSettings(), run)
        cut = extract_stage(picks.path, ExtractSettings(box_px=BOX_PX), run.beside("boxes"))
        clusters = cluster_stage(cut.path, ClusterSettings(), run.beside("clusters"))
        named = classify_stage(cut.path, None, ClassifySettings(turns=turns), run.beside("classes"))
        group = (open_subtomograms(clusters.path)[0].particles["group"] == RIBOSOME_LIKE).to_numpy()
        found = open_subtomograms(named.path)[0].particles
    names = found["class"].to_numpy().astype(str)
    called = names == RIBOSOME
    sure = called & (found["probability"] >= SURE).to_numpy()
    classes, counts = np.unique(names, return_counts=True)
    return {
        "picks": len(names),
        "group": int(group.sum()),
        "named": int(called.sum()),
        "named_in_group": round(float(called[group].mean()), 4),
        "named_outside": round(float(called[~group].mean()), 4),
        "f1": round(float(f1_score(group, called)), 4),
        "sure": int(sure.sum()),
        "sure_in_group": round(float(sure[group].mean()), 4),
        "sure_outside": round(float(sure[~group].mean()), 4),
        "sure_f1": round(float(f1_score(group, sure)), 4),
        "classes": dict(zip(classes.tolist(), counts.tolist(), strict=True)),
    }


def main(quick: bool) -> dict[str, Any]:
    """Both models, and the real cell with turns; quick measures speed for a shorter time."""
    return {
        "models": [measured(folder, 1.0 if quick else 10.0) for folder in shipped_models().values()],
        "real": real_cell(turns=True),
    }


if __name__ == "__main__":
    harness.run(NAME, main)
