"""The demonstration: train on simulated complexes, then run the whole line on a simulated and on a real tomogram.

Simulated: pick → extract → classify → average → score, against the truth. The averages use the matched true poses,
and say so, which saves the search. Real: what is in the cell is mined without labels, and beside it the names that the
classifier of the package gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from pydantic import Field

from tomotif.core import MissingWedge, Settings, Tomogram
from tomotif.io.mrc import open_tomogram, write_volume
from tomotif.io.star import read_tomograms
from tomotif.io.structure import load_structure
from tomotif.pipelines.mine import MineSettings, mine_patterns
from tomotif.pipelines.mine_encoder import EncoderSettings
from tomotif.pipelines.simulate import TomogramSpec
from tomotif.pipelines.stages import (
    TOMOGRAMS,
    Run,
    TrainingSetSettings,
    average_stage,
    classify_stage,
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
from tomotif.tasks.extract import ExtractSettings
from tomotif.tasks.pattern_clusters import PatternClusterSettings
from tomotif.tasks.patterns import Pattern
from tomotif.tasks.pick import PickSettings
from tomotif.tasks.score import ScoreSettings

REAL_TOMOGRAM = "mpneumoniae_20A.mrc"
WEDGE = MissingWedge(-60, 60)
RIBOSOME = "4v5d"
REAL_EDGE = 326
"""Largest edge of the real tomogram in voxels."""


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
    real_tomogram_edge: int = Field(default=REAL_EDGE, ge=64)
    """Largest edge along y and x of the part of the real tomogram that is looked at, in voxels of 20 Å."""
    seed: int = 0
    """Seed of everything; the tomogram is simulated with another one than the training data."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo found."""

    report: Path
    macro_f1: float
    recall: float
    patterns: int
    """Patterns that were found in the real cell without labels."""
    ribosome_like: int
    """Particles of the real cell in the pattern that :func:`ribosome_like` takes for the ribosome's."""
    named_ribosome: int
    """Particles of the real cell that the classifier of the package calls a ribosome."""
    both: int
    """Particles that are in that pattern and called so."""


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
    found = real_part(settings, run)
    report = write_report([run.output], run.output / "report.html", title="tomotif demo")
    return DemoResult(report, score["macro_f1"], score["recall"], *found)


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


def real_part(settings: DemoSettings, run: Run) -> tuple[int, int, int, int]:
    """Mine a real *Mycoplasma pneumoniae* cell, and name what was found.

    Returns
    -------
    How many patterns there are; how many particles the ribosome's has, which needs no names; how many the shipped
    classifier calls a ribosome; how many are both.
    """
    with real_tomogram(settings.real_tomogram_edge, run.output) as cell:
        seeded = EncoderSettings(clusters=PatternClusterSettings(seed=settings.seed))
        mined = mine_patterns([cell], MineSettings(encoder=seeded), run.beside("real_mined"))
    boxes = run.output / "real_mined" / "boxes"
    named = classify_stage(boxes, None, ClassifySettings(turns=True), run.beside("real_classes"))
    patterns, _ = open_subtomograms(run.output / "real_mined" / "patterns")
    member = patterns.particles["pattern"].to_numpy(np.int64) == ribosome_like(mined.patterns).number
    called = (open_subtomograms(named.path)[0].particles["class"] == RIBOSOME).to_numpy()
    return len(mined.patterns), int(member.sum()), int(called.sum()), int((member & called).sum())


@contextmanager
def real_tomogram(edge: int, folder: Path) -> Iterator[Tomogram]:
    """The part of a cell that comes with the package, or a corner of it with this edge along y and x, in a folder."""
    with as_file(files("tomotif.resources") / REAL_TOMOGRAM) as path:
        cell = open_tomogram(path, missing_wedge=WEDGE, contrast="dark")
        if edge < max(cell.shape):
            corner = folder / f"{path.stem}_{edge}.mrc"
            if not corner.exists():
                write_volume(corner, np.array(cell.volume.data[:, :edge, :edge]), cell.voxel_size)
            cell = open_tomogram(corner, missing_wedge=WEDGE, contrast="dark")
        yield cell


def ribosome_like(found: Sequence[Pattern]) -> Pattern:
    """The large globule whose picture stands out most; the strongest picture of all where there is none."""
    large = [one for one in found if one.proposed == "large globule"]
    return max(large or found, key=lambda one: one.shape.signal)
