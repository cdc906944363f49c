"""Mining: tomograms → candidates → patterns without labels → groups → back in the tomogram, with who neighbours whom.

The published line (Zeng et al. 2018, J Struct Biol 202:150): difference of Gaussians → pose normalisation → autoencoder
→ k-means on the codes → decoded cluster centres → groups → embedding. Each stage is a run folder that a rerun does not
repeat, and what a person writes into ``patterns.yaml`` is taken up.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tomotif.core import RESIDUALS, InputError, Particles, Subtomograms, Tomogram
from tomotif.engine.model_folder import CARD
from tomotif.engine.predict import discard_shards
from tomotif.io.files import read_json, replacing, write_json
from tomotif.io.run_folder import RECORD, RunFolder, run_folder
from tomotif.io.stack import TABLE_NAME, create_stack, open_stack, read_subtomograms, write_subtomogram_table
from tomotif.io.star import read_particles, read_tomograms, write_particles, write_tomograms
from tomotif.pipelines.stages import (
    TOMOGRAMS,
    Run,
    common_missing_wedge,
    pick_stage,
    silent,
    write_results,
    write_table,
)
from tomotif.report.figures import stretch
from tomotif.tasks.autoencode import AutoencoderSettings, CodeClusterSettings, find_patterns, train_autoencoder
from tomotif.tasks.embed import Interaction, InteractionSettings, candidate_region, interactions, write_embedding
from tomotif.tasks.normalise import NormaliseSettings, normalise, place_normalised
from tomotif.tasks.patterns import Pattern, PatternSettings, propose_groups, with_groups, write_patterns
from tomotif.tasks.pick import PickSettings

Stage = Literal["picks", "normalised", "autoencoder", "patterns", "embedding"]
STAGES: tuple[Stage, ...] = get_args(Stage)
TURNED_NAME = "turned.mrcs"
"""Boxes in their normal pose: no other name, since what turns boxes by their orientations must not find them."""
PICTURES_NAME = "pictures.mrcs"
PATTERNS_YAML, PATTERNS_JSON = "patterns.yaml", "patterns.json"
FEWEST = 20
"""Candidates that are too few to mine."""


class MinePickSettings(PickSettings):
    """How candidates are found; by the published method."""

    method: Literal["multiscale", "dog"] = "dog"
    """'dog' is the published difference of Gaussians of one width; 'multiscale' finds balls of several radii."""


@dataclass(frozen=True)
class MineSettings:
    """Settings of every stage."""

    picking: MinePickSettings
    pose: NormaliseSettings
    network: AutoencoderSettings
    codes: CodeClusterSettings
    groups: PatternSettings
    neighbours: InteractionSettings


@dataclass(frozen=True)
class Mined:
    """What a mining run found as far as it went.

    Attributes
    ----------
    patterns
        Every pattern with its group; empty before that stage.
    interactions
        Of the pairs of patterns; empty before that stage.
    candidates
        Picks.
    """

    candidates: int
    patterns: tuple[Pattern, ...] = ()
    interactions: tuple[Interaction, ...] = ()


def mine_patterns(
    tomograms: Sequence[Tomogram], settings: MineSettings, run: Run, *, until: Stage = "embedding"
) -> Mined:
    """Find the patterns of tomograms without labels.

    Parameters
    ----------
    tomograms
        Of one voxel size and tilt range.
    settings
        Of every stage.
    run
        Output: gets a run folder a stage, ``patterns.yaml`` (what a person may change) and ``patterns.json``.
    until
        Last stage to run.

    Raises
    ------
    InputError
        When there are too few candidates, or the autoencoder learns nothing.
    """
    picks = pick_stage(tomograms, settings.picking, run.beside("picks"))
    candidates = int(picks.results["picks"])
    if candidates < FEWEST:
        raise InputError(
            f"expected at least {FEWEST} candidates to mine, found {candidates} in {len(tomograms)} tomograms; check "
            "--contrast and the voxel size, or lower --pick.dog-threshold"
        )
    if until == "picks":
        return Mined(candidates)
    turned = normalise_stage(picks.path, settings.pose, run.beside("normalised"))
    if until == "normalised":
        return Mined(candidates)
    trained = autoencoder_stage(turned.path, settings.network, run.beside("autoencoder"))
    if until == "autoencoder":
        return Mined(candidates)
    found = patterns_stage(turned.path, trained.path / "model", settings.codes, run.beside("patterns"))
    decided = decided_groups(found.path, turned.path, settings.groups, run.output)
    if until == "patterns":
        return Mined(candidates, tuple(decided))
    beside = embedding_stage(found.path, decided, settings.neighbours, run.beside("embedding"))
    return Mined(candidates, tuple(decided), tuple(beside))


def normalise_stage(picks: Path, settings: NormaliseSettings, run: Run) -> RunFolder:
    """Bring every candidate to its normal pose, and cut it from its tomogram in that pose."""
    opened = read_tomograms(picks / TOMOGRAMS)
    files = [picks / TABLE_NAME, *(t.path for t in opened if t.path is not None)]
    with run_folder(run.output, "normalise", settings, inputs=files, overwrite=run.overwrite) as folder:
        if folder.finished:
            return folder
        particles = read_particles(picks / TABLE_NAME, tomograms=opened)
        with run.bar("measuring poses") as progress:
            placed = place_normalised(particles, opened, settings, progress=progress)
        wedge, voxel_size = common_missing_wedge(opened), opened[0].voxel_size
        grid = (len(placed), settings.box_px, voxel_size)
        with run.bar("turning boxes") as progress, create_stack(folder / TURNED_NAME, *grid) as stack:
            cut = normalise(placed, opened, settings, stack, progress=progress)
        write_tomograms(folder / TOMOGRAMS, opened)
        write_subtomogram_table(folder / TABLE_NAME, cut, missing_wedge=wedge, voxel_size=voxel_size, tomograms=opened)
        folder.record(subtomograms=len(cut), dropped=len(particles) - len(cut))
    return folder


def open_turned(folder: Path) -> Subtomograms:
    """Boxes in their normal pose."""
    return read_subtomograms(folder / TABLE_NAME, stack=folder / TURNED_NAME)


def autoencoder_stage(turned: Path, settings: AutoencoderSettings, run: Run) -> RunFolder:
    """Train an autoencoder on turned boxes."""
    files = [turned / TABLE_NAME, turned / TURNED_NAME]
    with run_folder(
        run.output, "autoencode", settings, inputs=files, seed=settings.seed, overwrite=run.overwrite
    ) as folder:
        if folder.finished:
            return folder
        card = train_autoencoder(open_turned(turned), settings, folder.path, progress=run.bar is not silent)
        folder.record(**card.scores)
    return folder


def patterns_stage(turned: Path, model: Path, settings: CodeClusterSettings, run: Run) -> RunFolder:
    """Group the codes of turned boxes, and draw the centre of every group."""
    files = [turned / TABLE_NAME, turned / TURNED_NAME, model / CARD]
    with run_folder(
        run.output, "patterns", settings, inputs=files, seed=settings.seed, overwrite=run.overwrite
    ) as folder:
        if folder.finished:
            return folder
        boxes = open_turned(turned)
        with run.bar("encoding") as progress:
            named, pictures = find_patterns(boxes, model, settings, folder / "shards", progress=progress)
        discard_shards(folder / "shards")
        with create_stack(folder / PICTURES_NAME, len(pictures), boxes.box_px, boxes.voxel_size) as stack:
            stack[:] = pictures
        write_results(folder, named, turned, boxes.voxel_size)
        folder.record(particles=len(named), patterns=len(pictures))
    return folder


def decided_groups(found: Path, turned: Path, settings: PatternSettings, output: Path) -> list[Pattern]:
    """Propose a group for every pattern, and take up what a person wrote into ``patterns.yaml``."""
    pictures, voxel_size = open_stack(found / PICTURES_NAME)
    pictures = np.asarray(pictures, np.float32)
    tomograms = read_tomograms(found / TOMOGRAMS)
    particles = read_particles(found / TABLE_NAME, tomograms=tomograms)
    boxes = open_turned(turned)
    upright = boxes.particles.with_columns(**dict.fromkeys(RESIDUALS, 0.0))
    upright = replace(upright, orientation=Rotation.identity(len(upright)))  # the boxes are turned already
    proposed = propose_groups(
        pictures,
        particles,
        settings,
        voxel_size=voxel_size,
        tomograms=tomograms,
        subtomograms=replace(boxes, particles=upright),
    )
    decided = write_patterns(output / PATTERNS_YAML, proposed)
    write_json(output / PATTERNS_JSON, [one.as_dict() for one in decided])
    draw_patterns(output / "patterns.png", pictures, decided)
    return decided


def embedding_stage(
    found: Path, patterns: Sequence[Pattern], settings: InteractionSettings, run: Run
) -> list[Interaction]:
    """Put the patterns back into their tomograms, and count who neighbours whom.

    Done anew when a person changed groups or names.
    """
    decided = {str(one.number): [one.group, one.name] for one in patterns}
    identity = {**settings.model_dump(mode="json"), "patterns": decided}
    files = [found / TABLE_NAME, found / PICTURES_NAME]
    record = run.output / RECORD
    renamed = record.exists() and read_json(record)["settings"].get("patterns") != decided
    overwrite = run.overwrite or renamed
    with run_folder(run.output, "embed", identity, inputs=files, seed=settings.seed, overwrite=overwrite) as folder:
        if folder.finished:
            return [Interaction(**row) for row in folder.results["interactions"]]
        tomograms = read_tomograms(found / TOMOGRAMS)
        pictures, voxel_size = open_stack(found / PICTURES_NAME)
        particles = with_groups(read_particles(found / TABLE_NAME, tomograms=tomograms), patterns)
        names = {one.number: one.label for one in patterns}
        for tomogram in tomograms:
            target = folder / tomogram.name
            target.mkdir(exist_ok=True)
            with run.bar(f"embedding in {tomogram.name}") as progress:
                write_embedding(
                    target,
                    np.asarray(pictures, np.float32),
                    particles,
                    tomogram,
                    voxel_size=voxel_size,
                    names=names,
                    progress=progress,
                )
        write_table(folder, particles, tomograms)
        write_members(folder / "members", particles, patterns, tomograms)
        found_pairs = neighbours(particles, patterns, tomograms, settings)
        write_interactions(folder / "interactions.csv", found_pairs, names)
        folder.record(particles=len(particles), interactions=[one.as_dict() for one in found_pairs])
    return found_pairs


def neighbours(
    particles: Particles, patterns: Sequence[Pattern], tomograms: Sequence[Tomogram], settings: InteractionSettings
) -> list[Interaction]:
    """Interactions of the patterns that are not noise, where such particles can be."""
    matter = [one.number for one in patterns if one.group not in ("noise", "carbon edge or border")]
    chosen = particles.take(np.isin(particles["pattern"].to_numpy(np.int64), matter))
    used = [tomogram for tomogram in tomograms if tomogram.name in set(map(str, chosen.tomogram))]
    regions = {tomogram.name: candidate_region(chosen, tomogram, 2 * settings.contact) for tomogram in used}
    inside = np.ones(len(chosen), dtype=bool)
    for tomogram in used:
        rows = chosen.tomogram == tomogram.name
        inside[rows] = in_region(chosen.position[rows], regions[tomogram.name], tomogram)
    return interactions(chosen.take(inside), used, settings, regions=regions) if inside.any() else []


def in_region(position: NDArray[np.float64], region: NDArray[np.bool_], tomogram: Tomogram) -> NDArray[np.bool_]:
    """Which positions in Å lie in the cells of a region."""
    size = np.asarray(tomogram.volume.extent) / region.shape
    cell = np.floor((position + 0.5 * tomogram.voxel_size) / size).astype(np.int64)
    inside: NDArray[np.bool_] = region[tuple(np.clip(cell, 0, np.array(region.shape) - 1).T)]
    return inside


def write_members(
    folder: Path, particles: Particles, patterns: Sequence[Pattern], tomograms: Sequence[Tomogram]
) -> None:
    """One star file a pattern."""
    folder.mkdir(exist_ok=True)
    number = particles["pattern"].to_numpy(np.int64)
    for one in patterns:
        members = replace(particles.take(number == one.number), features=None, feature_names=())
        write_particles(folder / f"pattern{one.number:03d}.star", members, tomograms=tomograms)


def write_interactions(path: Path, found: Sequence[Interaction], names: dict[int, str]) -> None:
    """One row an ordered pair of patterns."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        columns = [field.name for field in fields(Interaction)]
        table = csv.DictWriter(file, ["names", *columns])
        table.writeheader()
        for one in found:
            table.writerow({"names": f"{names[one.pattern]} at {names[one.neighbour]}", **one.as_dict()})


def draw_patterns(path: Path, pictures: NDArray[np.floating], patterns: Sequence[Pattern], columns: int = 10) -> None:
    """Central slices of all pictures with their groups, as a PNG."""
    from matplotlib.figure import Figure

    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(1.35 * min(columns, len(pictures)), 1.75 * rows), layout="constrained")
    for i, (picture, one) in enumerate(zip(pictures, patterns, strict=True)):
        axes = figure.add_subplot(rows, min(columns, len(pictures)), i + 1, xticks=[], yticks=[])
        axes.imshow(stretch(picture[len(picture) // 2], 1, 99.8), cmap="gray", origin="lower")
        axes.set_title(f"{one.number}: {one.members.particles}", fontsize=7, pad=2)
        axes.set_xlabel(one.name or one.group, fontsize=6)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
