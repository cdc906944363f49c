"""The demonstration: train on simulated complexes, then run the whole line on a simulated and on a real tomogram.

Simulated: pick → extract → classify → average → score, against the truth. The averages use the matched true poses,
and say so, which saves the search. Real: pick → extract → cluster by simple shape features, and beside it the names
that the classifier of the package gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tomotif.core import MissingWedge, Settings
from tomotif.io.mrc import open_tomogram
from tomotif.io.star import read_tomograms
from tomotif.io.structure import load_structure
from tomotif.pipelines.simulate import TomogramSpec
from tomotif.pipelines.stages import (
    TOMOGRAMS,
    Run,
    TrainingSetSettings,
    average_stage,
    classify_stage,
    cluster_stage,
    extract_stage,
    open_subtomograms,
    pick_stage,
    score_stage,
    simulate_stage,
    train_stage,
    training_set_stage,
)
from tomotif.report.page import write_report
from tomotif.tasks.average import AverageSettings
from tomotif.tasks.classify import ClassifierSettings, ClassifySettings
from tomotif.tasks.cluster import RIBOSOME_LIKE, ClusterSettings
from tomotif.tasks.extract import ExtractSettings
from tomotif.tasks.pick import PickSettings
from tomotif.tasks.score import ScoreSettings

REAL_TOMOGRAM = "mpneumoniae_20A.mrc"
REAL_BOX_PX = 24
RIBOSOME = "4v5d"


class DemoSettings(Settings):
    """Settings of ``demo``."""

    structures: tuple[str, ...] = ("4v5d", "4v8r", "3j9i", "1oel", "1bxn", "2fha")
    """Names of the complexes to train on and to put into the simulated tomogram."""
    training_particles: int = Field(default=500, gt=0)
    """Simulated training particles of each complex."""
    epochs: int = Field(default=5, gt=0)
    """Passes over the training particles."""
    snr: float = Field(default=0.1, gt=0)
    """Signal-to-noise ratio of RuBisCO (1BXN) in its box, in training data and tomogram."""
    occupancy: float = Field(default=0.05, gt=0, lt=1)
    """Fraction of the simulated tomogram inside molecular envelopes."""
    tomogram_shape: tuple[int, int, int] = (128, 256, 256)
    """Shape of the simulated tomogram zyx in voxels of 12 Å."""
    seed: int = 0
    """Seed of everything; the tomogram is simulated with another one than the training data."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo found."""

    report: Path
    macro_f1: float
    recall: float
    ribosome_like: int
    """Particles of the real cell in the compact group."""
    named_ribosome: int
    """Particles of the real cell that the classifier of the package calls a ribosome."""
    both: int
    """Particles that are in that group and called so."""


def demo(settings: DemoSettings, run: Run) -> DemoResult:
    """Run the demonstration; stages that ended in an earlier, killed run are not repeated.

    Parameters
    ----------
    settings
        Size and seed.
    run
        Output folder; each stage is a run folder in it, ``report.html`` is the result.
    """
    score = simulated_part(settings, run)
    grouped, named = real_part(settings, run)
    report = write_report([run.output], run.output / "report.html", title="tomotif demo")
    return DemoResult(
        report,
        score["macro_f1"],
        score["recall"],
        ribosome_like=int(grouped.sum()),
        named_ribosome=int(named.sum()),
        both=int((grouped & named).sum()),
    )


def simulated_part(settings: DemoSettings, run: Run) -> dict[str, float]:
    """Train, then find, name, average and score in a tomogram that training has not seen."""
    structures = [load_structure(name) for name in settings.structures]
    boxes = TrainingSetSettings(
        count=settings.training_particles, background=2 * settings.training_particles, snr=settings.snr
    )
    classifier = ClassifierSettings(epochs=settings.epochs, seed=settings.seed)
    volume = TomogramSpec(
        structures=settings.structures,
        snr=settings.snr,
        occupancy=settings.occupancy,
        shape=settings.tomogram_shape,
    )

    training = training_set_stage(structures, boxes, run.beside("training_set"), seed=settings.seed)
    trained = train_stage(training.path, classifier, run.beside("classifier"))
    truth = simulate_stage(volume, run.beside("simulated"), seed=settings.seed + 1)
    tomograms = read_tomograms(truth / TOMOGRAMS)
    picks = pick_stage(tomograms, PickSettings(), run.beside("simulated_picks"))
    cut = extract_stage(picks.path, ExtractSettings(box_px=boxes.box_px), run.beside("simulated_subtomograms"))
    named = classify_stage(cut.path, trained.path, ClassifySettings(), run.beside("simulated_classes"))
    average_stage(named.path, AverageSettings(), run.beside("simulated_averages"), truth=truth.path)
    scored = score_stage(named.path, truth.path, ScoreSettings(), run.beside("simulated_score"))
    return {"macro_f1": scored.results["macro_f1"], "recall": scored.results["recall"]}


def real_part(settings: DemoSettings, run: Run) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Pick in a real *Mycoplasma pneumoniae* cell, group what was found, and name it.

    Returns
    -------
    tuple of bool arrays, each of shape (picks,)
        Which picks are in the compact group, which needs no names, and which the shipped classifier calls a ribosome.
    """
    with as_file(files("tomotif.resources") / REAL_TOMOGRAM) as path:
        cell = open_tomogram(path, missing_wedge=MissingWedge(-60, 60), contrast="dark")
        picks = pick_stage([cell], PickSettings(), run.beside("real_picks"))
        cut = extract_stage(picks.path, ExtractSettings(box_px=REAL_BOX_PX), run.beside("real_subtomograms"))
        clusters = cluster_stage(cut.path, ClusterSettings(seed=settings.seed), run.beside("real_clusters"))
        named = classify_stage(cut.path, None, ClassifySettings(turns=True), run.beside("real_classes"))
    grouped, called = (open_subtomograms(folder.path)[0].particles for folder in (clusters, named))
    return (grouped["group"] == RIBOSOME_LIKE).to_numpy(), (called["class"] == RIBOSOME).to_numpy()
