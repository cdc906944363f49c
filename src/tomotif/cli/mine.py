"""`tomotif mine`: what is in tomograms, without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from tomotif.cli.console import console, progress_bar
from tomotif.cli.options import TomogramOptions, open_tomograms
from tomotif.pipelines.mine import PATTERNS_YAML, Method, MineSettings, Stage, mine_patterns
from tomotif.pipelines.mine_encoder import EncoderSettings
from tomotif.pipelines.mine_published import PublishedSettings
from tomotif.pipelines.stages import Run
from tomotif.tasks.autoencode import AutoencoderSettings, CodeClusterSettings
from tomotif.tasks.average.pictures import PictureSettings
from tomotif.tasks.classify import PredictSettings
from tomotif.tasks.embed import InteractionSettings
from tomotif.tasks.normalise import NormaliseSettings
from tomotif.tasks.pattern_clusters import PatternClusterSettings
from tomotif.tasks.patterns import PatternSettings
from tomotif.tasks.pick import PickSettings

SIGNIFICANT = 0.05
"""False discovery rate up to which interactions are shown."""


def mine(
    tomograms: list[Path],
    *,
    output: Annotated[Path, Parameter(alias="-o")] = Path("mined"),
    method: Method = "encoder",
    encoder: Path | None = None,
    until: Stage = "embedding",
    options: Annotated[TomogramOptions, Parameter(name="*")] = TomogramOptions(),
    clusters: Annotated[PatternClusterSettings, Parameter(name="*")] = PatternClusterSettings(),
    picking: Annotated[PickSettings, Parameter(name="pick")] = PickSettings(),
    features: Annotated[PredictSettings, Parameter(name="features")] = PredictSettings(),
    pictures: Annotated[PictureSettings, Parameter(name="pictures")] = PictureSettings(),
    groups: Annotated[PatternSettings, Parameter(name="groups")] = PatternSettings(),
    neighbours: Annotated[InteractionSettings, Parameter(name="interactions")] = InteractionSettings(),
    pose: Annotated[NormaliseSettings, Parameter(name="normalise")] = NormaliseSettings(),
    network: Annotated[AutoencoderSettings, Parameter(name="autoencoder")] = AutoencoderSettings(),
    codes: Annotated[CodeClusterSettings, Parameter(name="codes")] = CodeClusterSettings(),
    overwrite: bool = False,
) -> None:
    """Find the patterns in tomograms without labels: candidates, features, kinds, averages, groups, embedding.

    Parameters
    ----------
    tomograms
        Tomograms (.mrc, .rec), or a tomograms.star that names them.
    output
        Folder to write: a run folder for each stage, patterns.yaml (change it and run again) and patterns.json.
    method
        'encoder': features of a network that has seen no complex of nature, and blind averages; 'published': normal
        poses, an autoencoder trained on these tomograms, and k-means (Zeng et al. 2018).
    encoder
        Model folder of an encoder; by default the one of the package that suits the voxel size.
    until
        Last stage to run: picks, boxes, features, patterns or embedding; with the published method picks, normalised,
        autoencoder, patterns or embedding.
    options
        What the tomograms' files do not say.
    clusters
        Number of patterns, or what counts as one.
    picking
        How candidates are found; the published method always takes 'dog'.
    features
        How boxes go through the encoder; all turns that keep the missing wedge are always measured.
    pictures
        How the members of a pattern are aligned.
    groups
        How groups are proposed.
    neighbours
        How neighbouring patterns are counted.
    pose
        Published method: boxes, and how they are brought to their normal pose.
    network
        Published method: the autoencoder and its training.
    codes
        Published method: number of patterns, runtime.
    overwrite
        Replace an earlier run in the output folder.
    """
    settings = MineSettings(
        method=method,
        picking=picking,
        encoder=EncoderSettings(encoder, features, clusters, pictures),
        published=PublishedSettings(pose, network, codes),
        groups=groups,
        neighbours=neighbours,
    )
    run = Run(output, overwrite, progress_bar)
    mined = mine_patterns(open_tomograms(tomograms, options), settings, run, until=until)
    console.print(f"{mined.candidates} candidates")
    if mined.patterns:
        table = Table("pattern", "particles", "group", "evidence")
        for one in mined.patterns:
            table.add_row(str(one.number), str(one.members.particles), one.name or one.group, one.evidence)
        console.print(table)
        console.print(f"wrote {output / PATTERNS_YAML}: change groups or names there, and run again")
    if mined.set_aside:
        console.print(f"the patterns are others than before; what was decided of the earlier ones: {mined.set_aside}")
    names = {one.number: one.label for one in mined.patterns}
    for pair in mined.interactions:
        if pair.q_value <= SIGNIFICANT and pair.pattern != pair.neighbour:
            console.print(pair.evidence(names))
