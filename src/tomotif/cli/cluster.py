"""`tomotif cluster`: group subtomograms by shape, without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tomotif.cli.console import console, progress_bar
from tomotif.io.run_folder import run_folder
from tomotif.io.stack import read_subtomograms
from tomotif.io.star import read_tomograms, write_particles, write_tomograms
from tomotif.tasks.cluster import ClusterSettings, describe_clusters
from tomotif.tasks.cluster import cluster as cluster_subtomograms


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
    found = read_subtomograms(subtomograms)
    home = subtomograms if subtomograms.is_dir() else subtomograms.parent
    with run_folder(output, "cluster", settings, inputs=[home], seed=settings.seed, overwrite=overwrite) as run:
        if not run.finished:
            with progress_bar("measuring shapes") as progress:
                grouped = cluster_subtomograms(found, settings, progress=progress)
            tomograms = read_tomograms(home / "tomograms.star", check=False)
            write_tomograms(run / "tomograms.star", tomograms)
            write_particles(run / "particles.star", grouped, tomograms=tomograms)
            run.record(particles=len(grouped), clusters=describe_clusters(grouped))
        for line in run.results["clusters"]:
            console.print(
                f"cluster {line['cluster']}: {line['particles']} particles, compactness {line['compactness']:.2f}"
                + (f" ({line['group']})" if line["group"] else "")
            )
        console.print(f"wrote {run / 'particles.star'} ({run.results['particles']} particles)")
