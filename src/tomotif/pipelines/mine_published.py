"""The published line of mining (Zeng et al. 2018, J Struct Biol 202:150): normal poses → autoencoder → k-means."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from scipy.spatial.transform import Rotation

from tomotif.core import RESIDUALS, Subtomograms
from tomotif.engine.model_folder import CARD
from tomotif.engine.predict import discard_shards
from tomotif.io.run_folder import RunFolder, run_folder
from tomotif.io.stack import TABLE_NAME, create_stack, read_subtomograms, write_subtomogram_table
from tomotif.io.star import read_particles, read_tomograms, write_tomograms
from tomotif.pipelines.stages import TOMOGRAMS, Run, common_missing_wedge, silent, write_results
from tomotif.tasks.autoencode import AutoencoderSettings, CodeClusterSettings, find_patterns, train_autoencoder
from tomotif.tasks.normalise import NormaliseSettings, normalise, place_normalised

TURNED_NAME = "turned.mrcs"
"""Boxes in their normal pose: no other name, since what turns boxes by their orientations must not find them."""
PICTURES_NAME = "pictures.mrcs"


@dataclass(frozen=True)
class PublishedSettings:
    """Settings of its stages."""

    pose: NormaliseSettings = field(default_factory=NormaliseSettings)
    network: AutoencoderSettings = field(default_factory=AutoencoderSettings)
    codes: CodeClusterSettings = field(default_factory=CodeClusterSettings)


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


def codes_stage(turned: Path, model: Path, settings: CodeClusterSettings, run: Run) -> RunFolder:
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


def upright(turned: Path) -> Subtomograms:
    """Boxes in their normal pose, whose table says that they are not turned any more."""
    boxes = open_turned(turned)
    particles = boxes.particles.with_columns(**dict.fromkeys(RESIDUALS, 0.0))
    return replace(boxes, particles=replace(particles, orientation=Rotation.identity(len(particles))))
