"""`tomotif mine`: what is in tomograms, without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from tomotif.cli.console import console, progress_bar
from tomotif.cli.options import TomogramOptions, open_tomograms
from tomotif.pipelines.mine import PATTERNS_YAML, MinePickSettings, MineSettings, Stage, mine_patterns
from tomotif.pipelines.stages import Run
from tomotif.tasks.autoencode import AutoencoderSettings, CodeClusterSettings
from tomotif.tasks.embed import InteractionSettings
from tomotif.tasks.normalise import NormaliseSettings
from tomotif.tasks.patterns import PatternSettings

SIGNIFICANT = 0.05
"""False discovery rate up to which interactions are shown."""


def mine(
    tomograms: list[Path],
    *,
    output: Annotated[Path, Parameter(alias="-o")] = Path("mined"),
    until: Stage = "embedding",
    options: Annotated[TomogramOptions, Parameter(name="*")] = TomogramOptions(),
    codes: Annotated[CodeClusterSettings, Parameter(name="*")] = CodeClusterSettings(),
    picking: Annotated[MinePickSettings, Parameter(name="pick")] = MinePickSettings(),
    pose: Annotated[NormaliseSettings, Parameter(name="normalise")] = NormaliseSettings(),
    network: Annotated[AutoencoderSettings, Parameter(name="autoencoder")] = AutoencoderSettings(),
    groups: Annotated[PatternSettings, Parameter(name="groups")] = PatternSettings(),
    neighbours: Annotated[InteractionSettings, Parameter(name="interactions")] = InteractionSettings(),
    overwrite: bool = False,
) -> None:
    """Find the patterns in tomograms without labels: candidates, poses, autoencoder, clusters, groups, embedding.

    Parameters
    ----------
    tomograms
        Tomograms (.mrc, .rec), or a tomograms.star that names them.
    output
        Folder to write: a run folder for each stage, patterns.yaml (change it and run again) and patterns.json.
    until
        Last stage to run: picks, normalised, autoencoder, patterns or embedding.
    options
        What the tomograms' files do not say.
    codes
        Number of patterns, runtime.
    picking
        How candidates are found.
    pose
        Boxes, and how they are brought to their normal pose.
    network
        The autoencoder and its training.
    groups
        How groups are proposed.
    neighbours
        How neighbouring patterns are counted.
    overwrite
        Replace an earlier run in the output folder.
    """
    settings = MineSettings(picking, pose, network, codes, groups, neighbours)
    run = Run(output, overwrite, progress_bar)
    mined = mine_patterns(open_tomograms(tomograms, options), settings, run, until=until)
    console.print(f"{mined.candidates} candidates")
    if mined.patterns:
        table = Table("pattern", "particles", "group", "evidence")
        for one in mined.patterns:
            table.add_row(str(one.number), str(one.members.particles), one.name or one.group, one.evidence)
        console.print(table)
        console.print(f"wrote {output / PATTERNS_YAML}: change groups or names there, and run again")
    names = {one.number: one.label for one in mined.patterns}
    for pair in mined.interactions:
        if pair.q_value <= SIGNIFICANT and pair.pattern != pair.neighbour:
            console.print(pair.evidence(names))
