"""`tomotif train`: train networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from tomotif.cli.console import console, progress_bar
from tomotif.core import InputError
from tomotif.io.structure import load_structure
from tomotif.pipelines.stages import Run, TrainingSetSettings, train_stage, training_set_stage
from tomotif.tasks.classify import ClassifierSettings

app = App(name="train", help="Train a network.")


@app.command
def classifier(
    subtomograms: Path | None = None,
    *,
    structures: list[str] | None = None,
    output: Annotated[Path, Parameter(alias="-o")] = Path("classifier"),
    settings: Annotated[ClassifierSettings, Parameter(name="*")] = ClassifierSettings(),
    simulation: Annotated[TrainingSetSettings, Parameter(name="simulation")] = TrainingSetSettings(),
    overwrite: bool = False,
) -> None:
    """Train a classifier, from your own subtomograms or from simulated ones.

    Parameters
    ----------
    subtomograms
        Folder of an extraction, or its particles.star, with a class column (tomotifClass).
    structures
        Instead: names (`tomotif structures`) or files of the structures to simulate training data of.
    output
        Run folder to write; the model lies in its folder model.
    settings
        Network and training.
    simulation
        How training data are simulated.
    overwrite
        Replace an earlier run in the output folder.
    """
    if (subtomograms is None) == (structures is None):
        raise InputError("expected either subtomograms with classes or --structures to simulate, got both or neither")
    run = Run(output, overwrite, progress_bar)
    if structures is not None:
        loaded = [load_structure(name) for name in structures]
        data = Run(output.with_name(f"{output.name}_data"), overwrite, progress_bar)
        subtomograms = training_set_stage(loaded, simulation, data, seed=settings.seed).path
    assert subtomograms is not None
    folder = train_stage(subtomograms, settings, run)
    accuracy = folder.results["validation_accuracy"]
    console.print(f"wrote {folder / 'model'} (validation accuracy {accuracy:.3f})")
