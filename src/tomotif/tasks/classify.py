"""Supervised classification: subtomograms → network → cross-entropy → class, probability and features per particle.

The L values before the softmax are the structural feature vector (Xu et al. 2017, Bioinformatics 33:i13). Not here:
how boxes are made (extract, simulate), the networks (models), the training loop (engine.train).
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tomotif.core import InputError, Particles, Progress, Settings, Subtomograms
from tomotif.data.augment import wedge_safe_flips
from tomotif.data.batches import BoxBatches, EpochBatches, loader
from tomotif.data.noise import FreshNoise
from tomotif.data.splits import split_by_tomogram
from tomotif.engine.int8 import write_int8
from tomotif.engine.model_folder import (
    Known,
    ModelCard,
    check_comparable,
    last_layer,
    read_card,
    save_model,
)
from tomotif.engine.predict import NO_FLIPS, Layer, Runtime, predict_stack
from tomotif.engine.train import Objective, TrainSettings, fit
from tomotif.io.stack import StackRows
from tomotif.models import build_model
from tomotif.models.density_head import DensityHead
from tomotif.ops.calibration import fit_temperature, softmax
from tomotif.ops.novelty import ClassGaussians

KNOWN_PARTICLES = 4000
"""Largest number of training particles whose embeddings are kept with the model."""
KNOWN_VALUES = 2**26
"""Largest number of values in the embeddings that are kept, of training and of validation particles."""


Batch = tuple[Float[Tensor, "n 1 d d d"], Int[Tensor, " n"], *tuple[Float[Tensor, "n 1 d d d"], ...]]
"""Boxes, class indices, and perhaps densities of the particles alone."""


class ClassifierSettings(TrainSettings):
    """Settings of ``train classifier``."""

    model: str = "motif3d_rif"
    """Network; `tomotif models` lists them."""
    validation_fraction: float = Field(default=0.15, gt=0, lt=1)
    """Fraction of the particles, in whole tomograms, kept for validation."""
    max_shift_px: int = Field(default=1, ge=0)
    """Largest random shift of a training box in voxels."""
    mirrors: bool = False
    """Also train on mirror images; without it only the 180° turns that keep the missing wedge are used."""
    label_smoothing: float = Field(default=0.05, ge=0, lt=1)
    """How much of the target probability is spread over the other classes, 0 to 1."""
    density_weight: float = Field(default=1.0, ge=0)
    """Weight of drawing the particle alone beside naming it, where the training data know its density; 0: do not."""
    int8: bool = False
    """Also write the network in 8-bit integers, for `classify --runtime openvino-int8`; needs 'tomotif[compress]'."""


class PredictSettings(Settings):
    """How boxes go through a trained network."""

    runtime: Runtime = "openvino"
    """What runs the network: 'openvino' (fast on CPUs), 'openvino-int8' (faster, where the model has it) or
    'torch' (GPU when there is one)."""
    turns: bool = False
    """Whether to average over the turns by 180° that keep the missing wedge: up to four times the time."""
    batch_size: int = Field(default=32, ge=1)
    """Boxes a batch."""
    shard_size: int = Field(default=4096, ge=1)
    """Boxes a shard; a killed run repeats at most one shard."""


class ClassifySettings(PredictSettings):
    """Settings of ``classify``."""


class FeatureSettings(PredictSettings):
    """Settings of ``features``."""

    layer: Literal["embedding", "logits", "discriminants"] = "embedding"
    """What to take: 'embedding', which the last layer is made from; 'logits', one value a class; or 'discriminants',
    the embedding along the directions in which the known classes differ, in units of the spread inside them: what
    pose and missing wedge change most counts least."""


class Classifier(Objective):
    """Cross-entropy on class indices, accuracy beside it; with a head also what is left of the particle's density."""

    def __init__(self, model: nn.Module, settings: ClassifierSettings, head: DensityHead | None = None) -> None:
        super().__init__(model, settings)
        self.train_loss = nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)
        self.validation_loss = nn.CrossEntropyLoss()
        self.head, self.density_weight = head, settings.density_weight

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Loss of one batch."""
        boxes, target, *density = batch
        loss: Tensor = self.train_loss(self.model(boxes), target)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(boxes))
        if self.head is None:
            return loss
        drawing = self.head.loss(density[0])
        self.log("density_loss", drawing, on_step=False, on_epoch=True, batch_size=len(boxes))
        return loss + self.density_weight * drawing

    def validation_step(self, batch: Batch, index: int) -> None:
        """Loss and accuracy of one batch."""
        boxes, target, *_ = batch
        logits = self.model(boxes)
        correct = (logits.argmax(1) == target).float().mean()
        for name, value in (("val_loss", self.validation_loss(logits, target)), ("val_accuracy", correct)):
            self.log(name, value, prog_bar=True, batch_size=len(boxes))


def class_indices(particles: Particles) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Class names in sorted order, and the index of every particle's class.

    Raises
    ------
    InputError
        When there is no class column, or fewer than two classes.
    """
    if "class" not in particles:
        raise InputError(
            "expected a class column (tomotifClass) to train on, found none; give particles that name their class"
        )
    names, index = np.unique(particles["class"].astype(str), return_inverse=True)
    if len(names) < 2:
        raise InputError(f"expected at least two classes to train on, got {', '.join(names) or 'none'}")
    return tuple(map(str, names)), index.astype(np.int64)


def train_classifier(
    subtomograms: Subtomograms,
    settings: ClassifierSettings,
    folder: Path,
    *,
    noise: FreshNoise | None = None,
    density: NDArray[np.floating] | StackRows | None = None,
    progress: bool = True,
) -> ModelCard:
    """Train a network on subtomograms whose particles name their class.

    Parameters
    ----------
    subtomograms
        n boxes with a ``class`` column.
    settings
        Network and training.
    folder
        Gets ``model/``, ``history.csv`` and checkpoints; a killed run continues from them.
    noise
        When the boxes are noise-free: noise that they get anew each time.
    density
        Density of the particle alone for every box, shape (n, D, D, D), nothing for background: a second task.
    progress
        Show a progress bar.

    Returns
    -------
    ModelCard
        The card of ``folder / "model"``, with the validation accuracy.

    Raises
    ------
    InputError, UnknownNameError
        When there are no classes to learn, or the network is unknown or does not take these boxes.
    """
    classes, target = class_indices(subtomograms.particles)
    rows, held = split_by_tomogram(
        subtomograms.particles, settings.validation_fraction, np.random.default_rng(settings.seed)
    )
    density = density if settings.density_weight else None
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        model = build_model(settings.model, subtomograms.box_px, len(classes))
        head = DensityHead(model, subtomograms.box_px) if density is not None else None
    flips = wedge_safe_flips(subtomograms.missing_wedge, mirrors=settings.mirrors)
    shift = settings.max_shift_px
    train = BoxBatches(subtomograms, target, flips=flips, max_shift_px=shift, noise=noise, density=density)
    check = BoxBatches(subtomograms, target, flips=[], noise=noise)
    validation = loader(check, EpochBatches(held, 2 * settings.batch_size, shuffle=False))
    metrics = fit(
        Classifier(model.to(memory_format=torch.channels_last_3d), settings, head),  # type: ignore[call-overload]  # stubs
        loader(train, EpochBatches(rows, settings.batch_size, seed=settings.seed)),
        validation,
        settings,
        folder,
        progress=progress,
    )
    if head is not None:
        head.release()
    most = KNOWN_VALUES // last_layer(model)[1].in_features
    some = few_of(rows, min(KNOWN_PARTICLES, most), settings.seed)
    unchanged = BoxBatches(subtomograms, target, flips=[], noise=noise)
    learned = embedded(model, loader(unchanged, EpochBatches(some, 2 * settings.batch_size, shuffle=False)))
    if len(held) > most:
        some_held = few_of(held, most, settings.seed)
        validation = loader(check, EpochBatches(some_held, 2 * settings.batch_size, shuffle=False))
    known = Known(*learned, *embedded(model, validation))
    training: dict[str, Any] = {**settings.model_dump(mode="json"), "epochs_run": metrics["epochs"]}
    card = ModelCard(
        architecture=settings.model,
        classes=classes,
        box_px=subtomograms.box_px,
        voxel_size=subtomograms.voxel_size,
        validation_accuracy=round(metrics["val_accuracy"], 4),
        temperature=round(fit_temperature(logits_of(model, known.held), known.held_class), 4),
        training={**training, "particles": len(rows), "validation_particles": len(held)},
    )
    known.save(folder / "model")
    save_model(folder / "model", model, card)
    if settings.int8:
        seen = [boxes.numpy()[:, 0] for boxes, *_ in itertools.islice(loader(unchanged, EpochBatches(some, 64)), 16)]
        write_int8(folder / "model", np.concatenate(seen))
    return read_card(folder / "model")


def few_of(rows: NDArray[np.int64], most: int, seed: int) -> NDArray[np.int64]:
    """At most so many rows, drawn at random."""
    return np.random.default_rng(seed).permutation(rows)[:most]


def logits_of(model: nn.Module, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits that the last layer of a network makes from embeddings."""
    _, last = last_layer(model)
    with torch.inference_mode():
        return last(torch.from_numpy(embedding).to(last.weight.device)).cpu().numpy()


def embedded(
    model: nn.Module, batches: DataLoader[tuple[Tensor, ...]]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Embeddings (n, f) of all batches, and their class indices (n,)."""
    given: list[Tensor] = []
    _, last = last_layer(model)
    handle = last.register_forward_pre_hook(lambda _module, inputs: given.append(inputs[0].float().cpu()))
    targets = []
    with torch.inference_mode():
        for boxes, target, *_ in batches:
            model(boxes.to(last.weight.device))
            targets.append(target)
    handle.remove()
    return torch.cat(given).numpy(), torch.cat(targets).numpy()


def classify(
    subtomograms: Subtomograms,
    stack: Path,
    model: Path,
    settings: ClassifySettings,
    work: Path,
    *,
    progress: Progress | None = None,
) -> Particles:
    """Name the structure in every subtomogram.

    Parameters
    ----------
    subtomograms
        n particles with their ``stack_index``.
    stack
        The file their boxes lie in.
    model
        Model folder.
    settings
        Runtime and batches.
    work
        Folder for the shards' results, which a killed run continues from.
    progress
        Called with (shards done, shards).

    Returns
    -------
    Particles
        The same n rows with ``class``, ``probability`` and L features (the logits).

    Raises
    ------
    InputError
        When the boxes are not what the network was trained on.
    """
    card = read_card(model)
    logits = through_network(subtomograms, stack, model, settings, "logits", work, progress)
    probability = softmax(logits, card.temperature)
    best = probability.argmax(axis=1)
    named = subtomograms.particles.with_columns(
        **{"class": np.array(card.classes, dtype=object)[best], "probability": probability.max(axis=1)}
    )
    return replace(named, features=logits, feature_names=card.classes)


def measure_features(
    subtomograms: Subtomograms,
    stack: Path,
    model: Path,
    settings: FeatureSettings,
    work: Path,
    *,
    progress: Progress | None = None,
) -> Particles:
    """Project every subtomogram into the structural feature space of a classifier.

    Xu et al. 2017, Bioinformatics 33:i13: what a network learned in order to tell structures apart, and so made little
    of pose and missing wedge, also places structures that it never saw.

    Parameters
    ----------
    subtomograms, stack, model, work, progress
        As of :func:`classify`.
    settings
        Runtime, batches and layer.

    Returns
    -------
    Particles
        The same n rows with features: one value a class, the width of the embedding, or fewer than there are classes.

    Raises
    ------
    InputError
        When the boxes are not what the network was trained on, or its embedding is too wide to compare particles by.
    """
    layer: Layer = "logits" if settings.layer == "logits" else "embedding"
    if layer == "embedding":
        check_comparable(model)
    features = through_network(subtomograms, stack, model, settings, layer, work, progress)
    if settings.layer == "discriminants":
        known = Known.load(model)
        gaussians = ClassGaussians.of(known.learned, known.learned_class)
        features = gaussians.discriminants(features).astype(np.float32)
    names = tuple(f"{settings.layer}{i}" for i in range(features.shape[1]))
    classes = read_card(model).classes
    return replace(
        subtomograms.particles, features=features, feature_names=classes if settings.layer == "logits" else names
    )


def through_network(
    subtomograms: Subtomograms,
    stack: Path,
    model: Path,
    settings: PredictSettings,
    layer: Layer,
    work: Path,
    progress: Progress | None,
) -> NDArray[np.float32]:
    """What comes out of a layer for every particle, shape (n, width)."""
    read_card(model).check_fits(subtomograms)
    found = predict_stack(
        model,
        stack,
        work,
        runtime=settings.runtime,
        batch_size=settings.batch_size,
        shard_size=settings.shard_size,
        flips=wedge_safe_flips(subtomograms.missing_wedge) if settings.turns else NO_FLIPS,
        layer=layer,
        progress=progress,
    )
    return found[subtomograms.particles["stack_index"].to_numpy(np.int64)]
