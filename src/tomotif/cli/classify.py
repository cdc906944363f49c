"""`tomotif classify`: name the structure in every subtomogram."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tomotif.cli.console import console, progress_bar
from tomotif.pipelines.stages import Run, classify_stage
from tomotif.tasks.classify import ClassifySettings


def classify(
    subtomograms: Path,
    model: Path | None = None,
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
        Folder of a trained model; by default the one that comes with tomotif and suits the boxes' voxel size.
    output
        Run folder to write.
    settings
        Runtime and batches.
    overwrite
        Replace an earlier run in the output folder.
    """
    folder = classify_stage(subtomograms, model, settings, Run(output, overwrite, progress_bar))
    for name, count in folder.results["classes"].items():
        console.print(f"{name}: {count}")
    console.print(f"wrote {folder / 'particles.star'} ({folder.results['particles']} particles)")
