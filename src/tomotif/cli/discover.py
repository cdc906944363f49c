"""`tomotif discover`: which structures there are, new ones among them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from tomotif.cli.console import console, progress_bar
from tomotif.pipelines.discover import MOSTLY, VERDICTS, discover_structures, new_share
from tomotif.pipelines.stages import Run
from tomotif.tasks.average import AlignSettings, AverageSettings
from tomotif.tasks.classify import PredictSettings
from tomotif.tasks.discover import DiscoverSettings


def discover(
    subtomograms: Path,
    model: Path | None = None,
    *,
    output: Annotated[Path, Parameter(alias="-o")] = Path("discovered"),
    settings: Annotated[DiscoverSettings, Parameter(name="*")] = DiscoverSettings(),
    network: Annotated[PredictSettings, Parameter(name="*")] = PredictSettings(),
    averaging: Annotated[AverageSettings, Parameter(name="averaging")] = AverageSettings(),
    search: Annotated[AlignSettings, Parameter(name="search")] = AlignSettings(),
    overwrite: bool = False,
) -> None:
    """Subdivide subtomograms in the feature space of a classifier, average each cluster blindly, and judge it.

    Parameters
    ----------
    subtomograms
        Folder of an extraction, or its particles.star.
    model
        Folder of a trained model; by default the one that comes with tomotif and suits the boxes' voxel size.
    output
        Folder to write: the run folders features, clusters and averages, and verdicts.json.
    settings
        Clusters and novelty.
    network
        Runtime and batches.
    averaging
        Smallest cluster that is averaged, mask, symmetry.
    search
        How the clusters' particles are aligned.
    overwrite
        Replace an earlier run in the output folder.
    """
    run = Run(output, overwrite, progress_bar)
    made = discover_structures(subtomograms, model, settings, run, network=network, averaging=averaging, search=search)
    table = Table("cluster", "particles", "verdict", "most named", "new (%)", "resolution (Å)")
    for one in made:
        resolution = "" if one.resolution is None else f"{one.resolution:.0f}"
        name, share = f"{one.name} {one.share:.0%}", f"{100 * one.new_share:.0f}"
        table.add_row(str(one.cluster), str(one.particles), one.kind, name, share, resolution)
    console.print(table)
    if new_share(made) > MOSTLY:
        console.print(
            f"[bold red]warning[/bold red] {new_share(made):.0%} of the particles are unlike all known classes: they "
            "may come from another kind of tomogram than the model learned from; train one on boxes like these, or "
            "believe averages only"
        )
    console.print(f"wrote {output / VERDICTS}, which says why")
