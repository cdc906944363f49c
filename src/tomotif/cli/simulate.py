"""`tomotif simulate`: tomograms of known structures, with the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators
from rich.table import Table

from tomotif.cli.console import console, progress_bar
from tomotif.core import Structure
from tomotif.io.structure import load_structure
from tomotif.pipelines.stages import TOMOGRAMS, Run, simulate_stage
from tomotif.tasks.simulate import TomogramSettings, signal_to_noise


def simulate(
    structures: list[str],
    *,
    output: Annotated[Path, Parameter(alias="-o")] = Path("simulated"),
    count: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 1,
    seed: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
    settings: Annotated[TomogramSettings, Parameter(name="*")] = TomogramSettings(),
    overwrite: bool = False,
) -> None:
    """Simulate tomograms full of known structures, with every particle's class, position and orientation.

    Parameters
    ----------
    structures
        Names (`tomotif structures`), or PDB or mmCIF files; each is a class.
    output
        Run folder to write: tomograms, class and instance labels, and the true particles.
    count
        Number of tomograms.
    seed
        Seed of the random numbers; the same seed makes the same files.
    settings
        Volume, crowding, microscope and noise.
    overwrite
        Replace an earlier run in the output folder.
    """
    loaded = [load_structure(name) for name in structures]
    run = simulate_stage(loaded, settings, Run(output, overwrite, progress_bar), count=count, seed=seed)
    console.print(summary(loaded, settings, run.results["classes"]))
    console.print(f"wrote {run / TOMOGRAMS} ({run.results['particles']} particles)")


def summary(structures: Sequence[Structure], settings: TomogramSettings, particles: Mapping[str, int]) -> Table:
    """How many of each structure there are, and how far each stands out from the noise."""
    table = Table("class", "what", "mass (kDa)", "particles", "SNR", "SNR below 1/30 Å⁻¹")
    for column in table.columns[2:]:
        column.justify = "right"
    if settings.snr is not None:
        table.title = f"SNR {settings.snr:g} of {settings.snr_reference} over a box of {settings.box_px} voxels"
    for structure, row in zip(structures, signal_to_noise(structures, settings).itertuples(), strict=True):
        table.add_row(
            structure.name,
            structure.title,
            f"{structure.mass_kda:,.0f}",
            str(particles.get(structure.name, 0)),
            f"{row.snr:.3f}",
            f"{row.snr_band:.3f}",
        )
    return table
