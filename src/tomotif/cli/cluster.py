"""`tomotif cluster`: group subtomograms by shape, without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tomotif.cli.console import console, progress_bar
from tomotif.pipelines.stages import Run, cluster_stage
from tomotif.tasks.cluster import ClusterSettings


def cluster(
    subtomograms: Path,
    *,
    output: Annotated[Path, Parameter(alias="-o")] = Path("clusters"),
    settings: Annotated[ClusterSettings, Parameter(name="*")] = ClusterSettings(),
    overwrite: bool = False,
) -> None:
    """Group subtomograms by simple rotation-invariant features; cluster 1 is the most compact.

    Parameters
    ----------
    subtomograms
        Folder of an extraction, or its particles.star.
    output
        Run folder to write.
    settings
        Number of clusters, smoothing, seed.
    overwrite
        Replace an earlier run in the output folder.
    """
    folder = cluster_stage(subtomograms, settings, Run(output, overwrite, progress_bar))
    for found in folder.results["clusters"]:
        group = f" ({found['group']})" if found["group"] else ""
        console.print(
            f"cluster {found['cluster']}: {found['particles']} particles, compactness {found['compactness']:.2f}{group}"
        )
    console.print(f"wrote {folder / 'particles.star'} ({folder.results['particles']} particles)")
