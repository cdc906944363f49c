"""Mining: tomograms → candidates → patterns without labels → groups → back in the tomogram, with who neighbours whom.

Two lines lead from candidates to patterns with their pictures: an encoder that knows no complex of nature
(``mine_encoder``), and the published autoencoder (``mine_published``). Each stage is a run folder that a rerun does not
repeat, and what a person writes into ``patterns.yaml`` is taken up.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tomotif.core import InputError, Particles, Subtomograms, Tomogram
from tomotif.io.files import read_json, replacing, write_json
from tomotif.io.run_folder import RECORD, run_folder
from tomotif.io.stack import TABLE_NAME, open_stack
from tomotif.io.star import read_particles, read_tomograms, write_particles
from tomotif.pipelines.mine_encoder import EncoderSettings, boxes_stage, encoder_for, kinds_stage, views_stage
from tomotif.pipelines.mine_published import (
    PICTURES_NAME,
    PublishedSettings,
    autoencoder_stage,
    codes_stage,
    normalise_stage,
    upright,
)
from tomotif.pipelines.stages import TOMOGRAMS, Run, open_subtomograms, pick_stage, write_table
from tomotif.report.figures import stretch
from tomotif.tasks.embed import Interaction, InteractionSettings, candidate_region, interactions, write_embedding
from tomotif.tasks.patterns import (
    BORDER,
    NO_STRUCTURE,
    NOISE,
    Pattern,
    PatternSettings,
    propose_groups,
    set_aside,
    with_groups,
    write_patterns,
)
from tomotif.tasks.pick import PickSettings

Method = Literal["encoder", "published"]
Stage = Literal["picks", "boxes", "features", "normalised", "autoencoder", "patterns", "embedding"]
STAGES: dict[Method, tuple[Stage, ...]] = {
    "encoder": ("picks", "boxes", "features", "patterns", "embedding"),
    "published": ("picks", "normalised", "autoencoder", "patterns", "embedding"),
}
PATTERNS_YAML, PATTERNS_JSON = "patterns.yaml", "patterns.json"
FEWEST = 20
"""Candidates that are too few to mine."""
NULL = "two-sided, noise takes room"
"""How interactions are counted; another text counts those of finished runs anew."""


@dataclass(frozen=True)
class MineSettings:
    """Settings of every stage; the published method always finds candidates by a difference of Gaussians."""

    method: Method = "encoder"
    picking: PickSettings = field(default_factory=PickSettings)
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    published: PublishedSettings = field(default_factory=PublishedSettings)
    groups: PatternSettings = field(default_factory=PatternSettings)
    neighbours: InteractionSettings = field(default_factory=InteractionSettings)


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
    set_aside
        Where decisions on other patterns than these went; None where there were none.
    """

    candidates: int
    patterns: tuple[Pattern, ...] = ()
    interactions: tuple[Interaction, ...] = ()
    set_aside: Path | None = None


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
    stages = STAGES[settings.method]
    if until not in stages:
        raise InputError(f"expected --until {', '.join(stages)} with --method {settings.method}, got {until}")
    picking = settings.picking
    if settings.method == "published":
        picking = picking.model_copy(update={"method": "dog"})
    picks = pick_stage(tomograms, picking, run.beside("picks"))
    candidates = int(picks.results["picks"])
    if candidates < FEWEST:
        raise InputError(
            f"expected at least {FEWEST} candidates to mine, found {candidates} in {len(tomograms)} tomograms; check "
            "--contrast and the voxel size, or pick more: a lower --pick.threshold, or --pick.dog-threshold"
        )
    if until == "picks":
        return Mined(candidates)
    line = published_line if settings.method == "published" else encoder_line
    found = line(picks.path, settings, run, until)
    if found is None:
        return Mined(candidates)
    patterns, boxes = found
    decided, earlier = decided_groups(patterns, boxes, settings.groups, run.output)
    mined = Mined(candidates, tuple(decided), set_aside=earlier)
    if until == "patterns":
        return mined
    pairs = embedding_stage(patterns, decided, settings.neighbours, run.beside("embedding"), settings.groups.smoothing)
    return replace(mined, interactions=tuple(pairs))


def published_line(picks: Path, settings: MineSettings, run: Run, until: Stage) -> tuple[Path, Subtomograms] | None:
    """Normal poses, autoencoder, k-means.

    Gives the folder of the patterns and the boxes of their members, or nothing when it ends before.
    """
    turned = normalise_stage(picks, settings.published.pose, run.beside("normalised"))
    if until == "normalised":
        return None
    count, wanted = int(turned.results["subtomograms"]), settings.published.codes.patterns
    if until != "autoencoder" and count < wanted:  # before hours of training
        raise InputError(
            f"expected at least as many candidates as --codes.patterns, {wanted}, got {count} whose turned box lies in "
            "the tomogram; ask for fewer patterns, or pick more: a lower --pick.dog-threshold"
        )
    trained = autoencoder_stage(turned.path, settings.published.network, run.beside("autoencoder"))
    if until == "autoencoder":
        return None
    found = codes_stage(turned.path, trained.path / "model", settings.published.codes, run.beside("patterns"))
    return found.path, upright(turned.path)


def encoder_line(picks: Path, settings: MineSettings, run: Run, until: Stage) -> tuple[Path, Subtomograms] | None:
    """Boxes, features, kinds and their blind averages; gives what :func:`published_line` gives."""
    model = encoder_for(read_tomograms(picks / TOMOGRAMS), settings.encoder.model)
    boxes = boxes_stage(picks, model, run.beside("boxes"))
    if until == "boxes":
        return None
    features = views_stage(boxes.path, model, settings.encoder.network, run.beside("features"))
    if until == "features":
        return None
    found = kinds_stage(boxes.path, features.path, model, settings.encoder, run.beside("patterns"))
    return found.path, open_subtomograms(found.path)[0]


def decided_groups(
    found: Path, boxes: Subtomograms, settings: PatternSettings, output: Path
) -> tuple[list[Pattern], Path | None]:
    """Propose a group for every pattern, and take up what a person wrote into ``patterns.yaml``.

    Where that is of other patterns, it is set aside, and comes second.
    """
    pictures, voxel_size = open_stack(found / PICTURES_NAME)
    pictures = np.asarray(pictures, np.float32)
    tomograms = read_tomograms(found / TOMOGRAMS)
    particles = read_particles(found / TABLE_NAME, tomograms=tomograms)
    proposed = propose_groups(
        pictures, particles, settings, voxel_size=voxel_size, tomograms=tomograms, subtomograms=boxes
    )
    earlier = set_aside(output / PATTERNS_YAML, proposed)
    decided = write_patterns(output / PATTERNS_YAML, proposed)
    write_json(output / PATTERNS_JSON, [one.as_dict() for one in decided])
    draw_patterns(output / "patterns.png", pictures, decided)
    return decided, earlier


def embedding_stage(
    found: Path, patterns: Sequence[Pattern], settings: InteractionSettings, run: Run, smoothing: float
) -> list[Interaction]:
    """Put the patterns that are not noise back into their tomograms, and count who neighbours whom.

    Done anew when a person changed groups or names, how pictures are seen is another, or an earlier version of the
    package counted otherwise.
    """
    decided = {str(one.number): [one.group, one.name] for one in patterns}
    given = {"patterns": decided, "smoothing": smoothing, "null": NULL}
    identity = {**settings.model_dump(mode="json"), **given}
    files = [found / TABLE_NAME, found / PICTURES_NAME]
    record = run.output / RECORD
    changed = record.exists() and any(read_json(record)["settings"].get(key) != value for key, value in given.items())
    overwrite = run.overwrite or changed
    with run_folder(run.output, "embed", identity, inputs=files, seed=settings.seed, overwrite=overwrite) as folder:
        if folder.finished:
            return [Interaction(**row) for row in folder.results["interactions"]]
        tomograms = read_tomograms(found / TOMOGRAMS)
        pictures, voxel_size = open_stack(found / PICTURES_NAME)
        particles = with_groups(read_particles(found / TABLE_NAME, tomograms=tomograms), patterns)
        structures = particles.take((particles["group"] != NOISE).to_numpy())
        names = {one.number: one.label for one in patterns}
        for tomogram in tomograms:
            target = folder / tomogram.name
            target.mkdir(exist_ok=True)
            with run.bar(f"embedding in {tomogram.name}") as progress:
                write_embedding(
                    target,
                    np.asarray(pictures, np.float32),
                    structures,
                    tomogram,
                    voxel_size=voxel_size,
                    names=names,
                    smoothing=smoothing,
                    progress=progress,
                )
        write_table(folder, particles, tomograms)
        write_members(folder / "members", particles, patterns, tomograms)
        shell = 0.5 * pictures.shape[1] * voxel_size
        found_pairs = neighbours(particles, patterns, tomograms, settings, shell)
        write_interactions(folder / "interactions.csv", found_pairs, names)
        folder.record(particles=len(particles), interactions=[one.as_dict() for one in found_pairs])
    return found_pairs


def neighbours(
    particles: Particles,
    patterns: Sequence[Pattern],
    tomograms: Sequence[Tomogram],
    settings: InteractionSettings,
    shell: float,
) -> list[Interaction]:
    """Interactions of the patterns that are some structure, where these can be.

    What is noise takes up room all the same, or chance would put members where none was picked. Where patterns of the
    border are set aside, so is the border: what lies less than ``shell`` Å from it.
    """
    structures = [one.number for one in patterns if one.group not in NO_STRUCTURE]
    number = particles["pattern"].to_numpy(np.int64)
    number = np.where(np.isin(number, structures), number, 0)
    border = shell if any(one.group == BORDER for one in patterns) else 0.0
    used, regions, inside = [], {}, np.zeros(len(particles), dtype=bool)
    for tomogram in tomograms:
        here = particles.tomogram == tomogram.name
        chosen = particles.take(here & (number > 0))
        if not len(chosen):
            continue
        region = within(candidate_region(chosen, tomogram, 2 * settings.contact), tomogram, border)
        inside[here] = in_region(particles.position[here], region, tomogram)
        if (inside & here & (number > 0)).any():
            used.append(tomogram)
            regions[tomogram.name] = region
    inside &= np.isin(particles.tomogram.astype(str), list(regions))
    if not regions:
        return []
    return interactions(particles.with_columns(pattern=number).take(inside), used, settings, regions=regions)


def within(region: NDArray[np.bool_], tomogram: Tomogram, border: float) -> NDArray[np.bool_]:
    """The cells of a region of which the middle lies at least so many Å from the tomogram's border."""
    axes = zip(tomogram.volume.extent, region.shape, strict=True)
    inner = [np.abs((np.arange(count) + 0.5) / count - 0.5) * extent <= 0.5 * extent - border for extent, count in axes]
    return region & inner[0][:, None, None] & inner[1][:, None] & inner[2]


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
