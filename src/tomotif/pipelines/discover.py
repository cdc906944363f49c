"""Discovery: features → clusters and novelty → blind average of every cluster → a verdict on each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tomotif.core import InputError
from tomotif.engine.model_folder import CARD, KNOWN, Known, load_model
from tomotif.io.files import read_json, write_json
from tomotif.io.run_folder import RunFolder, run_folder
from tomotif.pipelines.stages import Run, average_stage, features_stage, model_for, open_subtomograms, write_results
from tomotif.tasks.average import AlignSettings, AverageSettings
from tomotif.tasks.classify import FeatureSettings, PredictSettings, logits_of
from tomotif.tasks.discover import DiscoverSettings, Verdict, discover, verdicts

VERDICTS = "verdicts.json"
MOSTLY = 0.5
"""Share of new particles from which the data may be unlike the training's, rather than full of new structures."""


def discover_structures(
    subtomograms: Path,
    model: Path | None,
    settings: DiscoverSettings,
    run: Run,
    *,
    network: PredictSettings,
    averaging: AverageSettings,
    search: AlignSettings,
) -> list[Verdict]:
    """What structures there are among subtomograms, those that the model does not know among them.

    Parameters
    ----------
    subtomograms
        Folder of an extraction.
    model
        Folder of a trained classifier; None: the one of the package that suits the voxel size.
    settings
        Clusters and novelty.
    run
        Output: gets the run folders ``features``, ``clusters`` and ``averages``, and ``verdicts.json``.
    network, averaging, search
        How boxes go through the network, and clusters are averaged blindly.

    Returns
    -------
    A verdict a cluster. Where most particles are new, the reasons say that the data may be unlike the training's.
    """
    features = FeatureSettings(**network.model_dump())
    placed = features_stage(subtomograms, model, features, run.beside("features"))
    clusters = clusters_stage(placed.path, model, settings, run.beside("clusters"))
    averages = average_stage(
        clusters.path, averaging, run.beside("averages"), by="group", seed=settings.seed, search=search
    )
    entries = {entry["class"]: entry for entry in read_json(averages.path / "averages.json")}
    found, _ = open_subtomograms(clusters.path)
    made = doubted(verdicts(found.particles, entries))
    write_json(run.output / VERDICTS, [one.as_dict() for one in made])
    return made


def new_share(made: Sequence[Verdict]) -> float:
    """Share of new particles in all clusters together."""
    return float(np.average([one.new_share for one in made], weights=[one.particles for one in made])) if made else 0.0


def doubted(made: list[Verdict]) -> list[Verdict]:
    """The verdicts, where those on new structures say so when most particles of all clusters are new."""
    share = new_share(made)
    if share <= MOSTLY:
        return made
    doubt = f", but so are {share:.0%} of all: these boxes may be unlike those of the training"
    return [replace(one, reason=one.reason + doubt) if one.kind == "new structure" else one for one in made]


def clusters_stage(placed: Path, model: Path | None, settings: DiscoverSettings, run: Run) -> RunFolder:
    """Cluster particles by their embeddings and measure their novelty."""
    found, files = open_subtomograms(placed)
    folder_of_model = model_for(found, model)
    network, card = load_model(folder_of_model)
    known = Known.load(folder_of_model)
    files += [folder_of_model / CARD, folder_of_model / KNOWN]
    with run_folder(
        run.output, "discover", settings, inputs=files, seed=settings.seed, overwrite=run.overwrite
    ) as folder:
        if folder.finished:
            return folder
        particles = found.particles
        if particles.features is None:
            raise InputError(f"expected particles with features in {placed}, got none; run tomotif features first")
        grouped = discover(
            particles,
            logits_of(network, particles.features),
            known,
            logits_of(network, known.held),
            card.classes,
            card.temperature,
            settings,
        )
        write_results(folder, grouped, placed, found.voxel_size)
        folder.record(particles=len(grouped), clusters=int(grouped["cluster"].max()), new=int(grouped["is_new"].sum()))
    return folder
