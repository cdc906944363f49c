"""`tomotif features`: the structural feature vector of every subtomogram."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tomotif.cli.console import console, progress_bar
from tomotif.pipelines.stages import Run, features_stage
from tomotif.tasks.classify import FeatureSettings


def features(
    subtomograms: Path,
    model: Path | None = None,
    *,
    output: Annotated[Path, Parameter(alias="-o")] = Path("features"),
    settings: Annotated[FeatureSettings, Parameter(name="*")] = FeatureSettings(),
    overwrite: bool = False,
) -> None:
    """Place every subtomogram in the structural feature space of a trained classifier.

    Parameters
    ----------
    subtomograms
        Folder of an extraction, or its particles.star.
    model
        Folder of a trained model; by default the one that comes with tomotif and suits the boxes' voxel size.
    output
        Run folder to write.
    settings
        Layer, runtime and batches.
    overwrite
        Replace an earlier run in the output folder.
    """
    folder = features_stage(subtomograms, model, settings, Run(output, overwrite, progress_bar))
    count, width = folder.results["particles"], folder.results["features"]
    console.print(f"wrote {folder / 'particles.star'} ({count} particles, {width} features each)")
