"""`tomotif classify`: name the structure in every subtomogram."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tomotif.cli.console import console, progress_bar
from tomotif.engine.model_folder import find_model_folder, read_card
from tomotif.engine.predict import discard_shards
from tomotif.io.run_folder import run_folder
from tomotif.io.stack import STACK_NAME, read_subtomograms
from tomotif.io.star import read_tomograms, write_particles, write_tomograms
from tomotif.tasks.classify import ClassifySettings
from tomotif.tasks.classify import classify as classify_subtomograms


def classify(
    subtomograms: Path,
    model: Path,
    *,
    output: Annotated[Path, Parameter(alias="-o")] = Path("classes"),
    settings: Annotated[ClassifySettings, Parameter(name="*")] = ClassifySettings(),
    overwrite: bool = False,
) -> None:
    """Name the structure in every subtomogram: class, probability and feature vector per particle.

    Parameters
    ----------
    subtomograms
        Folder of an extraction, or its particles.star.
    model
        Folder of a trained model.
    output
        Run folder to write.
    settings
        Runtime and batches.
    overwrite
        Replace an earlier run in the output folder.
    """
    folder = find_model_folder(model)
    card = read_card(folder)
    found = read_subtomograms(subtomograms)
    home = subtomograms if subtomograms.is_dir() else subtomograms.parent
    with run_folder(output, "classify", settings, inputs=[home, folder / "model.json"], overwrite=overwrite) as run:
        if not run.finished:
            with progress_bar("classifying") as progress:
                named = classify_subtomograms(
                    found, home / STACK_NAME, folder, card, settings, run / "shards", progress=progress
                )
            tomograms = read_tomograms(home / "tomograms.star", check=False)
            write_tomograms(run / "tomograms.star", tomograms)
            write_particles(run / "particles.star", named, tomograms=tomograms)
            discard_shards(run / "shards")
            run.record(particles=len(named), classes=dict(Counter(map(str, named["class"]))))
        for name, count in sorted(run.results["classes"].items()):
            console.print(f"{name}: {count}")
        console.print(f"wrote {run / 'particles.star'} ({run.results['particles']} particles)")
