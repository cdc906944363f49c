"""The default line of mining: boxes → features of an encoder in several views → kinds → blind averages of them.

Kinds that show one structure are joined on the way.
The encoder comes with the package and has seen no complex of nature (``tools/pretrain_encoders.py``).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tomotif.core import InputError, Tomogram
from tomotif.data.augment import wedge_safe_flips
from tomotif.engine.model_folder import CARD, KNOWN, Known, check_comparable, find_model_folder, read_card
from tomotif.engine.predict import predict_stack
from tomotif.engine.pretrained import shipped_encoder_for
from tomotif.io.files import replacing
from tomotif.io.run_folder import RunFolder, run_folder
from tomotif.io.stack import create_stack
from tomotif.io.star import read_tomograms
from tomotif.pipelines.mine_published import PICTURES_NAME
from tomotif.pipelines.stages import TOMOGRAMS, Run, extract_stage, open_subtomograms, write_results
from tomotif.tasks.average.alike import join_alike
from tomotif.tasks.average.pictures import PictureSettings, pattern_pictures
from tomotif.tasks.classify import PredictSettings
from tomotif.tasks.extract import ExtractSettings
from tomotif.tasks.pattern_clusters import PatternClusterSettings, cluster_views, confidence_of

VIEWS_NAME = "views.npy"


@dataclass(frozen=True)
class EncoderSettings:
    """Settings of its stages.

    Attributes
    ----------
    model
        Model folder of an encoder; None: the one of the package that suits the voxel size.
    network, clusters, pictures
        How boxes go through it, are grouped, and are averaged.
    """

    model: Path | None = None
    network: PredictSettings = field(default_factory=PredictSettings)
    clusters: PatternClusterSettings = field(default_factory=PatternClusterSettings)
    pictures: PictureSettings = field(default_factory=PictureSettings)


def encoder_for(tomograms: Sequence[Tomogram], model: Path | None) -> Path:
    """The model folder that is given, or the one of the package that suits the voxel size."""
    return shipped_encoder_for(tomograms[0].voxel_size) if model is None else find_model_folder(model)


def boxes_stage(picks: Path, model: Path, run: Run) -> RunFolder:
    """Cut the boxes that the encoder takes, in its voxel size.

    Raises
    ------
    InputError
        When a tomogram is thinner than they are.
    """
    card = read_card(model)
    edge = card.box_px * card.voxel_size
    for tomogram in read_tomograms(picks / TOMOGRAMS):
        thinnest = min(tomogram.volume.extent)
        if thinnest < edge:
            raise InputError(
                f"expected tomograms at least {edge:g} Å thick, as the encoder's boxes are, got {thinnest:g} Å in "
                f"{tomogram.name}; take --method published, which has --normalise.box-px, or another --encoder"
            )
    return extract_stage(picks, ExtractSettings(box_px=card.box_px, output_voxel_size=card.voxel_size), run)


def views_stage(boxes: Path, model: Path, settings: PredictSettings, run: Run) -> RunFolder:
    """Measure the features of every box in all views that its missing wedge allows."""
    found, files = open_subtomograms(boxes)
    read_card(model).check_fits(found)
    check_comparable(model)
    with run_folder(
        run.output, "views", settings, inputs=[*files, model / CARD, model / KNOWN], overwrite=run.overwrite
    ) as folder:
        if folder.finished:
            return folder
        turns = wedge_safe_flips(found.missing_wedge)
        rows = found.particles["stack_index"].to_numpy(np.int64)
        views = []
        for number, turn in enumerate(turns):
            with run.bar(f"measuring view {number + 1} of {len(turns)}") as progress:
                made = predict_stack(
                    model,
                    files[1],
                    folder / "shards" / str(number),
                    runtime=settings.runtime,
                    batch_size=settings.batch_size,
                    shard_size=settings.shard_size,
                    flips=[turn],
                    layer="embedding",
                    progress=progress,
                )
            views.append(made[rows].astype(np.float16))
        with replacing(folder / VIEWS_NAME) as part, part.open("wb") as file:
            np.save(file, np.stack(views), allow_pickle=False)
        shutil.rmtree(folder / "shards", ignore_errors=True)
        folder.record(particles=len(rows), views=len(turns))
    return folder


def kinds_stage(boxes: Path, features: Path, model: Path, settings: EncoderSettings, run: Run) -> RunFolder:
    """Group boxes into kinds, and average each without a reference."""
    found, files = open_subtomograms(boxes)
    identity = {**settings.clusters.model_dump(mode="json"), "pictures": settings.pictures.model_dump(mode="json")}
    files += [features / VIEWS_NAME, model / CARD]
    seed = settings.clusters.seed
    with run_folder(run.output, "kinds", identity, inputs=files, seed=seed, overwrite=run.overwrite) as folder:
        if folder.finished:
            return folder
        views = np.load(features / VIEWS_NAME, allow_pickle=False).astype(np.float32)
        known = Known.load(model)
        clustered = cluster_views(views, known, settings.clusters)
        labels = clustered.labels
        if not settings.clusters.patterns and settings.pictures.largest_loss:
            with run.bar("comparing patterns") as progress:
                labels = join_alike(found, labels, settings.pictures, folder / "work", seed=seed, progress=progress)
        confidence = confidence_of(views, known, labels, levelled=clustered.levelled)
        named = found.particles.with_columns(pattern=labels + 1, pattern_confidence=confidence)
        with run.bar("averaging patterns") as progress:
            particles, pictures = pattern_pictures(
                replace(found, particles=named), settings.pictures, folder / "work", seed=seed, progress=progress
            )
        with create_stack(folder / PICTURES_NAME, len(pictures), found.box_px, found.voxel_size) as stack:
            stack[:] = pictures
        write_results(folder, particles, boxes, found.voxel_size)
        shutil.rmtree(folder / "work", ignore_errors=True)
        folder.record(
            particles=len(particles),
            patterns=len(pictures),
            contrast_spread=round(clustered.contrast_spread, 3),
            levelled=clustered.levelled,
        )
    return folder
